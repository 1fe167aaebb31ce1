"""Chunk: the cell whose step is C steps of a given one.

    chunk(cell, C)      inputs, outputs: one more axis C@ (after the heads); params and states: the same

Nonlinear components have none. A vector state's values are one running sum (`vector`), of a matrix state only what is
read of it is computed, from Gram matrices (`readout`, `matrix`); everything else is the body over all C steps at once
(`lift`). Components come one after another by themselves, as each value asks for those that it needs. The adjoint of
the chunk cell is the chunk form's backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ....ir.cell import Cell
from ...analysis.affine import Affine, Nonlinear, classify
from ..realify import named
from .body import Body, recurrent
from .lift import Unchunkable

__all__ = ["SIZE", "Derived", "Unchunkable", "chunk", "derive"]

SIZE = 8        # steps of a chunk where none is asked for: the best or within 1.1 of it from K = V = 32 to 256


@dataclass(frozen=True, slots=True)
class Derived:
    """The cell of chunks, and how it has states: complex ones by size and angle (`turned`: the axis of the angle, and
    how often they are read and written), states that depend on each other by small matrices (`mixed`: matrix states,
    `doubled`: vectors), and states of two and more axes of which all elements are computed at all steps, since they are
    no matrices of which something is read (`whole`)."""

    cell: Cell
    turned: dict[str, tuple[int, int]]
    mixed: tuple[str, ...]
    doubled: tuple[str, ...]
    whole: tuple[str, ...]


def chunk(cell: Cell, C: int) -> Cell:
    """The cell of C steps of `cell` (canonical, C >= 2). Raises Unchunkable with the reason where there is none."""
    return derive(cell, C).cell


def derive(cell: Cell, C: int) -> Derived:
    """The same, with what it is made of."""
    if C < 2:
        raise Unchunkable("a chunk has at least 2 steps")
    if cell.reverse:
        raise Unchunkable("it runs time backwards")
    components, base = {}, cell
    for c in classify(cell):
        if isinstance(c, Nonlinear):
            raise Unchunkable(f"{named(c.states)}: {c.reason}")
        components |= dict.fromkeys(c.states, c)
        base = c.cell
    first: Unchunkable | None = None
    for vectors in _vectors(cell, components):
        try:
            body = Body(cell, C, components, base, vectors)
            return Derived(body.cell(), body.turned, *map(tuple, (body.mixed, body.doubled, body.whole)))
        except Unchunkable as why:
            first = first or why
    raise first


def _vectors(cell: Cell, components: dict[str, Affine]) -> Iterator[frozenset[str]]:
    """States that are not to be taken as matrices: as few as possible first. Of a state that is no matrix, all elements
    are computed at all steps."""
    vectors = frozenset(s.name for s in cell.states if s.type.kind != "real" or not recurrent(components[s.name])
                        or s.type.rank - (s.type.shape[:1] == (cell.heads,)) < 2)
    matrices = dict.fromkeys(components[s.name].states for s in cell.states if s.name not in vectors)
    yield vectors
    if len(matrices) > 1:
        yield from (vectors | {*states} for states in matrices)
    if matrices:
        yield frozenset(components)
