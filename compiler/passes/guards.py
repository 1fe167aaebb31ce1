"""Where a cotangent of exactly 0 has to be kept from meeting an infinite derivative.

The language says that a cotangent that is exactly 0 contributes 0, whatever the
local derivative. Multiplying gives that for nothing unless the derivative is
infinite or NaN, so a guard `select(ct == 0, 0, ct * derivative)` is spent only

* at operations whose derivative is infinite at finite operands (log, division,
  roots, powers), unless the operand is known to stay away from there;
* at operations whose derivative depends on a value that may be infinite or NaN
  (see `analysis.ranges`; declared facts help), if the node lies upstream of an
  operation that makes exact zeros: a choice (select, max, min, lse), or a
  function that becomes flat (tanh, 1 / x at infinity).

Zeros are followed within one step, through the parts of a divided cell too, and cotangents
given by the caller count as nonzero. Contractions are not guarded.
"""

from __future__ import annotations

from ...ir.cell import Cell, Node
from ...ir.ops import OPS
from ..analysis.ranges import Ranges
from .divide import FROM

LINEAR = frozenset("add sub neg select real stop_gradient broadcast slice pad index place concat stack interleave fold "
                   "gather scatter cumsum max min".split())
MAKES_ZEROS = frozenset("select max min logaddexp tanh sigmoid softplus logsigmoid erf atan atan2 exp expm1 log log1p "
                        "div sqrt rsqrt pow mod".split())
FLAT = frozenset("exp expm1 sigmoid tanh softplus logsigmoid erf atan".split())    # derivative finite at -inf


class Guards:
    """Answers, for the nodes of one cell, which derivatives need a guard."""

    def __init__(self, cell: Cell):
        self.ranges = Ranges(cell)
        self.nonfinite = self.ranges.nonfinite
        self.upstream = {o.value for o in cell.outputs if o.name.startswith(FROM)}
        for n in reversed(cell.body):
            zeros = n.op in MAKES_ZEROS or (n.op == "reduce" and n.attr("fn") != "sum") or (
                n.attr("semiring", "sum") != "sum")
            if zeros or n.name in self.upstream:
                self.upstream.update(n.args)

    def singular(self, n: Node) -> bool:
        """Whether the derivative of a node may be infinite at finite operands."""
        low = [self.ranges.interval[a][0] for a in n.args]
        match n.op:
            case "log" | "sqrt" | "rsqrt":
                return low[0] <= 0
            case "log1p":
                return low[0] <= -1
            case "div":
                return low[1] <= 0 <= self.ranges.interval[n.args[1]][1]
            case "pow":
                return low[0] <= 0
        return False

    def needed(self, n: Node) -> tuple[bool, ...]:
        """For every operand, whether its cotangent needs a guard."""
        if OPS[n.op].group != "pointwise":
            nonlinear = n.op == "reduce" and n.attr("fn") in ("lse", "prod") and n.name in self.upstream
            return (nonlinear and n.args[0] in self.nonfinite,) * len(n.args)
        if self.singular(n):
            return (True,) * len(n.args)
        if n.op in LINEAR or n.name not in self.upstream:
            return (False,) * len(n.args)
        if n.op == "mul":
            return n.args[1] in self.nonfinite, n.args[0] in self.nonfinite
        bad = self.ranges.wild if n.op in FLAT else self.nonfinite
        return (n.name in bad or any(a in bad for a in n.args),) * len(n.args)
