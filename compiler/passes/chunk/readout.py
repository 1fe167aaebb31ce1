"""Matrix states at one step: every use of a matrix state in terms of reads of its old value.

A value is followed as `Form`: scale * state, plus outer products. A contraction of such a value with a vector is
then a read of the old state by a vector and local terms,

    q . (d S + x y^T) = (q d) . S + (q . x) y

so that of the whole state only what is read of it, and the list of what is written to it, remain. Reads become
leaves of the body (`input` nodes that no cell has), which `matrix` computes for all steps of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ....ir.build import Builder
from ....ir.cell import Cell, Node
from ....ir.ops import spec_parts
from ....ir.types import Type
from ..algebra import is_const
from ..canonicalise import RULES
from ..rewrite import Rewriter
from .lift import LETTERS, Unchunkable


@dataclass(frozen=True, slots=True)
class Scale:
    """scalar * row(k) * column(v): nodes [*lead], [*lead, K], [*lead, V]; None is 1."""

    scalar: str | None = None
    row: str | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """sum of scale * (old value of a state), by name, + sum of outer products of x [*lead, K] and y [*lead, V]."""

    scales: dict[str, Scale]
    outers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """reader . old value of `state`, summed over its axis K (`axis` 0) or V (1); reader: [*lead, K or V]."""

    state: str
    axis: int
    reader: str


class NotLinear(Exception):
    """A value is no `Form`: says why."""


class Readout:
    """A cell with its uses of matrix states rewritten.

    `b`: the body. `values`: nodes of the cell -> nodes of `b`. `reads`: leaves of `b` -> what they read.
    `forms`: nodes of the cell that are matrices made of states (`NotLinear` where that cannot be said so).
    """

    def __init__(self, cell: Cell, matrices: tuple[str, ...]):
        self.cell, self.matrices = cell, matrices
        self.b = Rewriter(RULES, taken=(n.name for n in cell.body))
        self.values: dict[str, str] = {}
        self.reads: dict[str, Read] = {}
        self.forms: dict[str, Form | NotLinear] = {}
        for n in cell.body:
            self._node(n)

    def _node(self, n: Node) -> None:
        if n.op == "state" and n.attr("name") in self.matrices:
            self.forms[n.name] = Form({n.attr("name"): Scale()})
            return
        followed = [a for a in n.args if a in self.forms]
        if not followed:
            self.values[n.name] = self.b.emit(n, self.values)
            return
        try:
            if n.op in ("contract", "reduce"):
                self.values[n.name] = self._contract(n) if n.op == "contract" else self._sum(n)
            else:
                self.forms[n.name] = self._form(n)
        except NotLinear as why:
            self.forms[n.name] = why

    def value(self, name: str, what: str) -> str:
        """The node that is `name`'s value. Raises Unchunkable where it needs the whole matrix."""
        if name in self.values:
            return self.values[name]
        why = self.forms[name]
        raise Unchunkable(f"{what} needs every element of a matrix state: "
                          + (str(why) if isinstance(why, NotLinear) else "it is one itself"))

    def next(self, state: str) -> Form:
        """The next value of a matrix state. Raises Unchunkable."""
        s = self.cell.state(state)
        try:
            return self.form(s.next)
        except NotLinear as why:
            raise Unchunkable(f"the update of {state}: {why}") from None

    # -- matrices -----------------------------------------------------------
    def form(self, name: str) -> Form:
        """A matrix as a form: of states, or outer products only."""
        got = self.forms.get(name)
        if isinstance(got, NotLinear):
            raise got
        return got if got is not None else Form({}, self.outers(self.values[name]))

    def _form(self, n: Node) -> Form:
        b = self.b
        match n.op:
            case "neg":
                return self.scaled(self.form(n.args[0]), Scale(b.full(-1.0, Type("real", n.type.shape[:-2]))))
            case "add" | "sub":
                u, v = map(self.form, n.args)
                if n.op == "sub":
                    v = self.scaled(v, Scale(b.full(-1.0, Type("real", n.type.shape[:-2]))))
                return self.added(u, v)
            case "mul":
                whole, other = n.args if n.args[0] in self.forms else n.args[::-1]
                self._apart(other, n)
                return self.scaled(self.form(whole), self.separate(self.values[other]))
            case "div" if n.args[1] not in self.forms:
                s = self.separate(self.values[n.args[1]])
                parts = (p and b.op("div", b.full(1.0, b.type(p)), p) for p in (s.scalar, s.row, s.column))
                return self.scaled(self.form(n.args[0]), Scale(*parts))
            case "select" if n.args[0] not in self.forms:
                u, v = (self.form(a) for a in n.args[1:])
                cond = self.values[n.args[0]]
                return self.added(self.masked(cond, u, True), self.masked(cond, v, False))
        raise NotLinear(f"{n.op} of a whole matrix ({n.name})")

    def _apart(self, other: str, n: Node) -> None:
        """An operand must not depend on whole matrices."""
        if other in self.forms:
            why = self.forms[other]
            raise why if isinstance(why, NotLinear) else NotLinear(
                f"a product of two matrices that depend on states ({n.name})")

    def scaled(self, f: Form, s: Scale) -> Form:
        t, x = self._times, self._times(s.scalar, s.row)
        return Form({k: self.product(p, s) for k, p in f.scales.items()},
                    tuple((t(x, a), t(s.column, c)) for a, c in f.outers))

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
        outers = tuple((x, only(y)) if place == 2 else (only(x), y) for x, y in f.outers)
        return Form({k: part(s) for k, s in f.scales.items()}, outers)

    def added(self, f: Form, g: Form) -> Form:
        scales = dict(f.scales)
        for k, s in g.scales.items():
            scales[k] = self.sum(scales[k], s) if k in scales else s
        return Form(scales, tuple(self._merged(f.outers + g.outers)))

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
        raise NotLinear(f"an element-wise factor that is no product of one of the rows and one of the columns ({name})")

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
            raise NotLinear(f"what is added is no sum of outer products ({name})") from None
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
            if dim.size <= 8:
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
        raise NotLinear(f"what is added is no sum of few outer products ({n.name})")

    # -- reads ------------------------------------------------------------------
    def _contract(self, n: Node) -> str:
        b = self.b
        first = n.args[0] in self.forms
        whole, other = n.args if first else n.args[::-1]
        self._apart(other, n)
        if n.attr("semiring") != "sum":
            raise NotLinear(f"a product over {n.attr('semiring')} with a whole matrix ({n.name})")
        sm, su, so = spec_parts(n.attr("spec"))
        if not first:
            sm, su = su, sm
        gone = [c for c in sm if c not in so]
        if len(gone) != 1 or gone[0] not in sm[-2:] or not set(su) <= set(sm[:-2] + gone[0]):
            raise NotLinear(f"a product other than with one vector along one axis ({n.name})")
        form, axis = self.form(whole), sm[-2:].index(gone[0])
        dims = dict(zip(sm, self._type(whole).shape))
        u = self.values[other]
        reader = b.broadcast(u, tuple(dims[c] for c in sm[:-2] + gone[0]),
                             tuple((sm[:-2] + gone[0]).index(c) for c in su))
        y = self.read(form, axis, reader, self._type(whole))
        now = sm.replace(gone[0], "")
        return b.broadcast(y, n.type.shape, tuple(so.index(c) for c in now))

    def _sum(self, n: Node) -> str:
        """A sum over one axis (or both) reads with ones."""
        b, t, axes = self.b, self._type(n.args[0]), sorted(n.attr("axes"))
        r = t.rank - 2
        if n.attr("fn") != "sum" or not set(axes) <= {r, r + 1}:
            raise NotLinear(f"{n.attr('fn')} over a whole matrix ({n.name})")
        axis = axes[0] - r
        ones = b.full(1.0, Type("real", (*t.shape[:-2], t.shape[r + axis])))
        y = self.read(self.form(n.args[0]), axis, ones, t)
        return b.reduce(y, "sum", (r,)) if len(axes) == 2 else y

    def _type(self, name: str) -> Type:
        return next(n.type for n in self.cell.body if n.name == name)

    def read(self, f: Form, axis: int, reader: str, t: Type) -> str:
        """reader . form, [*lead, the other axis]"""
        b, total = self.b, None
        shape = (*t.shape[:-2], t.shape[-1 - axis])
        for state, s in f.scales.items():
            along, across = (s.row, s.column)[::1 if axis == 0 else -1]
            y = self._times(across, self.leaf(state, axis, self._times(along, reader), Type("real", shape)))
            y = self._times(s.scalar, y)
            total = y if total is None else b.op("add", total, y)
        lead = LETTERS[:t.rank - 2]
        for outer in f.outers:
            along, across = outer[::1 if axis == 0 else -1]
            y = self._times(b.contract(reader, along, f"{lead}z,{lead}z->{lead}"), across)
            total = y if total is None else b.op("add", total, y)
        return b.full(0.0, Type("real", shape)) if total is None else total

    def leaf(self, state: str, axis: int, reader: str, t: Type) -> str:
        read = Read(state, axis, reader)
        for name, known in self.reads.items():
            if known == read:
                return name
        name = Builder.add(self.b, "input", (), t, f"{state}.read", name=f"{state}.read{len(self.reads)}")
        self.reads[name] = read
        return name


