"""Matrix states at one step: every use of a matrix state in terms of reads of its old value.

A value is followed as `Form`: scale * state, plus outer products (and multiples of constants, such as a learned start
that a restart puts in). A contraction of such a value with a vector is then a read of the old state by a vector and
local terms,

    q . (d S + x y^T) = (q d) . S + (q . x) y

so that of the whole state only what is read of it, and the list of what is written to it, remain. Reads become
leaves of the body (`input` nodes that no cell has), which `matrix` computes for all steps of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.build import Builder
from ....ir.cell import Cell, Node
from ....ir.ops import spec_parts
from ....ir.types import Type
from ..canonicalise import RULES
from ..rewrite import Rewriter
from .forms import Form, Forms, NotLinear, Scale
from .lift import LETTERS, Unchunkable, place


@dataclass(frozen=True, slots=True)
class Read:
    """reader . old value of `state`, summed over its axis K (`axis` 0) or V (1); reader: [*lead, K or V]."""

    state: str
    axis: int
    reader: str


class Readout(Forms):
    """A cell with its uses of matrix states rewritten.

    `b`: the body. `values`: nodes of the cell -> nodes of `b`. `reads`: leaves of `b` -> what they read.
    `forms`: nodes of the cell that are matrices made of states (`NotLinear` where that cannot be said so).
    """

    def __init__(self, cell: Cell, matrices: tuple[str, ...]):
        self.cell, self.matrices = cell, matrices
        super().__init__(Rewriter(RULES, taken=(n.name for n in cell.body)))
        self.types = cell.nodes()
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
        return got if got is not None else self.known(self.values[name])

    def _form(self, n: Node) -> Form:
        b = self.b
        match n.op:
            case "neg":
                return self.negative(self.form(n.args[0]), n.type)
            case "add" | "sub":
                u, v = map(self.form, n.args)
                return self.added(u, self.negative(v, n.type) if n.op == "sub" else v)
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
                return self.chosen(self.values[n.args[0]], u, v)
        raise NotLinear(f"{n.op} of a whole matrix ({place(n)})")

    def _apart(self, other: str, n: Node) -> None:
        """An operand must not depend on whole matrices."""
        if other in self.forms:
            why = self.forms[other]
            raise why if isinstance(why, NotLinear) else NotLinear(
                f"a product of two matrices that depend on states ({place(n)})")

    # -- reads ------------------------------------------------------------------
    def _contract(self, n: Node) -> str:
        b = self.b
        first = n.args[0] in self.forms
        whole, other = n.args if first else n.args[::-1]
        self._apart(other, n)
        if n.attr("semiring") != "sum":
            raise NotLinear(f"a product over {n.attr('semiring')} with a whole matrix ({place(n)})")
        sm, su, so = spec_parts(n.attr("spec"))
        if not first:
            sm, su = su, sm
        gone = [c for c in sm if c not in so]
        if len(gone) != 1 or gone[0] not in sm[-2:] or not set(su) <= set(sm[:-2] + gone[0]):
            raise NotLinear(f"a product other than with one vector along one axis ({place(n)})")
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
            raise NotLinear(f"{n.attr('fn')} over a whole matrix ({place(n)})")
        axis = axes[0] - r
        ones = b.full(1.0, Type("real", (*t.shape[:-2], t.shape[r + axis])))
        y = self.read(self.form(n.args[0]), axis, ones, t)
        return b.reduce(y, "sum", (r,)) if len(axes) == 2 else y

    def _type(self, name: str) -> Type:
        return self.types[name].type

    def read(self, f: Form, axis: int, reader: str, t: Type) -> str:
        """reader . form, [*lead, the other axis]"""
        b, total = self.b, None
        shape = (*t.shape[:-2], t.shape[-1 - axis])
        lead = LETTERS[:t.rank - 2]
        for name, s in (*f.scales.items(), *f.constants.items()):
            along, across = (s.row, s.column)[::1 if axis == 0 else -1]
            by = self._times(s.scalar, self._times(along, reader))     # not the result: see `matrix._of_matrix`
            if name in f.scales:
                y = self.leaf(name, axis, by, Type("real", shape))
            else:
                y = b.contract(by, name, f"{lead}y,{lead}yz->{lead}z" if axis == 0 else f"{lead}z,{lead}yz->{lead}y")
            y = self._times(across, y)
            total = y if total is None else b.op("add", total, y)
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
