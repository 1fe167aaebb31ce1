"""The derivative of every operation: from a node's cotangent to its operands'.

`RULES[op](d, n, ct)` gives one cotangent per operand, None where there is
none. `d` is the builder with a few shorthands (`D`); the formula is the line.
Rules use the node's own value y where that is cheaper than its operands.

Where a rule's local derivative may be infinite or NaN, `guards` decides
whether the result is replaced by 0 where ct is exactly 0.
"""

from __future__ import annotations

from ....ir.cell import Node
from ....ir.ops import OPS
from . import matrices, pointwise, reductions, structure
from .rule import Cotangents, D, DerivativeRule, spread

__all__ = ["GATHERED", "LAST", "REAL", "RULES", "Cotangents", "D", "spread"]


def _zero(d: D, n: Node, ct: str) -> Cotangents:
    return (None,) * len(n.args)


RULES: dict[str, DerivativeRule] = {
    **pointwise.RULES, **structure.RULES, **reductions.RULES, **matrices.RULES,
    # derivative zero almost everywhere, or not a real value
    **{op: _zero for op in "sign floor ceil round floordiv int stop_gradient random iota training literal "
       "not eq ne lt le gt ge and or".split()},
}

# slice and index: `adjoint` gathers the pieces (concat, stack) instead of adding padded ones
GATHERED = frozenset({"slice", "index"})
LAST = frozenset({"decayed_back", "ends_back", "cumprod_back"})     # in adjoints only, and of an adjoint none is taken
REAL = {o.name for o in OPS.values() if o.group != "complex"}      # `realify` has come before
assert set(RULES) | GATHERED | LAST | {"input", "param", "state", "draw"} == REAL, REAL - set(RULES)
