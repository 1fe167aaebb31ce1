"""Elaboration of whole cells: shapes, heads, repeats, sub-cells, time; values against plain torch loops."""

import pytest
import torch
import torch.nn.functional as F
from elaborated import CELLS, B, T, cell_of, close, design, given, outputs, sizes
from ostinato.frontend.load import load
from ostinato.ir.interp import run
from ostinato.ir.types import Dim
from ostinato.ir.verify import verify


@pytest.mark.parametrize("path", sorted(CELLS.glob("*.ost")), ids=lambda p: p.stem)
def test_design_cells(path):
    program = load(path)
    for definition in program.cells.values():
        cell = verify(definition.elaborate(**sizes(definition)))
        inputs, params = given(cell)
        params |= {p.name: torch.rand(p.type.sizes, dtype=torch.float64) for p in cell.params if p.init is None}
        result = run(cell, inputs, params)
        assert list(result.outputs) == [o.name for o in cell.outputs]
        assert not any(x.isnan().any() for x in result.outputs.values() if x.is_floating_point())


def test_lstm_peephole_projection_layernorm_gru_zoneout():
    cell, x, p, y = outputs(design("gru"), I=3, H=4)
    gru = torch.nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    gru.load_state_dict({"weight_ih_l0": p["W"], "weight_hh_l0": p["R"], "bias_ih_l0": p["b"], "bias_hh_l0": p["br"]})
    close(y["h"], gru(x["x"])[0])

    cell, x, p, y = outputs(design("lstm_peephole_proj"), I=3, H=4, P=2)
    h, c = torch.zeros(B, 2, dtype=torch.float64), torch.zeros(B, 4, dtype=torch.float64)
    for t in range(T):
        i, f, g, o = (x["x"][:, t] @ p["W"].T + h @ p["R"].T + p["b"]).chunk(4, -1)
        c1 = (f + p["wf"] * c).sigmoid() * c + (i + p["wi"] * c).sigmoid() * g.tanh()
        h = ((o + p["wo"] * c1).sigmoid() * c1.tanh()) @ p["Wp"].T
        c = c1
        close(y["h"][:, t], h)

    cell, x, p, y = outputs(design("lstm_layernorm"), I=3, H=4)
    h = c = torch.zeros(B, 4, dtype=torch.float64)
    ln = lambda v, w, b=None: F.layer_norm(v, v.shape[-1:], w, b, 1e-5)
    for t in range(T):
        i, g, f, o = (ln(x["x"][:, t] @ p["W"].T, p["wx"]) + ln(h @ p["R"].T, p["wh"]) + p["b"]).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * ln(c, p["wc"], p["bc"]).tanh()
        close(y["h"][:, t], h)


def test_zoneout_draws_only_in_training():
    cell, x, p, y = outputs(design("zoneout"), I=3, H=4)
    h = c = torch.zeros(B, 4, dtype=torch.float64)
    for t in range(T):
        i, f, g, o = (x["x"][:, t] @ p["W"].T + h @ p["R"].T + p["b"]).chunk(4, -1)
        cn = f.sigmoid() * c + i.sigmoid() * g.tanh()
        c, h = 0.5 * c + 0.5 * cn, 0.05 * h + 0.95 * (o.sigmoid() * cn.tanh())
        close(y["h"][:, t], h)
    assert len({n.attr("site") for n in cell.body if n.op == "random"}) == 2
    a, b = (run(cell, x, p, seed=s, training=True).outputs["h"] for s in (1, 2))
    assert not torch.equal(a, b)
    close(a, run(cell, x, p, seed=1, training=True).outputs["h"])


