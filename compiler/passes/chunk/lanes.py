"""Small matrices lane by lane: products of them along the steps of a chunk, for states that depend on each other.

A transition between m states that mixes no channels is an m x m matrix at every step and lane: its elements are rows
[*lead, C, ...] by the two states. The real and imaginary parts of a complex state have [[a, -b], [b, a]], delays
[[a, b], [1, 0]]. Elements that are equal up to their sign are made once, so that a product of complex numbers is one
here, too; nothing is done with elements that are 0 or 1.

Products of the steps of a stretch are made by doubling: those of 2 h steps from those of h steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ....ir.types import Dim, Type
from ..algebra import constant
from ..rewrite import Rewriter

Element = tuple[int, str | None]            # sign and node, None: 1
Small = dict[tuple[str, str], Element]      # by two states; what is missing is 0


def element(b: Rewriter, name: str) -> Element | None:
    """A node as an element; None: 0."""
    sign = 1
    if constant(b, name) is None and (positive := _negated(b, name)) is not None:
        name, sign = positive, -1
    value = constant(b, name)
    return None if value == 0 else (sign, None) if value == 1 else (-sign, None) if value == -1 else (sign, name)


def _negated(b: Rewriter, name: str) -> str | None:
    """-x of a node x that is negative by its form."""
    n = b.node(name)
    if constant(b, name) == 0:
        return name
    if n.op == "neg":
        return n.args[0]
    if n.op == "mul":
        for x, y in (n.args, n.args[::-1]):
            if constant(b, x) is None and (inside := _negated(b, x)) is not None:
                return b.op("mul", inside, y)
    if n.op in ("select", "broadcast"):
        first = n.op == "select"
        inside = [_negated(b, a) for a in n.args[first:]]
        if None not in inside:
            return b.add(n.op, (*n.args[:first], *inside), n.type, n.name, **dict(n.attrs))
    return None


@dataclass
class Lanes:
    """`states`: the rows and columns of the matrices `step`, whose elements are of `type`, which has C at `axis`."""

    b: Rewriter
    states: tuple[str, ...]
    type: Type
    axis: int
    step: Small
    cache: dict = field(default_factory=dict)

    def __post_init__(self):
        self.dim = self.type.shape[self.axis]
        self.one = {(s, s): (1, None) for s in self.states}

    # -- products -----------------------------------------------------------------
    def total(self, parts: list[Element]) -> str | None:
        """x - y + ..., the positive ones first, all of one type; None: 0."""
        if not parts:
            return None
        (sign, out), *rest = sorted(parts, key=lambda part: -part[0])
        out = out if sign > 0 else self.b.op("neg", out)
        for sign, x in rest:
            out = self.b.op("add" if sign > 0 else "sub", out, x)
        return out

    def times(self, p: Small, q: Small, type: Type | None = None) -> Small:
        """p after q; `type` of their elements, if it is not that of the steps."""
        out = {}
        for s in self.states:
            for t in self.states:
                terms = [(p[s, u], q[u, t]) for u in self.states if (s, u) in p and (u, t) in q]
                if terms:
                    out[s, t] = self._dot(terms, type or self.type)
        return out

    def _dot(self, terms: list[tuple[Element, Element]], type: Type) -> Element:
        """A sum of products. The order of factors and terms and the sign of the first one are always the same, so
        that the builder makes it once."""
        signed = sorted(((p * q, sorted((x or "", y or ""))) for (p, x), (q, y) in terms), key=lambda part: part[1])
        first = signed[0][0]
        parts = [(sign * first, x and y and self.b.op("mul", x, y) or x or y or None) for sign, (x, y) in signed]
        if len(parts) == 1:
            return first, parts[0][1]
        return first, self.total([(sign, x or self.b.full(1.0, type)) for sign, x in parts])

    # -- along the steps ------------------------------------------------------------
    def moved(self, p: Small, by: int, size: int) -> Small:
        """What lies `by` steps before (behind, if negative) in the same stretch of `size` steps; where there is no
        such step, the unit matrix."""
        return {pair: self._moved(pair[0] == pair[1], p.get(pair), by, size) for pair in {**self.one, **p}}

    def _moved(self, diagonal: bool, e: Element | None, by: int, size: int) -> Element:
        b, n, C, real = self.b, self.axis, self.dim.size, self.type
        if diagonal and e == (1, None):
            return e
        sign, x = e or (1, b.full(0.0, real))
        less = Dim(f"{self.dim.name}-{abs(by)}", C - abs(by))
        there = b.pad(b.slice(x or b.full(1.0, real), n, max(0, -by), less), n, max(0, by), self.dim)
        at = b.add("iota", (), Type("int", (self.dim,)), "iota")
        place = b.op("mod", at, b.literal(size, "int"))
        if by > 0:
            here = b.op("ge", place, b.literal(by, "int"))
        else:
            here = b.op("and", b.op("lt", place, b.literal(size + by, "int")), b.op("lt", at, b.literal(C + by, "int")))
        here = b.broadcast(here, real.shape, (n,))
        return sign, b.op("select", here, there, b.full(float(sign * diagonal), real))

    def before(self, size: int) -> Small:
        """The product of the steps before each one in its stretch of `size` steps."""
        return self._along(size, 1)

    def after(self, size: int) -> Small:
        """The product of the steps after each one in its stretch of `size` steps."""
        return self._along(size, -1)

    def _along(self, size: int, way: int) -> Small:
        if (size, way) not in self.cache:
            out, h = self.moved(self.step, way, size) if size > 1 else self.one, 1
            while h < min(size, self.dim.size) - 1:
                there = self.moved(out, way * h, size)
                out, h = self.times(*((out, there)[::way])), 2 * h
            self.cache[size, way] = out
        return self.cache[size, way]

    def last(self, h: int) -> Small:
        """The product of each step and the h - 1 before it (fewer at the start of the chunk); h is a power of two."""
        if h == 1:
            return self.step
        if h not in self.cache:
            half = self.last(h // 2)
            self.cache[h] = self.times(half, self.moved(half, h // 2, 2 * self.dim.size))
        return self.cache[h]

    # -- pairs of steps -------------------------------------------------------------
    def halves(self) -> Iterator[int]:
        """h = 1, 2, 4, ...: every pair of steps lies in the second and the first half of one stretch of 2 h steps."""
        h = 1
        while h < self.dim.size:
            yield h
            h *= 2

    def across(self, h: int, type: Type) -> str:
        """Where the axes i and j of a type [*lead, C, C, ...] are such a pair."""
        b, n, two = self.b, self.axis, type.shape[self.axis:self.axis + 2]
        half = b.op("floordiv", b.add("iota", (), Type("int", (self.dim,)), "iota"), b.literal(h, "int"))
        second = b.op("eq", b.op("mod", half, b.literal(2, "int")), b.literal(1, "int"))
        before = b.op("sub", half, b.literal(1, "int"))
        here = b.op("and", b.broadcast(second, two, (0,)),
                    b.op("eq", b.broadcast(before, two, (0,)), b.broadcast(half, two, (1,))))
        return b.broadcast(here, type.shape, (n, n + 1))
