"""Sums are regrouped by time domain: (W x + R h) + b = (W x + b) + R h.

What depends on inputs and parameters only is added up ahead of the steps, a
tile of time at once; a step adds one value. Only roundings change.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ...ir.cell import Cell, Node
from ..analysis.domains import domains
from .dce import Dce
from .rewrite import Rewriter, rename_roots


@dataclass(frozen=True, slots=True)
class Regroup:
    def __call__(self, cell: Cell) -> Cell:
        domain, nodes = domains(cell), cell.nodes()
        uses = Counter(a for n in cell.body for a in n.args) + Counter(cell.roots())

        def terms(name: str, top: bool = True) -> list[str]:
            n = nodes[name]
            if n.op != "add" or n.type.kind != "real" or domain[name] != "step" or (uses[name] > 1 and not top):
                return [name]
            return [t for a in n.args for t in terms(a, False)]

        b = Rewriter({}, taken=nodes)
        names: dict[str, str] = {}
        for n in cell.body:
            parts = terms(n.name)
            early = [t for t in parts if domain[t] in ("static", "pre")]
            if 1 < len(early) < len(parts):
                names[n.name] = _sum(b, n, [names[t] for t in early], [names[t] for t in parts if t not in early])
            else:
                names[n.name] = b.emit(n, names)
        return Dce()(rename_roots(cell, names).with_body(b.nodes))


def _sum(b: Rewriter, n: Node, early: list[str], late: list[str]) -> str:
    b.span = n.span
    total = early[0]
    for t in (*early[1:], *late[:-1]):
        total = b.op("add", total, t, hint=f"{n.name}.early" if t in early else None)
    b.own = n.name
    total = b.op("add", total, late[-1], hint=n.name)
    b.own = None
    return total
