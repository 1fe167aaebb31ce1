"""Gram matrices with the same decays between rows are one operation, where no row needs another one first."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))

from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.passes.chunk.ends import ended
from ostinato.compiler.passes.chunk.together import PAIRS, READERS, together
from ostinato.compiler.passes.joined import joined
from ostinato.compiler.pipeline import lower
from ostinato.ir import interp
from ostinato.ir.build import Builder
from ostinato.ir.cell import Cell, Input, Output
from ostinato.ir.types import Dim, Type
from ostinato.ir.verify import verify
from ostinato.runtime.sources import elaborate
from zoo_data import path, sizes

ROWS = Type("real", (Dim("H", 2), Dim("C", 5), Dim("K", 3)))


def pairs(cell: Cell) -> list[tuple[int, int]]:
    """Readers and writers of each operation."""
    return [(r := n.attr("readers"), len(n.args) - 1 - r) for n in cell.body if n.op == "decayed"]


@pytest.mark.parametrize("name, C, want", [("gla", 4, [(1, 1)]), ("rwkv7", 8, [(2, 2)]), ("kda", 8, [(2, 1)]),
                                           ("rwkv7", 20, [(2, 2)] * 2)])
def test_zoo(name, C, want):
    cell = chunk(lower(elaborate(path(name), None, sizes(name)).cell).split, C)
    verify(cell)
    assert pairs(cell) == want


def cell_of(make) -> Cell:
    """y = the sum of the Gram matrices or rows that `make` gives of four rows and decays."""
    b = Builder()
    made = make(b, *(b.read("input", x, ROWS) for x in "adxyz"))
    total = made[0]
    for g in made[1:]:
        total = b.op("add", total, g)
    return Cell("c", ROWS.shape, None, tuple(Input(x, ROWS) for x in "adxyz"), (), (), (Output("y", total),),
                body=tuple(b.nodes))


def test_only_full_sets_of_pairs():
    def make(b, a, d, x, y, z):
        return [b.decayed((p,), q, (r,)) for p, q, r in ((a, d, x), (a, d, y), (z, d, x), (z, a, y))]

    cell = together(cell_of(make))
    verify(cell)
    assert sorted(pairs(cell)) == [(1, 1), (1, 1), (1, 2)]      # z with x only, and one with other decays


def test_rows_made_of_another_matrix_stay_apart():
    def make(b, a, d, x, y, z):
        first = b.decayed((a,), d, (x,))
        later = b.contract(first, y, "hij,hjk->hik")
        return [first, b.decayed((later,), d, (x,)), b.decayed((z,), d, (y,))]

    cell = together(cell_of(make))
    verify(cell)
    assert pairs(cell) == [(1, 1)] * 3


def test_no_more_than_registers_hold():
    def make(b, a, d, x, y, z):
        rows = [a, x, y, z, b.op("neg", a), b.op("neg", x)]
        return [b.decayed((p,), d, (q,)) for p in rows for q in rows]

    cell = together(cell_of(make))
    verify(cell)
    assert sum(r * w for r, w in pairs(cell)) == 36
    assert all(r <= READERS and r * w <= PAIRS for r, w in pairs(cell))


@pytest.mark.parametrize("name, C, want", [("gla", 4, [(1, 1)]), ("rwkv7", 8, [(2, 2)]), ("kda", 8, [(2, 1)]),
                                           ("simple_gla", 8, [])])
def test_ends_of_the_zoo(name, C, want):
    """Whatever is decayed up to a chunk's ends is made by one operation, and its derivative with the Gram matrices'."""
    made = lower(chunk(lower(elaborate(path(name), None, sizes(name)).cell).split, C))
    ends = [n for n in made.cell.body if n.op == "ends"]
    assert [(r := n.attr("readers"), len(n.args) - 1 - r) for n in ends] == want
    back = made.adjoint.backward.body
    assert [n.attr("ends") for n in back if n.op == "decayed_back"] == [True] * len(want)
    assert [len(n.args) for n in back if n.op == "decayed_back"] == [2 * (r + w) + 3 for r, w in want]    # the product, too
    assert not any(n.op in ("ends_back", "cumprod_back", "cumprod") for n in back) or not want


def test_ends_of_rows_made_of_others_stay_products():
    def make(b, a, d, x, y, z):
        before, after = b.cumprod(d, 1), b.cumprod(d, 1, reverse=True)
        first = b.op("mul", a, before)
        return [first, b.op("mul", b.op("add", first, x), after), b.op("mul", y, z)]

    cell = cell_of(make)
    assert ended(cell).body == cell.body


@pytest.mark.parametrize("order", [1, -1])
def test_the_product_joins_first(order):
    """It becomes part of `ends_back`, whatever the order, and that a part of `decayed_back`; not where d is another's."""
    def make(b, a, d, x, y, z):
        g, c = b.contract(y, z, "hik,hjk->hij"), b.reduce(y, "sum", (1,))
        parts = [b.decayed_back(g, (a,), d, (x,)), b.ends_back((y, z), (a,), d, (x,)), b.ends_back((c,), (), d, ())]
        places = {2: (1, 0), 1: (1, 1), 0: (1, 1)}                      # of the derivative by d
        by_d = [b.index(parts[i], *places[i]) for i in (0, 1, 2)][::order]
        sums = [b.op("add", b.op("add", by_d[0], by_d[1]), by_d[2])]
        sums += [b.op("add", b.index(parts[0], 1, i), b.index(parts[1], 1, i)) for i in (0, 2)]
        return [*sums, b.op("mul", b.index(b.ends_back((c,), (), x, ()), 1, 0), y)]

    cell = cell_of(make)
    new = joined(cell)
    verify(new)
    assert [len(n.args) for n in new.body if n.op == "decayed_back"] == [7]
    assert [n.args[1:] for n in new.body if n.op == "ends_back"] == [("x",)]
    xs = {x: torch.randn(1, 2, *ROWS.sizes, dtype=torch.float64) for x in "adxyz"}
    want, got = (interp.run(c, xs, {}).outputs["y"] for c in (cell, new))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("apart", [False, True])
def test_derivatives_join_where_they_are_added(apart):
    """Not where one of the parts is used elsewhere, too."""
    def make(b, a, d, x, y, z):
        g = b.contract(y, z, "hik,hjk->hij")
        back, more = b.decayed_back(g, (a,), d, (x,)), b.ends_back((y, z), (a,), d, (x,))
        one, other = ([b.index(n, 1, i) for i in range(3)] for n in (back, more))
        sums = [b.op("add", p, b.op("add", z, q)) for p, q in zip(one, other)]
        return [*sums, *([b.op("mul", other[1], y)] if apart else [])]

    cell = cell_of(make)
    new = joined(cell)
    verify(new)
    assert [n.attr("ends") for n in new.body if n.op == "decayed_back"] == [not apart]
    assert any(n.op == "ends_back" for n in new.body) == apart
    xs = {x: torch.randn(1, 2, *ROWS.sizes, dtype=torch.float64) for x in "adxyz"}
    want, got = (interp.run(c, xs, {}).outputs["y"] for c in (cell, new))
    torch.testing.assert_close(got, want)
