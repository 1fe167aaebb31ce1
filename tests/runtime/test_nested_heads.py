"""Cells with heads inside cells with heads, in every form that they have, against the interpreter; and the interpreter
against the same cell written with one axis of heads."""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import check
from ostinato.ir import interp
from ostinato.runtime.sources import elaborate

MEMORY = """
cell memory(K, V, G) heads M {
  input  q: [K], k: [K] heads G, v: [V], g: [] <= 0 shared
  param  w: [K], u: [V] shared  ~ normal(0, 1)
  state  S: [K, V] = 0
  S[t] = exp(g[t]) * S[t-1] + outer(w * k[t-1], v[t])
  output o: [V] = q[t] @ S[t] + u, mixed: [V] shared = sum[M](q[t] @ S[t-1])
}
"""
NESTED = MEMORY + """
cell layer(K, V, M, G) heads N {
  input  q: [M, K], k: [G, K], v: [V], g: [] <= 0
  use    f = memory(K, V, G, M)
  o, mixed = f(q[t], k[t], outer(ones(M), v[t]), g[t])
  output y: [M, V] = o + f.o[t], m: [V] = mixed, all_heads: [V] shared = sum[N](f.mixed[t])
}
"""
DELTA = """
cell delta(K, V) heads M {
  input  q: [K], k: [K], v: [V], beta: [] in (0, 1)
  state  S: [K, V] = 0
  S[t] = S[t-1] + beta[t] * outer(k[t], v[t] - k[t] @ S[t-1])
  output o: [V] = q[t] @ S[t]
}
cell layer(K, V, M) heads N {
  input  q: [M, K], k: [M, K], v: [M, V], b: [M] in (0, 1)
  use    f = delta(K, V, M)
  output y: [M, V] = f(q[t], k[t], v[t], b[t])
}
"""
RECURRENT = """
cell fast(H, n) heads M {
  input  x: [H] shared, at: int [n], rate: [] >= 0
  param  W: [H, H] shared, R: [H, H]  ~ normal(0, 0.5)
  state  h: [H] = 0, s: [n] = 1, A: [H, H] = 0
  e: [H] ~ normal(0, 0.1)
  h[t] = tanh(W @ x[t] + (R + A[t-1]) @ h[t-1]) + e
  s[t] = s[t-1][at[t]] + sum(h[t])
  loss = sum((A[t-1] @ x[t] - h[t])^2)
  A[t] = 0.9 * A[t-1] - rate[t] * grad(loss, A[t-1])
  output h, s
}
cell memory(H, M) heads N {
  input  x: [H], at: int [4], rate: [] >= 0
  use    f = fast(H, 4, M)
  state  A: [H] = 0.3
  h, s = f(x[t], stack(at[t] for j in M), rate[t])
  A[t] = A[t-1] - rate[t] * grad(sum[H](sum[M]((h - A[t-1])^2)), A[t-1])
  output y: [M, H] = h, A, moved: [M, 4] = s
}
"""
# one axis of heads, N * M, made of the same numbers
FLAT = """
cell flat(K, V) heads M {
  input  q: [K], k: [K], v: [V], g: [] <= 0
  param  w: [K], u: [V]  ~ normal(0, 1)
  state  S: [K, V] = 0
  S[t] = exp(g[t]) * S[t-1] + outer(w * k[t-1], v[t])
  output o: [V] = q[t] @ S[t] + u, mixed: [V] = q[t] @ S[t-1]
}
"""
SIZES = {"nested": dict(K=3, V=4, M=4, G=2, N=3), "delta": dict(K=3, V=4, M=2, N=3), "recurrent": dict(H=3, N=2, M=3)}
TEXTS = {"nested": (NESTED, "layer"), "delta": (DELTA, "layer"), "recurrent": (RECURRENT, "memory")}


def cell_of(name: str, **sizes: int):
    text, cell = TEXTS[name]
    return elaborate(text, cell, SIZES[name] | sizes).cell


@pytest.mark.parametrize("name, schedule", [
    ("nested", "sequential"), ("nested", "scan(3)"), ("nested", "chunk(4)"), ("nested", "quadratic"),
    ("delta", "sequential"), ("delta", "scan(3)"), ("delta", "chunk(4)"), ("recurrent", "sequential")])
def test_nested_heads_in_every_form(name, schedule):
    for T in (0, 1, 11):
        check(schedule, cell_of(name), 2, T, tolerance=1e-10)


