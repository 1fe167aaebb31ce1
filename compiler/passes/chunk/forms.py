"""Matrices made of matrix states: scale * state, plus outer products, plus multiples of constant matrices."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ....ir.cell import Node
from ....ir.ops import spec_parts
from ....ir.types import Type
from ..algebra import is_const
from ..rewrite import Rewriter
from .lift import place

FEW = 8         # terms up to which a sum of outer products is written out


@dataclass(frozen=True, slots=True)
class Scale:
    """scalar * row(k) * column(v): nodes [*lead], [*lead, K], [*lead, V]; None is 1."""

    scalar: str | None = None
    row: str | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """sum of scale * (old value of a state), by name, + sum of outer products of x [*lead, K] and y [*lead, V],
    + sum of scale * constant (a node that depends on parameters only), by node."""

    scales: dict[str, Scale]
    outers: tuple[tuple[str, str], ...] = ()
    constants: dict[str, Scale] = field(default_factory=dict)


class NotLinear(Exception):
    """A value is no `Form`: says why."""


class Forms:
    """Sums and products of forms; new nodes go into `b`. Everything raises NotLinear where the result is no form."""

    def __init__(self, b: Rewriter):
        self.b = b

    def scaled(self, f: Form, s: Scale) -> Form:
        t, x = self._times, self._times(s.scalar, s.row)
        scales, constants = ({k: self.product(p, s) for k, p in some.items()} for some in (f.scales, f.constants))
        return Form(scales, tuple((t(x, a), t(s.column, c)) for a, c in f.outers), constants)

    def negative(self, f: Form, t: Type) -> Form:
        """-f of type t: of each decay one part is negated, so that signs stay in sight."""
        b = self.b

        def minus(s: Scale) -> Scale:
            place = next((p for p in ("row", "column", "scalar") if getattr(s, p) is not None), None)
            if place is None:
                return Scale(b.full(-1.0, Type("real", t.shape[:-2])))
            return replace(s, **{place: b.op("neg", getattr(s, place))})
        scales, constants = ({k: minus(s) for k, s in some.items()} for some in (f.scales, f.constants))
        return Form(scales, tuple((b.op("neg", x), y) for x, y in f.outers), constants)

    def masked(self, cond: str, f: Form, when: bool) -> Form:
        """The form where a condition (of one axis at most) is `when`, elsewhere 0."""
        b, t = self.b, self.b.type(cond)
        m = self.separate(cond)
        (place, c), = [(i, p) for i, p in enumerate((m.scalar, m.row, m.column)) if p is not None] or [(0, None)]

        def only(x: str) -> str:
            wide = b.broadcast(c, b.type(x).shape, tuple(range(b.type(c).rank)))
            zero = b.full(0.0, b.type(x))
            return b.op("select", wide, x, zero) if when else b.op("select", wide, zero, x)

        def part(s: Scale) -> Scale:
            parts = [s.scalar, s.row, s.column]
            shape = t.shape[:-2] + ((), (t.shape[-2],), (t.shape[-1],))[place]
            parts[place] = only(parts[place] or b.full(1.0, Type("real", shape)))
            return Scale(*parts)
        # Both factors, where the condition is of all elements: one alone may be infinite where it is not to count.
        outers = tuple((x if place == 2 else only(x), y if place == 1 else only(y)) for x, y in f.outers)
        scales, constants = ({k: part(s) for k, s in some.items()} for some in (f.scales, f.constants))
        return Form(scales, outers, constants)

    def chosen(self, cond: str, f: Form, g: Form) -> Form:
        """select(cond, f, g). A condition of the whole matrix chooses decays of the rows and of the columns each by
        themselves (their sum were no product of two)."""
        c = self.separate(cond)
        if c.scalar is None or c.row is not None or c.column is not None:
            return self.added(self.masked(cond, f, True), self.masked(cond, g, False))
        parts = (self.masked(cond, Form({}, h.outers), when) for h, when in ((f, True), (g, False)))
        outers = self.added(*parts).outers
        scales, constants = ({k: self._either(c.scalar, mine.get(k), theirs.get(k)) for k in {**mine, **theirs}}
                             for mine, theirs in ((f.scales, g.scales), (f.constants, g.constants)))
        return Form(scales, outers, constants)

    def _either(self, cond: str, p: Scale | None, q: Scale | None) -> Scale:
        """select(cond, p, q), part by part; of one that is missing, 0, one part is."""
        b, some = self.b, p or q
        zero = next((place for place in ("row", "column") if getattr(some, place) is not None), "scalar")

        def part(place: str) -> str | None:
            x, y = (s and getattr(s, place) for s in (p, q))
            missing = None in (p, q) and place == zero
            if x is None and y is None and not missing:
                return None
            t = b.type(x or y) if x or y else b.type(cond).with_kind("real")
            x, y = (z or b.full(0.0 if s is None and missing else 1.0, t) for s, z in ((p, x), (q, y)))
            return b.op("select", b.broadcast(cond, t.shape, tuple(range(b.type(cond).rank))), x, y)
        return Scale(*map(part, ("scalar", "row", "column")))

    def added(self, f: Form, g: Form) -> Form:
        scales, constants = dict(f.scales), dict(f.constants)
        for mine, theirs in ((scales, g.scales), (constants, g.constants)):
            for k, s in theirs.items():
                mine[k] = self.sum(mine[k], s) if k in mine else s
        return Form(scales, tuple(self._merged(f.outers + g.outers)), constants)

    def _merged(self, outers):
        """x y^T + x z^T = x (y + z)^T, and the same on the other side."""
        out: list[tuple[str, str]] = []
        for x, y in outers:
            for i, (p, q) in enumerate(out):
                if p == x or q == y:
                    out[i] = (x, self.b.op("add", q, y)) if p == x else (self.b.op("add", p, x), y)
                    break
            else:
                out.append((x, y))
        return out

    # -- scales ---------------------------------------------------------------
    def _times(self, x: str | None, y: str | None) -> str | None:
        """x * y, the one with fewer axes spread over the other's last; None is 1."""
        if x is None or y is None:
            return y if x is None else x
        b = self.b
        shape = max(b.type(x).shape, b.type(y).shape, key=len)
        x, y = (b.broadcast(z, shape, tuple(range(b.type(z).rank))) for z in (x, y))
        return b.op("mul", y, x)

    def product(self, p: Scale, q: Scale) -> Scale:
        t = self._times
        return Scale(t(p.scalar, q.scalar), t(p.row, q.row), t(p.column, q.column))

    def sum(self, p: Scale, q: Scale) -> Scale:
        """p + q where that is a product again."""
        b = self.b
        for same in ("column", "row"):
            x, y = getattr(p, same), getattr(q, same)
            if x != y:
                continue
            other = "row" if same == "column" else "column"
            if getattr(p, other) is None and getattr(q, other) is None:
                one = next((b.type(s) for s in (p.scalar, q.scalar) if s is not None), None)
                if one is None:
                    raise NotLinear("the same matrix is added to itself")
                u, v = (s or b.full(1.0, one) for s in (p.scalar, q.scalar))
                return replace(p, scalar=b.op("add", u, v))
            u, v = (self._times(s.scalar, getattr(s, other)) for s in (p, q))
            t = max((b.type(z) for z in (u, v) if z is not None), key=lambda t: t.rank)
            u, v = (b.full(1.0, t) if z is None else b.broadcast(z, t.shape, tuple(range(b.type(z).rank)))
                    for z in (u, v))
            return Scale(None, **{other: b.op("add", u, v), same: x})
        raise NotLinear("the sum of a decay of the rows and one of the columns is no product of two decays")

    def separate(self, name: str) -> Scale:
        """A matrix as a product of a scalar, a function of its row and one of its column."""
        b = self.b
        n = b.node(name)
        lead = n.type.shape[:-2]
        if n.op == "mul":
            return self.product(*map(self.separate, n.args))
        if n.op == "neg":
            return self.product(self.separate(n.args[0]), Scale(b.full(-1.0, Type("real", lead))))
        if n.op == "broadcast":
            x, axes, r = n.args[0], n.attr("axes"), len(lead)
            if r + 1 not in axes:
                if r not in axes:
                    return Scale(b.broadcast(x, lead, axes))
                return Scale(row=b.broadcast(x, n.type.shape[:-1], axes))
            if r not in axes:
                return Scale(column=b.broadcast(x, (*lead, n.type.shape[-1]), tuple(a - (a > r) for a in axes)))
        raise NotLinear("an element-wise factor that is no product of one of the rows and one of the columns "
                        f"({place(n)})")

    def known(self, name: str) -> Form:
        """A matrix known without the states."""
        try:
            return Form({}, self.outers(name))
        except NotLinear:
            n = self.b.node(name)
            if not self._varies(name):
                return Form({}, (), {name: Scale()})
            if n.op == "add":
                return self.added(*map(self.known, n.args))
            for whole, other in (n.args, n.args[::-1]) if n.op == "mul" else ():
                if not self._varies(whole):
                    return self.scaled(self.known(whole), self.separate(other))
            raise

    def _varies(self, name: str) -> bool:
        """Whether a node depends on more than parameters."""
        stack, seen = [name], set()
        while stack:
            n = self.b.node(stack.pop())
            if n.op in ("input", "state", "random"):
                return True
            stack += [a for a in n.args if a not in seen]
            seen.update(n.args)
        return False

    def outers(self, name: str) -> tuple[tuple[str, str], ...]:
        """A matrix known without the states as a sum of outer products."""
        b = self.b
        n = b.node(name)
        if is_const(b, name, 0):
            return ()
        if n.op in ("add", "sub", "neg"):
            parts = [self.outers(a) for a in n.args]
            if n.op != "add":
                parts[-1] = tuple((b.op("neg", x), y) for x, y in parts[-1])
            return tuple(self._merged(sum(parts, ())))
        if n.op == "select":
            parts = (self.masked(n.args[0], Form({}, self.outers(a)), w) for a, w in zip(n.args[1:], (True, False)))
            return tuple(self._merged(sum((p.outers for p in parts), ())))
        if n.op == "contract" and n.attr("semiring") == "sum":
            return self._summed_outers(n)
        try:
            s = self.separate(name)
        except NotLinear:
            raise NotLinear(f"what is added is no sum of outer products ({place(n)})") from None
        shape = n.type.shape
        x = self._times(s.scalar, s.row)
        if x is None or b.type(x).rank < n.type.rank - 1:
            x = b.op("mul", b.full(1.0, Type("real", shape[:-1])), b.broadcast(
                x or b.literal(1.0), shape[:-1], tuple(range(b.type(x).rank)) if x else ()))
        return ((x, s.column or b.full(1.0, Type("real", (*shape[:-2], shape[-1])))),)

    def _summed_outers(self, n: Node) -> tuple[tuple[str, str], ...]:
        """sum over r of x_r y_r^T, for few r"""
        b, (sx, sy, so) = self.b, spec_parts(n.attr("spec"))
        gone = [c for c in sx if c not in so]
        if len(gone) == 1 and gone[0] in sy and set(so[-2:]) - set(sx) and set(so[-2:]) - set(sy):
            (c,) = gone
            (x, sx), (y, sy) = ((n.args[0], sx), (n.args[1], sy))[::1 if so[-2] in sx else -1]
            dim = b.type(x).shape[sx.index(c)]
            if dim.size <= FEW:
                out = []
                for r in range(dim.size):
                    pair = []
                    for z, s, last in ((x, sx, so[-2]), (y, sy, so[-1])):
                        z, s = b.index(z, s.index(c), r), s.replace(c, "")
                        want = so[:-2] + last
                        shape = tuple(n.type.shape[so.index(q)] for q in want)
                        pair.append(b.broadcast(z, shape, tuple(want.index(q) for q in s)))
                    out.append(tuple(pair))
                return tuple(out)
        raise NotLinear(f"what is added is no sum of few outer products ({place(n)})")
