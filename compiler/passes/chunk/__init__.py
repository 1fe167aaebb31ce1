"""Chunk: the cell whose step is C steps of a given one.

    chunk(cell, C)      inputs, outputs: one more axis C@ (after the heads); params and states: the same

Nonlinear components have none. A vector state's values are one running sum (`vector`), of a matrix state only what is
read of it is computed, from Gram matrices (`readout`, `matrix`); everything else is the body over all C steps at once
(`lift`). Components come one after another by themselves, as each value asks for those that it needs. The adjoint of
the chunk cell is the chunk form's backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from ....ir.cell import Cell
from ....ir.types import STEPS
from ...analysis.affine import Affine, Nonlinear, classify
from ..realify import named
from .body import Body, recurrent
from .lift import Unchunkable

__all__ = ["SIZE", "Unchunkable", "chunk", "whole"]

SIZE = 8        # steps of a chunk where none is asked for: the best or within 1.1 of it from K = V = 32 to 256


def chunk(cell: Cell, C: int) -> Cell:
    """The cell of C steps of `cell` (canonical, C >= 2). Raises Unchunkable with the reason where there is none."""
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
            return Body(cell, C, components, base, vectors).cell()
        except Unchunkable as why:
            first = first or why
    raise first


def whole(made: Cell) -> tuple[str, ...]:
    """The states of two and more axes of which a cell of chunks computes all elements at all steps, since they are no
    matrices of which something is read."""
    (dim,), nodes = (d for d in made.dims if d.name == STEPS), made.nodes()
    last = {s.name: nodes[s.next] for s in made.states if s.type.rank - (s.type.shape[:1] == (made.heads,)) > 1}
    return tuple(s for s, n in last.items() if n.op == "index" and nodes[n.args[0]].type.shape[n.attr("axis")] == dim)


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
