"""Long chunks as shorter ones, one after the other, where rounding errors would grow with their length.

What a read of the state has written back cancels: of all that the steps of a delta rule have written, a later one reads
a little, and the gradient of the first state is the small difference of what its readers have and what was written
back. Single steps take the one from the other at once; a chunk adds up each first, and both are as large as all its
steps together. It is the same with the gradients of angles (`turned`). So such chunks have at most MOST steps, and a
longer one is made of these, of which each starts from the state that the one before has left. A delta rule of 3
channels has 12 times the rounding errors of single steps in one chunk of 64, and 3 times in four of 16. Each part is
code of its own, so there are no more than PARTS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ....ir.cell import Cell, Node, Output
from ....ir.types import STEPS, Dim
from ..canonicalise import RULES
from ..dce import Dce
from ..rewrite import Rewriter
from .lift import Lift, first_axes

MOST = 16           # steps
PARTS = 8


def parts(C: int) -> list[Dim]:
    """The axes of a chunk's parts: as few as possible, whose lengths differ by at most one step."""
    n = -(-C // MOST)
    sizes = [C // n + (i < C % n) for i in range(n)]
    return [Dim(STEPS if n == 1 else f"{STEPS}/{size}", size) for size in sizes]


def composed(cell: Cell, made: Sequence[tuple[Dim, Cell]]) -> Cell:
    """`cell` over all steps of several chunks, of each of which there is its axis and its cell."""
    whole = Dim(STEPS, sum(d.size for d, _ in made))
    b, firsts = Rewriter(RULES), first_axes(cell)
    lift = Lift(b, whole, firsts)
    inputs = {p.name: p.type.with_shape(lift.shape(p.type.shape)) for p in cell.inputs}
    old: dict[str, str] = {}                # state -> its value before a part
    inits: dict[str, str] = {}
    pieces: dict[str, list[str]] = {o.name: [] for o in (*cell.outputs, *cell.sums)}

    def emit(n: Node, names: dict[str, str], start: int, dim: Dim) -> str:
        name = n.attr("name")
        if n.op == "input":
            return b.slice(b.read("input", name, inputs[name]), n.type.shape.index(dim), start, dim)
        return old[name] if n.op == "state" and name in old else b.emit(n, names)

    start = 0
    for dim, part in made:
        names: dict[str, str] = {}
        for n in part.body:
            names[n.name] = emit(n, names, start, dim)
        inits = inits or {s.name: names[s.init] for s in part.states}
        old = {s.name: names[s.next] for s in part.states}
        for o in (*part.outputs, *part.sums):
            pieces[o.name].append(names[o.value])
        start += dim.size

    def joined(o: Output) -> Output:
        """The outputs of all parts, one behind the other."""
        axis = b.type(pieces[o.name][0]).shape.index(made[0][0])
        return replace(o, value=b.concat(tuple(pieces[o.name]), axis, whole))

    def total(o: Output) -> Output:
        value, *more = pieces[o.name]
        for x in more:
            value = b.op("add", value, x)
        return replace(o, value=value)

    first = made[0][1]
    states = tuple(replace(s, init=inits[s.name], next=old[s.name]) for s in first.states)
    ports = tuple(replace(p, type=inputs[p.name]) for p in first.inputs)
    outputs, sums = tuple(map(joined, first.outputs)), tuple(map(total, first.sums))
    return Dce()(replace(first, name=f"{cell.name}.chunk{whole.size}", dims=(*cell.dims, whole), inputs=ports,
                         states=states, outputs=outputs, sums=sums, body=tuple(b.nodes)))
