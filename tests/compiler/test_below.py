"""What contractions say may be left out (`below`) matters to nobody, whatever passes have made of the cell since."""

import sys
from pathlib import Path

import pytest
import torch
from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.pipeline import lower
from ostinato.ir import evaluate, interp
from ostinato.ir.ops import spec_parts
from ostinato.runtime.sources import elaborate

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))

from gradients import B, T, assert_adjoint, close, initial
from zoo_data import path, sizes

from benchmarks.data import inputs as sample

LATE = """
cell late(K, V) {
  input q: [K], k: [K], v: [V], g: [] <= 0
  state S: [K, V] = 0, y: [V] = 0
  S[t] = exp(g[t]) * S[t-1] + outer(k[t], v[t])
  y[t] = q[t] @ S[t-1]
  output z = tanh(y[t-1]) * v[t]
}
"""
COLUMNS = """
cell columns(K, V) {
  input q: [K], k: [K], p: [V], v: [V], g: [V] <= 0
  state S: [K, V] = 0
  S[t] = exp(g[t]) * S[t-1] + outer(k[t], v[t])
  output y = q[t] @ S[t]
  output z = S[t-1] @ p[t]
}
"""
CELLS = ["simple_gla", "gsa", "mlstm", "gated_deltanet", "kda", "rwkv7", "deltaproduct", LATE, COLUMNS]


@pytest.fixture
def left_out(monkeypatch):
    """Where no gradients are recorded, the interpreter leaves out all that it may. Gives the nodes that it met."""
    met, whole = [], evaluate.evaluate.__globals__["_structure"]

    def some(n, xs, ranks):
        if torch.is_grad_enabled() or not (below := n.attr("below", "")):
            return whole(n, xs, ranks)
        met.append(n)
        *operands, out = spec_parts(n.attr("spec"))
        size = {c: d for s, x in zip(operands, xs) for c, d in zip(s[::-1], x.shape[::-1])}
        i, j = (torch.arange(size[c]) for c in below)
        a, b = operands
        return torch.einsum(f"...{a},...{b},{below}->...{out}", *xs, (i[:, None] > j).double())

    monkeypatch.setitem(evaluate.evaluate.__globals__, "_structure", some)
    return met


@pytest.mark.parametrize("C", [3, 18, 33])      # one, two and three blocks of steps
@pytest.mark.parametrize("source", CELLS, ids=lambda s: s.split("(")[0].removeprefix("\ncell "))
def test_nobody_misses_it(source, C, left_out):
    given = dict(K=3, V=4) if "\n" in source else sizes(source)
    cell = lower(elaborate(source if "\n" in source else path(source), None, given).cell).split
    low = lower(chunk(cell, C))
    inputs = sample(low.split, B, T, torch.float64, 1)
    params = interp.evaluate(low.static)
    params = {p.name: params[p.name] for p in low.split.params}
    state = initial(low.split, params)
    with torch.no_grad():
        got = interp.run(low.fused, inputs, params, state)
    want = interp.run(low.split, inputs, params, state)
    for name, y in (want.outputs | want.state).items():
        close((got.outputs | got.state)[name], y, name, 1e-10)
    assert_adjoint(low.split, low.adjoint, (inputs, params, state))
    assert left_out
