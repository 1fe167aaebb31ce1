"""Which axis may be cut into pieces that never meet: lanes as part of the grid.

An element-wise recurrence over D lanes is D recurrences. Where there are fewer
sequences and heads than threads, work items take a stretch of the lanes each.
"""

from __future__ import annotations

from ...ir.cell import Cell
from ...ir.types import Dim
from .heads import Mixed, follow
from .kernel import Kernel


def separable(cell: Cell) -> Dim | None:
    """The last axis of all states, if no value joins two of its elements."""
    axes = {s.type.shape[-1] for s in cell.states if s.type.rank}
    if len(axes) != 1:
        return None
    lane, = axes
    nodes, at = cell.nodes(), {}
    try:
        for n in cell.body:
            if n.op in ("input", "param", "state"):
                at[n.name] = n.type.rank - 1 if n.type.shape[-1:] == (lane,) else None
                if lane in n.type.shape[:-1]:
                    return None
            else:
                at[n.name], _ = follow(n, at, nodes, lane, {})
    except Mixed:
        return None
    whole = [(o.value, True) for o in (*cell.outputs, *cell.sums)]
    whole += [(s.next, s.type.shape[-1:] == (lane,)) for s in cell.states]
    for name, wanted in whole:                  # every result has the axis, and has it last
        rank = nodes[name].type.rank
        if at[name] != (rank - 1 if wanted else None):
            return None
    return lane


def common(kernel: Kernel, *cells: Cell) -> Dim | None:
    """The axis that all cells of a kernel can be cut along, if its loop nests have it as their lanes."""
    found = {separable(c) for c in cells}
    lane = found.pop() if len(found) == 1 else None
    phases = [p for r in kernel.runs for part in r.parts for p in part.phases]
    if lane is None or any(p.call or p.lane == "red" and p.shape[-1:] == (lane,) for p in phases):
        return None
    return lane
