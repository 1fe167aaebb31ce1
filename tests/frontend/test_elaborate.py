"""Elaboration: shapes, time, heads, repeats, sub-cells; and values against plain torch loops."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.frontend.load import elaborate, load
from ostinato.ir.interp import initial_params, run
from ostinato.ir.types import Dim
from ostinato.ir.verify import verify

CELLS = Path(__file__).parent / "cells"
B, T = 2, 5


def sizes(cell, first=3):
    """Distinct sizes; a multiple for the outer heads of grouped ones."""
    out = {p.name: first + i for i, p in enumerate(cell.item.header) if p.value is None}
    if {"H", "HV"} <= out.keys():
        out["HV"] = 2 * out["H"]
    return out


def given(cell, seed=0):
    g = torch.Generator().manual_seed(seed)
    rand = lambda *s: torch.rand(s, generator=g, dtype=torch.float64) - 0.5
    inputs = {i.name: rand(B, T, *i.type.sizes) if i.type.kind == "real" else
              torch.randint(0, 3, (B, T, *i.type.sizes), generator=g) for i in cell.inputs}
    params = initial_params(cell, 1)
    params = {k: v + 0.3 * rand(*v.shape) for k, v in params.items()}
    return inputs, params


def cell_of(source, name=None, **dims):
    cell = load(source).cell(name).elaborate(**dims)
    return verify(cell)


def outputs(source, inputs=None, params=None, name=None, steps=None, **dims):
    cell = cell_of(source, name, **dims)
    if inputs is None:
        inputs, drawn = given(cell)
        params = drawn if params is None else params
    return cell, inputs, params, run(cell, inputs, params or {}, steps=steps, batch=B if not inputs else None).outputs


def design(name):
    return str(CELLS / f"{name}.ost")


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def errors(source, **dims):
    with pytest.raises(OstinatoError) as e:
        program = load(source)
        program.cell().elaborate(**dims)
    assert str(e.value)
    return [d.message for d in e.value.diagnostics]


# -- every cell of the design ---------------------------------------------------
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


# -- values ------------------------------------------------------------------------
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


# -- time ------------------------------------------------------------------------------
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


# -- library ---------------------------------------------------------------------------
X = torch.tensor([[0.3, -1.2, 2.0], [0.5, 0.1, -0.4]], dtype=torch.float64)


@pytest.mark.parametrize("text, expected", [
    ("sum[K](x[t])", lambda x: x.sum(-1)), ("sum[A](x[t])", lambda x: x.sum(-2)), ("sum[A, K](x[t])", lambda x: x.sum((-1, -2))),
    ("mean[K](x[t])", lambda x: x.mean(-1)), ("max[K](x[t])", lambda x: x.amax(-1)), ("min[A](x[t])", lambda x: x.amin(-2)),
    ("prod[K](x[t])", lambda x: x.prod(-1)), ("logsumexp[K](x[t])", lambda x: x.logsumexp(-1)),
    ("var[K](x[t])", lambda x: x.var(-1, correction=0)), ("norm[K](x[t])", lambda x: x.norm(dim=-1)),
    ("softmax(x[t])", lambda x: x.softmax(-1)), ("softmax[A](x[t])", lambda x: x.softmax(-2)),
    ("log_softmax[K](x[t])", lambda x: x.log_softmax(-1)), ("cumsum[A](x[t])", lambda x: x.cumsum(-2)),
    ("l2norm(x[t])", lambda x: x * (x.pow(2).sum(-1, True) + 1e-6).rsqrt()),
    ("argmax[K](x[t])", lambda x: x.argmax(-1)), ("any[K](x[t] > 1)", lambda x: (x > 1).any(-1)),
    ("all[K](x[t] > -2)", lambda x: (x > -2).all(-1)), ("sum[K](x[t] > 0)", lambda x: (x > 0).sum(-1)),
    ("relu(x[t])", torch.relu), ("silu(x[t])", F.silu), ("gelu(x[t])", F.gelu), ("elu(x[t])", F.elu),
    ("softplus_inverse(softplus(x[t]))", lambda x: x), ("sign(x[t])", torch.sign), ("clamp(x[t], -1, 0.4)", lambda x: x.clamp(-1, 0.4)),
    ("x[t]^2", lambda x: x ** 2), ("x[t]^3", lambda x: x ** 3), ("x[t]^-1", lambda x: 1 / x), ("abs(x[t])^0.5", lambda x: x.abs().sqrt()),
    ("abs(x[t])^1.7", lambda x: x.abs() ** 1.7), ("pow(2, x[t])", lambda x: 2 ** x), ("x[t] // 0.3", lambda x: x // 0.3),
    ("x[t] % 0.3", lambda x: x % 0.3), ("max(x[t], 0.2)", lambda x: x.clamp(min=0.2)), ("min(1, x[t], 0.2)", lambda x: x.clamp(max=0.2)),
    ("x[t].T", lambda x: x.mT), ("x[t][1]", lambda x: x[..., 1, :]), ("x[t][1, 2]", lambda x: x[..., 1, 2]), ("x[t][:, 1:]", lambda x: x[..., 1:]),
    ("x[t][:1, 0]", lambda x: x[..., :1, 0]), ("x[t][0] @ x[t][1]", lambda x: (x[..., 0, :] * x[..., 1, :]).sum(-1)),
    ("x[t] @ x[t].T", lambda x: x @ x.mT), ("dot(x[t][0], x[t][1])", lambda x: (x[..., 0, :] * x[..., 1, :]).sum(-1)),
    ("outer(x[t][0], x[t][1])", lambda x: x[..., 0, :, None] * x[..., 1, None, :]), ("diag(x[t][0])", lambda x: torch.diag_embed(x[..., 0, :])),
    ("diag(x[t].T @ x[t])", lambda x: (x.mT @ x).diagonal(dim1=-2, dim2=-1)), ("concat(x[t], x[t][:1])", lambda x: torch.cat([x, x[..., :1, :]], -2)),
    ("concat(x[t][0], [1, 2])", lambda x: torch.cat([x[..., 0, :], torch.tensor([1.0, 2]).double().expand(*x.shape[:-2], 2)], -1)),
    ("stack(x[t][0], x[t][1])", lambda x: x), ("stack(x[t][a] for a in A)", lambda x: x), ("concat(x[t][a] for a in A)", lambda x: x.flatten(-2)),
    ("sum(x[t][a] for a in A)", lambda x: x.sum(-2)), ("mean(x[t][a] for a in A)", lambda x: x.mean(-2)), ("max(x[t][a] for a in A)", lambda x: x.amax(-2)),
    ("prod(x[t][a] for a in 0) + x[t]", lambda x: x + 1), ("any(x[t][a] > 1 for a in A)", lambda x: (x > 1).any(-2)),
    ("onehot(argmax[K](x[t]), K)", lambda x: F.one_hot(x.argmax(-1), 3).bool()), ("eye(K) + 0 * sum[A,K](x[t])", lambda x: torch.eye(3).double().expand(*x.shape[:-2], 3, 3)),
    ("ones(A, K) * x[t] + zeros(K) + full(3, A)", lambda x: x + 3), ("iota(K) * x[t]", lambda x: x * torch.arange(3)),
    ("x[t][0] * x[t]", lambda x: x[..., :1, :] * x), ("x[t][:, 0] * x[t]", lambda x: x[..., :1] * x), ("identity(x[t]) if sum[A, K](x[t]) > 0 else 0", lambda x: x),
    ("1 / 2 * x[t] if A == 2 else x[t]", lambda x: x / 2), ("K * x[t] / sqrt(A)", lambda x: 3 * x / 2 ** 0.5), ("x[t] if not training and true else 0", lambda x: x),
    ("real(int(x[t]))", torch.trunc), ("logaddexp(x[t], 0)", lambda x: torch.logaddexp(x, torch.zeros(()).double())), ("atan2(x[t], 1)", torch.atan),
    ("split(x[t], 2)", None),
])
def test_library(text, expected):
    source = f"cell c(A, K) {{\n input x: [A, K]\n output y: X = {text}\n}}".replace("y: X", "y")
    if expected is None:
        assert errors(source, A=2, K=3)
        return
    x = X.expand(1, 2, 2, 3) * torch.tensor([1.0, 0.7]).view(1, 2, 1, 1)
    cell = cell_of(source, A=2, K=3)
    close(run(cell, {"x": x}, {}).outputs["y"], expected(x.double()))


def test_solve_logdet_heads():
    cell, x, _, y = outputs("""cell c(K, M) heads N {
      input a: [K, K] shared, b: [K, M]
      output x: [K, M] = solve(a[t] + 3 * eye(K), b[t]), d: [] shared = logdet(a[t] + 3 * eye(K)), m: [K] shared = sum[N](b[t][:, 0])
    }""", K=3, M=2, N=4)
    a = x["a"] + 3 * torch.eye(3)
    close(y["x"], torch.linalg.solve(a[:, :, None], x["b"]))
    close(y["d"], torch.logdet(a))
    close(y["m"], x["b"][..., 0].sum(2))


def test_functions_patterns_defaults_blocks_and_function_arguments():
    _, x, _, y = outputs("""
    fn scaled(x: [A], w: [A] = 2, act=tanh, k=1) {
      z = act(w * x)
      return k * z, A * z
    }
    fn cube(x) = x * x * x
    cell c(H) {
      input x: [H]
      a, b = scaled(x[t], k=3)
      c, _d = scaled(x[t], act=cube)
      output a, b, c
    }""", H=3)
    v = x["x"]
    close(y["a"], 3 * (2 * v).tanh())
    close(y["b"], 3 * (2 * v).tanh())
    close(y["c"], (2 * v) ** 3)


def test_header_function_argument_and_numbers():
    source = "fn twice(x) = 2 * x\ncell c(H, act=tanh, k=2) {\n input x: [H]\n output y: [H] = k * act(x[t])\n}"
    _, x, _, y = outputs(source, H=2)
    close(y["y"], 2 * x["x"].tanh())
    cell = load(source).cells["c"].elaborate(H=2, act="twice", k=0.5)
    close(run(cell, x, {}).outputs["y"], x["x"])
    assert elaborate(load(source), "c", {"H": 2}, {"act": "relu"}).name == "c"


def test_integer_default_is_a_dimension():
    source = "cell c(W=3) {\n param w: [W] = 1\n input x: [W]\n output y: [W] = w * x[t]\n}"
    assert cell_of(source).dims == (Dim("W", 3),)
    assert cell_of(source, W=5).param("w").type.sizes == (5,)


# -- initial values ------------------------------------------------------------------------
def test_initial_values():
    cell = cell_of("""cell c(H, M) heads N {
      input x: [H]
      param b: [H] = log(a) + 1
      param a: [H] ~ exp(uniform(0, 1))
      param p: [H, M], q: [H, M] ~ normal(0, 0.1)
      param A[n, k]: [H, H] = n + 10 * k if n > k else 0
      param o: [H, M] shared ~ orthogonal(2)
      param v: [3] = [1, 0.5, M]
      state h: [H] = a * 2 + p @ ones(M)
      h[t] = h[t-1] + x[t]
      output h
    }""", H=3, M=2, N=2)
    p = initial_params(cell, 0)
    close(p["b"], p["a"].log() + 1)
    assert p["a"].shape == (2, 3) and (p["a"] >= 1).all() and p["a"].unique().numel() == 6
    assert not torch.equal(p["p"], p["q"])
    n, k = torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
    close(p["A"], torch.where(n > k, n + 10 * k, 0).double().expand(2, 3, 3))
    close(p["o"].mT @ p["o"], 4 * torch.eye(2).double())
    assert p["v"].tolist() == [[1, 0.5, 2]] * 2
    x = torch.zeros(B, 1, 2, 3).double()
    close(run(cell, {"x": x}, p).outputs["h"][:, 0], (2 * p["a"] + p["p"].sum(-1)).expand(B, 2, 3))


def test_supplied_const_is_a_frozen_parameter():
    cell = cell_of("cell c(H) {\n const m: int [H]\n input x: [H]\n output y: [H] = m * x[t]\n}", H=2)
    [p] = cell.params
    assert (p.name, p.init, p.trainable, p.type.kind) == ("m", None, False, "int")


def test_elaborated_cells_are_small_and_readable():
    cell = cell_of("examples/zoo/lstm.ost" if Path("examples/zoo/lstm.ost").exists() else design("zoneout"), I=3, H=4)
    names = set(cell.nodes())
    assert {"i", "f", "g", "o", "c.next", "h.next"} <= names
    assert all(n.span is not None for n in cell.body)
    cell = cell_of("cell c(H) {\n input x: [H]\n unused = exp(x[t])\n a = x[t] + x[t]\n b = x[t] + x[t]\n output y: [H] = a * b\n}", H=2)
    assert [n.op for n in cell.body] == ["input", "add", "mul"]


def test_same_size_is_not_same_dimension():
    program = load("cell c(K, V) {\n input k: [K], v: [V]\n output y: [K] = k[t]\n}")
    cell = program.cells["c"].elaborate(K=4, V=4)
    assert cell.input("k").type != cell.input("v").type


# -- errors ------------------------------------------------------------------------------------
BODY = "cell c(H, K) {{\n input x: [H]\n param W: [H, K] = 1\n state h: [H] = 0\n{}\n output h\n}}"


@pytest.mark.parametrize("line, says", [
    ("h[t] = y\n y = h[t]", "h[t] -> y -> h[t]"), ("h[t] = x[t+1]", "reads the future"), ("y = x[t]\n h[t] = y[t-1]", "has no past"),
    ("h[t] = h", "needs a time"), ("h[t] = x[t]\n h[t] = 2 * x[t]", "assigned twice"), ("y = 1", "never assigned"),
    ("h[t] = W", "declared [H] but its value has shape [H, K]"), ("h[t] = W @ x[t]", "sums over K on the left and H on the right"),
    ("h[t] = x[t] + W[0]", "[H] and [K]"), ("h[t] = sum[H](x[t]) * sum[K](x[t])", "which [H] does not have"),
    ("h[t] = sum(W)", "needs an axis"), ("x = 2\n h[t] = x[t]", "cannot be assigned"), ("i = 1\n i = 2\n h[t] = x[t]", "already defined"),
    ("tanh = 1\n h[t] = x[t]", "built-in"), ("t = 1\n h[t] = x[t]", "reserved"), ("h[t] = xs[t]", "`xs` is not defined"),
    ("h[t] = tahn(x[t])", "no function `tahn`"), ("h[t] = tanh(x[t], 1)", "takes 1 argument"), ("h[t-1] = x[t]", "assigned at [t] only"),
    ("a, b = x[t]\n h[t] = a", "2 names on the left"), ("h[t] = x[t] if x[t] else 0", "must be bool"), ("h[t] = x[t][2.5]", "index must be int"),
    ("h[t] = x[t] and true", "needs bool"), ("h[t] = normal(0, 1)", "random value"), ("h[t] = outer(x[t], x[t]) * x[t]", "occurs twice"),
    ("state q: [H] = x[t-1]\n q[t] = x[t]\n h[t] = x[t]", "initial value of `q` reads the state"), ("h[t] = split(x[t], 2)", "values where one"),
    ("repeat j in 2 {\n state m: [H] = 0\n m[j] = m[j-2]\n}\n h[t] = m", "more than one iteration back"),
    ("repeat j in 2 {\n state m: [H] = 0\n}\n h[t] = m", "never assigned at [j]"), ("repeat j in 2 {\n z = 1\n}\n h[t] = z * x[t]", "inside a repeat"),
    ("h[t] = x[t-5000]", "more than the limit"), ("h[t] = x[t][9999999 // 0]", "divides by zero"), ("h[t] = sum(x[t] for t in 3)", "reserved"),
    ("h[t] = x[t] @ 2", "right operand is a scalar"), ("h[t] = sum[H](outer(x[t], x[t]))", "occurs twice"), ("h[t] = x[h[t-1]]", "needs a time"),
    ("use f = c(H, K)\n h[t] = f(x[t])", "c -> c"), ("use f = d(H)\n h[t] = x[t]", "no cell `d`"), ("h[t] = x[t-W]", "not a constant"),
    ("y: int [H] = x[t]\n h[t] = y", "declared int but its value is real"), ("y: [J] = 1\n h[t] = x[t]", "`J` is not a dimension of `c`"),
    ("h[t] = x[t, t]", "second time axis"), ("state t2: [H]\n h[t] = x[t]", "no initial value"), ("input u: [H] purple\n h[t] = x[t]", "not a fact"),
])
def test_errors(line, says):
    found = errors(BODY.format(line), H=2, K=3)
    assert any(says in m for m in found), found


def test_several_errors_in_one_run():
    found = errors("cell c(H) {\n input x: [H]\n a = nope\n b = tahn(x[t])\n d = a + b\n output y: [H] = x[t+1]\n}", H=2)
    assert len(found) == 3


@pytest.mark.parametrize("arguments, says", [
    ({"H": 2}, "`K` of `c` has no value"), ({"H": 2, "K": 2, "L": 1}, "no dimension or argument `L`"),
    ({"H": -1, "K": 2}, "negative"), ({"H": 2.5, "K": 2}, "not an integer"), ({"H": "relu", "K": 2}, "size"),
])
def test_header_errors(arguments, says):
    with pytest.raises(OstinatoError) as e:
        load(BODY.format("h[t] = x[t]")).cells["c"].elaborate(**arguments)
    assert says in str(e.value)


def test_errors_that_depend_on_sizes_come_with_the_sizes():
    program = load("cell c(H) {\n input x: [H]\n a, b = split(x[t], 2)\n output y = a[3] + b[H - 9]\n}".replace("y =", "y: [] ="))
    with pytest.raises(OstinatoError, match="cannot be split into 2"):
        program.cells["c"].elaborate(H=9)
    with pytest.raises(OstinatoError, match="outside of"):
        program.cells["c"].elaborate(H=6)
    verify(program.cells["c"].elaborate(H=10))


@pytest.mark.parametrize("source, says", [
    ("fn f(x) = g(x)\nfn g(x) = f(x)\ncell c(H) {\n input x: [H]\n output y: [H] = f(x[t])\n}", "f -> g -> f"),
    ("fn f(x: [A], y: [A]) = x\ncell c(H, K) {\n input x: [H], z: [K]\n output y: [H] = f(x[t], z[t])\n}", "must have shape [H], got [K]"),
    ("fn f(x) = w * x\ncell c(H) {\n input x: [H]\n param w: [H] = 1\n output y: [H] = f(x[t])\n}", "cannot be read inside a function"),
    ("fn f(x) = x derivative 1, 2\ncell c(H) {\n input x: [H]\n output y: [H] = f(x[t])\n}", "its derivative lists 2"),
    ("cell c(H) {\n input x: [H]\n}", "no output"), ("cell c(H) {\n output q\n}", "neither a value"),
    ("cell c(H) {\n input x: [H]\n param w: [H] ~ uniform(0, 1)\n param v: [H] = u\n param u: [H] = v\n output w, v\n}", "depend on each other"),
    ("cell c(H) {\n input x: [H] shared\n output x\n}", "without heads"),
    ("cell c(H) heads N {\n input x: [H]\n output y: [H] shared = x[t]\n}", "shared"),
])
def test_more_errors(source, says):
    with pytest.raises(OstinatoError) as e:
        load(source)
    assert says in str(e.value), str(e.value)


def test_imports(tmp_path):
    (tmp_path / "a.ost").write_text('import f, g from "b.ost"\ncell c(H) {\n input x: [H]\n use s = g(H)\n output y: [H] = f(s(x[t]))\n}\n')
    (tmp_path / "b.ost").write_text("fn h(x) = 2 * x\nfn f(x) = h(x)\ncell g(K) {\n input x: [K]\n output y: [K] = h(x[t])\n}\n")
    program = load(tmp_path / "a.ost")
    assert list(program.cells) == ["c"] and not program.functions
    _, x, _, y = outputs(str(tmp_path / "a.ost"), H=2)
    close(y["y"], 4 * x["x"])
    (tmp_path / "b.ost").write_text('import c from "a.ost"\n')
    with pytest.raises(OstinatoError, match="cycle"):
        load(tmp_path / "a.ost")
    (tmp_path / "b.ost").write_text("fn ff(x) = x\n")
    with pytest.raises(OstinatoError, match="defines no `f`"):
        load(tmp_path / "a.ost")
    with pytest.raises(OstinatoError, match="no file"):
        load(tmp_path / "none.ost")
    with pytest.raises(OstinatoError, match="cannot import"):
        load('import f from "b.ost"\n')


@pytest.mark.parametrize("source", [
    "cell c(H) {\n input x: [H]\n" + "".join(f" a{i} = a{i + 1} + 1\n" for i in range(3000)) + " a3000 = x[t]\n output a0\n}",
    "".join(f"fn f{i}(x) = f{i + 1}(x)\n" for i in range(2000)) + "fn f2000(x) = x\ncell c(H) {\n input x: [H]\n output y: [H] = f0(x[t])\n}",
    "".join(f"fn f{i}(x) = f{i + 1}(x) + f{i + 1}(2 * x)\n" for i in range(40)) + "fn f40(x) = x\ncell c(H) {\n input x: [H]\n output y: [H] = f0(x[t])\n}",
    "cell c(H) {\n input x: [H]\n output y: [H] = x[t] * 10^10^10^10\n}",
    "cell c(H) {\n input x: [H]\n output y: [H] = sum(sum(sum(x[t] for a in 999) for b in 999) for d in 999)\n}",
    "cell c(H) {\n input x: [H]\n repeat j in 10^9 {\n state m: [H] = 0\n m[j] = m[j-1]\n}\n output m\n}",
    "cell c(H) {\n param x: [H^2^2^2^2, (H+1)*(H+2)*(H+3)*(H+4)*(H+5)*(H+6)] = 1\n output x\n}",
], ids=["reverse", "chain", "doubling", "power", "generators", "repeat", "polynomials"])
def test_texts_that_would_run_away(source):
    try:
        load(source)
    except OstinatoError as e:
        assert e.diagnostics


def test_functions_that_nothing_calls_are_checked():
    with pytest.raises(OstinatoError, match="`yy` is not defined"):
        load("fn f(x: [A], w) {\n z = A * x\n return z + yy\n}\n")
    load("fn f(x: [A], w) {\n z = A * sum(x[j] * w for j in 3)\n return -z\n}\n")


@pytest.mark.parametrize("source", [
    # select with Num branches as state
    "cell c(H) {\n input x: [H]\n state n: int [] = 0\n n[t] = n[t-1] + (1 if sum(x[t]) > 0 else 0)\n output n\n}",
    # grouped heads with a lag
    "cell c(K, G) heads N {\n input q: [K] heads G\n state h: [K] = 0\n h[t] = q[t-1] + h[t-1]\n output h\n}",
    # heads in sub without heads
    "cell s(H) {\n input x: [H]\n param w: [H] = 1\n state h: [H] = 0\n h[t] = w * (h[t-1] + x[t-2])\n output h\n}\ncell c(K) heads N {\n input x: [K] shared\n use f = s(K)\n output y: [K] = f(x[t])\n}",
    # draw in functions and with shared
    "fn noisy(x: [A]) {\n e: [A] ~ normal(0, 1)\n return x + e\n}\ncell c(K) heads N {\n input x: [K]\n z: [K] shared ~ uniform(0, 1)\n output y: [K] = noisy(x[t]) + noisy(x[t]) + z\n}",
    # nested repeat
    "cell c(K, n) {\n input x: [K]\n repeat i in n {\n  state a: [K] = x[t]\n  repeat j in 2 {\n   state b: [K] = a[i-1]\n   b[j] = b[j-1] * (i + j)\n  }\n  a[i] = b\n }\n output a\n}",
    # repeat over empty
    "cell c(K, n=0) {\n input x: [K]\n repeat i in n {\n  state a: [K] = x[t]\n  a[i] = 2 * a[i-1]\n }\n output a\n}",
    # array generator of subcells
    "cell s(H) {\n input x: [H]\n state h: [H] = 0\n h[t] = h[t-1] + x[t]\n output h\n}\ncell c(K, n) {\n input x: [K]\n use f[n] = s(K)\n output y: [n, K] = stack(f[j](x[t]) for j in n)\n}",
    # concat size
    "cell c(K, n) {\n input x: [K]\n y = concat(x[t], x[t-1], [1])\n param W: [n, 2*K+1] = 0\n output z: [n] = W @ y\n}",
    # negative / const reading consts & params
    "cell c(K) {\n input x: [K]\n const d: [K] = 3\n param w: [K] = 2 * d\n state h: [K] = w - d\n h[t] = h[t-1] * x[t]\n output h\n}",
    # bare output of input and param
    "cell c(K) {\n input x: [K]\n param w: [K] = 2\n output x, w\n}",
    # no inputs
    "cell c(K) {\n state h: [K] = 1\n h[t] = h[t-1] / 2\n output h, s: [] = t * 1.5\n}",
    # H/2 dims
    "cell c(H) {\n input x: [H]\n a, b = split(x[t], 2)\n param w: [H/2, H//2] = 1\n output y: [H/2] = w @ a + b\n}",
    # bool outputs and casts
    "cell c(H) {\n input x: int [H], m: bool [H]\n output y: [H] = x[t] * m[t], z: int [H] = x[t] + m[t], w: [H] = x[t] / 2\n}",
    # function w/o args, unicode
    "fn one() = 1\ncell cé(H) {\n input λ: [H]\n output y: [H] = λ[t] + one()\n}",
    "cell c(H) {\n input x: [H]\n output y: [H] = f(x[t])\n}\nfn f(x) = (x if true else nope)\n",
    "cell c(H, K) {\n input x: [H], y: [K, H]\n output a: [H] = x[t] @ y[t].T @ y[t], b: [K, H] = x[t] * y[t], d: [H, K] = y[t].T + x[t]\n}",
])
def test_accepted(source):
    for definition in load(source).cells.values():
        cell = verify(definition.elaborate(**{p.name: 2 if p.name == "G" else 4 for p in definition.item.header if p.value is None}))
        inputs, params = given(cell)
        run(cell, inputs, params, batch=None if inputs else B, steps=None if inputs else T)
