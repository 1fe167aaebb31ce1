"""Chunk: the cell whose step is C steps of a given one.

    chunk(cell, C)      inputs, outputs: one more axis C@ (after the heads); params and states: the same

Nonlinear components have none. A vector state's values are one running sum (`vector`), of a matrix state only what is
read of it is computed, from Gram matrices (`readout`, `matrix`); everything else is the body over all C steps at once
(`lift`). Components come one after another by themselves, as each value asks for those that it needs. Where roundings
would grow with the chunk, a long one is made of short ones (`composed`). The adjoint of the chunk cell is the chunk
form's backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ....ir.cell import Cell
from ....ir.types import STEPS, Dim
from ...analysis.affine import Affine, Nonlinear, classify
from ..realify import named
from .body import Body, recurrent
from .composed import MOST, PARTS, composed, parts
from .lift import Unchunkable

__all__ = ["SIZE", "Derived", "Unchunkable", "chunk", "derive"]

SIZE = 8        # steps of a chunk where none is asked for: the best or within 1.1 of it from K = V = 32 to 256


@dataclass(frozen=True, slots=True)
class Derived:
    """The cell of chunks, and how it has states: complex ones by size and angle (`turned`: the axis of the angle, and
    how often they are read and written), states that depend on each other by small matrices (`mixed`: matrix states,
    `doubled`: vectors), and states of two and more axes of which all elements are computed at all steps, since they are
    no matrices of which something is read (`whole`). `parts`: the steps of the chunks that it is made of; `cancels`:
    whether it is made of short ones, if it may, since roundings would grow with their steps (`composed`)."""

    cell: Cell
    parts: tuple[int, ...]
    cancels: bool
    turned: dict[str, tuple[int, int]]
    mixed: tuple[str, ...]
    doubled: tuple[str, ...]
    whole: tuple[str, ...]


def chunk(cell: Cell, C: int) -> Cell:
    """The cell of C steps of `cell` (canonical, C >= 2). Raises Unchunkable with the reason where there is none."""
    return derive(cell, C).cell


def derive(cell: Cell, C: int, in_parts: bool = True) -> Derived:
    """The same, with what it is made of. Not `in_parts`: one chunk, for those that compute in float64."""
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
    dims = parts(C) if in_parts else [Dim(STEPS, C)]

    def over(dim: Dim) -> tuple[Body, Cell]:
        body = Body(cell, dim, components, base, vectors)
        return body, body.cell()

    first: Unchunkable | None = None
    for vectors in _vectors(cell, components):
        try:
            body, made = over(dims[0])
            break
        except Unchunkable as why:
            first = first or why
    else:
        raise first
    if len(dims) > 1 and not body.cancels:
        dims = [Dim(STEPS, C)]
        body, made = over(dims[0])
    if len(dims) > PARTS:
        raise Unchunkable(f"most of what its steps add up cancels, so that long chunks are made of parts of {MOST} "
                          f"steps, each compiled by itself: ask for chunk({MOST * PARTS}) or less")
    if len(dims) > 1:
        by_dim = {dims[0]: made} | {dim: over(dim)[1] for dim in {*dims[1:]} - {dims[0]}}
        made = composed(cell, [(dim, by_dim[dim]) for dim in dims])
    return Derived(made, tuple(d.size for d in dims), body.cancels, body.turned,
                   *map(tuple, (body.mixed, body.doubled, body.whole)))


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
