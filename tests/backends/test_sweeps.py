"""Sweeps over matrix states: how many a step takes, and their numbers at sizes of several blocks of registers, with
lanes and rows left over."""

from __future__ import annotations

from pathlib import Path

import ostinato
import pytest
import torch
from ostinato.backends.llvm.executable import build
from ostinato.compiler.pipeline import lower
from ostinato.frontend.load import load
from ostinato.runtime.sample import sample_inputs

ZOO = Path(__file__).parents[2] / "examples/zoo"


def kernels(name: str):
    """Forward and backward kernel of a cell at K = 8, V = 16, two heads."""
    ex = build(lower(load(ZOO / f"{name}.ost").cells[name].elaborate(K=8, V=16, N=2)), torch.float32)
    return ex.infer.kernel, ex.back.kernel


@pytest.mark.parametrize("name, forward, again, back", [
    ("gla", 1, 1, 1), ("simple_gla", 1, 1, 1), ("rwkv6", 1, 1, 1), ("retnet", 1, 1, 1), ("mlstm", 1, 1, 1),
    ("deltanet", 1, 1, 1), ("gated_deltanet", 1, 1, 1), ("rwkv7", 1, 1, 2), ("kda", 1, 1, 1),
    ("comba", 1, 1, 1)])
def test_a_step_goes_over_its_state_as_few_times_as_it_must(name, forward, again, back):
    """Once, and once more where what is written depends on what was read of the whole state."""
    f, b = kernels(name)
    runs = [*f.runs, *b.runs]
    assert [sum(p.sweep for p in r.steps.phases) for r in runs] == [forward, again, back]
    for r in runs:
        matrices = [p for p in r.steps.phases if not p.sweep and len(p.shape) + sum(len(g.dims) for g in p.groups) > 1]
        assert not matrices and not {"S", "C", "d.S", "d.C"} & {*r.doubled}


def test_states_that_backward_needs_run_along_their_tape():
    _, b = kernels("gla")
    (state, trail), = b.runs[0].trails.items()
    assert state == "S" and not any(s.buffer == trail for p in b.runs[0].steps.phases for s in p.stores)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-4)])
@pytest.mark.parametrize("name, K, V", [
    ("gla", 5, 60), ("gla", 66, 136), ("deltanet", 7, 100), ("gated_deltanet", 6, 200), ("rwkv7", 3, 150),
    ("rwkv7", 9, 1), ("simple_gla", 1, 17), ("mlstm", 6, 72)])
def test_sizes_that_fill_no_block(name, K, V, dtype, tolerance):
    layer = ostinato.compile(ZOO / f"{name}.ost", K=K, V=V, N=2, dtype=dtype, schedule="sequential")
    g = torch.Generator().manual_seed(0)
    xs = {k: x.to(dtype).requires_grad_() for k, x in sample_inputs(layer.cell, 2, 35, 0).items()}
    found, wanted = layer(**xs), layer.reference(**xs)
    with torch.no_grad():                       # the kernel that keeps nothing
        worst = difference(layer(**xs)[0], wanted[0])
    results = [[r[0], *r[1].values()] for r in (found, wanted)]
    cts = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in results[1]]
    grads = [torch.autograd.grad(ys, list(xs.values()), [c.to(y.dtype) for c, y in zip(cts, ys)]) for ys in results]
    worst = max([worst, *map(difference, results[0], results[1]), *map(difference, *grads)])
    assert worst < tolerance


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).abs().max() / (b.double().abs().max() + 1e-3)).item()
