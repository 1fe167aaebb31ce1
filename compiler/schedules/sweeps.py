"""Sweeps: phases that visit the same points of a matrix become one loop nest.

A step of a matrix state updates it, reads it along its rows and along its
columns. Each of these is a phase of its own at first; here those that do not
wait for each other's sums are joined, so that the matrix goes through the
registers once. Within a sweep the sums of a row are finished row by row, those
over the rows stay in registers, and every point is read before it is written:
a state that only sweeps read is updated in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...ir.cell import Node
from ...ir.types import Dim
from .kernel import Group, Phase, Store
from .units import inline_leaves
from .views import ASSEMBLED, CALLS, OPAQUE, is_reduction, operand_indices, reduced_dims

COLUMNS = 8          # sums over the rows in one sweep, at most: they stay in registers


@dataclass(frozen=True)
class Joiner:
    """`buffers`: where values are read that live in memory; all others are
    computed where they are used."""

    nodes: dict[str, Node]
    buffers: dict[str, str]
    known: dict[int, tuple[Phase, frozenset[str]]] = field(default_factory=dict)    # what phases read, by identity

    def join(self, phases: list[Phase]) -> list[Phase]:
        """The phases with those joined that can be, in a valid order: each with the last one that it can join, as
        that is most often the one that updates the state, and needs all that there is to read."""
        out = [q for p in phases for q in self._split(p)]
        i = len(out) - 2
        while i >= 0:
            for j in range(len(out) - 1, i, -1):
                if (both := self._both(out[i], out[j])) is None:
                    continue
                early, late = self.around(out[i], out[i + 1:j])
                if not all(self.free(m, out[j]) for m in late):
                    continue
                out[i:j + 1] = [*early, both, *late]
                i = len(out) - 1                # what could not join before may do so now
                break
            i -= 1
        return [self._alone(p) for p in out]

    def _split(self, p: Phase) -> list[Phase]:
        """A phase of sums along rows, as one phase for each."""
        if not p.groups or self.space(p) is None or any(s.node not in p.groups[0].nodes for s in p.stores):
            return [p]
        dims, nodes = p.groups[0].dims, p.groups[0].nodes
        return [replace(p, groups=(Group(dims, (n,)),), stores=tuple(s for s in p.stores if s.node == n))
                for n in nodes]

    def _alone(self, p: Phase) -> Phase:
        """A phase that nothing joined, as a sweep: vectors of a row side by side, sums of rows a few at a time."""
        space = self.space(p)
        if space is None or p.sweep or not p.groups and inline_leaves(p.stores[0].node, self.nodes, self._given)[1]:
            return p
        return self._sweep(space, p.groups, p.stores)

    def _given(self, name: str) -> bool:
        return name in self.buffers

    # -- two phases ------------------------------------------------------
    def _both(self, p: Phase, q: Phase) -> Phase | None:
        """One sweep that does the work of `p` and then `q`."""
        space = self.space(p)
        if space is None or space != self.space(q) or not self._same_points(p, q):
            return None
        groups: dict[frozenset[Dim], tuple[str, ...]] = {}
        dims = {}
        for g in p.groups + q.groups:
            key = frozenset(g.dims)
            dims.setdefault(key, g.dims)
            groups[key] = groups.get(key, ()) + g.nodes
        if len(groups.get(frozenset(space[-2:-1]), ())) > COLUMNS:
            return None
        return self._sweep(space, tuple(Group(dims[k], n) for k, n in groups.items()), p.stores + q.stores)

    def _sweep(self, space: tuple[Dim, ...], groups: tuple[Group, ...], stores: tuple[Store, ...]) -> Phase:
        return Phase("step", "map", space, groups, stores, lane="par", sweep=True)

    def _same_points(self, p: Phase, q: Phase) -> bool:
        """Whether all that `q` reads of what `p` stores are values of single points."""
        space = self.space(p)
        whole = {s.node for s in p.stores if len(s.shape) == len(space)}
        written = {s.buffer for s in p.stores}
        return all(n in whole for n in self.reads(q) if self.buffers.get(n) in written)

    def around(self, p: Phase, phases: list[Phase]) -> tuple[list[Phase], list[Phase]]:
        """Of phases that come after `p`: those that may as well come before it, and those that must follow it."""
        early: list[Phase] = []
        late: list[Phase] = []
        for m in phases:
            (early if all(self.free(x, m) for x in (p, *late)) else late).append(m)
        return early, late

    def readers_first(self, phases: list[Phase]) -> list[Phase]:
        """The phases with those that read an old state before the one that writes the new, where all of them may be:
        one buffer then does for both, and takes half the room in the caches."""
        out = list(phases)
        for p in phases:
            i, states = out.index(p), {s.buffer.rpartition("next.")[2] for s in p.stores if "next." in s.buffer}
            before: list[Phase] = []
            after: list[Phase] = []
            for m in out[i + 1:]:
                early = self._old(m) & states and all(self.free(x, m) for x in (p, *after))
                (before if early else after).append(m)
            if before and not any(self._old(m) & states for m in after):
                out[i:] = [*before, p, *after]
        return out

    def _old(self, p: Phase) -> set[str]:
        """States whose old values the phase reads."""
        return {n.attr("name") for n in map(self.nodes.__getitem__, self.reads(p)) if n.op == "state"}

    def free(self, p: Phase, q: Phase) -> bool:
        """Whether `q`, which comes after `p`, may as well come before it."""
        written, late = {s.buffer for s in p.stores}, {s.buffer for s in q.stores}
        reads_p, reads_q = ({self.buffers.get(n) for n in self.reads(x)} for x in (p, q))
        spoilt = any(b == f"next.{s}" or b.endswith(f".next.{s}") for s in self._old(p) for b in late)
        return not (written & reads_q or late & reads_p or written & late or spoilt)

    def reads(self, p: Phase) -> frozenset[str]:
        """Values held elsewhere, and leaves, that the phase's own computation reads."""
        if id(p) not in self.known:
            self.known[id(p)] = p, frozenset(self._reads(p))
        return self.known[id(p)][1]

    def _reads(self, p: Phase) -> set[str]:
        grouped = {n for g in p.groups for n in g.nodes}
        made = {n for n in grouped | p.written(self.buffers) if self.nodes[n].args}
        todo = [a for n in made for a in self.nodes[n].args]
        todo += {*grouped, *(s.node for s in p.stores if s.node)} - made            # leaves, and what is copied
        seen: set[str] = set()
        while todo:
            n = todo.pop()
            if n not in seen:
                seen.add(n)
                todo += () if n in self.buffers else self.nodes[n].args
        return seen

    # -- one phase -------------------------------------------------------
    def space(self, p: Phase) -> tuple[Dim, ...] | None:
        """The points that the phase visits, in the order of the values read there (rows, then lanes, last), if it
        visits each once and reads values of that size there and nowhere else."""
        if p.sweep:
            return p.shape
        if p.call or p.weights or p.rows != "map" or len(p.groups) > 1:
            return None
        reduced = p.groups[0].dims if p.groups else ()
        dims = p.shape + reduced
        if len(dims) < 2 or len(set(dims)) < len(dims) or any(d.size == 0 for d in dims):
            return None
        orders: set[tuple[Dim, ...]] = set() if p.groups else {p.shape}
        if not self._visits(p, len(dims), orders) or len(orders) != 1:
            return None
        space, = orders
        if p.groups and not self._sums(p, space, set(reduced)):
            return None
        return space if set(space) == set(dims) else None

    def _sums(self, p: Phase, space: tuple[Dim, ...], reduced: set[Dim]) -> bool:
        """Whether the reductions can be made in a sweep. Sums along a row are stored as they are: they may be
        sums of several blocks of lanes."""
        names = p.groups[0].nodes
        if reduced == {space[-2]}:
            return True
        plain = all(self.nodes[n].attr("fn", self.nodes[n].attr("semiring")) == "sum"
                    and self.nodes[n].type.kind == "real" for n in names)
        return plain and reduced <= set(space[-2:]) and all(s.node in names for s in p.stores)

    def _visits(self, p: Phase, rank: int, orders: set[tuple[Dim, ...]]) -> bool:
        """Collects in what orders of dimensions values of full rank are read; False if any is read elsewhere."""
        seen: set[tuple[str, tuple]] = set()
        grouped = {n for g in p.groups for n in g.nodes}
        made = grouped | p.written(self.buffers)

        def visit(name: str, at: tuple) -> bool:
            if (name, at) in seen or name in grouped:
                return True
            seen.add((name, at))
            node = self.nodes[name]
            if OPAQUE in at or node.type.rank > rank:
                return False
            if name in self.buffers or not node.args:
                if node.type.rank == rank:
                    orders.add(tuple(v for v, _ in at))
                    return all(isinstance(v, Dim) and o == 0 for v, o in at)
                return True
            if is_reduction(node) or node.op in ASSEMBLED + CALLS:
                return False
            return all(visit(a, i) for a, i in operand_indices(node, at))

        def start(name: str, red: tuple[Dim, ...] = ()) -> bool:
            node = self.nodes[name]
            at = tuple((d, 0) for d in node.type.shape)
            if name not in made:                # a copy of what another phase or part has stored
                return visit(name, at)
            return all(visit(a, i) for a, i in operand_indices(node, at, tuple((d, 0) for d in red)))

        if not all(start(n, reduced_dims(self.nodes[n], self.nodes)) for n in grouped):
            return False
        inside = len(orders)
        whole = all(s.node in grouped or s.node is not None and start(s.node) for s in p.stores)
        return whole and (not p.groups or len(orders) == inside)
