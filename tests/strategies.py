"""Hypothesis strategies over random cells, and data to run them on.

    @given(cells(heads=False))
    def test_something(cell):
        inputs, params, state = draw_data(cell, B=2, T=5)

A cell made here is called `cell_SEED_BLOCKS`; `rebuild("cell_SEED_BLOCKS", **knobs)`
makes it again.
"""

from __future__ import annotations

import random
from dataclasses import replace

import torch
from hypothesis import strategies as st
from ostinato.ir.cell import Cell
from ostinato.ir.interp import initial_params
from ostinato.ir.sweeps import NoOrder, sweeps
from ostinato.ir.types import Type
from random_cells import random_cell

Values = dict[str, torch.Tensor]


def rebuild(name: str, **knobs) -> Cell:
    _, seed, blocks = name.split("_")
    return random_cell(random.Random(int(seed)), blocks=int(blocks), name=name, **knobs)


def cells(**knobs) -> st.SearchStrategy[Cell]:
    """Random cells; see `random_cell` for the knobs. Shrinks to fewer blocks."""
    return st.builds(lambda blocks, seed: rebuild(f"cell_{seed}_{blocks}", **knobs),
                     st.integers(1, 3), st.integers(0, 2**32 - 1))


def turned(cell: Cell, seed: int) -> Cell:
    """A random cell with some of its states running the other way, as many as leave an order to find them in."""
    r = random.Random(seed)
    for s in r.sample(cell.states, len(cell.states)):
        try:
            found = replace(cell, states=tuple(replace(x, reverse=not x.reverse) if x is s else x for x in cell.states))
            sweeps(found)
        except NoOrder:
            continue
        cell = found if r.random() < 0.6 else cell
    return cell


def both_ways(**knobs) -> st.SearchStrategy[Cell]:
    """Random cells with states of both directions; a component of several states keeps its own."""
    return st.builds(turned, cells(**knobs), st.integers(0, 2**32 - 1))


def values(type: Type, lead: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    """Reals in [-1.5, 1.5), ints in 0..4, bools."""
    shape = (*lead, *type.sizes)
    match type.kind:
        case "int":
            return torch.randint(0, 5, shape, generator=g)
        case "bool":
            return torch.randint(0, 2, shape, generator=g).bool()
    return 3 * torch.rand(shape, generator=g, dtype=torch.float64) - 1.5


def draw_data(cell: Cell, B: int = 2, T: int = 5, seed: int = 0) -> tuple[Values, Values, Values]:
    """(inputs [B, T, *shape], params [*shape], initial states [B, *shape]) in float64.
    Parameters from the cell's init region where it has one; pass the states or not."""
    g = torch.Generator().manual_seed(seed)
    inputs = {p.name: values(p.type, (B, T), g) for p in cell.inputs}
    given = {p.name: values(p.type, (), g) for p in cell.params if p.init is None}
    params = initial_params(cell, seed, given=given)
    return inputs, params, {s.name: values(s.type, (B,), g) for s in cell.states}
