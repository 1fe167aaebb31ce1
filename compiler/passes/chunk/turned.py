"""Complex matrix states over a chunk whose decays are known by size and angle: real ones of twice as many rows.

    S = r e^(i phi) S + x y^T,  with  S = U S~,  U = the product of the e^(i phi) so far:    S~ = r S~ + (x / U) y^T

So readers are turned by U, what is written is turned back, and the real and imaginary parts of S~ are the rows of one
state with real decays r, of which `matrix` knows everything (with phi from the inputs, this is a rotary embedding).
U is 1 before the chunk, a product of numbers of size 1, and 1 / U its conjugate. Where r is 0, so is nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ....ir.cell import State
from ....ir.types import Dim, Type
from ..algebra import is_const
from ..rewrite import Rewriter
from .forms import Scale
from .lanes import Element, Lanes, Small, element
from .matrix import Matrix, Written

Polar = tuple[str, str, str]        # size, cosine and sine: nodes of one shape


def polar(b: Rewriter, re: str, im: str) -> Polar | None:
    """size (cos + i sin) for a complex number by its parts, where its form says so."""
    x, y, one = b.node(re), b.node(im), b.full(1.0, b.type(re))
    if is_const(b, im, 0):
        return re, one, b.full(0.0, b.type(re))
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


Turn = tuple[Scale, int, str, str]


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
    """One part of a complex state. `both`: S~ [*lead, 2 K, V] (if `along` is 1: [*lead, K, 2 V]); `so_far`, `with_it`:
    U before and after every step, cosine and sine [*lead, C, K or V]."""

    both: Matrix | None = None
    along: int = 0
    imaginary: bool = False
    parts: tuple[str, str] = ("", "")
    so_far: tuple[Element, Element] = ((1, None), (1, None))
    with_it: tuple[Element, Element] = ((1, None), (1, None))

    def differs(self, axis: int) -> bool:
        return axis == self.along or self.both.differs(axis)

    # -- turning ------------------------------------------------------------------
    def beside(self, x: str, y: str) -> str:
        """Real and imaginary rows [.., K] one behind the other."""
        axis = self.b.type(x).rank - 1
        return self.b.concat((x, y), axis, self.both.state.type.shape[self.n + self.along])

    def scaled(self, x: str, by: Element, sign: int = 1) -> str:
        y = self.times(x, by[1])
        return y if by[0] * sign > 0 else self.b.op("neg", y)

    def reader(self, x: str) -> str:
        """Rows that read this part of U S~."""
        cos, sin = self.so_far
        first, second = (sin, cos) if self.imaginary else (cos, sin)
        return self.beside(self.scaled(x, first), self.scaled(x, second, 1 if self.imaginary else -1))

    def written(self, w: Written) -> Written:
        """What is written to S~."""
        x, total = (w.x, w.y)[self.along], None
        cos, sin = self.with_it
        for part in self.parts:
            if part in w.into and x:
                late = part == self.parts[1]
                rows = self.beside(self.scaled(x, sin if late else cos), self.scaled(x, cos if late else sin,
                                                                                  1 if late else -1))
                total = rows if total is None else self.b.op("add", total, rows)
        return replace(w, **{"xy"[self.along]: total or ""})

    def back(self, z: str, axis: int, turn: tuple[Element, Element]) -> str:
        """This part of U z, of z with real and imaginary rows one behind the other along an axis."""
        b, d = self.b, self.state.type.shape[self.n + self.along]
        re, im = (b.slice(z, axis, start, d) for start in (0, d.size))
        cos, sin = turn
        first, second = (sin, cos) if self.imaginary else (cos, sin)
        return b.op("add" if self.imaginary else "sub", self._spread(re, first, axis), self._spread(im, second, axis))

    def _spread(self, x: str, by: Element, axis: int) -> str:
        b, (sign, d) = self.b, by
        if d is not None:
            shape = b.type(x).shape
            x = b.op("mul", x, b.broadcast(d, shape, (*range(b.type(d).rank - 1), axis)))
        return x if sign > 0 else b.op("neg", x)

    # -- what is wanted -----------------------------------------------------------
    def gram(self, reader: str, w: Written, axis: int) -> str | None:
        return self.both.gram(self.reader(reader) if axis == self.along else reader, self.written(w), axis)

    def applied(self, gram: str, w: Written, axis: int) -> str:
        y = self.both.applied(gram, self.written(w), axis)
        return y if axis == self.along else self.back(y, self.n + 1, self.so_far)

    def of_state(self, reader: str, axis: int) -> str:
        if axis == self.along:
            return self.both.of_state(self.reader(reader), axis)
        return self.back(self.both.of_state(reader, axis), self.n + 1, self.so_far)

    def next(self, written: list[Written]) -> str:
        b, last = self.b, self.dim.size - 1
        turn = tuple((sign, d and b.index(d, self.n, last)) for sign, d in self.with_it)
        return self.back(self.both.next([self.written(w) for w in written]), self.n + self.along, turn)


def complex_state(b: Rewriter, states: Sequence[State], dim: Dim, size: tuple[str | None, ...], along: int, cos: str,
                  sin: str) -> dict[str, Matrix]:
    """The two parts of a complex state. `size` over the chunk: scalar [*lead, C], row [*lead, C, K], column [*lead, C,
    V]; `cos`, `sin` [*lead, C, K], along 1 [*lead, C, V]."""
    re, im = states
    *lead, K, V = re.type.shape
    n, d = len(lead), (K, V)[along]
    twice = Dim(f"2*{d.name}", 2 * d.size)
    wide = Type("real", (*lead, dim, d))
    names = re.name, im.name
    step = {(names[0], names[0]): element(b, cos), (names[1], names[1]): element(b, cos),
            (names[0], names[1]): element(b, b.op("neg", sin)), (names[1], names[0]): element(b, sin)}
    lanes = Lanes(b, names, wide, n, {pair: e for pair, e in step.items() if e is not None})
    h = 1
    while h < dim.size:
        h *= 2
    after = lanes.last(h)
    before = lanes.moved(after, 1, 2 * dim.size)
    scalar, *sides = size
    if sides[along] is not None:
        sides[along] = b.concat((sides[along],) * 2, n + 1, twice)
    shape = (*lead, twice, V) if along == 0 else (*lead, K, twice)
    whole = replace(re, name=f"{re.name}+{im.name}", type=re.type.with_shape(shape))
    old = b.concat(tuple(b.read("state", s.name, s.type) for s in states), n + along, twice)
    both = Matrix(b, whole, dim, scalar, *sides, old=old)

    def number(p: Small) -> tuple[Element, Element]:
        zero = (1, b.full(0.0, wide))
        return p.get((names[0], names[0]), zero), p.get((names[1], names[0]), zero)

    return {s.name: Turned(b, s, dim, both=both, along=along, imaginary=s is im, parts=names, so_far=number(before),
                           with_it=number(after)) for s in states}
