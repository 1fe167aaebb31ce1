"""Which states depend on which, and their strongly connected components."""

from __future__ import annotations

from ...ir.cell import Cell
from ..passes.dce import live


def dependences(cell: Cell) -> dict[str, frozenset[str]]:
    """For every state, in the cell's order: the states whose old values its next value reads."""
    nodes = cell.nodes()
    return {s.name: frozenset(n.attr("name") for name in live(cell.body, [s.next]) if (n := nodes[name]).op == "state")
            for s in cell.states}


def components(cell: Cell) -> tuple[tuple[str, ...], ...]:
    """The strongly connected components of the states: a component comes after
    those that it depends on, its states are in the cell's order (Tarjan 1972)."""
    edges = dependences(cell)
    order = list(edges)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []

    def visit(v: str) -> None:
        number[v] = low[v] = len(number)
        stack.append(v)
        for w in sorted(edges[v], key=order.index):
            if w not in number:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], number[w])
        if low[v] == number[v]:
            at = stack.index(v)
            found.append(tuple(sorted(stack[at:], key=order.index)))
            del stack[at:]

    for v in order:
        if v not in number:
            visit(v)
    return tuple(found)
