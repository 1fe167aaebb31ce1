"""What is worked on a tile of steps at a time: whole blocks of rows, factors that lie in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ostinato.backends.llvm.executable import LlvmExecutable, build
from ostinato.compiler.pipeline import lower
from ostinato.frontend.load import load

ZOO = Path(__file__).parents[2] / "examples" / "zoo"


def executable(name: str, **dims: int) -> LlvmExecutable:
    return build(lower(load(ZOO / f"{name}.ost").cells[name].elaborate(**dims)), torch.float32)


@pytest.mark.parametrize("name", ["lstm_layernorm", "lem", "ligru"])
def test_a_tile_is_whole_blocks_of_rows(name):
    ex = executable(name, I=24, H=40)
    for B in (1, 3, 16, 40):
        for launch, part in ((ex.keep, "before"), (ex.back, "after")):
            rows = {p.unroll for r in launch.kernel.runs for p in getattr(r, part).phases if p.weights}
            assert rows and all(n > 1 and launch.geometry(B, 1000)[2] % n == 0 for n in rows)
            assert launch.geometry(B, 3)[2] == 3


def test_a_factor_that_takes_several_operations_is_computed_once():
    (run,) = executable("lem", I=8, H=16).back.kernel.runs
    sums = [run.nodes[s.node] for p in run.after.phases if p.rows == "sum" for s in p.stores]
    factors = {a for n in sums if n.op == "contract" for a in n.args}
    assert "z.next" in factors and factors <= {*run.after.reads}


def test_what_is_read_once_and_takes_one_operation_more_is_kept_nowhere():
    """d.g * (8 r): the product is made where it is added up, of what the steps keep and of the input."""
    run = executable("rglru_gates", D=40).back.kernel.runs[-1]
    (phase,) = run.after.phases
    (store,) = phase.stores
    assert phase.rows == "sum" and run.nodes[store.node].op == "mul" and store.node not in run.after.reads
    kept = [s.node for p in run.steps.phases for s in p.stores if s.buffer.startswith("b.tile.")]
    assert kept == ["d.g"]
