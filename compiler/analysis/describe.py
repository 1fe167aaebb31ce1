"""The analysis as mathematics that a person can check.

One paragraph per component: its class, the normal form `S[t] = L S[t-1] R + B`
with L, R and B written out, the named values in them, and what is known of
them. Products stand side by side (`beta k k^T`), a state's rows are its
second-to-last axis, its columns the last; heads are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.cell import Cell
from .affine import Affine, Apply, Dense, LowRank, Nonlinear, Outer, Scale, Term, classify
from .mathematics import Atom, Product, Text, plus
from .structure import structure

_OVER = {"sum": "(+, *)", "max": "(max, +)", "lse": "(logsumexp, +)"}


def describe(cell: Cell) -> str:
    """The components of a cell in the order in which they can be computed."""
    found = classify(cell)
    order = "; ".join(", ".join(c.states) for c in found)
    lines = [f"{len(found)} component{'s' if len(found) != 1 else ''} of the states" + (
        f", one after another: {order}" if len(found) > 1 else "" if found else ": no states")]
    for i, c in enumerate(found, 1):
        lines += [f"{i}. " + line if j == 0 else "   " + line for j, line in enumerate(component(c, cell))]
    return "\n".join(lines)


def component(c: Affine | Nonlinear, source: Cell) -> list[str]:
    """Lines about one component of `source`."""
    names = ", ".join(f"{s} [{', '.join(d.name for d in source.state(s).type.shape)}]" for s in c.states)
    if source.state(c.states[0]).reverse:
        names += " backwards in time"
    if isinstance(c, Nonlinear):
        return [f"{names}: not affine", c.reason]
    text = Text(c.cell, source)
    s = structure(c, source, text)
    known = "constant, " if s.constant and s.name not in ("none", "identity") else ""
    lines = [f"{names}: affine over {_OVER[c.semiring]}, transition: {known}{s.name}"]
    for state in c.states:
        lines += _Equation(c, state, text).lines()
    return [*lines, *_where(c, text), *(f"fact: {f}" for f in s.facts)]


def _where(c: Affine, text: Text) -> list[str]:
    """Definitions of the named values shown, and of those in the definitions."""
    out: dict[str, str] = {}
    while todo := [n for n in text.used if n not in out]:
        for n in todo:
            if n in text.next:
                out[n] = ""
            else:
                out[n] = f"where {text.short.get(n, n)} = {text.definition(n)}"
    return [line for line in out.values() if line]


@dataclass(frozen=True, slots=True)
class _Side:
    """A linear map on one side of a state: a sum of products, each with the text of its
    matrix part ("" for the identity), and the read and write of those of rank one."""

    left: Product
    write: Product | None = None
    read: Product | None = None
    matrix: str = ""


class _Equation:
    """The next value of one state."""

    def __init__(self, c: Affine, state: str, text: Text):
        self.c, self.state, self.text = c, state, text
        self.type = c.cell.state(state).type
        heads = c.cell.heads
        self.lead = 1 if heads is not None and self.type.shape[:1] == (heads,) else 0
        self.inner = self.type.rank - self.lead

    def lines(self) -> list[str]:
        left = f"{self.state}[t]"
        if self.c.semiring != "sum":
            return [f"{left} = {self.tropical()}"]
        right: list[str] = []
        named: list[str] = []
        for of in dict.fromkeys(t.of for t in self.c.terms[self.state]):
            L, R = (self.symbol(letter, self.state, of) for letter in "LR")
            old = self.text.old(of)
            terms = [t for t in self.c.terms[self.state] if t.of == of]
            if not any(t.maps for t in terms):
                right.append(old)
            elif self.sided(terms, 0):
                right.append(f"{L} {old}")
                named.append(f"{L} = {self.side(terms)}")
            elif self.sided(terms, 1):
                right.append(f"{old} {R}")
                named.append(f"{R} = {self.side(terms)}")
            elif len(terms) == 1 and (pair := self.pair(terms[0])):
                right.append(f"{L} {old} {R}")
                named += [f"{L} = {pair[0]}", f"{R} = {pair[1]}"]
            else:
                right += [self.general(t, old) for t in terms]
        if self.c.offsets[self.state]:
            offset, B = self.offset(), self.symbol("B", self.state)
            right.append(B if right and " " in offset else offset)
            named += [f"{B} = {offset}"] if right[-1] == B else []
        return [f"{left} = {plus(right)}", *("  " + n for n in named)]

    def symbol(self, letter: str, *states: str) -> str:
        """L, R or B; told apart where there are several, or the text has such a name."""
        taken = {p.name for p in (*self.c.cell.inputs, *self.c.cell.params, *self.c.cell.states)} | self.text.named
        plain = len(self.c.states) == 1 and letter not in taken
        return letter if plain else f"{letter}_{','.join(dict.fromkeys(states))}"

    # -- which side of a matrix state a term acts on -----------------------------------
    def axis(self, side: int) -> int:
        """The axis that a matrix on the left (0) or the right (1) acts on."""
        return self.type.rank - 1 if self.inner < 2 else self.type.rank - 2 + side

    def sided(self, terms: Sequence[Term], side: int) -> bool:
        if self.inner > 2 or self.inner < 2 and side:
            return False
        axis = self.axis(side)

        def good(m) -> bool:
            match m:
                case Scale(_, axes):
                    return all(a == axis or a < self.lead for a in axes)
                case LowRank(_, _, at, lead) | Apply(_, at, lead):
                    return at == axis and all(a < self.lead for a in lead)
            return False
        return all(good(m) for t in terms for m in t.maps) and all(
            sum(not isinstance(m, Scale) for m in t.maps) <= 1 for t in terms)

    def side(self, terms: Sequence[Term]) -> str:
        """The sum of the terms' matrices, common factors first."""
        parts = [self.matrix(t) for t in terms]
        before, after = self.common(parts)
        shown = [self.show_side(p) for p in parts]
        if not before and not after:
            return plus(shown)
        parts = [self.divided(p, before, after) for p in parts]
        body = f"({plus([self.show_side(p) for p in parts])})"
        scalars = [self.text.factor(a) for a in before]
        diagonals = [self.diag(Product(1, (a,))) for a in after]
        return " ".join((*scalars, body, *diagonals))

    def matrix(self, t: Term) -> _Side:
        scale, read, write, matrix = Product(1, ()), None, None, ""
        for m in t.maps:
            match m:
                case Scale(factor, axes):
                    p = self.text.product(factor, axes)
                    scale = Product(scale.number * p.number, scale.atoms + p.atoms)
                case LowRank(r, w, axis, lead):
                    read, write = (self.text.product(x, (*lead, axis)) for x in (r, w))
                case Apply(a, _, _):
                    matrix = self.text.atom(a)
        return _Side(scale, write, read, matrix)

    def common(self, parts: list[_Side]) -> tuple[list[Atom], list[Atom]]:
        """Atoms of the scaling that every rank-one part has as well: scalars, and those that its read has."""
        if len(parts) < 2 or parts[0].read is not None or parts[0].matrix or any(
                p.read is None or p.left.atoms for p in parts[1:]):
            return [], []
        before, after = [], []
        for a in parts[0].left.atoms:
            scalar = all(x < self.lead for x in a.axes)
            if scalar and all(p.write.has([a]) or p.read.has([a]) for p in parts[1:]):
                before.append(a)
            elif not scalar and all(p.read.has([a]) for p in parts[1:]):
                after.append(a)
        return before, after

    def divided(self, p: _Side, before: list[Atom], after: list[Atom]) -> _Side:
        if p.read is None:
            return _Side(p.left.without([*before, *after]))
        read, write = p.read, p.write
        for a in before:
            read, write = (read, write.without([a])) if write.has([a]) else (read.without([a]), write)
        return _Side(p.left, write, read.without(after))

    def show_side(self, p: _Side) -> str:
        if p.read is not None:
            return self.rank_one(p.write, p.read, p.left)
        if p.matrix:
            scalar = not any(a >= self.lead for x in p.left.atoms for a in x.axes)
            return self.text.show_product(p.left, p.matrix) if scalar else f"{self.diag(p.left)} {p.matrix}"
        return self.diagonal(p.left)

    def diagonal(self, p: Product) -> str:
        """`diag(e^g)`, `e^g I`, `I`"""
        if any(a >= self.lead for x in p.atoms for a in x.axes):
            number = Product(p.number, ())
            sign = "" if p.number == 1 else "-" if p.number == -1 else self.text.show_product(number) + " "
            return f"{sign}{self.diag(Product(1, p.atoms))}"
        identity = "I" if self.inner else ""
        return self.text.show_product(p, identity)

    def diag(self, p: Product) -> str:
        return f"diag({self.text.show(p.atoms[0].node) if p == Product(1, p.atoms[:1]) else self.text.show_product(p)})"

    def rank_one(self, write: Product, read: Product, scale: Product = Product(1, ())) -> str:
        """`-beta k k^T`: scalars first."""
        every = [*scale.atoms, *write.atoms, *read.atoms]
        scalars = [a for a in every if all(x < self.lead for x in a.axes)]

        def vector(p: Product) -> str:
            atoms = [self.text.factor(a) for a in p.atoms if a not in scalars]
            return atoms[0] if len(atoms) == 1 else f"({' '.join(atoms)})" if atoms else "1"
        number = scale.number * write.number * read.number
        return self.text.show_product(Product(number, tuple(scalars)), f"{vector(write)} {vector(read)}^T")

    def pair(self, t: Term) -> tuple[str, str] | None:
        """L and R of one term."""
        sides = [[m for m in t.maps if self.sided([Term(t.of, (m,))], side)] for side in (0, 1)]
        both = [m for m in sides[0] if m in sides[1]]       # scalars: on the left
        sides[1] = [m for m in sides[1] if m not in both]
        if len(sides[0]) + len(sides[1]) != len(t.maps) or not all(sides):
            return None
        return tuple(self.side([Term(t.of, tuple(maps))]) for maps in sides)

    def general(self, t: Term, old: str) -> str:
        """A term with its maps written around the old value."""
        value = old
        for m in t.maps:
            match m:
                case Scale(factor, _):
                    value = f"{self.text.atom(factor)} * {value}"
                case LowRank(read, write, axis, _):
                    d = self.type.shape[axis].name
                    value = f"{self.text.atom(write)} sum[{d}]({self.text.atom(read)} * {value})"
                case Apply(matrix, axis, _):
                    value = f"{self.text.atom(matrix)} @ {value}"
                case _:
                    value = f"einsum({m.spec!r}, {', '.join(map(self.text.show, m.factors))}, {value})"
        return value

    def offset(self) -> str:
        found = []
        for o in self.c.offsets[self.state]:
            match o:
                case Outer(write, value):
                    r = self.type.rank
                    k, v = (self.text.product(x, (*range(r - 2), a)) for x, a in ((write, r - 2), (value, r - 1)))
                    found.append(self.rank_one(k, v))
                case Dense(value) if (outers := self.outers(value)) is not None:
                    found += [self.rank_one(*sides) for sides in outers]
                case Dense(value):      # a state that nothing is done to would else be called by its own name
                    found.append(self.text.definition(value) if self.text.next.get(value) == self.state
                                 else self.text.show(value))
        return plus(found)

    def outers(self, value: str) -> list[tuple[Product, Product]] | None:
        """A real matrix that is added to complex states as a sum of products, each of one function of its row and one
        of its column; None where it is none."""
        found, todo, r = [], [(value, 1)], self.type.rank
        while todo:
            name, sign = todo.pop()
            n = self.text.nodes[name]
            if n.op == "complex" and self.text.product(n.args[1]) == Product(0, ()):
                todo.append((n.args[0], sign))
                continue
            if n.op in ("add", "sub", "neg"):
                signs = {"add": (sign, sign), "sub": (sign, -sign), "neg": (-sign,)}[n.op]
                todo += reversed([*zip(n.args, signs)])
                continue
            p = self.text.product(name)
            columns = tuple(a for a in p.atoms if r - 1 in a.axes)
            rows = tuple(a for a in p.atoms if a not in columns)
            if self.inner != 2 or not columns or not any(r - 2 in a.axes for a in rows) or any(
                    r - 2 in a.axes for a in columns):
                return None
            found.append((Product(sign * p.number, rows), Product(1, columns)))
        return found

    # -- other semirings ----------------------------------------------------------------
    def tropical(self) -> str:
        terms = [self.tropical_term(t) for t in self.c.terms[self.state]]
        offsets = [self.text.show(o.value) for o in self.c.offsets[self.state]]
        every = [*offsets, *terms] if self.state in self.c.first else [*terms, *offsets]
        name = "max" if self.c.semiring == "max" else "logsumexp"
        return f"{name}({', '.join(every)})" if len(every) > 1 else every[0] if every else "-inf"

    def tropical_term(self, t: Term) -> str:
        value = self.text.old(t.of)
        over = "max" if self.c.semiring == "max" else "lse"
        for m in t.maps:
            match m:
                case Scale(factor, _):
                    value = plus((value, self.text.show_product(self.text.product(factor))))
                case Apply(matrix, _, _):
                    value = f"{self.text.atom(matrix)} @{over} " + (f"({value})" if " " in value else value)
                case LowRank(read, write, axis, _):
                    d = self.type.shape[axis].name
                    value = f"{self.text.atom(write)} + {over}[{d}]({self.text.atom(read)} + {value})"
                case _:
                    value = f"{over}-einsum({m.spec!r}, {', '.join(map(self.text.show, m.factors))}, {value})"
        return value


def _inner(value: str) -> str:
    return f"({value})" if " " in value else value
