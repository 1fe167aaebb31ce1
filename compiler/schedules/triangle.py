"""Products of which half is left out: sums with the rows of a chunk that come before a row.

The terms or results where the column is not before the row are 0 or read by nobody (`below` of a contraction, see
`ir.ops`). A phase of such products goes over blocks of rows or columns, each with those terms that its rows have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...ir.cell import Node
from ...ir.ops import spec_parts

if TYPE_CHECKING:
    from .kernel import Phase


@dataclass(frozen=True, slots=True)
class Triangle:
    """What matters: where the loop variable `column` is less than `row`. Of a phase's last two axes p..., or one of the
    former of them and the reduced r0."""

    row: str
    column: str

    def __str__(self) -> str:
        return f"{self.column} < {self.row}"

    def partner(self, var: str) -> str:
        """The other one."""
        return self.column if var == self.row else self.row

    def bounds(self, var: str, low: int, high: int, size: int) -> tuple[int, int]:
        """Where the other one of `var` (of so many places) matters, if `var` is one of low, ..., high - 1."""
        return (0, min(high - 1, size)) if var == self.row else (min(low + 1, size), size)


def triangle(p: Phase, nodes: Mapping[str, Node]) -> Triangle | None:
    """Of a phase whose products all leave out the same half, which its loops from block to block can."""
    if len(p.groups) != 1 or len(p.groups[0].dims) != 1 or p.rows != "map" or p.block != "par" or p.weights or p.sweep:
        return None
    found = {_of(nodes[n], p) for n in p.groups[0].nodes}
    if len(found) != 1 or (t := found.pop()) is None:
        return None
    last = [f"p{i}" for i in range(len(p.shape))][-2:]
    among = {last[0], "r0"} if p.lane == "par" else {*last}
    return t if len(last) == 2 and {t.row, t.column} == among else None


def _of(n: Node, p: Phase) -> Triangle | None:
    if n.op != "contract" or n.type.rank != len(p.shape) or not (below := n.attr("below", "")):
        return None
    places = {c: f"p{i}" for i, c in enumerate(spec_parts(n.attr("spec"))[2])}
    return Triangle(*(places.get(c, "r0") for c in below))
