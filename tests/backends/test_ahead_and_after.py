"""What backward steps of matrix states leave to the tile: all that is no sweep, once for both runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from agreement import check
from ostinato.backends.llvm.executable import build
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.kernel import Kernel
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


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "rwkv7", "kda", "comba", "mlstm", TWICE])
@pytest.mark.parametrize("T", [1, 40])
def test_gradients(name, T):
    check("sequential", name, 2, T)
