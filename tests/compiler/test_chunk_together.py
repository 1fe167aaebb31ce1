"""Gram matrices with the same decays between rows are one operation, where no row needs another one first."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))

from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.passes.chunk.together import PAIRS, READERS, together
from ostinato.compiler.pipeline import lower
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
    """y = the sum of Gram matrices that `make` gives of four rows and decays."""
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
