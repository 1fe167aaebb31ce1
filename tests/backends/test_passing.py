"""Sums over a matrix's points that a product makes in passing: that there is no sweep for them, and their numbers at
sizes of several blocks of registers, with lanes and rows left over."""

from __future__ import annotations

from pathlib import Path

import ostinato
import pytest
import torch
from ostinato.backends.llvm.executable import build
from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.pipeline import lower
from ostinato.frontend.load import load
from ostinato.runtime.sample import sample_inputs

ZOO = Path(__file__).parents[2] / "examples/zoo"


@pytest.mark.parametrize("name, rank", [("gla", 1), ("rwkv7", 1), ("kda", 1), ("simple_gla", 0), ("gated_deltanet", 0)])
def test_the_product_that_updates_a_gradient_makes_the_gradient_of_its_decay(name, rank):
    """Of a decay of the rows, or of one for all of them."""
    made = lower(load(ZOO / f"{name}.ost").cells[name].elaborate(K=16, V=32, N=2))
    back = build(lower(chunk(made.split, 8)), torch.float32).back.kernel.runs[1]
    assert not any(p.sweep and [d.size for d in p.shape] == [16, 32] for p in back.steps.phases)
    assert not back.doubled
    (p, n), = [(p, n) for p in back.steps.phases for n in p.across]
    assert "b.next.d.S" in {s.buffer for s in p.stores} and back.nodes[n].type.rank == rank


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-4)])
@pytest.mark.parametrize("name, K, V", [
    ("gla", 5, 60), ("gla", 66, 136), ("kda", 7, 100), ("gated_deltanet", 6, 200), ("rwkv7", 3, 150), ("rwkv7", 9, 1),
    ("simple_gla", 1, 17), ("simple_gla", 21, 130), ("hgrn2", 6, 72), ("gla", 8, 12), ("gla", 8, 30), ("rwkv7", 2, 6),
    ("rwkv7", 4, 7), ("rwkv7", 4, 12), ("gla", 64, 60)])
def test_sizes_that_fill_no_block(name, K, V, dtype, tolerance):
    layer = ostinato.compile(ZOO / f"{name}.ost", K=K, V=V, N=2, dtype=dtype, schedule="chunk(4)")
    g = torch.Generator().manual_seed(0)
    xs = {k: x.to(dtype).requires_grad_() for k, x in sample_inputs(layer.cell, 2, 26, 0).items()}
    results = [[r[0], *r[1].values()] for r in (layer(**xs), layer.reference(**xs))]
    cts = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in results[1]]
    grads = [torch.autograd.grad(ys, list(xs.values()), [c.to(y.dtype) for c, y in zip(cts, ys)]) for ys in results]
    for x, y in (*zip(*results), *zip(*grads)):
        x, y = x.detach(), y.detach()
        assert (x.double() - y).abs().max() <= tolerance * max(1.0, float(y.abs().max()))


# states that are sums of another's old values, along its rows or over all of them, and are read where that is updated
SUMMED = """cell summed(K, V, J) {
  input  X: [K, J], Y: [J, V], k: [K], v: [V], w: [V], g: [K] <= 0
  state  n: [K] = 0.5, S: [K, V] = 0.1, e: [] = 0.3
  n[t] = S[t-1] @ w[t]
  e[t] = sum[K, V](S[t-1])
  S[t] = exp(g[t]) * (0.1 * n[t-1]) * S[t-1] + ADDED + 0.001 * e[t-1]
  output S, n
}
"""


@pytest.mark.parametrize("added", ["X[t] @ Y[t]", "outer(k[t], v[t])"])
@pytest.mark.parametrize("K, V", [(64, 64), (32, 128), (7, 9), (4, 260), (56, 72)])
def test_a_state_that_is_a_sum_is_read_before_it_is_written(K, V, added):
    layer = ostinato.compile(SUMMED.replace("ADDED", added), K=K, V=V, J=6, dtype=torch.float64, schedule="sequential")
    xs = {k: (0.1 * x).requires_grad_() for k, x in sample_inputs(layer.cell, 2, 4, 0).items()}
    ends = [[*ys, *finals.values()] for ys, finals in (layer(**xs), layer.reference(**xs))]
    g = torch.Generator().manual_seed(0)
    cts = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in ends[1]]
    grads = [torch.autograd.grad(ys, list(xs.values()), cts, allow_unused=True, materialize_grads=True) for ys in ends]
    for x, y in (*zip(*ends), *zip(*grads)):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)
