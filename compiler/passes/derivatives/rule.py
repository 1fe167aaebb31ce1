"""What the rules are written with."""

from __future__ import annotations

import math
from collections.abc import Callable

from ....ir.cell import Node
from ...analysis.ranges import Ranges
from ..rewrite import Rewriter

Cotangents = tuple[str | None, ...]
DerivativeRule = Callable[["D", Node, str], Cotangents]


class D:
    """Shorthands over a builder; arithmetic takes names or Python numbers. `ranges`: of the forward cell."""

    def __init__(self, b: Rewriter, ranges: Ranges):
        self.b, self.ranges = b, ranges

    def nonfinite(self, name: str) -> bool:
        """Whether it may be infinite or NaN."""
        return name in self.ranges.nonfinite

    def empty(self, n: Node) -> bool:
        """Whether max or logsumexp have nothing but -inf to take."""
        return all(a in self.ranges.empty for a in n.args)

    def empty_maximum(self, n: Node) -> bool:
        """The same, unless other values would be NaN for it."""
        return self.empty(n) and (n.name not in self.ranges.subtracted or all(map(self.nonfinite, n.args)))

    def __call__(self, op: str, *args: str | float) -> str:
        type = next((self.b.type(a) for a in args if isinstance(a, str) and self.b.type(a).kind != "bool"), None)
        return self.b.op(op, *(a if isinstance(a, str) else self.b.full(a, type) for a in args))

    def mul(self, first: str, *rest: str | float) -> str:
        for r in rest:
            first = self("mul", first, r)
        return first

    def choose(self, cond: str, a: str | float, b: str | float) -> str:
        return self("select", cond, a, b)


def spread(d: D, n: Node, x: str) -> str:
    """A value of a reduction's shape over its operand's shape."""
    t = d.b.type(n.args[0])
    return d.b.broadcast(x, t.shape, tuple(i for i in range(t.rank) if i not in n.attr("axes")))


def finite(d: D, n: Node) -> str:
    """y, or 0 where it is -inf, so that exp(x - y) is 0 there"""
    return d.choose(d("eq", n.name, -math.inf), 0.0, n.name) if d.empty(n) else n.name