def test_lem_takes_a_number():
    cell, x, p, y = outputs(design("lem"), I=3, H=4, dt=0.5)
    s = z = torch.zeros(B, 4, dtype=torch.float64)
    for t in range(T):
        x1, x2, xz, xy = (x["x"][:, t] @ p["V"].T + p["b"]).chunk(4, -1)
        y1, y2, yz = (s @ p["W"].T).chunk(3, -1)
        d1, d2 = 0.5 * (x1 + y1).sigmoid(), 0.5 * (x2 + y2).sigmoid()
        z = (1 - d1) * z + d1 * (xz + yz).tanh()
        s = (1 - d2) * s + d2 * (xy + z @ p["Wy"].T).tanh()
        close(y["y"][:, t], s)


def test_mamba_lags_in_a_subcell_and_named_sizes():
    cell, x, p, y = outputs(design("mamba"), name="mamba", M=3, D=4, N=2, R=5)
    xs, h = x["x"], torch.zeros(B, 4, 2, dtype=torch.float64)
    past = []
    for t in range(T):
        a, z = (xs[:, t] @ p["W_in"].T).chunk(2, -1)
        past.insert(0, a)
        u = F.silu(p["conv.b"] + sum(p["conv.w"][j] * past[j] for j in range(min(4, len(past)))))
        r, Bm, C = (u @ p["W_x"].T).split([5, 2, 2], -1)
        dt = F.softplus(r @ p["W_dt"].T + p["b_dt"])
        h = torch.exp(-dt[:, :, None] * p["A_log"].exp()) * h + (dt * u)[:, :, None] * Bm[:, None]
        out = ((h @ C[..., None])[..., 0] + p["skip"] * u) * F.silu(z)
        close(y["y"][:, t], out @ p["W_out"].T)
    assert "R+2*N" in [d.name for d in cell.param("W_x").type.shape]


def test_cascade_of_subcells():
    scipy = pytest.importorskip("scipy.signal")
    source = (CELLS / "cascade.ost").read_text()
    cell, x, p, y = outputs(source, name="cascade", n=3)
    out = x["x"].numpy()
    for j in range(3):
        a = [1.0, *p[f"section.{j}.a"].tolist()]
        out = scipy.lfilter(p[f"section.{j}.b"].numpy(), a, out, axis=1)
    close(y["y"], torch.as_tensor(out))
    assert {s.name for s in cell.states} >= {"section.2.y", "section.2.y@1", "section.0.x@2"}


def test_rwkv7_heads_and_shared():
    N, D, K, V, R = 2, 6, 3, 4, 5
    cell, x, p, y = outputs(design("rwkv7"), N=N, D=D, K=K, V=V, R=R)
    assert cell.heads == Dim("N", N)
    assert cell.input("x").type.sizes == (D,) and cell.input("v0").type.sizes == (N, V)
    assert cell.param("mu").type.sizes == (6, D) and cell.param("Wr").type.sizes == (N, K, D)
    S = torch.zeros(B, N, K, V, dtype=torch.float64)
    before = torch.zeros(B, D, dtype=torch.float64)

    def lora(A, Bm, b, v, act):
        return torch.einsum("nkr,br->bnk", p[Bm], act(v @ p[A].T)) + p[b]

    for t in range(T):
        xt = x["x"][:, t]
        xr, xw, xk, xv, xa, xg = (xt[:, None] + p["mu"] * (before - xt)[:, None]).unbind(1)
        before = xt
        head = lambda W, v: torch.einsum("nkd,bd->bnk", p[W], v)
        same = lambda v: v
        r = head("Wr", xr)
        w = -(torch.tensor(-0.5, dtype=torch.float64).exp()) * lora("wA", "wB", "w0", xw, torch.tanh).sigmoid()
        a = lora("aA", "aB", "a0", xa, same).sigmoid()
        k = head("Wk", xk)
        kk = F.normalize(k * p["k_k"], dim=-1)
        ks = k * (1 + (a - 1) * p["k_a"])
        vn = head("Wv", xv)
        v = vn + (x["v0"][:, t] - vn) * lora("vA", "vB", "v1", xv, same).sigmoid()
        S = w.exp()[..., None] * S - (kk * a)[..., None] * (kk[..., None] * S).sum(-2, True) + ks[..., None] * v[..., None, :]
        o = (r[..., None] * S).sum(-2)
        o = p["gn"] * (o - o.mean(-1, True)) * (o.var(-1, correction=0, keepdim=True) + V * 1e-5).rsqrt() + p["gb"]
        o = o + (r * ks * p["r_k"]).sum(-1, True) * v
        gate = torch.einsum("nvr,br->bnv", p["gB"], (xg @ p["gA"].T).sigmoid())
        close(y["y"][:, t], torch.einsum("ndv,bnv->bd", p["Wo"], o * gate))


