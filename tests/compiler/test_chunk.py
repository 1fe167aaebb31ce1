"""A chunk cell computes what its cell does: values, final states, gradients, in the interpreter and by its adjoint."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))

from gradients import assert_adjoint
from ostinato.compiler.passes.adjoint import adjoint
from ostinato.compiler.passes.chunk import Unchunkable, chunk, derive, matrix
from ostinato.compiler.passes.chunk.lift import first_axes
from ostinato.compiler.passes.masked import Masked
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.heads import strip
from ostinato.ir import interp
from ostinato.ir.parser import parse_cell
from ostinato.ir.printer import print_cell
from ostinato.ir.verify import verify
from ostinato.runtime.sources import elaborate
from zoo_data import path, sizes

from benchmarks.data import inputs as sample

MATRIX = ["linear_attention", "retnet", "simple_gla", "gla", "hgrn2", "rwkv6", "gsa", "mlstm", "deltanet",
          "gated_deltanet", "kda", "rwkv7", "comba", "deltaproduct", "titans_linear"]
VECTOR = ["rwkv4", "aaren", "mingru", "minlstm", "hgrn", "qrnn", "ema", "mega_ema", "garch"]
NONLINEAR = ["lstm", "gru", "elman", "srwm"]


def zoo(name: str, **given: int):
    return lower(elaborate(path(name), None, sizes(name) | given).cell).split


def text(source: str, **given: int):
    return lower(elaborate(source, None, given).cell).split


class Data:
    """Random inputs, parameters and states of a cell, its positions of the chunk's axis, and comparisons."""

    def __init__(self, cell, C: int, chunks: int, B: int = 2, **fixed: float):
        self.cell, self.C, self.chunks, self.B = cell, C, chunks, B
        g = torch.Generator().manual_seed(C)
        self.inputs = sample(cell, B, C * chunks, torch.float64, 1)
        for name, value in fixed.items():
            x = self.inputs[name]
            where = torch.rand(x.shape, generator=g) < 0.3
            self.inputs[name] = torch.where(where, torch.tensor(value, dtype=x.dtype), x)
        self.params = {p.name: torch.rand(p.type.sizes, generator=g, dtype=torch.float64) * 0.8 + 0.1
                       for p in cell.params}
        empty = {k: v[:, :0] for k, v in self.inputs.items()}
        state = interp.run(cell, empty, self.params, batch=B, steps=0).state
        self.state = {k: torch.where(torch.isfinite(v), v, 0) + torch.rand(v.shape, generator=g, dtype=v.dtype)
                      if v.is_floating_point() else v for k, v in state.items()}

    def position(self, t) -> int:
        return 3 if t.shape and t.shape[0] in first_axes(self.cell) else 2

    def cut(self, x, t):
        return x.reshape(self.B, self.chunks, self.C, *x.shape[2:]).movedim(2, self.position(t))

    def run(self, made=None) -> list[tuple[str, torch.Tensor]]:
        """Outputs, final states and gradients of the cell, or of the chunk cell `made`."""
        groups = [{k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in d.items()}
                  for d in (self.inputs, self.params, self.state)]
        inputs, params, state = groups
        types = self.cell.nodes()
        if made is None:
            r = interp.run(self.cell, inputs, params, state, batch=self.B, steps=self.C * self.chunks)
            outputs = r.outputs
        else:
            cut = {p.name: self.cut(inputs[p.name], p.type) for p in self.cell.inputs}
            r = interp.run(made, cut, params, state, batch=self.B, steps=self.chunks)
            outputs = {o.name: r.outputs[o.name].movedim(self.position(types[o.value].type), 2).flatten(1, 2)
                       for o in self.cell.outputs}
        values = [*outputs.items(), *((s.name, r.state[s.name]) for s in self.cell.states)]
        g = torch.Generator().manual_seed(7)
        loss = sum((v * torch.randn(v.shape, generator=g, dtype=v.dtype)).sum() for _, v in values
                   if v.is_floating_point())
        leaves = [(f"d.{k}", v) for d in groups for k, v in d.items() if v.is_floating_point()]
        grads = torch.autograd.grad(loss, [v for _, v in leaves], allow_unused=True)
        return values + [(k, torch.zeros_like(v) if d is None else d) for (k, v), d in zip(leaves, grads)]

    def agree(self, made, tolerance: float = 1e-11) -> None:
        for (name, want), (_, got) in zip(self.run(), self.run(made)):
            assert torch.isfinite(want.double()).all(), name
            torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance, msg=lambda m: f"{name}: {m}")


@pytest.mark.parametrize("name", MATRIX + VECTOR)
def test_equals_the_cell(name):
    cell = zoo(name)
    Data(cell, 5, 2).agree(verify(chunk(cell, 5)))


@pytest.mark.parametrize("C", [2, 16, 32])
@pytest.mark.parametrize("name", ["gla", "kda", "gated_deltanet", "gsa", "mlstm", "deltaproduct"])
def test_sizes_of_chunks(name, C):
    cell = zoo(name)
    Data(cell, C, 1, B=1).agree(verify(chunk(cell, C)))


