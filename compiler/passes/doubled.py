"""Exponentials of doubled arguments: from those of the arguments, where these are computed anyway.

    exp(2 x)   = exp(x)^2                       where exp(x) is there
    expm1(2 x) = expm1(x) (expm1(x) + 2)        where exp(x) or expm1(x) is there

Back ends make exp and expm1 of one argument at little more than the price of one. Relative errors at most double, and
nothing cancels for x <= 0 (expm1(x) + 2 is at least 1), so `sqrt(-expm1(2 * g))` is as good near g = 0 as far from it.

Only for cells whose derivative has been taken: that of the second form, exp(x) (2 expm1(x) + 2), would cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.cell import Cell, Node
from .dce import Dce
from .rewrite import Rewriter, rebuild

EXPONENTIALS = ("exp", "expm1")


@dataclass(frozen=True, slots=True)
class Doubled:
    def __call__(self, cell: Cell) -> Cell:
        there: dict[tuple[str, float], dict[str, str]] = {}      # (x, c) -> operations that are done on c x, and c x
        nodes = cell.nodes()
        for n in cell.body:
            if n.op in EXPONENTIALS and n.type.kind == "real":
                there.setdefault(_scaled(nodes, n.args[0]), {})[n.op] = n.args[0]

        def halved(b: Rewriter, n: Node) -> str | None:
            x, c = _scaled(b.by_name, n.args[0])
            done = there.get((x, c / 2), {}) if n.type.kind == "real" and c / 2 != c == c / 2 * 2 else {}
            half = done.get("exp") or (done.get("expm1") if n.op == "expm1" else None)
            if half not in b.by_name:
                return None
            e = b.op(n.op, half)
            return b.op("mul", e, e if n.op == "exp" else b.op("add", e, b.full(2.0, n.type)), hint=n.name)

        return Dce()(rebuild(cell, dict.fromkeys(EXPONENTIALS, (halved,))))


def _scaled(nodes: Mapping[str, Node], name: str) -> tuple[str, float]:
    """(x, c) for x * c with a literal c, as canonical form has it; (the value itself, 1) for all others."""
    n = nodes[name]
    if n.op != "mul":
        return name, 1.0
    factor = nodes[n.args[1]]
    if factor.op == "broadcast":
        factor = nodes[factor.args[0]]
    return (n.args[0], factor.attr("value")) if factor.op == "literal" else (name, 1.0)
