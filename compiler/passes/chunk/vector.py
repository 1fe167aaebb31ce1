"""Vector states over a chunk: all its values by one running sum, in any semiring."""

from __future__ import annotations

from ....ir.build import Builder
from ....ir.types import Dim, Type
from ...analysis.affine import Affine, Dense, Scale
from .lift import Lift, Unchunkable

TIMES = {"sum": "mul", "max": "add", "lse": "add"}
PLUS = {"sum": "add", "max": "max", "lse": "logaddexp"}
ONE = {"sum": 1, "max": 0, "lse": 0}
ZERO = {"sum": 0, "max": float("-inf"), "lse": float("-inf")}


def coefficients(b: Builder, c: Affine, names: dict[str, str]) -> tuple[str | None, str | None]:
    """next = a (x) old (+) b of a state that is a component of its own: nodes of the state's shape; None for a = 1
    and b = 0. `names`: what the component's nodes are called in `b`. Raises Unchunkable."""
    (name,) = c.states
    t = c.cell.state(name).type
    times, plus = TIMES[c.semiring], PLUS[c.semiring]

    def added(x: str | None, y: str) -> str:
        return y if x is None else b.op(plus, x, y)

    decay, offset = None, None
    for term in c.terms[name]:
        if not all(isinstance(m, Scale) for m in term.maps):
            raise Unchunkable(f"{name} is multiplied by a matrix at every step")
        factor = None
        for m in term.maps:
            wide = b.broadcast(names[m.factor], t.shape, m.axes)
            factor = wide if factor is None else b.op(times, factor, wide)
        if factor is None and len(c.terms[name]) == 1:
            continue
        decay = added(decay, b.full(_number(ONE[c.semiring], t), t) if factor is None else factor)
    for o in c.offsets[name]:
        if isinstance(o, Dense):
            offset = added(offset, names[o.value])
        else:
            r = t.rank
            x = b.broadcast(names[o.write], t.shape, tuple(range(r - 1)))
            y = b.broadcast(names[o.value], t.shape, (*range(r - 2), r - 1))
            offset = added(offset, b.op(times, x, y))
    return decay, offset


def _number(x: float, t: Type) -> float | int:
    return int(x) if t.kind == "int" else float(x)


def values(lift: Lift, semiring: str, state: str, decay: str | None, offset: str | None, first: bool) -> str:
    """The state's values after each step of the chunk. `state`: its value before; `decay` and `offset` over the
    chunk; `first`: a maximum takes the offset as its first operand."""
    b = lift.b
    t = b.type(state)
    at, wide = lift.at(t.shape), t.with_shape(lift.shape(t.shape))
    if offset is None:
        offset = b.full(_number(ZERO[semiring], t) if t.kind == "int" else ZERO[semiring], wide)
    if decay is None and semiring == "sum":
        total = b.add("cumsum", (offset,), wide, "cumsum", axis=at, reverse=False)
        return b.op("add", total, lift.spread(state))
    if decay is None:
        decay = b.full(_number(ONE[semiring], t), wide)
    start = b.op(TIMES[semiring], b.index(decay, at, 0), state)
    if semiring == "sum":
        return b.running(decay, b.op("add", offset, b.place(start, at, 0, lift.dim)), at)
    both = (start, b.index(offset, at, 0))
    start = b.op(PLUS[semiring], *(both[::-1] if first else both))
    return b.running(decay, joined(lift, start, b.slice(offset, at, 1, _less(lift.dim))), at, semiring)


def previous(lift: Lift, state: str, after: str) -> str:
    """The state's values before each step, from the value before the chunk and those after each step."""
    at = lift.at(lift.b.type(state).shape)
    return joined(lift, state, lift.b.slice(after, at, 0, _less(lift.dim)))


def joined(lift: Lift, first: str, rest: str) -> str:
    """One value, then C-1 of them."""
    at = lift.at(lift.b.type(first).shape)
    return lift.b.concat((lift.b.place(first, at, 0, Dim("1", 1)), rest), at, lift.dim)


def _less(dim: Dim) -> Dim:
    return Dim(f"{dim.name}-1", dim.size - 1)
