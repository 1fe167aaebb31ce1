"""Ranges: an interval for every real value of a cell, which may be infinite or NaN, and which may be -inf.

Intervals start from literals and declared facts (`in (0, 1)`, `<= 0`, `nonneg`)
and follow the operations. Inputs, parameters and states count as finite, unless
a state starts from an infinite literal; sums and products of finite values too.

With one exception: -inf is the zero of the semirings (max, +) and (logsumexp, +), and masks and impossible
transitions are given as such. Where these add up, an input, parameter or state counts as -inf unless it has a bound;
a product with a matrix does not. Nor does a maximum that one of its operands is reduced by (`exp(x - max(x, y))`):
-inf would make that NaN.

Where a value becomes an input of another cell (`passes.divide`), what is known
of it goes along: its interval as facts, and the facts WILD and INFINITE.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from ...ir.cell import Cell, Node
from ...ir.ops import OPS

INF = math.inf
ANY = (-INF, INF)
LARGEST_EXPONENT = 80.0         # exp of more overflows in float32
WILD, INFINITE = "wild", "infinite"     # facts of an input: may be infinite or NaN; is where the text says so
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
    `wild`: those of them for other reasons than an infinite literal or initial state, which `given` are; `empty`: nodes
    that may be -inf, inputs too; `subtracted`: maxima from one of whose operands they are subtracted."""

    def __init__(self, cell: Cell):
        self.nodes = cell.nodes()
        self.interval: dict[str, Interval] = {}
        self.given: set[str] = set()    # infinite because the text says so
        self.wild: set[str] = set()
        facts = {("input", p.name): p.facts for p in cell.inputs} | {("param", p.name): p.facts for p in cell.params}
        facts |= {("state", s.name): s.facts for s in cell.states}
        infinite = {s.name for s in cell.states if not math.isfinite(self._start(s.init))}
        for n in cell.body:
            if n.op in ("input", "param", "state"):
                known = facts[n.op, n.attr("name")]
                self.interval[n.name], wild = from_facts(known), WILD in known
            else:
                self.interval[n.name], wild = self._derived(n, {})
            if n.type.kind != "real":
                continue
            tame = n.op in ("exp", "expm1", "sigmoid", "tanh")      # finite at -inf
            if wild:
                self.wild.add(n.name)
            stated = n.op == "state" and n.attr("name") in infinite
            stated |= n.op == "input" and INFINITE in facts["input", n.attr("name")]
            stated |= n.op == "literal" and not math.isfinite(n.attr("value"))
            if stated or (not tame and any(a in self.given for a in n.args)):
                self.given.add(n.name)
        self.nonfinite = self.wild | self.given
        self.subtracted = {self._source(n.args[1])[0].name for n in cell.body if n.op == "sub" and self._below(*n.args)}
        self.empty: set[str] = set()
        for n in cell.body:
            low = self.interval[n.name][0]
            if n.type.kind == "real" and low == -INF and (n.name in self.nonfinite or self._empty(n)):
                self.empty.add(n.name)

    def _empty(self, n: Node) -> bool:
        """Whether a node without a lower bound is -inf where some of its operands are."""
        empty = [a in self.empty for a in n.args]
        match n.op:
            case "input" | "param" | "state":
                return True
            case "literal":
                return n.attr("value") == -INF
            case "max" | "logaddexp":
                return all(empty)
            case "sub" | "div":
                return empty[0]
            case "contract":
                return any(empty) and n.attr("semiring") != "sum"
            case "solve" | "logdet" | "running" | "cumprod":
                return n.attr("semiring", "sum") != "sum"
        return any(empty)

    def known(self, name: str) -> tuple[str, ...]:
        """All that is known of a real value, as the facts of an input."""
        return (*to_facts(self.interval[name]), *((WILD,) if name in self.wild else ()),
                *((INFINITE,) if name in self.given else ()))

    def _start(self, init: str) -> float:
        n = self.nodes[init]
        while n.op == "broadcast":
            n = self.nodes[n.args[0]]
        return n.attr("value") if n.op == "literal" else 0.0

    def _derived(self, n: Node, known: dict[str, Interval]) -> tuple[Interval, bool]:
        """Interval and wildness of a node, where some of its ancestors are `known` better."""
        if n.op == "select":
            found = [self._looked_up(a, cond, 4) for a, cond in zip(n.args[1:], self._conditions(n.args[0]))]
        else:
            found = [self._looked_up(a, known, 4) for a in n.args]
        xs = [interval for interval, _ in found]
        return self._interval(n, xs), self._unbounded(n, xs) or any(wild for _, wild in found)

    def _looked_up(self, name: str, known: dict[str, Interval], depth: int) -> tuple[Interval, bool]:
        n = self.nodes[name]
        if name in known:
            (a, b), (c, d) = known[name], self.interval[name]
            return (max(a, c), min(b, d)), name in self.wild
        if not known or not depth or OPS[n.op].group != "pointwise" or n.op == "select":
            return self.interval[name], name in self.wild
        found = [self._looked_up(a, known, depth - 1) for a in n.args]
        xs = [interval for interval, _ in found]
        return self._interval(n, xs), self._unbounded(n, xs) or any(wild for _, wild in found)

    def _conditions(self, cond: str) -> tuple[dict[str, Interval], dict[str, Interval]]:
        """What a comparison with a constant says of the other side, if it holds and if not."""
        n = self.nodes[cond]
        if n.op not in ("lt", "le", "gt", "ge") or not math.isfinite(c := self.interval[n.args[1]][0]) or (
                self.interval[n.args[1]] != (c, c)):
            return {}, {}
        below, above = {n.args[0]: (-INF, c)}, {n.args[0]: (c, INF)}
        return (below, above) if n.op in ("lt", "le") else (above, below)

    # -- intervals ------------------------------------------------------------
    def _interval(self, n: Node, xs: list[Interval]) -> Interval:
        """The interval of a node from its operands' (of a select: its branches')."""
        if n.type.kind == "bool":
            return 0, 1
        match n.op, xs:
            case "literal", _:
                return (v, v) if math.isfinite(v := n.attr("value")) else ANY
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
            case "select", [(a, b), (c, d)]:
                return min(a, c), max(b, d)
            case "exp", [(a, b)]:
                return _exp(a), _exp(b)
            case "expm1", [(a, b)]:
                return _exp(a) - 1, _exp(b) - 1
            case "sqrt", [(a, b)]:
                return math.sqrt(max(a, 0.0)), math.sqrt(max(b, 0.0))
            case "div", [(a, _), _] if a >= 0 and self._share(n):
                return 0.0, 1.0
            case ("rsqrt" | "pow" | "div"), [(a, _), *rest]:
                return (0.0 if a >= 0 and all(c >= 0 for c, _ in rest) else -INF), INF
            case ("log" | "log1p"), [(a, _)] if a >= (1 if n.op == "log" else 0):
                return 0.0, INF
            case "reduce", [(a, b)] if n.attr("fn") in ("max", "min"):
                return a, b
            case ("reduce" | "fold"), [(a, b)] if n.attr("fn", "sum") == "sum":
                if n.op == "reduce" and self._has_one(n):
                    return 1.0, INF
                size = n.attr("times") or self.nodes[n.args[0]].type.numel // max(1, n.type.numel)
                return _times(a, size), _times(b, size)
            case "contract", [(a, _), (c, _)] if a >= 0 and c >= 0 and n.attr("semiring") == "sum":
                return 0.0, INF
        if n.op in ("gather", "pad", "place", "scatter"):           # zeros beside
            (a, b), *_ = xs
            if n.op == "scatter":                                   # and sums
                return 0.0 if a >= 0 else -INF, 0.0 if b <= 0 else INF
            return min(a, 0.0), max(b, 0.0)
        if n.op in _SAME and xs:
            return min(a for a, _ in xs), max(b for _, b in xs)
        return _FIXED.get(n.op, ANY)

    def _share(self, n: Node) -> bool:
        """Whether n is x / (x + y) for y >= 0."""
        x, whole = n.args[0], self.nodes[n.args[1]]
        return whole.op == "add" and x in whole.args and all(self.interval[a][0] >= 0 for a in whole.args)

    def _below(self, x: str, y: str) -> bool:
        """Whether y is the maximum (or log-sum-exp) of x and others."""
        n, wide = self._source(y)
        above = n.op in ("max", "logaddexp") and not wide or n.op == "reduce" and n.attr("fn") in ("max", "lse")
        return above and x in n.args

    def _source(self, name: str) -> tuple[Node, bool]:
        """The value under broadcasts and stop_gradient, and whether it was broadcast."""
        n, wide = self.nodes[name], False
        while n.op in ("broadcast", "stop_gradient"):
            n, wide = self.nodes[n.args[0]], wide or n.op == "broadcast"
        return n, wide

    def _has_one(self, n: Node) -> bool:
        """Whether n is the sum of exp(x - max(x)), which is at least 1."""
        e = self.nodes[n.args[0]]
        s = self.nodes[e.args[0]] if e.op == "exp" else e
        if s.op != "sub" or s.args[0] in self.wild:
            return False
        top, _ = self._source(s.args[1])
        return (top.op == "reduce" and top.attr("fn") == "max" and top.args == s.args[:1]
                and set(top.attr("axes")) <= set(n.attr("axes")))

    # -- infinities -------------------------------------------------------------
    def _unbounded(self, n: Node, xs: list[Interval]) -> bool:
        """Whether a node may be infinite or NaN at finite operands in `xs`."""
        low, high = zip(*xs) if xs else ((), ())
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