def test_deltaproduct_repeat():
    N, K, V, n = 2, 3, 4, 2
    cell, x, p, y = outputs(design("deltaproduct"), N=N, K=K, V=V, n=n)
    S = torch.zeros(B, N, K, V, dtype=torch.float64)
    for t in range(T):
        S = x["g"][:, t].exp()[..., None, None] * S
        for j in range(n):
            k, v, beta = (x[name][:, t, :, j] for name in ("k", "v", "beta"))
            S = S + beta[..., None, None] * k[..., None] * (v - (k[..., None] * S).sum(-2))[..., None, :]
        close(y["o"][:, t], (x["q"][:, t, ..., None] * S).sum(-2) / K ** 0.5)


def test_grouped_heads_repeat_their_group():
    cell, x, p, y = outputs(design("gqa_gla"), K=3, V=4, H=2, HV=6)
    assert cell.input("q").type.sizes == (2, 3) and cell.input("v").type.sizes == (6, 4)
    wide = lambda name, t: x[name][:, t].repeat_interleave(3, 1)
    S = torch.zeros(B, 6, 3, 4, dtype=torch.float64)
    for t in range(T):
        S = wide("g", t).exp()[..., None] * S + wide("k", t)[..., None] * x["v"][:, t, ..., None, :]
        close(y["o"][:, t], (wide("q", t)[..., None] * S).sum(-2) / 3 ** 0.5)


def test_legs_const_formula_and_step_index():
    N = 4
    cell, x, p, y = outputs(design("legs"), N=N)
    A = torch.tensor([[((2 * n + 1) * (2 * k + 1)) ** 0.5 if n > k else n + 1 if n == k else 0 for k in range(N)]
                      for n in range(N)], dtype=torch.float64)
    Bv = torch.tensor([(2 * n + 1) ** 0.5 for n in range(N)], dtype=torch.float64)
    c, eye = torch.zeros(B, N, dtype=torch.float64), torch.eye(N, dtype=torch.float64)
    for t in range(T):
        d = 1 / (t + 1)
        c = torch.linalg.solve(eye + d / 2 * A, (c @ (eye - d / 2 * A).T + d * x["u"][:, t, None] * Bv)[..., None])[..., 0]
        close(y["c"][:, t], c)


def test_kalman_square_matrices_work_by_position():
    cell, x, p, y = outputs(design("kalman"), N=3, M=2)
    xs, P, eye = torch.zeros(B, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64).expand(B, 3, 3), torch.eye(3)
    for t in range(T):
        Fm, H, Q, R, z = (x[k][:, t] for k in "FHQRz")
        xp, Pp = (Fm @ xs[..., None])[..., 0], Fm @ P @ Fm.mT + Q
        S = H @ Pp @ H.mT + R
        G = torch.linalg.solve(S, H @ Pp).mT
        xs = xp + (G @ (z - (H @ xp[..., None])[..., 0])[..., None])[..., 0]
        P = (eye - G @ H) @ Pp
        torch.testing.assert_close(y["x"][:, t], xs, rtol=1e-8, atol=1e-8)


