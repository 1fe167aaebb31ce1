"""Large results of element-wise kernels go past the caches: the same numbers, wherever the memory begins."""

from __future__ import annotations

from math import prod

import pytest
import torch
from ostinato.backends.llvm import executable as llvm
from ostinato.backends.llvm import launch
from ostinato.backends.llvm.executable import LlvmExecutable, build
from ostinato.compiler.pipeline import lower
from ostinato.frontend.load import load
from torch import Tensor

LANES = """cell lanes(D) {
  input  f: [D] in (0, 1), i: [D]
  param  w: [D] = 1
  state  h: [D] = 0

  h[t] = f[t] * h[t-1] + (1 - f[t]) * w * i[t]
  output h, s = f[t] * h[t]
}
"""
DENSE = """cell dense(D) {
  input  x: [D]
  param  R: [D, D] = 0
  state  h: [D] = 0

  h[t] = tanh(x[t] + R @ h[t-1])
  output h
}
"""


def executable(D: int, dtype: torch.dtype) -> LlvmExecutable:
    return build(lower(load(LANES).cells["lanes"].elaborate(D=D)), dtype)


def results(ex: LlvmExecutable, B: int, T: int, D: int) -> list[Tensor]:
    """Outputs, final state and gradients."""
    g = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(shape, generator=g, dtype=ex.dtype)
    inputs, params, states = [rand(B, T, D), rand(B, T, D)], [rand(D)], [rand(B, D)]
    cts, ends = [rand(B, T, D), rand(B, T, D)], [rand(B, D)]
    y, final, tape = ex.forward(inputs, params, states, seed=0, training=False, keep=True)
    found = ex.backward(inputs, params, states, tape, cts, ends, seed=0, training=False)
    return [*y, *final, *(d for ds in found for d in ds)]


def streams(run: launch.Launch, B: int, T: int) -> bool:
    return run.laid(B, T, 1, run.contiguous(B, T)).streaming


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("D", [64, 100, 512])
def test_the_same_numbers_past_the_caches(D, dtype, monkeypatch):
    wanted = results(executable(D, dtype), 2, 70, D)
    monkeypatch.setattr(launch, "STREAM_BYTES", 0)
    ex = executable(D, dtype)
    assert streams(ex.back, 2, 70) == streams(ex.keep, 2, 70) == (D != 100)      # whose rows begin within registers
    for a, b in zip(results(ex, 2, 70, D), wanted):
        assert torch.equal(a, b)


@pytest.mark.parametrize("by", [1, 16])
def test_results_that_begin_anywhere(by, monkeypatch):
    """`by` elements after a register's place."""
    wanted = results(executable(64, torch.float32), 2, 9, 64)
    monkeypatch.setattr(launch, "STREAM_BYTES", 0)
    monkeypatch.setattr(llvm, "each", lambda kinds: [
        torch.empty(prod(shape) + by, dtype=dtype)[by:].view(shape) for shape, dtype in kinds])
    for a, b in zip(results(executable(64, torch.float32), 2, 9, 64), wanted):
        assert torch.equal(a, b)


def test_only_large_results_of_elementwise_kernels():
    ex = executable(64, torch.float32)
    assert not streams(ex.infer, 1, 1000) and streams(ex.infer, 1, 100_000)
    assert "nontemporal" in ex.infer.llvm()
    dense = build(lower(load(DENSE).cells["dense"].elaborate(D=64)), torch.float32)
    assert not streams(dense.infer, 1, 1_000_000) and "nontemporal" not in dense.infer.llvm()
