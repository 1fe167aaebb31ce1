"""Rules for nodes that depend on a cotangent, and only for them.

They reassociate sums and products. In the forward pass that could change what
overflows; cotangents enter linearly, and a gradient that only exists in one
order of summation is worth nothing.
"""

from __future__ import annotations

from ...ir.cell import Cell, Node
from .rewrite import Rewriter, Rules


class LinearRewriter(Rewriter):
    """Knows which nodes depend on a cotangent (a read whose name starts with ∂)."""

    def __init__(self, *args, **kwargs):
        self.linear: set[str] = set()
        super().__init__(*args, **kwargs)

    def append(self, node: Node) -> str:
        if any(a in self.linear for a in node.args) or (
                node.op in ("input", "state") and node.attr("name").startswith("∂")):
            self.linear.add(node.name)
        return super().append(node)


RULES: Rules = {}


def outer_products(joint: Cell) -> Cell:
    return joint
