"""Ranges: an interval for every real value of a cell, and which may be infinite or NaN.

Intervals start from literals and declared facts (`in (0, 1)`, `<= 0`, `nonneg`)
and follow the operations. Inputs, parameters and states count as finite, unless
a state starts from an infinite literal; sums and products of finite values too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from ...ir.cell import Cell, Node

INF = math.inf
ANY = (-INF, INF)
LARGEST_EXPONENT = 80.0         # exp of more overflows in float32
Interval = tuple[float, float]

_FIXED: dict[str, Interval] = {"sigmoid": (0, 1), "tanh": (-1, 1), "erf": (-1, 1), "sin": (-1, 1), "cos": (-1, 1),
                               "sign": (-1, 1), "atan": (-1.6, 1.6), "softplus": (0, INF), "logsigmoid": (-INF, 0)}
_SAME = frozenset("broadcast slice index concat stack interleave stop_gradient real".split())
_NUMBER = r"(-?(?:inf|[0-9][-+.0-9e]*))"


def from_facts(facts: Iterable[str]) -> Interval:
    """The interval that declared facts give."""
    low, high = ANY
    for fact in facts:
        if fact == "nonneg":
            low = max(low, 0.0)
        elif m := re.fullmatch(rf"in [\[(]{_NUMBER}, {_NUMBER}[\])]", fact):
            low, high = max(low, float(m[1])), min(high, float(m[2]))
        elif m := re.fullmatch(rf"([<>])=? {_NUMBER}", fact):
            low, high = (low, min(high, float(m[2]))) if m[1] == "<" else (max(low, float(m[2])), high)
    return low, high


def to_facts(interval: Interval) -> tuple[str, ...]:
    """An interval as declared facts."""
    low, high = interval
    return (*((f">= {low}",) if low > -INF else ()), *((f"<= {high}",) if high < INF else ()))


class Ranges:
    """`interval[name]`; `nonfinite`: real nodes that may be infinite or NaN;
    `wild`: those of them for other reasons than an infinite literal or initial state."""

    def __init__(self, cell: Cell):
        self.nodes = cell.nodes()
        self.interval: dict[str, Interval] = {}
        self.nonfinite: set[str] = set()
        self.wild: set[str] = set()
        facts = {("input", p.name): p.facts for p in cell.inputs} | {("param", p.name): p.facts for p in cell.params}
        facts |= {("state", s.name): s.facts for s in cell.states}
        infinite = {s.name for s in cell.states if not math.isfinite(self._start(s.init))}
        for n in cell.body:
            if n.op in ("input", "param", "state"):
                self.interval[n.name] = from_facts(facts[n.op, n.attr("name")])
            else:
                self.interval[n.name] = self._interval(n)
            if n.type.kind != "real":
                continue
            new, tame = self._unbounded(n), n.op in ("exp", "expm1", "sigmoid", "tanh")     # finite at -inf
            if new or any(a in self.wild for a in n.args):
                self.wild.add(n.name)
            given = n.op == "state" and n.attr("name") in infinite
            given |= n.op == "literal" and not math.isfinite(n.attr("value"))
            if given or n.name in self.wild or (not tame and any(a in self.nonfinite for a in n.args)):
                self.nonfinite.add(n.name)

    def _start(self, init: str) -> float:
        n = self.nodes[init]
        while n.op == "broadcast":
            n = self.nodes[n.args[0]]
        return n.attr("value") if n.op == "literal" else 0.0

    # -- intervals ------------------------------------------------------------
    def _interval(self, n: Node) -> Interval:
        if n.type.kind == "bool":
            return 0, 1
        xs = [self.interval[a] for a in n.args]
        match n.op, xs:
            case "literal", _:
                return (v := n.attr("value")), v
            case "neg", [(a, b)]:
                return -b, -a
            case "abs", [(a, b)]:
                return max(a, -b, 0.0), max(-a, b)
            case "add", [(a, b), (c, d)]:
                return a + c, b + d
            case "sub", [(a, b), (c, d)]:
                return a - d, 0.0 if self._below(*n.args) else b - c
            case "mul", [(a, b), (c, d)]:
                corners = [_times(p, q) for p in (a, b) for q in (c, d)]
                return 0.0 if n.args[0] == n.args[1] else min(corners), max(corners)
            case "max", [(a, b), (c, d)]:
                return max(a, c), max(b, d)
            case "min", [(a, b), (c, d)]:
                return min(a, c), min(b, d)
            case "select", [_, (a, b), (c, d)]:
                return min(a, c), max(b, d)
            case "exp", [(a, b)]:
                return _exp(a), _exp(b)
            case "expm1", [(a, b)]:
                return _exp(a) - 1, _exp(b) - 1
            case "sqrt", [(a, b)]:
                return math.sqrt(max(a, 0.0)), math.sqrt(max(b, 0.0))
            case ("rsqrt" | "pow" | "div"), [(a, _), *rest]:
                return (0.0 if a >= 0 and all(c >= 0 for c, _ in rest) else -INF), INF
            case ("log" | "log1p"), [(a, _)] if a >= (1 if n.op == "log" else 0):
                return 0.0, INF
            case "reduce", [(a, b)] if n.attr("fn") in ("max", "min"):
                return a, b
            case ("reduce" | "fold"), [(a, b)] if n.attr("fn", "sum") == "sum":
                size = n.attr("times") or self.nodes[n.args[0]].type.numel // max(1, n.type.numel)
                return _times(a, size), _times(b, size)
            case "contract", [(a, _), (c, _)] if a >= 0 and c >= 0 and n.attr("semiring") == "sum":
                return 0.0, INF
        if n.op in _SAME and xs:
            return min(a for a, _ in xs), max(b for _, b in xs)
        return _FIXED.get(n.op, ANY)

    def _below(self, x: str, y: str) -> bool:
        """Whether y is the maximum (or log-sum-exp) of x and others."""
        n, wide = self.nodes[y], False
        while n.op == "broadcast":
            n, wide = self.nodes[n.args[0]], True
        above = n.op in ("max", "logaddexp") and not wide or n.op == "reduce" and n.attr("fn") in ("max", "lse")
        return above and x in n.args

    # -- infinities -------------------------------------------------------------
    def _unbounded(self, n: Node) -> bool:
        """Whether a node may be infinite or NaN at finite operands."""
        low, high = zip(*(self.interval[a] for a in n.args)) if n.args else ((), ())
        match n.op:
            case "exp" | "expm1":
                return high[0] > LARGEST_EXPONENT
            case "log" | "rsqrt":
                return low[0] <= 0
            case "sqrt":
                return low[0] < 0
            case "log1p":
                return low[0] <= -1
            case "div" | "mod" | "floordiv":
                return low[1] <= 0 <= high[1]
            case "pow":
                return not (low[0] > 0 or (low[0] >= 0 and low[1] >= 0))
        return n.op in ("tan", "solve", "logdet")


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else INF