def test_equal_sizes_and_one_head():
    """Both axes of heads have one name and size; one head has no axis of its own in a kernel."""
    for sizes in (dict(M=1, G=1, N=1), dict(M=2, G=1, N=2)):
        check("sequential", cell_of("nested", **sizes), 2, 7)
    text = NESTED.replace("cell layer(K, V, M, G) heads N", "cell layer(K, V, G) heads M").replace("sum[N]", "sum[M]")
    check("sequential", elaborate(text, "layer", dict(K=3, V=4, G=2, M=4)).cell, 2, 7)


def test_nested_heads_are_heads():
    """The layer of N times M heads gives what a cell of N * M heads does."""
    K, V, M, G, N, B, T = 3, 4, 4, 2, 3, 2, 6
    cell, flat = cell_of("nested"), elaborate(FLAT, None, dict(K=K, V=V, M=N * M)).cell
    g = torch.Generator().manual_seed(0)
    q, k, v, decay = (torch.randn(B, T, N, *shape, generator=g, dtype=torch.float64) for shape in ((M, K), (G, K), (V,), ()))
    w, u = torch.randn(N, M, K, generator=g, dtype=torch.float64), torch.randn(N, V, generator=g, dtype=torch.float64)
    got = interp.run(cell, {"q": q, "k": k, "v": v, "g": -decay.abs()}, {"f.w": w, "f.u": u}).outputs
    each = lambda x, *shape: x[:, :, :, None].expand(B, T, N, M, *shape).reshape(B, T, N * M, *shape)
    want = interp.run(
        flat, {"q": q.flatten(2, 3), "k": k.repeat_interleave(M // G, 3).flatten(2, 3), "v": each(v, V), "g": each(-decay.abs())},
        {"w": w.flatten(0, 1), "u": u[:, None].expand(N, M, V).reshape(N * M, V)}).outputs
    torch.testing.assert_close(got["y"], 2 * want["o"].view(B, T, N, M, V))
    torch.testing.assert_close(got["m"], want["mixed"].view(B, T, N, M, V).sum(3))


def test_parameters_and_steps():
    """Every pair of heads has parameters of its own, what is `shared` those of the outer heads; a layer steps."""
    layer = ostinato.compile(NESTED, cell="layer", **SIZES["nested"]).double()
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {"f.w": (3, 4, 3), "f.u": (3, 4)}
    xs = [torch.randn(2, 5, *s, dtype=torch.float64) for s in ((3, 4, 3), (3, 2, 3), (3, 4))]
    xs.append(-torch.rand(2, 5, 3, dtype=torch.float64))
    out, final = layer(*xs)
    state = None
    for t in range(5):
        y, state = layer.step(*(x[:, t] for x in xs), state=state)
        torch.testing.assert_close(y.y, out.y[:, t])
    torch.testing.assert_close(state["f.S"], final["f.S"])


@pytest.mark.parametrize("text, message", [
    (NESTED.replace("y: [M, V] = o + f.o[t]", "y: [M, V] shared = o"), "cannot be given to `y`, which is shared"),
    (NESTED.replace("f(q[t], k[t]", "f(k[t], k[t]"), r"`q` is declared \[M, K\] but its value has shape \[G, K\]"),
    (NESTED.replace("f(q[t], k[t], outer(ones(M), v[t]), g[t])", "f(q[t], k[t], outer(ones(M), v[t]), q[t] @ ones(K))"),
     r"`g` is declared \[\] but its value has shape \[M\]")])
def test_errors(text, message):
    with pytest.raises(ostinato.OstinatoError, match=message):
        elaborate(text, "layer", SIZES["nested"])


def test_three_levels_below_a_cell_without_heads():
    text = DELTA + """
    cell top(K, V, M, N, L) {
      input  q: [L, N, M, K], k: [L, N, M, K], v: [L, N, M, V], b: [M] in (0, 1)
      use    f = middle(K, V, M, N, L)
      output y: [L, N, M, V] = f(q[t], k[t], v[t], b[t])
    }
    cell middle(K, V, M, N) heads L {
      input  q: [N, M, K], k: [N, M, K], v: [N, M, V], b: [M] in (0, 1) shared
      use    f = layer(K, V, M, N)
      output y: [N, M, V] = f(q[t], k[t], v[t], b[t] * ones(M))
    }"""
    text = text.replace("b: [M] in (0, 1)\n  use    f = delta", "b: [M] in (0, 1) shared\n  use    f = delta")
    cell = elaborate(text, "top", dict(K=2, V=3, M=2, N=3, L=2)).cell
    assert [d.name for d in cell.states[0].type.shape] == ["L", "N", "M", "K", "V"]
    check("sequential", cell, 2, 5)
