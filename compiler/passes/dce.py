"""Dead code: nodes that no root depends on disappear.

Ports of the interface (inputs, outputs, params, states) stay: callers count on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...ir.cell import Cell, Node


def live(body: Iterable[Node], roots: Iterable[str]) -> set[str]:
    """Names of the nodes that `roots` depend on."""
    needed = set(roots)
    for n in reversed(tuple(body)):
        if n.name in needed:
            needed.update(n.args)
    return needed


@dataclass(frozen=True, slots=True)
class Dce:
    def __call__(self, cell: Cell) -> Cell:
        needed = live(cell.body, cell.roots())
        return cell.with_body(n for n in cell.body if n.name in needed)
