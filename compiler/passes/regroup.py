"""Sums and products are regrouped by time domain: (W x + R h) + b = (W x + b) + R h, k @ (g * S) = (k * g) @ S.

What depends on inputs and parameters only is added up ahead of the steps, a
tile of time at once; a step adds one value. What scales the rows of a matrix
scales the vector that it is multiplied by. Only roundings change.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ...ir.cell import Cell, Node
from ...ir.ops import spec_parts
from ..analysis.domains import domains
from .dce import Dce
from .rewrite import Rewriter, rename_roots

EARLY = ("static", "pre")


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
            early = [t for t in parts if domain[t] in EARLY]
            if 1 < len(early) < len(parts):
                names[n.name] = _sum(b, n, [names[t] for t in early], [names[t] for t in parts if t not in early])
            elif scales := _scales(n, nodes, domain):
                names[n.name] = _scaled(b, n, names, *scales)
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


def _scales(n: Node, nodes: dict[str, Node], domain: dict[str, str]) -> tuple[int, str, list[Node]] | None:
    """Of a product of a vector that is known early and a matrix that is scaled along the vector's axes: which operand
    is the matrix, what it is without the scales, and these."""
    if n.op != "contract" or n.type.kind != "real" or n.attr("semiring") != "sum":
        return None
    specs = spec_parts(n.attr("spec"))
    for k, x in enumerate(n.args):
        vector, scales = n.args[1 - k], []
        if domain[vector] not in EARLY or nodes[vector].type.rank >= nodes[x].type.rank:
            continue
        while found := next((m for m in _factors(nodes[x]) if nodes[m[0]].op == "broadcast" and domain[m[0]] in EARLY
                             and {specs[k][a] for a in nodes[m[0]].attr("axes")} <= {*specs[1 - k]}), None):
            scales.append(nodes[found[0]])
            x = found[1]
        if scales and domain[x] == "step":
            return k, x, scales
    return None


def _factors(m: Node) -> tuple[tuple[str, ...], ...]:
    return (m.args, m.args[::-1]) if m.op == "mul" else ()


def _scaled(b: Rewriter, n: Node, names: dict[str, str], k: int, x: str, scales: list[Node]) -> str:
    """The product of the scaled vector and the matrix without its scales."""
    b.span, specs, vector = n.span, spec_parts(n.attr("spec")), names[n.args[1 - k]]
    for s in scales:
        places = tuple(specs[1 - k].index(specs[k][a]) for a in s.attr("axes"))
        scale = b.broadcast(names[s.args[0]], b.type(vector).shape, places)
        vector = b.op("mul", vector, scale, hint=f"{n.name}.early")
    b.own = n.name
    total = b.contract(*((names[x], vector) if k == 0 else (vector, names[x])), n.attr("spec"), hint=n.name)
    b.own = None
    return total
