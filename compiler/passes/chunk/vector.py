"""Vector states over a chunk: all its values by one running sum, in any semiring. Of states that depend on each other,
lane by lane, by doubling: their values with what 2 h steps have added come from those with what h steps have added.
"""

from __future__ import annotations

from functools import partial, reduce

from ....ir.build import Builder
from ....ir.types import Dim, Type
from ...analysis.affine import Affine, Dense, Outer, Scale
from ..realify import named
from .lanes import Element, Lanes, element
from .lift import Lift, Unchunkable

TIMES = {"sum": "mul", "max": "add", "lse": "add"}
PLUS = {"sum": "add", "max": "max", "lse": "logaddexp"}
ONE = {"sum": 1, "max": 0, "lse": 0}
ZERO = {"sum": 0, "max": float("-inf"), "lse": float("-inf")}


Coefficient = str | None


def coefficients(b: Builder, c: Affine, names: dict[str, str]) -> tuple[dict[tuple[str, str], Coefficient],
                                                                       dict[str, Coefficient]]:
    """next s = sum of a[s, t] (x) old t, (+) b[s]: nodes of the states' shape; a is None for the unit, b for zero, and
    what is missing is zero. `names`: what the component's nodes are called in `b`. Raises Unchunkable."""
    times, plus = TIMES[c.semiring], PLUS[c.semiring]
    decays: dict[tuple[str, str], Coefficient] = {}
    offsets: dict[str, Coefficient] = {}

    for name in c.states:
        t = c.cell.state(name).type
        factors: dict[str, list[Coefficient]] = {}
        for term in c.terms[name]:
            if not all(isinstance(m, Scale) for m in term.maps):
                be = "is" if len(c.states) == 1 else "are"
                raise Unchunkable(f"{named(c.states)} {be} multiplied by a matrix at every step")
            wide = [b.broadcast(names[m.factor], t.shape, m.axes) for m in term.maps]
            factors.setdefault(term.of, []).append(reduce(partial(b.op, times), wide) if wide else None)
        for of, some in factors.items():
            one = b.full(_number(ONE[c.semiring], t), t)
            decays[name, of] = some[0] if len(some) == 1 else reduce(partial(b.op, plus), (x or one for x in some))
        parts = [names[o.value] if isinstance(o, Dense) else _outer(b, o, times, names, t) for o in c.offsets[name]]
        offsets[name] = reduce(partial(b.op, plus), parts) if parts else None
    return decays, offsets


def _outer(b: Builder, o: Outer, times: str, names: dict[str, str], t: Type) -> str:
    r = t.rank
    return b.op(times, b.broadcast(names[o.write], t.shape, tuple(range(r - 1))),
                b.broadcast(names[o.value], t.shape, (*range(r - 2), r - 1)))


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


def together(lift: Lift, states: dict[str, str], decays: dict[tuple[str, str], Coefficient],
             offsets: dict[str, Coefficient]) -> dict[str, str]:
    """The values after each step of states of one shape that depend on each other, over (+, *). `states`: their values
    before; `decays` and `offsets` as `coefficients` has them, over the chunk."""
    b, names = lift.b, tuple(states)
    t = b.type(states[names[0]])
    at, wide, C = lift.at(t.shape), t.with_shape(lift.shape(t.shape)), lift.dim.size
    step = {pair: e for pair, x in decays.items() if (e := (1, None) if x is None else element(b, x)) is not None}
    lanes = Lanes(b, names, wide, at, step)

    def first(e: Element, x: str) -> Element:
        sign, d = e
        return sign, x if d is None else b.op("mul", b.index(d, at, 0), x)

    values = {}
    for s in names:
        start = lanes.total([first(e, states[of]) for (to, of), e in step.items() if to == s])
        parts = [offsets[s], start and b.place(start, at, 0, lift.dim)]
        values[s] = lanes.total([(1, x) for x in parts if x]) or b.full(0.0, wide)
    h = 1
    while h < C:
        less = Dim(f"{lift.dim.name}-{h}", C - h)
        old = {s: b.pad(b.slice(x, at, 0, less), at, h, lift.dim) for s, x in values.items()}
        values = {s: lanes.total([(1, values[s]), *((sign, b.op("mul", d, old[of]) if d else old[of])
                                                     for (to, of), (sign, d) in lanes.last(h).items() if to == s)])
                  for s in names}
        h *= 2
    return values


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
