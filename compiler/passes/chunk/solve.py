"""Reads that are written back: the unit lower system that they solve.

Row i of it says what the read of step i sees of the steps before: (I - G c) w = (a p) . S_0 + G z, in the notation of
`matrix`. Several reads at every step are rows of one system, in the order of steps and then of reads.
"""

from __future__ import annotations

from dataclasses import replace

from ....ir.build import Builder
from ....ir.types import Dim, Type
from .lift import Unchunkable
from .matrix import Matrix, Written

Coefficient = str | int | None      # a node [*lead, C]; 0: no such term; None: 1


def solved(reads: list[tuple[Matrix, str]], axis: int, written: list[Written], locals_: list[str | None],
           coefficients: list[list[Coefficient]], error: tuple[str, int] | None = None) -> list[str]:
    """The reads (a state and a reader each, along one axis) at all steps, [*lead, C, V or K]. What is written is
    local (None: 0) + sum of coefficient [written][read] * read; it stands in the y of `written` (x, if axis is 1).
    With `error` = (e, sign), of one read w and no local: u = e + sign w, of which what is written is a multiple,
    (I - G c) u = e + sign (a p) . S_0."""
    systems: dict[tuple[int, int], str] = {}
    right: list[str] = []
    for r, (m, reader) in enumerate(reads):
        if m.differs(1 - axis):
            raise Unchunkable("low rank together with a decay that differs along the axis that is not read")
        b, rhs = m.b, m.of_state(reader, axis)
        for s, w in enumerate(written):
            g = m.gram(reader, w, axis)
            if g is None:
                continue
            if locals_[s] is not None:
                rhs = b.op("add", rhs, m.applied(g, replace(w, **{"xy"[1 - axis]: locals_[s]}), axis))
            for q, c in enumerate(coefficients[s]):
                if c != 0:
                    part = g if c is None else b.op(
                        "mul", g, b.broadcast(c, b.type(g).shape, (*range(m.n), m.n + 1)))
                    systems[r, q] = b.op("add", systems[r, q], part) if (r, q) in systems else part
        right.append(rhs)
    if error is not None:
        local, sign = error
        b = reads[0][0].b
        right = [b.op("add" if sign > 0 else "sub", local, right[0])]
    if not systems:
        return right
    if len(reads) == 1:
        return [b.solve_lower(b.op("neg", systems[0, 0]), right[0])]
    return _together(b, m.dim, m.n, systems, right)


def _together(b: Builder, steps: Dim, n: int, systems: dict[tuple[int, int], str], right: list[str]) -> list[str]:
    R = len(right)
    dim = Dim(f"{R}*{steps.name}", R * steps.size)
    at = b.op("mod", b.add("iota", (), Type("int", (dim,)), "iota"), b.literal(R, "int"))

    def member(r: int, shape: tuple[Dim, ...], axis: int) -> str:
        return b.broadcast(b.op("eq", at, b.literal(r, "int")), shape, (axis,))

    def repeated(x: str, axis: int) -> str:
        t = b.type(x)
        wide = t.with_shape((*t.shape[:axis], dim, *t.shape[axis + 1:]))
        return b.add("interleave", (x,), wide, "interleave", axis=axis, times=R)

    low, rhs = None, None
    for (r, q), g in systems.items():
        g = repeated(repeated(g, n), n + 1)
        shape = b.type(g).shape
        where = b.op("and", member(r, shape, n), member(q, shape, n + 1))
        low = b.op("select", where, b.op("neg", g), b.full(0.0, b.type(g)) if low is None else low)
    for r, x in enumerate(right):
        x = repeated(x, n)
        rhs = x if rhs is None else b.op("select", member(r, b.type(x).shape, n), x, rhs)
    w = b.solve_lower(low, rhs)
    t, narrow = b.type(w), b.type(right[0])
    return [b.add("fold", (b.op("select", member(r, t.shape, n), w, b.full(0.0, t)),), narrow, "fold",
                  axis=n, times=R) for r in range(R)]


