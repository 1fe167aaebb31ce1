"""Products of which half is left out: terms that are 0, and results that nobody reads."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from ostinato.backends.llvm import jit
from ostinato.backends.llvm.executable import build
from ostinato.backends.llvm.launch import tuned
from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.build import forward_kernel
from ostinato.compiler.schedules.triangle import Triangle
from ostinato.frontend.load import load
from ostinato.ir.types import Type
from test_whole import cell_of, check, dim

ZOO = Path(__file__).parents[2] / "examples/zoo"


def lower_half(b, x):
    """x[i, j] for j < i, 0 elsewhere."""
    t = b.type(x)
    rows, columns = (b.broadcast(b.add("iota", (), Type("int", (d,)), "iota"), t.shape, (k,)) for k, d in enumerate(t.shape))
    return b.op("select", b.op("gt", rows, columns), x, b.full(0.0, t))


def halves(cell, dtype=torch.float64):
    """Of the loop nests of its kernel."""
    phases = [p for r in tuned(forward_kernel(cell, "f"), dtype).runs for part in r.parts for p in part.phases]
    return [str(p.triangle) for p in phases if p.triangle]


def terms(n, m, transposed=False):
    """Rows times a lower triangle."""
    N, M = dim("N", n), dim("M", m)
    spec = "ij,iv->jv" if transposed else "ij,jv->iv"
    return cell_of(lambda b, x, y: b.contract(lower_half(b, x), y, spec, below="ij"), (N, N), (N, M))


def results(n, k, count=1, transposed=False):
    """A lower triangle of products."""
    N, K = dim("N", n), dim("K", k)

    def make(b, x, *ys):
        total = b.full(1.0, Type("real", (N, N)))
        for y in ys:
            one = b.contract(x, y, "jk,ik->ij" if transposed else "ik,jk->ij", below="ij")
            total = b.op("add", b.op("mul", total, one), b.op("tanh", one))
        return lower_half(b, total)

    return cell_of(make, *[(N, K)] * (count + 1))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n, m", [(2, 64), (7, 40), (8, 64), (9, 17), (16, 64), (33, 16), (64, 32)])
def test_sums_of_some_terms(n, m, transposed):
    cell = terms(n, m, transposed)
    assert halves(cell) == ["p0 < r0" if transposed else "r0 < p0"]
    check(cell, lambda x: 0.3 * x)
    check(cell, lambda x: 0.3 * x, torch.float32, 2e-5)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n, k, count", [(2, 16, 1), (4, 64, 3), (7, 32, 1), (8, 64, 1), (8, 32, 4), (16, 64, 2), (20, 16, 1), (33, 32, 1),
                                         (8, 24, 1)])
def test_some_results(n, k, count, transposed):
    cell = results(n, k, count, transposed)
    assert halves(cell)
    check(cell, lambda x: 0.2 * x)
    check(cell, lambda x: 0.2 * x, torch.float32, 5e-5)


@pytest.mark.parametrize("bits", [128, 256])
def test_narrow_registers(bits, monkeypatch):
    host = jit.host() | {"vector_bits": bits}
    monkeypatch.setattr(jit, "host", lambda: host)
    for cell in (terms(8, 32), terms(6, 10, True), results(8, 32, 2), results(9, 16, 1, True)):
        check(cell, lambda x: 0.2 * x)


@given(st.integers(1, 40), st.integers(1, 40), st.data())
@settings(max_examples=100, deadline=None)
def test_bounds_leave_out_nothing_that_matters(n, m, data):
    """Of rows n and columns m: whatever is below lies within the bounds, and of blocks of one row nothing else does."""
    t = Triangle("row", "column")
    for var, size, other, below in (("row", n, m, lambda i, j: j < i), ("column", m, n, lambda j, i: j < i)):
        low = data.draw(st.integers(0, size - 1))
        high = data.draw(st.integers(low + 1, size))
        start, stop = t.bounds(var, low, high, other)
        wanted = {k for a in range(low, high) for k in range(other) if below(a, k)}
        assert 0 <= start <= stop <= other and wanted <= {*range(start, stop)}
        if high == low + 1:
            assert wanted == {*range(start, stop)}


@pytest.mark.parametrize("name, least", [("rwkv7", 5), ("simple_gla", 5), ("deltanet", 5), ("gla", 3), ("kda", 3)])
def test_chunks_leave_out_half(name, least):
    made = lower(load(ZOO / f"{name}.ost").cells[name].elaborate(K=64, V=64, N=2))
    made = build(lower(chunk(made.split, 8)), torch.float32)
    phases = [p for launch in (made.keep, made.back) for r in launch.kernel.runs for part in r.parts for p in part.phases]
    assert sum(p.triangle is not None for p in phases) >= least
