"""From units to phases: which loop nests there are, and what each one stores.

Units are placed in the body's order. A unit joins the earliest phase that has
its shape and runs late enough; a reduction's result is used in registers by
pointwise units of the same phase and point, and goes through a buffer to all
others. Phases that visit the same points of a matrix are joined at the end
(`sweeps.py`: a matrix state is updated where it is read).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Callable

from ...ir.cell import Node
from ...ir.types import Dim
from .kernel import Group, Phase, Store
from .leaves import uses
from .passing import in_passing
from .sweeps import Joiner
from .units import Unit, Walk, identity
from .views import operand_indices, param_view, reduced_dims

MEMBERS = 6          # reductions that share one loop, at most: registers


@dataclass
class Proto:
    """A phase being filled."""

    shape: tuple[Dim, ...]
    lane: str | None
    weights: bool
    reductions: int
    matrix: tuple[Dim, ...]                     # what its reductions are over, if they are sums of a matrix's points
    call: str | None = None
    units: list[Unit] = field(default_factory=list)


class Planner:
    """Plans one part (before, steps or after) of a run.

    `reads`: where values live already. `place(name)`: a fresh scratch buffer
    for a value that a later phase or part needs. `cross(name, often, dear)`: asks
    an earlier part for a value, true if it gives it (see `Walk`). After `plan()`, `reads`
    also holds what this part has stored."""

    def __init__(self, nodes: dict[str, Node], reads: dict[str, str], domain: str,
                 place: Callable[[str], str], cross: Callable[..., bool], packing: bool = True):
        self.packing = packing
        self.nodes, self.reads, self.domain, self.place, self.cross = nodes, reads, domain, place, cross
        self.targets: dict[str, list[str]] = {}                  # node -> buffers to store it in
        self.costly: set[str] = set()                            # expensive values that the plan evaluates

    def store(self, name: str, buffer: str) -> None:
        """Ask for `name` to be stored in `buffer`."""
        self.targets.setdefault(name, []).append(buffer)

    def plan(self) -> tuple[Phase, ...]:
        stops = set(self.targets)
        while True:
            walk = Walk(self.nodes, self.reads, set(stops), self.cross)
            for name in sorted(self.targets, key=walk.order.__getitem__):
                walk.root(name)
            protos = self._assign(walk)
            more = (walk.enlarged | self._repeated(walk) | walk.stops) - stops     # found late: from the start, then
            if not more:
                self.costly = {n for u in walk.units.values() for n in u.costly}
                return self._build(walk, protos)
            stops |= more

    # -- placing --------------------------------------------------------
    def _assign(self, walk: Walk) -> list[Proto]:
        protos: list[Proto] = []
        for u in sorted(walk.units.values(), key=lambda u: u.order):
            low = max((self._ready(walk, name, same) for name, same in u.uses), default=0)
            u.phase = self._join(protos, u, low)
            protos[u.phase].units.append(u)
        return protos

    def _ready(self, walk: Walk, name: str, same: bool) -> int:
        """First phase that may use `name`."""
        if name in walk.units:
            return walk.units[name].phase + (0 if same else 1)
        return max(self._ready(walk, piece, False) for piece in walk.assembled[name])

    def _join(self, protos: list[Proto], u: Unit, low: int) -> int:
        if u.kind == "call":
            protos.append(Proto((), None, False, 0, (), call=u.node.name))
            return len(protos) - 1
        shape, lane = u.node.type.shape, self._lane(u)
        weights = u.kind == "reduce" and self._weights(u)
        matrix = self._matrix(u, weights)
        for i in range(low, len(protos)):
            p = protos[i]
            if p.shape != shape or p.call:
                continue
            if u.kind == "reduce":
                if p.reductions and (p.lane, p.weights) != (lane, weights):
                    continue
                if p.matrix != matrix and p.reductions:
                    continue
                if p.reductions >= MEMBERS or (not p.reductions and (weights or lane == "red")):
                    continue
                if not p.reductions and matrix and not shape:
                    continue
                p.lane, p.weights, p.matrix, p.reductions = lane, weights, matrix, p.reductions + 1
            elif p.lane == "red" and (shape or p.matrix):
                continue
            return i
        protos.append(Proto(shape, lane, weights, int(u.kind == "reduce"), matrix))
        return len(protos) - 1

    def _matrix(self, u: Unit, weights: bool) -> tuple[Dim, ...]:
        """What a reduction of points with two axes or more is over (in steps, where phases may become sweeps)."""
        if u.kind != "reduce" or weights or self.domain != "step":
            return ()
        dims = reduced_dims(u.node, self.nodes)
        return dims if u.node.type.rank + len(dims) > 1 else ()

    def _operands(self, u: Unit) -> list[tuple[str, tuple]]:
        red = tuple((f"r{i}", 0) for i in range(len(reduced_dims(u.node, self.nodes))))
        return operand_indices(u.node, identity(u.node), red)

    def _lane(self, u: Unit) -> str | None:
        """The vectorised axis: the last of the shape, unless fewer elements are out of order along the last reduced
        axis. Parameters do not count: they are packed as needed."""
        if u.kind != "reduce":
            return "par" if u.node.type.rank else None
        if not u.node.type.rank:
            return "red"
        last, red, strided = f"p{u.node.type.rank - 1}", f"r{len(reduced_dims(u.node, self.nodes)) - 1}", {}
        for arg, at in self._operands(u):
            view = param_view(arg, at, self.nodes)
            if view is not None and any((v or "").startswith("r") for v, _ in at):
                return "par" if self.packing or not (view[1][-1][0] or "").startswith("r") else "red"
            for lane, var in (("par", last), ("red", red)):     # elements that would be read one by one
                if var in {v for v, _ in at[:-1]}:
                    strided[lane] = strided.get(lane, 0) + self.nodes[arg].type.numel
        return "red" if strided.get("red", 0) < strided.get("par", 0) else "par"

    def _weights(self, u: Unit) -> bool:
        """A product with a parameter: rows share it, so they go innermost."""
        return u.node.op == "contract" and u.node.type.rank > 0 and any(
            param_view(arg, at, self.nodes) and any((v or "").startswith("r") for v, _ in at)
            for arg, at in self._operands(u))

    def _repeated(self, walk: Walk) -> set[str]:
        """Expensive values that more than one phase would compute."""
        where: dict[str, set[int]] = {}
        for u in walk.units.values():
            for n in u.costly:
                if self.nodes[n].type.rank and n not in walk.units:
                    where.setdefault(n, set()).add(u.phase)
        return {n for n, phases in where.items() if len(phases) > 1}

    # -- building -------------------------------------------------------
    def _build(self, walk: Walk, protos: list[Proto]) -> tuple[Phase, ...]:
        for u in walk.units.values():
            if u.kind == "call" and u.node.name not in self.targets:
                self.store(u.node.name, self.place(u.node.name))
        passed: set[str] = set()
        for u in walk.units.values():           # values that leave their phase go through a buffer
            for name, same in u.uses:
                if name in walk.assembled or walk.units[name].phase != u.phase or not same:
                    if name not in self.targets:
                        self.store(name, self.place(name))
                        passed.add(name)
        stores: dict[str, list[Store]] = {}
        zeros: dict[str, list[Store]] = {}
        for name, buffers in self.targets.items():
            for buffer in buffers:
                for s in pieces(name, buffer, self.nodes, walk.assembled):
                    (zeros if s.node is None else stores).setdefault(s.node or name, []).append(s)
        phases = join_copies([self._phase(p, stores) for p in protos], self.nodes, self.targets, self.reads)
        clear = [Phase(self.domain, "map", s.shape, stores=(s,), lane="par" if s.shape else None)
                 for group in zeros.values() for s in group]
        if self.domain == "step":
            phases = self._swept(phases, passed)
        self.reads.update({name: buffers[0] for name, buffers in self.targets.items() if name not in self.reads})
        return tuple(clear + phases)

    def _swept(self, phases: list[Phase], passed: set[str]) -> list[Phase]:
        """Phases over the same matrices joined. Of `passed`, the values stored only for other phases, those are not
        stored for them any more that only the sweep itself reads (as pieces of an assembled value they still are)."""
        joiner = Joiner(self.nodes, {n: to[0] for n, to in self.targets.items()} | self.reads)
        out = in_passing(joiner.readers_first(joiner.join(phases)), joiner)
        for i, p in enumerate(out):
            if p.sweep:
                others = {n for q in out if q is not p for n in joiner.reads(q)}
                mine = {s.node for s in p.stores if s.shape == p.shape and s.node in passed - others}
                out[i] = replace(p, stores=tuple(
                    s for s in p.stores if s.node not in mine or s.buffer not in self.targets[s.node]))
                for n in mine:
                    del self.targets[n]
        return out

    def _phase(self, p: Proto, stores: dict[str, list[Store]]) -> Phase:
        groups: dict[tuple[Dim, ...], list[str]] = {}
        out: list[Store] = []
        for u in p.units:
            if u.kind == "reduce":
                groups.setdefault(reduced_dims(u.node, self.nodes), []).append(u.node.name)
            out += stores.get(u.node.name, [])
        return Phase(self.domain, "map", p.shape, tuple(Group(d, tuple(n)) for d, n in groups.items()),
                     tuple(out), lane=p.lane, weights=p.weights, call=p.call)


def pieces(name: str, buffer: str, nodes: dict[str, Node], assembled, index=None) -> list[Store]:
    """Stores that put `name` into `buffer`; concat, stack, pad and place are
    stored piece by piece."""
    node = nodes[name]
    index = tuple((i, 0) for i in range(node.type.rank)) if index is None else index
    if name not in assembled:
        return [Store(name, buffer, index, node.type.shape)]
    axis, at, out = node.attr("axis"), 0, []
    if node.op in ("pad", "place"):
        out.append(Store(None, buffer, index, node.type.shape))
    for piece in node.args:
        if node.op in ("concat", "pad"):
            start = node.attr("start", at)
            inner = tuple((a, o + start) if a == axis else (a, o) for a, o in index)
            at += nodes[piece].type.shape[axis].size
        else:
            start = node.attr("at", at)
            inner = tuple((None, o + start) if a == axis else (a - 1 if a is not None and a > axis else a, o)
                          for a, o in index)
            at += 1
        out += pieces(piece, buffer, nodes, assembled, inner)
    return out


def join_copies(phases: list[Phase], nodes: dict[str, Node], targets: dict[str, list[str]],
                reads: dict[str, str]) -> list[Phase]:
    """Move phases that only copy values read (old states that are kept) into
    the next phase of their shape, before the states they read are written, and
    what they store is read. A piece of an assembled value stays: phases between
    may read the whole."""
    out = list(phases)
    reads = {n: buffers[0] for n, buffers in targets.items()} | reads
    for p in phases:
        if p.groups or not p.stores or any(s.node is None or nodes[s.node].args
                                           or s.buffer not in targets.get(s.node, ()) for s in p.stores):
            continue
        written = {f"next.{nodes[s.node].attr('name')}" for s in p.stores if nodes[s.node].op == "state"}
        for j in range(out.index(p) + 1, len(out)):
            q = out[j]
            if {s.buffer for s in p.stores} & uses(q, nodes, reads):
                break
            if q.shape == p.shape and q.lane == p.lane and not q.call:
                out[j] = replace(q, stores=p.stores + q.stores)
                out.remove(p)
                break
            if any(s.buffer.endswith(f".{w}") or s.buffer == w for s in q.stores for w in written):
                break
    return out
