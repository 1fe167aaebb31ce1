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
    order = {v: i for i, v in enumerate(edges)}
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: dict[str, None] = {}
    found: list[tuple[str, ...]] = []
    for root in order:
        path = [] if root in number else [(root, iter(sorted(edges[root], key=order.get)))]
        while path:         # a path through the graph, not recursion: lags make long chains
            v, rest = path[-1]
            if v not in number:
                number[v] = low[v] = len(number)
                stack[v] = None
            w = next(rest, None)
            if w is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[v])
                if low[v] == number[v]:
                    names = list(stack)
                    component = names[names.index(v):]
                    found.append(tuple(sorted(component, key=order.get)))
                    for x in component:
                        del stack[x]
            elif w not in number:
                path.append((w, iter(sorted(edges[w], key=order.get))))
            elif w in stack:
                low[v] = min(low[v], number[w])
    return tuple(found)
