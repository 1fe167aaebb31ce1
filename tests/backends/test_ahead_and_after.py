"""What backward steps of matrix states leave to the tile: all that is no sweep, once for both runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from agreement import check
from ostinato.backends.llvm.executable import build
from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.kernel import Kernel
from ostinato.compiler.schedules.leaves import uses
from ostinato.frontend.load import load

ZOO = Path(__file__).parents[2] / "examples/zoo"
TWICE = """# sizes: K=5 V=6 N=2
cell twice(K, V) heads N {
  input  k: [K], v: [V], q: [K], g: [K], b: []
  state  S: [K, V] = 0, n: [K] = 0
  n[t] = exp(-exp(g[t])) * n[t-1] + k[t]
  u = b[t] * (v[t] - k[t] @ S[t-1])
  S[t] = exp(-exp(g[t])) * S[t-1] + outer(k[t], u)
  output o: [V] = (q[t] @ S[t]) / (1 + abs(sum(q[t] * n[t]))), m: [] = sum(u * u), w: [K] = tanh(S[t] @ v[t]) * k[t]
}"""


def backward(source: str, **sizes: int) -> Kernel:
    cells = load(source if "\n" in source else ZOO / f"{source}.ost").cells
    return build(lower(next(iter(cells.values())).elaborate(**sizes)), torch.float32).back.kernel


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "rwkv7", "kda", "simple_gla", "gla"])
def test_steps_go_back_in_sweeps_only(name):
    kernel = backward(name, K=16, V=16, N=2)
    assert all(p.sweep for run in kernel.runs for p in run.steps.phases)
    assert kernel.runs[-1].after.phases


@pytest.mark.parametrize("name", ["gla", "rwkv7", "kda", "gated_deltanet"])
def test_an_exponential_is_made_once_for_both_runs(name):
    first, second = backward(name, K=16, V=16, N=2).runs
    made = [{s.buffer for p in run.before.phases for s in p.stores if s.node and run.nodes[s.node].op == "exp"}
            for run in (first, second)]
    assert made[0] and not made[1]
    assert made[0] <= set(second.steps.reads.values())


@pytest.mark.parametrize("name", ["gla", "rwkv7", "kda", "simple_gla", "deltanet"])
def test_what_is_handed_on_is_stored_once(name):
    """Whatever a run puts into a buffer ahead of its steps is read from there; the first run puts nothing into two."""
    made = lower(load(ZOO / f"{name}.ost").cells[name].elaborate(K=16, V=16, N=2))
    kernel = build(lower(chunk(made.split, 8)), torch.float32).back.kernel
    read = {b for run in kernel.runs for part in run.parts for p in part.phases
            for b in uses(p, run.nodes, part.reads)}
    stored = [s for run in kernel.runs for p in run.before.phases for s in p.stores]
    assert {s.buffer for s in stored} & {b.name for b in kernel.scratch} <= read
    first = [(s.node, s.index) for p in kernel.runs[0].before.phases for s in p.stores if s.node]
    assert len({*first}) == len(first)
    assert {b.name for b in kernel.scratch if b.space == "tile"} <= read


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "rwkv7", "kda", "comba", "mlstm", TWICE])
@pytest.mark.parametrize("T", [1, 40])
def test_gradients(name, T):
    check("sequential", name, 2, T)