# -- what is written, in terms of what is read --------------------------------------
@dataclass(frozen=True, slots=True)
class Linear:
    """local [*lead, V] (None: 0) + sum of coefficient [*lead] (None: 1) * read, by the read's leaf."""

    local: str | None
    reads: dict[str, str | None]


def linear(b: Rewriter, name: str, reads: set[str], depends: dict[str, set[str]]) -> Linear:
    """A vector as a linear form in `reads` (leaves). `depends`: the leaves that every node depends on.
    Raises Unchunkable where it is none, or where a coefficient differs from column to column."""
    n = b.node(name)
    lead = n.type.shape[:-1]

    def again(x: str) -> Linear:
        return linear(b, x, reads, depends)

    def scalar(x: str) -> str:
        m = b.node(x)
        if m.op == "broadcast" and len(lead) not in m.attr("axes"):
            return b.broadcast(m.args[0], lead, m.attr("axes"))
        raise Unchunkable(f"what is read is scaled differently in every column ({name}) before it is written")

    def scaled(f: Linear, by: str) -> Linear:
        return Linear(f.local and b.op("mul", f.local, b.broadcast(by, n.type.shape, tuple(range(len(lead))))),
                      {k: by if c is None else b.op("mul", c, by) for k, c in f.reads.items()})

    def negative(f: Linear) -> Linear:
        one = b.full(-1.0, Type("real", lead))
        return Linear(f.local and b.op("neg", f.local),
                      {k: one if c is None else b.op("neg", c) for k, c in f.reads.items()})

    def added(f: Linear, g: Linear) -> Linear:
        out = dict(f.reads)
        one = b.full(1.0, Type("real", lead))
        for k, c in g.reads.items():
            out[k] = b.op("add", one if out[k] is None else out[k], one if c is None else c) if k in out else c
        local = f.local if g.local is None else g.local if f.local is None else b.op("add", f.local, g.local)
        return Linear(local, out)

    if not depends[name] & reads:
        return Linear(None if is_const(b, name, 0) else name, {})
    if name in reads:
        return Linear(None, {name: None})
    match n.op:
        case "neg":
            return negative(again(n.args[0]))
        case "add":
            return added(*map(again, n.args))
        case "sub":
            return added(again(n.args[0]), negative(again(n.args[1])))
        case "mul" | "div":
            x, y = n.args if n.op == "div" or depends[n.args[0]] & reads else n.args[::-1]
            if not depends[y] & reads:
                by = scalar(y)
                return scaled(again(x), by if n.op == "mul" else b.op("div", b.full(1.0, b.type(by)), by))
        case "select" if not depends[n.args[0]] & reads:
            c = scalar(n.args[0])
            real = Type("real", lead)
            m = b.op("select", c, b.full(1.0, real), b.full(0.0, real))
            one = b.op("sub", b.full(1.0, real), m)
            return added(scaled(again(n.args[1]), m), scaled(again(n.args[2]), one))
    raise Unchunkable(f"what is read of a matrix state is not used linearly where it is written back ({n.op}, {name})")


def dependence(nodes: list[Node], leaves: set[str]) -> dict[str, set[str]]:
    """The leaves that every node depends on."""
    out: dict[str, set[str]] = {}
    for n in nodes:
        out[n.name] = ({n.name} if n.name in leaves else set()).union(*(out[a] for a in n.args))
    return out
