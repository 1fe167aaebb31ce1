"""Operands of products of matrices: computed ahead, not between the multiply-adds; by the run that has them already."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from agreement import check
from ostinato.backends.llvm.executable import build
from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.kernel import Kernel, Part, Run
from ostinato.compiler.schedules.views import is_product
from ostinato.frontend.load import load

ZOO = Path(__file__).parents[2] / "examples/zoo"
STRUCTURE = ("broadcast", "slice", "index")


def kernels(name: str) -> list[Kernel]:
    cell = next(iter(load(ZOO / f"{name}.ost").cells.values())).elaborate(K=16, V=16, N=2)
    made = build(lower(chunk(lower(cell).split, 8)), torch.float32)
    return [made.infer.kernel, made.keep.kernel, made.back.kernel]


def computed(run: Run, part: Part) -> list[str]:
    """What is computed while a product of several steps is under way."""
    found, own = [], {g for p in part.phases for group in p.groups for g in group.nodes}
    todo = [a for n in own if is_product(run.nodes[n]) for a in run.nodes[n].args]
    while todo:
        n = todo.pop()
        if n not in part.reads and run.nodes[n].args:
            if run.nodes[n].op in STRUCTURE:
                todo += run.nodes[n].args
            else:
                found.append(n)
    return found


@pytest.mark.parametrize("name", ["gla", "simple_gla", "deltanet", "gated_deltanet", "rwkv7"])
def test_nothing_is_computed_within_a_product(name):
    parts = [(run, part) for k in kernels(name) for run in k.runs for part in run.parts]
    assert any(is_product(run.nodes[n]) for run, part in parts for p in part.phases for g in p.groups for n in g.nodes)
    assert not [n for run, part in parts for n in computed(run, part)]


@pytest.mark.parametrize("name", ["gla", "rwkv7"])
def test_what_the_first_run_has_made_is_not_made_again(name):
    """Writers decayed to the end of the chunk: the state is updated with them, and its cotangent read."""
    first, second = kernels(name)[-1].runs
    made = {s.buffer for p in first.before.phases for s in p.stores if s.node and run_op(first, s.node) == "mul"}
    assert made & set(second.steps.reads.values())


def run_op(run: Run, node: str) -> str:
    return run.nodes[node].op


@pytest.mark.parametrize("name", ["gla", "deltanet", "gated_deltanet", "rwkv7"])
def test_gradients(name):
    check("chunk(8)", name, 2, 19)


SCALED = """cell scaled(K, V) {
  input q: [K], k: [K], v: [V]
  state S: [K, V] = 0
  S[t] = 0.9 * S[t-1] + outer(k[t], v[t] - 0.5 * (k[t] @ S[t-1]))
  output o: [V] = q[t] @ S[t]
}
"""


@pytest.mark.parametrize("K, V", [(1, 7), (7, 1), (1, 1)])
def test_literals_in_a_buffer(K, V):
    """With an axis of size 1 a literal is all that a product's operand would evaluate again and again: it gets a buffer,
    and is each row's there, as whatever lies in one."""
    check("chunk(2)", SCALED, 2, 7, K=K, V=V)
