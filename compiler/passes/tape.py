"""Save or recompute: which forward values the backward pass keeps.

The adjoint is first written as one joint body, in which gradients use forward
values freely. The values that both sides could compute form a graph, and the
cheapest set to save is a minimum cut of it:

    for each value v:  available(v), recomputed(v) <= available(v)
    recomputed(v) needs available(a) for every operand a
    cost = sum of save(v) over available but not recomputed, + sum of work(v) over recomputed

which is exact (every constraint is a submodular pair). Costs are in units of
one vectorised arithmetic operation per element and step:

    save(v)   40 for a store and a load of one real (12 bytes of memory traffic take as
              long as about 40 vector operations; 16 if the value is an output, which
              is stored anyway), 10 for a bool, twice that for an int
    work(v)   1 arithmetic, 4 division or root, 12 to 20 transcendental; reductions
              32 per result and 1 per operand element; products 32 per result and
              2 per multiplication; linear algebra, cumsum, running and cumprod are always kept;
              views and broadcasts are free, reading an input costs the load

Old state values cannot be recomputed within a step; they are saved as
`prev.STATE`. Random draws are recomputed (they are counter based), as is
whatever depends on parameters and literals only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise

from ...ir.cell import Node
from ...ir.ops import spec_parts
from ...ir.types import Type
from .lower import WHOLE

INF = 1 << 60
LOAD, SAVE, REDUCED = 16, 40, 32
_WORK = {**dict.fromkeys("div sqrt rsqrt floordiv mod".split(), 4), **dict.fromkeys("exp expm1 softplus".split(), 12),
         **dict.fromkeys("log log1p sin cos tanh sigmoid logsigmoid atan".split(), 15),
         **dict.fromkeys("tan erf atan2 pow logaddexp".split(), 20), "random": 20}
_VIEWS = frozenset("broadcast slice index pad place concat stack interleave literal param iota training".split())


def work(n: Node, types: Mapping[str, Type]) -> int:
    """Operations to compute a node from its operands (see the table above)."""
    if n.op in _VIEWS:
        return 0
    if n.op == "input":
        return LOAD * n.type.numel
    if n.op == "state" or n.op in WHOLE:
        return INF
    if n.op == "contract":
        sizes = {}
        for a, s in zip(n.args, spec_parts(n.attr("spec"))):
            sizes |= dict(zip(s, types[a].sizes))
        terms = 1
        for size in sizes.values():
            terms *= size
        return 2 * terms + REDUCED * n.type.numel
    if n.op in ("gather", "scatter"):
        return LOAD * max(n.type.numel, types[n.args[0]].numel if n.op == "scatter" else 0)
    if n.op in ("reduce", "fold"):
        return types[n.args[0]].numel + REDUCED * n.type.numel
    return _WORK.get(n.op, 1) * n.type.numel


def choose(nodes: Iterable[Node], needed: Iterable[str], known: set[str], stored: set[str], policy: str) -> set[str]:
    """Names of the `nodes` (in topological order) to save so that all `needed`
    ones are available. `known`: values that the forward pass computes anyway;
    of those `stored`: values that it writes anyway (outputs; for a state read: its
    next value is an output).
    `policy`: "auto" by cost, "all" recomputes views only, "none" saves old states only."""
    nodes = list(nodes)
    types = {n.name: n.type for n in nodes}
    static = set()
    graph = Flow()
    for n in nodes:
        if n.op not in ("input", "state", "random") and all(a in static for a in n.args):
            static.add(n.name)
        redo = 0 if n.name in static else work(n, types)
        cost = _save(n, n.name in stored) + (n.op in _VIEWS) + (0 if n.name in known else redo)
        if policy == "none" and n.op != "state":
            cost, redo = INF, 1
        elif policy == "all" and n.op not in _VIEWS | {"input", "random"} and n.name not in static:
            redo = INF
        if n.name in static or n.op in ("input", "random"):
            cost = INF
        a, r = ("available", n.name), ("recomputed", n.name)
        graph.edge(a, r, cost)
        graph.edge(r, "sink", redo)
        for x in n.args:
            graph.edge(r, ("available", x), INF)
    for name in needed:
        graph.edge("source", ("available", name), INF)
    side = graph.cut("source", "sink")
    return {n.name for n in nodes if ("available", n.name) in side and ("recomputed", n.name) not in side}


def _save(n: Node, stored: bool) -> int:
    if n.type.kind == "bool":
        return 10 * n.type.numel
    return (LOAD if stored else SAVE) * n.type.numel * (2 if n.type.kind in ("int", "complex") else 1)


class Flow:
    """Maximum flow and minimum cut (Dinic's algorithm), integer capacities."""

    def __init__(self):
        self.capacity: dict[object, dict[object, int]] = {}

    def edge(self, a: object, b: object, capacity: int) -> None:
        self.capacity.setdefault(a, {})
        self.capacity.setdefault(b, {}).setdefault(a, 0)
        self.capacity[a][b] = min(INF, self.capacity[a].get(b, 0) + capacity)

    def cut(self, source: object, sink: object) -> set[object]:
        """The smallest source side of a minimum cut."""
        self.capacity.setdefault(source, {})
        self.capacity.setdefault(sink, {})
        while sink in (level := self._levels(source)):
            untried = {v: iter(list(edges)) for v, edges in self.capacity.items()}
            while self._augment(source, sink, level, untried):
                pass
        return set(level)

    def _levels(self, source: object) -> dict[object, int]:
        level, queue = {source: 0}, deque([source])
        while queue:
            v = queue.popleft()
            for w, c in self.capacity[v].items():
                if c > 0 and w not in level:
                    level[w] = level[v] + 1
                    queue.append(w)
        return level

    def _augment(self, source: object, sink: object, level: Mapping[object, int], untried: Mapping) -> bool:
        """One augmenting path along the levels (iterative depth-first search)."""
        path = [source]
        while path:
            v = path[-1]
            if v == sink:
                edges = list(pairwise(path))
                push = min(self.capacity[a][b] for a, b in edges)
                for a, b in edges:
                    self.capacity[a][b] -= push
                    self.capacity[b][a] += push
                return True
            step = next((w for w in untried[v] if self.capacity[v][w] > 0 and level.get(w) == level[v] + 1), None)
            if step is None:
                path.pop()
                continue
            path.append(step)
        return False
