"""States of chunks that are used where they are kept: which, for how many steps, and that they are right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from agreement import check
from ostinato.backends.llvm.executable import LlvmExecutable, build
from ostinato.backends.llvm.launch import registers
from ostinato.backends.llvm.places import placed
from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.leaves import for_later
from ostinato.frontend.load import load

ZOO = Path(__file__).parents[2] / "examples/zoo"

# `w` has a gradient, so a work item takes several of many sequences
SCALED = """
cell scaled(K, V) {
  input  q: [K], k: [K], v: [V], g: [K] <= 0
  param  w: [V] ~ normal(0, 1)
  state  S: [K, V] = 0
  S[t] = exp(g[t]) * S[t-1] + outer(k[t], v[t])
  output o: [V] = w * (q[t] @ S[t])
}
"""


def executable(name: str, C: int, **dims: int) -> LlvmExecutable:
    made = lower(load(ZOO / f"{name}.ost").cells[name].elaborate(**dims))
    return build(lower(chunk(made.split, C)) if C else made, torch.float32)


@pytest.mark.parametrize("name, C, tile", [("rwkv7", 8, 1), ("gla", 8, 2), ("simple_gla", 8, 2), ("simple_gla", 16, 1)])
def test_states_of_chunks_take_the_room_of_inputs_and_outputs(name, C, tile):
    ex = executable(name, C, K=64, V=64, N=2)
    for kernel in (ex.keep.kernel, ex.back.kernel):
        assert placed(kernel, registers(torch.float32)[0]) == ("S",)
    assert ex.tile == tile and ("states kept at every step:" in ex.explain()) == (tile == 1)


def test_states_of_many_short_steps_are_copied():
    ex = executable("gla", 0, K=64, V=64, N=2)
    assert not any(placed(k, registers(torch.float32)[0]) for k in (ex.keep.kernel, ex.back.kernel)) and ex.tile > 8


def test_the_last_step_that_runs_again_makes_no_state():
    ex = executable("rwkv7", 8, K=64, V=64, N=2)
    run = ex.back.kernel.runs[0]
    assert [for_later(ex.back.kernel, run, p) for p in run.steps.phases] == [True]
    assert not any(for_later(ex.keep.kernel, r, p) for r in ex.keep.kernel.runs for p in r.steps.phases)


def test_a_state_that_is_read_after_the_step_is_made_at_the_last_one_too():
    """The gradient of ttt_linear is made of the weights after the step."""
    ex = executable("ttt_linear", 0, K=4, N=2)
    run = ex.back.kernel.runs[0]
    makers = [p for p in run.steps.phases if {s.buffer for s in p.stores} <= {f"f.next.{s}" for s in run.states}]
    assert makers and not any(for_later(ex.back.kernel, run, p) for p in makers)
    check("sequential", "ttt_linear", 2, 1)


@pytest.mark.parametrize("T", [1, 16, 50])
@pytest.mark.parametrize("B", [1, 40])
def test_several_sequences_of_a_work_item(B, T):
    """From 17 sequences on, an item has several where a parameter has a gradient."""
    check("chunk(16)", SCALED, B, T, tolerance=1e-10, K=64, V=64)