def test_dyck_program():
    cell = cell_of(design("dyck2"), D=4)
    words = torch.tensor([[0, 1, 3, 2, 0], [0, 1, 2, 3, 0]])      # ( [ ] ) (   and   ( [ ) ] (
    got = run(cell, {"x": words}, {}).outputs["accept"]
    assert got.tolist() == [[False, False, False, True, False], [False] * 5]


def test_surrogate_gradient():
    cell = cell_of(design("lif"), H=3)
    x = torch.randn(B, 1, 3, dtype=torch.float64, requires_grad=True)
    out = run(cell, {"x": x}, {}).outputs
    assert torch.equal(out["s"], (x > 1).double())
    [grad] = torch.autograd.grad(out["s"].sum(), x)
    close(grad, 1 / (1 + 25 * (x - 1).abs()) ** 2)


def test_vrnn_subcells_with_several_outputs():
    cell, x, p, y = outputs(design("vrnn"), X=3, M=4, Z=2, H=5)
    assert list(y) == ["h", "mx", "sx", "kl"] and y["h"].shape == (B, T, 5)
    state = lambda g: run(cell, x, p, seed=g).outputs["h"]
    assert not torch.equal(state(1), state(2))


def test_lags_of_states_and_inputs():
    cell, x, p, y = outputs("""cell c(H) {
      input x: [H] = 2
      state h: [H] = 7
      h[t] = x[t-2] + x[t]
      output h, a: [H] = h[t-3], first: bool [] = t == 0
    }""", H=3)
    xs, hs = x["x"], y["h"]
    past = torch.cat([torch.full((B, 2, 3), 2.0, dtype=torch.float64), xs], 1)
    close(hs, past[:, :T] + xs)
    close(y["a"], torch.cat([torch.full((B, 3, 3), 7.0, dtype=torch.float64), hs], 1)[:, :T])
    assert y["first"].tolist() == [[True] + [False] * (T - 1)] * B
    assert {s.name for s in cell.states} == {"h", "x@1", "x@2", "h@1", "h@2", "t"}


def test_equations_in_any_order_and_feedback_through_a_subcell():
    source = """
    cell delay(H) {
      input x: [H]
      output y: [H] = x[t-1]
    }
    cell loop(H) {
      input x: [H]
      use a = delay(H)
      output z
      z = 2 * y
      y = x[t] + a(z)
    }"""
    _, x, _, out = outputs(source, name="loop", H=2)
    z = torch.zeros(B, 2, dtype=torch.float64)
    for t in range(T):
        z = 2 * (x["x"][:, t] + z)
        close(out["z"][:, t], z)


def test_states_of_subcells_can_be_read():
    source = """
    cell acc(H) {
      input x: [H]
      state s: [H] = 0
      s[t] = s[t-1] + x[t]
      output s
    }
    cell both(H) {
      input x: [H]
      use f = acc(H)
      output old: [H] = f.s[t-1], now: [H] = f.s[t], older: [H] = f.s[t-2], y: [H] = f(x[t])
    }"""
    _, x, _, out = outputs(source, name="both", H=2)
    total = x["x"].cumsum(1)
    shift = lambda n: torch.cat([torch.zeros(B, n, 2, dtype=torch.float64), total], 1)[:, :T]
    for name, n in (("now", 0), ("old", 1), ("older", 2), ("y", 0)):
        close(out[name], shift(n))


def test_cell_with_heads_as_a_subcell():
    source = """
    cell head(K) heads N {
      input x: [K], s: [] shared
      param w: [K] = 2
      state h: [K] = 0
      h[t] = s[t] * h[t-1] + w * x[t]
      output h
    }
    cell outer_(D, K, M) {
      input x: [M, K], s: []
      use f = head(K, N=M)
      output y: [M, K] = f(x[t], s[t])
    }"""
    _, x, p, out = outputs(source, name="outer_", D=2, K=3, M=4)
    h = 0
    for t in range(T):
        h = x["s"][:, t, None, None] * h + p["f.w"] * x["x"][:, t]
        close(out["y"][:, t], h)
