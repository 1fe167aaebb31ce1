"""Where a cotangent of exactly 0 has to be kept from meeting an infinite derivative.

The language says that a cotangent that is exactly 0 contributes 0, whatever the
local derivative. Multiplying gives that for nothing unless the derivative is
infinite or NaN, so a guard `select(ct == 0, 0, ct * derivative)` is spent only

* at operations whose derivative is infinite at finite operands (log, division,
  roots, powers, atan2), unless the operand is known to stay away from there;
* at operations whose derivative depends on a value that may be infinite or NaN
  (something that such an operation, exp or a literal gave), if the node lies
  upstream of an operation that makes exact zeros: select, max, min, lse, prod.

Inputs, parameters and states count as finite, unless a state starts from an
infinite literal; zeros are followed within one step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...ir.cell import Cell, Node

LINEAR = frozenset("add sub neg select real stop_gradient broadcast slice pad index place concat stack interleave fold "
                   "cumsum".split())
UNBOUNDED = frozenset("log log1p div pow sqrt rsqrt exp expm1 tan solve logdet mod floordiv".split())
SINGULAR = frozenset("log log1p div pow sqrt rsqrt atan2".split())
MAKES_ZEROS = frozenset("select max min logaddexp".split())
SAME = frozenset("broadcast slice index concat stack interleave".split())   # every element is one of the operands'


class Signs:
    """Which nodes are >= 0, and which are bounded away from 0 from above."""

    def __init__(self, body: Iterable[Node]):
        self.nonneg: set[str] = set()
        self.positive: set[str] = set()
        for n in body:
            if self._positive(n):
                self.positive.add(n.name)
            if n.name in self.positive or self._nonneg(n):
                self.nonneg.add(n.name)

    def _nonneg(self, n: Node) -> bool:
        each = [a in self.nonneg for a in n.args]
        match n.op:
            case "literal":
                return n.type.kind != "bool" and n.attr("value") >= 0
            case "abs" | "exp" | "sigmoid" | "softplus":
                return True
            case "mul":
                return n.args[0] == n.args[1] or all(each)
            case "max":
                return any(each)
            case "select":
                return all(each[1:])
            case "add" | "sqrt" | "rsqrt" | "min" | "div" | "pow" | "fold" | "cumsum":
                return all(each)
            case "reduce":
                return n.attr("fn") in ("sum", "max", "min", "prod") and all(each)
        return n.op in SAME and all(each)

    def _positive(self, n: Node) -> bool:
        each = [a in self.positive for a in n.args]
        match n.op:
            case "literal":
                return n.type.kind != "bool" and n.attr("value") > 0
            case "add":
                return any(each) and all(a in self.nonneg for a in n.args)
            case "max":
                return any(each)
            case "select":
                return all(each[1:])
            case "min" | "mul" | "div" | "sqrt" | "rsqrt":
                return all(each)
            case "reduce":
                return n.attr("fn") in ("sum", "max", "min") and all(each)
        return n.op in SAME and bool(each) and all(each)

    def regular(self, n: Node) -> bool:
        """Whether a SINGULAR operation's operands stay away from its singularities."""
        match n.op:
            case "log" | "sqrt" | "rsqrt":
                return n.args[0] in self.positive
            case "log1p":
                return n.args[0] in self.nonneg
            case "div":
                return n.args[1] in self.positive
        return False


class Guards:
    """Answers, for the nodes of one cell, which derivatives need a guard."""

    def __init__(self, cell: Cell):
        self.signs = Signs(cell.body)
        nodes = cell.nodes()
        infinite = {s.name for s in cell.states if _infinite_literal(nodes, s.init)}
        self.nonfinite: set[str] = set()
        for n in cell.body:
            if n.type.kind in ("bool", "int"):
                continue
            risky = n.op in UNBOUNDED and not (n.op in SINGULAR and self.signs.regular(n))
            if (risky or (n.op == "literal" and not math.isfinite(n.attr("value")))
                    or (n.op == "state" and n.attr("name") in infinite) or any(a in self.nonfinite for a in n.args)):
                self.nonfinite.add(n.name)
        self.upstream: set[str] = set()
        for n in reversed(cell.body):
            zeros = n.op in MAKES_ZEROS or (n.op == "reduce" and n.attr("fn") != "sum") or (
                n.op == "contract" and n.attr("semiring") != "sum")
            if zeros or n.name in self.upstream:
                self.upstream.update(n.args)

    def needed(self, n: Node) -> tuple[bool, ...]:
        """For every operand of a pointwise node, whether its cotangent needs a guard."""
        if n.op in SINGULAR and not self.signs.regular(n):
            return (True,) * len(n.args)
        if n.op in LINEAR or n.name not in self.upstream:
            return (False,) * len(n.args)
        if n.op == "mul":
            return n.args[1] in self.nonfinite, n.args[0] in self.nonfinite
        return (n.name in self.nonfinite or any(a in self.nonfinite for a in n.args),) * len(n.args)


def _infinite_literal(nodes: dict[str, Node], name: str) -> bool:
    n = nodes[name]
    while n.op == "broadcast":
        n = nodes[n.args[0]]
    return n.op == "literal" and isinstance(n.attr("value"), float) and not math.isfinite(n.attr("value"))
