"""The values of a step as sums of products with the states of one component.

`Expansion` walks the body in order and gives every value that depends on the
component its parts (see `multilinear`). One rule per kind of operation; what has
no rule is not affine, and `NotAffine` says why. A sum keeps the order of the
text, as the first operand of a maximum takes the gradient of a tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ...ir.cell import Cell, Node
from ...ir.types import Type
from ..passes.algebra import constant
from ..passes.dce import live
from ..passes.rewrite import Rewriter
from .known import Known, operands
from .mathematics import is_named
from .multilinear import INNER, SUM, Algebra, Factor, Part, Semiring, is_matrix
from .selections import MOVES, SELECTIONS, selection

Parts = tuple[Part, ...]


class NotAffine(Exception):
    """`op`: the operation in the way."""

    def __init__(self, reason: str, n: Node):
        line = f"line {n.span.line}: " if n.span else ""
        super().__init__(f"{line}{reason}" + (f", in `{n.name}`" if is_named(n) and "." not in n.name else ""))
        self.op = n.op


class Expansion:
    """`parts[name]` for the body nodes that the states' next values need and that
    depend on the old values of `states`. Raises NotAffine."""

    def __init__(self, cell: Cell, states: Sequence[str], b: Rewriter, s: Semiring):
        self.b, self.s, self.alg, self.states = b, s, Algebra(b, s), states
        self.known = Known(self.alg)
        self.parts: dict[str, Parts] = {}
        self._zero: dict[str, str] = {}         # comparisons x == 0, by name: x
        needed = live(cell.body, [cell.state(x).next for x in states])
        for n in cell.body:
            reads = n.op == "state" and n.attr("name") in states
            if n.name in needed and (reads or any(a in self.parts for a in n.args)):
                b.span = n.span
                self.parts[n.name] = self._rule(n)
        b.span = None
        for n in (b.node(cell.state(x).next) for x in states):
            if n.name in self._zero:
                raise NotAffine(f"`eq` {self._on(n)} gives a bool", n)

    def of(self, name: str) -> Parts:
        """The parts of any value: without a state where it depends on none."""
        return self.parts[name] if name in self.parts else self.known.parts(name)

    # -- rules ----------------------------------------------------------------------
    def _rule(self, n: Node) -> Parts:
        s, kind = self.s, n.type.kind
        if n.op == "state":
            return (Part((), n.attr("name"), tuple(range(n.type.rank))),)
        if n.op == "broadcast":
            axes = dict(enumerate(n.attr("axes")))
            return tuple(p.renamed(axes) for p in self.parts[n.args[0]])
        if n.op == "stop_gradient":
            raise NotAffine(f"`stop_gradient` {self._on(n)}: the gradient is not that of an affine map", n)
        if n.op == "eq" and s is SUM and constant(self.b, n.args[1]) == 0:
            self._zero[n.name] = n.args[0]      # allowed in a guard only: see `_select`
            return ()
        if kind == "bool" or any(self.b.type(a).kind != kind for a in n.args if a in self.parts and n.op != "select"):
            raise NotAffine(f"`{n.op}` {self._on(n)} gives a {kind}", n)
        if n.op == s.plus:
            return self.alg.merged((*self.of(n.args[0]), *self.of(n.args[1])), kind)
        if s is SUM and n.op == "sub":
            return self.alg.merged((*self.of(n.args[0]), *self._minus(n.args[1], kind)), kind)
        if s is SUM and n.op == "neg":
            return self._minus(n.args[0], kind)
        if n.op == s.divide:
            if n.args[1] in self.parts:
                raise NotAffine(f"`{n.op}` {self._on(n, 'by')}", n)
            inverse = self.alg.inverse(self.known.atom(n.args[1]))
            return tuple(p.with_factors((*p.factors, inverse)) for p in self.parts[n.args[0]])
        if n.op == s.times or n.op == "contract" and n.attr("semiring") == s.kind:
            return self._product(n)
        if n.op == "reduce" and n.attr("fn") == s.kind:
            axes, out = n.attr("axes"), 0
            letters = {}
            for i in range(self.b.type(n.args[0]).rank):
                letters[i] = INNER + i if i in axes else out
                out += i not in axes
            return self._summed(self.parts[n.args[0]], letters, n)
        if s is not SUM and kind == "int" and n.op not in (s.plus, s.times):
            raise NotAffine(f"`{n.op}` {self._on(n)}: int has no -inf", n)
        if n.op == "select":
            return self._select(n)
        if n.op in (SELECTIONS if s is SUM else MOVES) and all(a not in self.parts for a in self._indices(n)):
            return self._selection(n)
        if s is SUM and n.op == "solve" and n.args[0] not in self.parts:
            return self._solve(n)
        over = "" if s is SUM else f" is not affine over ({'max' if s.kind == 'max' else 'logsumexp'}, +)"
        raise NotAffine(f"`{n.attr('fn') or n.op}` {self._on(n)}{over}", n)

    def _on(self, n: Node, word: str = "of") -> str:
        """`of a value that depends on h and c`"""
        states = dict.fromkeys(p.of for a in n.args for p in self.parts.get(a, ()) if p.of is not None)
        return f"{word} a value that depends on {' and '.join(states)}"

    @staticmethod
    def _indices(n: Node) -> tuple[str, ...]:
        return n.args[1:] if n.op in ("gather", "scatter") else ()

    def _minus(self, name: str, kind: str) -> Parts:
        return tuple(self.alg.negative(p, kind) for p in self.of(name))

    def _product(self, n: Node) -> Parts:
        """A pointwise product or a contraction with one operand that depends on the states."""
        if all(a in self.parts for a in n.args):
            raise NotAffine(f"`{n.op}` of two values that both depend on {' and '.join(self.states)}", n)
        (x, sx), (y, sy) = operands(n)
        if y in self.parts:
            (x, sx), (y, sy) = (y, sy), (x, sx)
        parts = tuple(p.renamed(dict(enumerate(sx))) for p in self.parts[x])
        others = self.known.factors(y, sy)
        sizes = {c: d.size for a, s in ((x, sx), (y, sy)) for c, d in zip(s, self.b.type(a).shape)}
        return self._reduced(tuple(p.with_factors((*p.factors, *others)) for p in parts), sizes, n)

    def _summed(self, parts: Parts, letters: dict[int, int], n: Node) -> Parts:
        sizes = {letters[i]: d.size for i, d in enumerate(self.b.type(n.args[0]).shape)}
        return self._reduced(tuple(p.renamed(letters) for p in parts), sizes, n)

    def _reduced(self, parts: Parts, sizes: dict[int, int], n: Node) -> Parts:
        """The parts summed over the inner letters among `sizes`."""
        inner = [c for c in sizes if c >= INNER]
        if not inner:
            return self.alg.merged(parts, n.type.kind)
        out = []
        for p in parts:
            for c in inner:
                if c in p.place:
                    p = p.renamed({c: -1 - p.place.index(c)})
                elif any(c in f.letters for f in p.factors):
                    p = p.with_factors(self.alg.eliminate(p.factors, c))
                elif (many := self._repeated(sizes[c], n.type.kind)) is not None:
                    p = p.with_factors((*p.factors, many))
            out.append(p)
        return self.alg.merged(out, n.type.kind)

    def _repeated(self, size: int, kind: str) -> Factor | None:
        """The sum of `size` ones, unless it is one."""
        if self.s.kind == "max" or size == 1:
            return None
        return Factor(self.b.full(size if self.s is SUM else math.log(size), Type(kind)), ())

    # -- choices ------------------------------------------------------------------
    def _select(self, n: Node) -> Parts:
        cond, x, y = n.args
        if cond in self._zero and constant(self.b, x) == 0:
            return self._guarded(self._zero[cond], y, n)
        if cond in self.parts:
            raise NotAffine(f"a choice whose condition depends on {' and '.join(self.states)}", n)
        c, kind = self.known.atom(cond), n.type.kind

        def choose(f: Factor, g: Factor) -> Factor:
            letters = max(f.letters, g.letters, key=len)
            letters += tuple(a for a in c.letters if a not in letters)
            shape = self.alg.shape((c, f, g), letters)
            return Factor(self.b.op("select", *(self.alg.spread(a, letters, shape) for a in (c, f, g))), letters)

        def masked(p: Part, keep: bool) -> Part:
            def one(f: Factor) -> Factor:
                zero = Factor(self.b.full(self.s.zero, Type(kind)), ())
                return choose(f, zero) if keep else choose(zero, f)
            p = self.alg.fold(p)
            fixed = self.alg.static(c.node)         # a static matrix is not made to depend on the step
            wide = [set(c.letters) <= set(f.letters) and (fixed or not is_matrix(f) or not self.alg.static(f.node))
                    for f in p.factors]
            if not any(wide):
                return p.with_factors((*p.factors, one(self.alg.one(kind))))
            return p.with_factors(one(f) if w else f for f, w in zip(p.factors, wide))

        left, right = list(self.of(x)), list(self.of(y))
        out = []
        for p in left:
            for q in right:
                if (joined := self.alg.join(p, q, kind, choose)) is not None:
                    out.append(joined)
                    right.remove(q)
                    break
            else:
                out.append(masked(p, True))
        return self.alg.merged((*out, *(masked(q, False) for q in right)), kind)

    def _guarded(self, x: str, y: str, n: Node) -> Parts:
        """The adjoint's `0 if x == 0 else y`, for y a product of x: linear, if infinite factors (which
        0 keeps out, as the language says) are 0."""
        if y == x:
            return self.parts[x]
        m, kind = self.b.node(y), n.type.kind
        if m.op == "neg":
            return tuple(self.alg.negative(p, kind) for p in self._guarded(x, m.args[0], n))
        if m.op == "mul" and m.args[0] not in self.parts:
            m = replace(m, args=m.args[::-1])
        if m.op not in ("mul", "div") or m.args[0] not in self.parts or m.args[1] in self.parts:
            raise NotAffine(f"a choice whose condition depends on {' and '.join(self.states)}", n)
        f = self.known.atom(m.args[1])
        f = f if m.op == "mul" else self.alg.inverse(f)
        t = self.b.type(f.node)
        finite = self.b.op("lt", self.b.op("abs", f.node), self.b.full(math.inf, t))
        f = Factor(self.b.op("select", finite, f.node, self.b.full(0.0, t)), f.letters)
        return tuple(p.with_factors((*p.factors, f)) for p in self._guarded(x, m.args[0], n))

    # -- slices, gathers and the like: products with matrices of ones and zeros ---------
    def _selection(self, n: Node) -> Parts:
        """What does not depend on the states goes through the operation itself."""
        out: list[Part] = []
        offsets: list[str] = []
        values = n.args[:len(n.args) - len(self._indices(n))]
        start = 0
        for i, a in enumerate(values):
            t, parts = self.b.type(a), self.of(a)
            free = self.alg.dense((p for p in parts if p.of is None), t)
            offsets.append(free or self.b.full(self.s.zero, t))
            moved, ones = selection(self.b, self.s, n, t, i, start)
            for p in parts:
                if p.of is not None and n.attr("axis") not in p.place and n.op in ("slice", "index"):
                    out.append(self._sliced(n, p))
                elif p.of is not None:
                    p = p.renamed(moved)
                    inner = {c: 1 for c in ones.letters if c >= INNER}
                    out += self._reduced((p.with_factors((*p.factors, ones)),), inner, n)
            start += t.shape[n.attr("axis")].size if n.op == "concat" else 0
        if any(constant(self.b, o) != self.s.zero for o in offsets):
            node = self.b.add(n.op, (*offsets, *n.args[len(values):]), n.type, n.name, **dict(n.attrs))
            out.append(Part((self.known.atom(node),)))
        return self.alg.merged(out, n.type.kind)

    def _sliced(self, n: Node, p: Part) -> Part:
        """A slice along an axis that the state does not have: of the factors."""
        axis, factors = n.attr("axis"), []
        for f in p.factors:
            if axis in f.letters:
                at = f.letters.index(axis)
                if n.op == "slice":
                    f = Factor(self.b.slice(f.node, at, n.attr("start"), n.type.shape[axis]), f.letters)
                else:
                    f = Factor(self.b.index(f.node, at, n.attr("at")), f.letters[:at] + f.letters[at + 1:])
            factors.append(f)
        p = p.with_factors(factors)
        return p.renamed({c: c - 1 for c in range(axis + 1, n.type.rank + 1)}) if n.op == "index" else p

    def _solve(self, n: Node) -> Parts:
        """A^-1 x as a product with the inverse of A."""
        b, (A, x) = self.b, n.args
        t = b.type(A)
        d, lead = t.shape[-1], t.rank - 2
        iota = b.add("iota", (), Type("int", (d,)), "iota")
        eye = b.op("real", b.op("eq", b.broadcast(iota, t.shape, (lead,)), b.broadcast(iota, t.shape, (lead + 1,))))
        inverse = Factor(b.add("solve", (A, eye), t, "inverse"), (*range(lead + 1), INNER))
        parts = tuple(p.renamed({lead: INNER}) for p in self.parts[x])
        return self._reduced(tuple(p.with_factors((*p.factors, inverse)) for p in parts), {INNER: d.size}, n)
