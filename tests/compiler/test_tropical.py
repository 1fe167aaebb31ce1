"""Products over (max, +), (min, +) and (logsumexp, +): values and gradients, compiled and interpreted."""

import ostinato
import pytest
import torch
from ostinato.compiler.passes.tropical import Expand
from ostinato.ir.verify import verify

TEXT = """
cell walk(S, M) {{
  input  e: [S], w: [M]
  param  A: [S, S], C: [M, S]  ~ normal(0, 1)
  state  a: [S] = {start}
  a[t] = a[t-1] @{semiring} A + e[t]
  output a, wide: [M] = C @{semiring} a[t], both: [M] = (w[t] @{semiring} C) @{semiring} C.T,
         at: int [S] = a[t-1] @argmax A
}}
"""
FOLD = {"max": lambda x, i: x.amax(i), "min": lambda x, i: x.amin(i), "lse": torch.logsumexp}
B, T, S, M = 2, 5, 6, 3


def cell(semiring, backend, start="0", dtype=torch.float64):
    return ostinato.compile(TEXT.format(semiring=semiring, start=start), backend=backend, dtype=dtype, S=S, M=M)


def inputs(seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(B, T, n, generator=g, dtype=torch.float64).requires_grad_() for n in (S, M)]


def oracle(fold, A, C, e, w):
    a, rows = torch.zeros(B, S, dtype=torch.float64), []
    for t in range(T):
        at = (a[:, :, None] + A).argmax(1)
        a = fold(a[:, :, None] + A, 1) + e[:, t]
        one = fold(w[:, t, :, None] + C, 1)
        rows.append((a, fold(C + a[:, None], 2), fold(one[:, None] + C, 2), at))
    return [torch.stack(r, 1) for r in zip(*rows)]


@pytest.mark.parametrize("semiring", FOLD)
@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
def test_values_and_gradients(semiring, backend):
    layer, (e, w) = cell(semiring, backend), inputs()
    A, C = layer.get_parameter("A"), layer.get_parameter("C")
    got, want = layer(e, w)[0], oracle(FOLD[semiring], A, C, e, w)
    g = torch.Generator().manual_seed(1)
    cts = [torch.randn(y.shape, generator=g, dtype=torch.float64) for y in want[:3]]
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)
    grads = [torch.autograd.grad(ys[:3], [e, w, A, C], cts) for ys in (list(got), want)]
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
@pytest.mark.parametrize("semiring", ["max", "lse"])
def test_nothing_at_all_minus_infinity(semiring, backend):
    """A row without any path has gradient 0, not NaN."""
    layer, (e, w) = cell(semiring, backend, "-inf"), inputs()
    y = layer(e, w)[0]
    assert torch.isneginf(y[0]).all()
    grads = torch.autograd.grad([y[0], y[1], y[2]], [e, w, *layer.parameters()], [torch.ones_like(y[i]) for i in range(3)])
    assert all(torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
def test_ties_go_to_the_first(backend):
    text = "cell a(S) { input x: [S]\n param A: [S, S] = 0\n output y: [S] = A @max x[t], i: int [S] = A @argmax x[t] }"
    layer = ostinato.compile(text, backend=backend, dtype=torch.float64, S=3)
    x = torch.tensor([[[1.0, 2.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    y, i = layer(x)[0]
    assert torch.equal(i, torch.ones_like(i))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.tensor([[[0.0, 3.0, 0.0]]], dtype=torch.float64))


def test_expanded_cells_verify():
    made = Expand()(verify(cell("lse", "interpreter").cell))
    verify(made)
    assert not any(n.op == "contract" and n.attr("semiring") != "sum" for n in made.body)