def test_more_blocks_than_two(monkeypatch):
    monkeypatch.setattr(matrix, "BLOCK", 3)
    for name in ("gla", "kda", "gsa", "rwkv6"):
        cell = zoo(name)
        Data(cell, 8, 1).agree(verify(chunk(cell, 8)))


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("name", ["gla", "deltanet"])
def test_other_shapes(name, heads):
    cell = zoo(name, K=6, V=5, N=heads)
    Data(cell, 4, 2).agree(verify(chunk(cell, 4)))


@pytest.mark.parametrize("gate", [0.0, -50.0, float("-inf")])
@pytest.mark.parametrize("name", ["simple_gla", "gla", "gated_deltanet", "kda", "gsa", "deltaproduct"])
def test_extreme_decays(name, gate):
    cell = zoo(name)
    Data(cell, 18, 1, g=gate).agree(chunk(cell, 18))


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "kda", "deltaproduct"])
def test_extreme_steps(name, beta):
    cell = zoo(name)
    Data(cell, 8, 2, beta=beta).agree(chunk(cell, 8))


@pytest.mark.parametrize("name", ["linear_attention", "gla", "gated_deltanet", "gsa", "titans_linear", "rwkv4"])
def test_the_adjoint(name):
    cell = chunk(zoo(name), 4)
    assert_adjoint(cell, adjoint(cell))


@pytest.mark.parametrize("name", ["gla", "gated_deltanet", "deltaproduct", "mlstm", "titans_linear"])
def test_heads_stay_apart(name):
    made = lower(chunk(zoo(name), 4))
    assert strip(made.cell) is not None
    assert strip(made.adjoint.backward) is not None


def test_prints_and_parses():
    made = chunk(zoo("kda"), 20)
    assert parse_cell(print_cell(made)) == made


def test_no_loop_is_unrolled():
    cell = zoo("gated_deltanet")
    assert len(derive(cell, 64, in_parts=False).cell.body) == len(chunk(cell, 8).body)
    assert len(chunk(zoo("simple_gla"), 64).body) == len(chunk(zoo("simple_gla"), 8).body)


SCALES = """
cell scales(K, V) {
  input  q: [K], k: [K], v: [V], a: [K], b: [V], r: [V]
  state  S: [K, V] = 0
  S[t] = outer(a[t], b[t]) * S[t-1] + outer(k[t], v[t])
  output o: [V] = q[t] @ S[t], p: [K] = S[t-1] @ r[t]
}
"""


def test_rows_and_columns_decay_and_both_are_read():
    cell = text(SCALES, K=3, V=4)
    for C in (4, 20):
        Data(cell, C, 1).agree(chunk(cell, C))


RESETS = """
cell resets(K, V) {
  input  q: [K], k: [K], v: [V], r: []
  state  S: [K, V] = 0
  M = 0 if r[t] > 0.5 else S[t-1]
  S[t] = M + outer(k[t], v[t] - k[t] @ M)
  output o: [V] = q[t] @ S[t]
}
"""


def test_resets():
    cell = text(RESETS, K=3, V=4)
    Data(cell, 6, 2).agree(chunk(cell, 6))


@pytest.mark.parametrize("name", ["gla", "gated_deltanet", "mlstm", "titans_linear", "deltaproduct"])
def test_masked_cells(name):
    cell = lower(Masked(reset=True, valid=True)(elaborate(path(name), None, sizes(name)).cell)).split
    Data(cell, 6, 2).agree(chunk(cell, 6))


WHOLE = """
cell whole(K, V) {
  input  k: [K], v: [V]
  state  S: [K, V] = 0
  S[t] = S[t-1] + outer(k[t], v[t])
  output o: [K, V] = tanh(S[t])
}
"""
DENSE = """
cell dense(K) {
  input  A: [K, K], x: [K]
  state  h: [K] = 0
  h[t] = A[t] @ h[t-1] + x[t]
  output y: [K] = h[t]
}
"""
ELEMENTS = """
cell elements(K, V) {
  input  a: [K, V], k: [K], v: [V], q: [K]
  state  S: [K, V] = 0
  S[t] = a[t] * S[t-1] + outer(k[t], v[t])
  output o: [V] = q[t] @ S[t]
}
"""
SIDES = """
cell sides(K, V) {
  input  a: [K], k: [K], b: [V], v: [V]
  state  S: [K, V] = 0
  S[t] = S[t-1] - outer(k[t], a[t] @ S[t-1]) - outer(S[t-1] @ b[t], v[t])
  output o: [V] = a[t] @ S[t]
}
"""


@pytest.mark.parametrize("source", [WHOLE, ELEMENTS])
def test_a_matrix_of_which_all_is_needed_is_computed_at_all_steps(source):
    cell = text(source, K=3, V=4)
    made = derive(cell, 5)
    assert made.whole == ("S",)
    Data(cell, 5, 2).agree(made.cell)


@pytest.mark.parametrize("source, given, why", [
    (DENSE, dict(K=3), "multiplied by a matrix"), (SIDES, dict(K=3, V=4), "along both axes")])
def test_refusals(source, given, why):
    with pytest.raises(Unchunkable, match=why):
        chunk(text(source, **given), 4)


@pytest.mark.parametrize("name", NONLINEAR)
def test_nonlinear_cells_are_refused(name):
    with pytest.raises(Unchunkable, match="line"):
        chunk(zoo(name), 4)
