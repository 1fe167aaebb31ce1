"""Time domains: when each value of a cell has to be computed.

    static   parameters and constants only: once
    pre      inputs only: ahead of the steps, a tile of time at once
    step     what a state's next needs, and what is cheap and reads states
    post     reads states, but no state's next needs it, and it contains a product
             with a parameter or is for a sum over time: a tile of time at once, later

In an adjoint cell the gradient of an input (W^T da) and the sums are post.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.cell import Cell, Node
from ..passes.dce import live

ORDER = ("static", "pre", "step", "post")


def domains(cell: Cell) -> dict[str, str]:
    """The domain of every body node, by name."""
    static: set[str] = set()
    pre: set[str] = set()
    for n in cell.body:
        if n.op not in ("input", "state", "random", "training") and all(a in static for a in n.args):
            static.add(n.name)
        elif n.op != "state" and all(a in static or a in pre for a in n.args):
            pre.add(n.name)
    needed = live(cell.body, [s.next for s in cell.states])
    unsummed = live(cell.body, [*needed, *(o.value for o in cell.outputs)])
    nodes = cell.nodes()
    out: dict[str, str] = {}
    for n in cell.body:
        if n.name in static:
            out[n.name] = "static"
        elif n.name in pre:
            out[n.name] = "pre"
        else:
            after = any(out[a] == "post" for a in n.args) or has_weights(n, nodes)
            summed = n.name not in unsummed and n.op not in ("concat", "stack")      # their pieces are in registers
            out[n.name] = "post" if n.name not in needed and (after or summed) else "step"
    return out


def has_weights(n: Node, nodes: dict[str, Node]) -> bool:
    """Whether a node is a product with a parameter (or a view of one) that sums over one of its axes."""
    return n.op == "contract" and any(_weight(nodes[a], nodes) for a in n.args)


def _weight(n: Node, nodes: dict[str, Node]) -> bool:
    while n.op in ("slice", "index", "broadcast", "interleave"):
        n = nodes[n.args[0]]
    return n.op == "param"


@dataclass(frozen=True, slots=True)
class Order:
    """The same cell with its body ordered by domain, otherwise as written."""

    def __call__(self, cell: Cell) -> Cell:
        domain = domains(cell)
        return replace(cell, body=tuple(sorted(cell.body, key=lambda n: ORDER.index(domain[n.name]))))
