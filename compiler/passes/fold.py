"""Constant folding: a rank-0 pointwise operation on literals becomes a literal.

Larger constants are broadcasts of literals, and `algebra.shrink` brings their
operations down to rank 0. Values come from the interpreter, hence float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...ir.cell import Cell, Node
from ...ir.interp import evaluate
from ...ir.ops import OPS
from .rewrite import Rewriter, Rules, rebuild


def fold(b: Rewriter, n: Node) -> str | None:
    """op(literals) = its value"""
    if n.type.rank or n.op in ("stop_gradient", "custom_grad") or n.type.kind == "complex":
        return b.add("literal", (), n.type, "k", value=b.node(n.args[0]).attr("value")) if (
            n.op == "stop_gradient" and b.node(n.args[0]).op == "literal") else None
    operands = [b.node(a) for a in n.args]
    if any(o.op != "literal" for o in operands):
        return None
    with torch.no_grad():
        value = evaluate([*{o.name: o for o in operands}.values(), n])[n.name].item()
    return b.literal(value, n.type.kind)


RULES: Rules = {op.name: (fold,) for op in OPS.values() if op.group == "pointwise"}


@dataclass(frozen=True, slots=True)
class Fold:
    def __call__(self, cell: Cell) -> Cell:
        return rebuild(cell, RULES)
