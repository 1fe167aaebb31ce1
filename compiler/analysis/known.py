"""Values that do not depend on a component's states, opened up as sums and products.

`outer(k, v) + 2 * outer(a, b)` is two parts of two factors each, so that offsets
keep their outer products and contractions with them stay small.
"""

from __future__ import annotations

from ...ir.cell import Node
from ...ir.ops import spec_parts
from ..passes.algebra import constant
from .multilinear import INNER, SUM, Algebra, Factor, Part

_OPENED = frozenset("broadcast mul contract add sub neg".split())


def operands(n: Node) -> list[tuple[str, tuple[int, ...]]]:
    """Operands of a pointwise product or a contraction, with the letters of their axes."""
    if n.op != "contract":
        return [(a, tuple(range(n.type.rank))) for a in n.args]
    sx, sy, so = spec_parts(n.attr("spec"))
    place = {c: so.index(c) if c in so else INNER + i for i, c in enumerate(dict.fromkeys(sx + sy))}
    return [(a, tuple(place[c] for c in s)) for a, s in zip(n.args, (sx, sy))]


class Known:
    """Parts without a state, found when first asked for."""

    def __init__(self, alg: Algebra):
        self.alg, self.b, self.s = alg, alg.b, alg.s
        self._found: dict[str, tuple[Part, ...]] = {}

    def parts(self, name: str) -> tuple[Part, ...]:
        """A value's parts: itself, unless it is a sum or product of values with different axes."""
        todo = [] if name in self._found else [name]
        while todo:         # operands first, without recursion: sums over many lags are deep
            n = self.b.node(todo[-1])
            missing = [a for a in n.args if a not in self._found] if n.op in _OPENED else []
            if not missing:
                self._found[n.name] = self._opened(n)
                todo.pop()
            todo += missing
        return self._found[name]

    def atom(self, name: str) -> Factor:
        """A value under its broadcasts."""
        n = self.b.node(name)
        if n.op == "broadcast":
            f = self.atom(n.args[0])
            return Factor(f.node, tuple(n.attr("axes")[c] for c in f.letters))
        return Factor(name, tuple(range(n.type.rank)))

    def factors(self, name: str, letters: tuple[int, ...]) -> tuple[Factor, ...]:
        """A value as a product of factors, its axis i having letter letters[i]."""
        parts = self.parts(name)
        p = parts[0] if len(parts) == 1 else Part((self.atom(name),))
        return p.renamed(dict(enumerate(letters))).factors

    def _opened(self, n: Node) -> tuple[Part, ...]:
        if n.type.kind in ("real", "int") and constant(self.b, n.name) == self.s.zero:
            return ()
        if n.op == "broadcast":
            axes = n.attr("axes")
            return tuple(p.renamed(dict(enumerate(axes))) for p in self.parts(n.args[0]))
        here = (Part((self.atom(n.name),)),)
        if self.s is not SUM or n.type.rank < 2:
            return here
        if n.op == "mul" or n.op == "contract" and not _sums(n):
            p = Part(tuple(f for a, letters in operands(n) for f in self.factors(a, letters)))
            return here if len(self.alg.fold(p).factors) == 1 else (p,)
        if n.op in ("add", "sub", "neg"):
            found = [self.parts(a) for a in n.args]
            if all(len(p) == 1 and len(p[0].factors) == 1 for p in found):
                return here
            signs = (n.op == "neg", n.op == "sub")
            return tuple(self.alg.negative(p, n.type.kind) if minus else p
                         for parts, minus in zip(found, signs) for p in parts)
        return here


def _sums(n: Node) -> bool:
    sx, sy, so = spec_parts(n.attr("spec"))
    return n.attr("semiring") != "sum" or not set(sx + sy) <= set(so)
