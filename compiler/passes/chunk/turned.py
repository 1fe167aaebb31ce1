"""Complex matrix states over a chunk whose decays are known by size and angle: real ones of twice as many rows.

    S = r e^(i phi) S + x y^T,  with  S = U S~,  U = the product of the e^(i phi) so far:    S~ = r S~ + (x / U) y^T

So readers are turned by U, what is written is turned back, and the real and imaginary parts of S~ are the rows of one
state with real decays r, of which `matrix` knows everything (with phi from the inputs, this is a rotary embedding).
U is 1 before the chunk, a product of numbers of size 1, and 1 / U its conjugate. Where r is 0, so is nothing else.

An angle's gradient comes as what readers after it have of it less what was written after it has, and most of that
cancels: its rounding errors grow with the chunk, and so long chunks are made of short ones (`composed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

from ....ir.cell import State
from ....ir.types import Dim, Type
from ..algebra import constant, is_const
from ..rewrite import Rewriter
from .forms import Scale
from .lanes import Element, Lanes, element
from .matrix import Matrix, Written

Polar = tuple[str, str, str]        # size, cosine and sine: nodes of one shape
Number = tuple[Element, Element]    # cosine and sine


def polar(b: Rewriter, re: str, im: str) -> Polar | None:
    """size (cos + i sin) for a complex number by its parts, where its form says so."""
    x, y, one = b.node(re), b.node(im), b.full(1.0, b.type(re))
    if is_const(b, im, 0):
        return re, one, b.full(0.0, b.type(re))
    p, q = constant(b, re), constant(b, im)
    if p is not None and q is not None:
        size = math.hypot(p, q)
        return tuple(b.full(z, b.type(re)) for z in (size, p / size, q / size))
    if x.op == y.op == "neg":
        inner = polar(b, x.args[0], y.args[0])
        return inner and (b.op("neg", inner[0]), *inner[1:])
    if x.op == y.op == "select" and x.args[0] == y.args[0]:
        arms = [polar(b, p, q) for p, q in zip(x.args[1:], y.args[1:])]
        return None if None in arms else tuple(b.op("select", x.args[0], p, q) for p, q in zip(*arms))
    if x.op == y.op == "broadcast" and x.attrs == y.attrs:
        inner = polar(b, x.args[0], y.args[0])
        return inner and tuple(b.broadcast(p, x.type.shape, x.attr("axes")) for p in inner)
    if x.op == "cos" and y.op == "sin" and x.args == y.args:
        return one, re, im
    if x.op == y.op == "mul":
        for i in range(2):
            for j in range(2):
                if x.args[i] == y.args[j] and (inner := polar(b, x.args[1 - i], y.args[1 - j])) is not None:
                    return b.op("mul", inner[0], x.args[i]), *inner[1:]
    return None


Turn = tuple[Scale, int, str, str]      # size, axis of the angle, cosine, sine


def turns(b: Rewriter, states: Sequence[str], scales: dict[tuple[str, str], Scale]) -> Turn | None:
    """Size, axis of the angle, cosine and sine of what two states are multiplied by as the real and imaginary parts of
    one: [[a, -b], [b, a]]. None where they are not (and where all is one number, which `coupled` has)."""
    if len(states) != 2 or len(scales) != 4:
        return None
    re, im = states
    a, other, down, up = (_one(b, scales[pair]) for pair in ((re, re), (im, im), (re, im), (im, re)))
    for place in ("row", "column"):
        p, q, r = (getattr(s, place) for s in (a, up, down))
        alike = [replace(s, **{place: None}) for s in (a, other, down, up)]
        if None in (p, q, r) or other != a or alike != alike[:1] * 4:
            continue
        positive, negative = element(b, q), element(b, r)
        if positive and negative == (-positive[0], positive[1]) and (found := polar(b, p, q)) is not None:
            return replace(a, **{place: found[0]}), int(place == "column"), *found[1:]
    return None


def _one(b: Rewriter, s: Scale) -> Scale:
    """With the scalar in the decay of the rows or of the columns, if there is one."""
    place = "row" if s.row is not None else "column"
    if s.scalar is None or (x := getattr(s, place)) is None:
        return s
    wide = b.broadcast(s.scalar, b.type(x).shape, tuple(range(b.type(s.scalar).rank)))
    return replace(s, **{"scalar": None, place: b.op("mul", x, wide)})


@dataclass
class Turned(Matrix):
    """One part of a complex state, with the decays r. `both`: S~ [*lead, 2 K, V] (if `along` is 1: [*lead, K, 2 V]), of
    which only decays and products of rows are used; `members`: the parts by name; `before_it`, `with_it`: U before and
    after every step, cosine and sine [*lead, C, K or V]."""

    both: Matrix | None = None
    along: int = 0
    members: dict[str, Turned] | None = None
    before_it: Number = ((1, None), (1, None))
    with_it: Number = ((1, None), (1, None))

    def __post_init__(self):
        super().__post_init__()
        self.imaginary = bool(self.members)
        self.members[self.state.name] = self

    def differs(self, axis: int) -> bool:
        return axis == self.along or super().differs(axis)

    # -- turning ------------------------------------------------------------------
    def scaled(self, x: str, by: Element, sign: int = 1) -> Element:
        return by[0] * sign, self.times(x, by[1])

    def node(self, e: Element) -> str:
        return e[1] if e[0] > 0 else self.b.op("neg", e[1])

    def beside(self, re: Element, im: Element) -> str:
        """Rows of the real and of the imaginary part, one behind the other."""
        twice = self.both.state.type.shape[self.n + self.along]
        return self.b.concat((self.node(re), self.node(im)), self.n + 1, twice)

    def apart(self, z: str, axis: int) -> tuple[str, str]:
        d = self.state.type.shape[self.n + self.along]
        return tuple(self.b.slice(z, axis, start, d) for start in (0, d.size))

    def part(self, re: Element, im: Element) -> str:
        """This part of (cos + i sin)(x + i y) from cos x and sin y; if it is the imaginary one, sin x and cos y."""
        op = "add" if re[0] * im[0] * (1 if self.imaginary else -1) > 0 else "sub"
        y = self.b.op(op, re[1], im[1])
        return y if re[0] > 0 else self.b.op("neg", y)

    def turned(self, z: str, turn: Number) -> str:
        """This part of U z, rows [.., K] of z one behind the other."""
        (re, im), (cos, sin) = self.apart(z, self.n + 1), turn[::-1] if self.imaginary else turn
        return self.part(self.scaled(re, cos), self.scaled(im, sin))

    def reader(self, x: str) -> str:
        """Rows that read this part of U S~."""
        first, second = self.before_it[::-1] if self.imaginary else self.before_it
        return self.beside(self.scaled(x, first), self.scaled(x, second, 1 if self.imaginary else -1))

    def written(self, w: Written) -> Written:
        """What is written to S~: x / U, i x / U."""
        x, (cos, sin), rows = (w.x, w.y)[self.along], self.with_it, []
        for name, m in self.members.items() if x else ():
            if name in w.into:
                first, second, sign = (sin, cos, 1) if m.imaginary else (cos, sin, -1)
                rows.append(self.beside(self.scaled(x, first), self.scaled(x, second, sign)))
        return replace(w, **{"xy"[self.along]: reduce(partial(self.b.op, "add"), rows) if rows else ""})

    # -- what is wanted -----------------------------------------------------------
    def gram(self, reader: str, w: Written, axis: int) -> str | None:
        return self.both.gram(self.reader(reader) if axis == self.along else reader, self.written(w), axis)

    def applied(self, gram: str, w: Written, axis: int) -> str:
        y = self.both.applied(gram, self.written(w), axis)
        return y if axis == self.along else self.turned(y, self.before_it)

    def of_state(self, reader: str, axis: int) -> str:
        b, both, parts = self.b, self.both, []
        scalar, *sides = (p and both.before(p) for p in (both.scalar, both.row, both.column))
        spec = "ik,kv->iv" if axis == 0 else "iv,kv->ik"
        if axis == self.along:
            reader = self.reader(reader)
        for factor in (sides[axis], scalar):
            reader = self.times(reader, factor)
        readers = self.apart(reader, self.n + 1) if axis == self.along else (reader, reader)
        parts = [self.contract(x, m.old, spec) for x, m in zip(readers, self.members.values())]
        if axis == self.along:
            return self.times(b.op("add", *parts), sides[1 - axis])
        across = sides[1 - axis] and self.apart(sides[1 - axis], self.n + 1)
        parts = [self.times(y, d) for y, d in zip(parts, across or (None, None))]
        cos, sin = self.before_it[::-1] if self.imaginary else self.before_it
        return self.part(self.scaled(parts[0], cos), self.scaled(parts[1], sin))

    def next(self, written: list[Written]) -> str:
        b, both, last = self.b, self.both, self.dim.size - 1
        cos, sin = ((sign, d and b.index(d, self.n, last)) for sign, d in self.with_it)
        scalar, *sides = (p and self.whole(p) for p in (self.scalar, self.row, self.column))
        parts = []
        for turn, m in zip((sin, cos) if self.imaginary else (cos, sin), self.members.values()):
            here = sides[self.along]
            factors = [*sides]
            factors[self.along] = turn[1] if here is None else here if turn[1] is None else b.op("mul", here, turn[1])
            parts.append((turn[0], self._scaled(m.old, scalar, *factors)))
        s = self.part(*parts)
        shape = (*self.lead, self.dim, self.state.type.shape[self.n + self.along])
        wide = tuple((sign, d and b.broadcast(d, shape, (*range(self.n), self.n + 1))) for sign, d in (cos, sin))
        for w in map(self.written, written):
            x, y = w.x, w.y
            x = self.times(x, both.scalar and both.after(both.scalar))
            x, y = (self.times(z, d and both.after(d)) for z, d in ((x, both.row), (y, both.column)))
            if self.along == 0:
                x = self.turned(x, wide)
            else:
                y = self.turned(y, wide)
            s = b.op("add", s, self.contract(x, y, "ik,iv->kv"))
        return s


def complex_state(b: Rewriter, states: Sequence[State], dim: Dim, size: tuple[str | None, ...], along: int, cos: str,
                  sin: str) -> dict[str, Matrix]:
    """The two parts of a complex state. `size` over the chunk: scalar [*lead, C], row [*lead, C, K], column [*lead, C,
    V]; `cos`, `sin` [*lead, C, K], along 1 [*lead, C, V]."""
    re, im = (s.name for s in states)
    *lead, K, V = states[0].type.shape
    n, d = len(lead), (K, V)[along]
    step = {(re, re): element(b, cos), (im, im): element(b, cos), (re, im): element(b, b.op("neg", sin)),
            (im, re): element(b, sin)}
    wide = Type("real", (*lead, dim, d))
    lanes = Lanes(b, (re, im), wide, n, {pair: e for pair, e in step.items() if e is not None})
    with_it = lanes.last(1 << (dim.size - 1).bit_length())
    before_it = lanes.moved(with_it, 1, 2 * dim.size)
    twice, (scalar, *sides) = Dim(f"2*{d.name}", 2 * d.size), size
    if sides[along] is not None:
        sides[along] = b.concat((sides[along],) * 2, n + 1, twice)
    shape = (*lead, twice, V) if along == 0 else (*lead, K, twice)
    whole = replace(states[0], name=f"{re}+{im}", type=states[0].type.with_shape(shape))
    both, members, zero = Matrix(b, whole, dim, scalar, *sides), {}, (1, b.full(0.0, wide))
    turn = [tuple(p.get((s, re), zero) for s in (re, im)) for p in (before_it, with_it)]
    return {s.name: Turned(b, s, dim, *size, both=both, along=along, members=members, before_it=turn[0],
                           with_it=turn[1]) for s in states}
