"""Sums over the rows of old states, made a step early: one sweep over a matrix state less.

A step such as `S[t] = f(S[t-1], a[t] @ S[t-1])` needs a sweep for the sum and
then one for the update. But when the step before updates the state, its new
values are in registers. Where all else that the sum reads is known before the
steps run (inputs, what is computed ahead of them), the sweep that updates the
state makes the next step's sums as well, and what follows from this step's.
The sweep that made the sums runs once, before the first step of a tile. At a
tile's last step there is no next one: the sums then read that step's own
operands, and nobody reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.cell import Node
from ...ir.types import Dim
from .hazards import read_points
from .kernel import Group, Phase, Scratch, Store
from .sweeps import Joiner

SUMS = 6             # of any kind in the sweep that makes the next step's, at most: more would not stay in registers


@dataclass
class Rotation:
    """`nodes` and `reads` of the steps, which are changed; `known`: buffers that hold all steps of a tile before the
    steps run."""

    nodes: dict[str, Node]
    reads: dict[str, str]
    known: frozenset[str]
    scratch: Scratch

    def rotate(self, phases: tuple[Phase, ...]) -> tuple[tuple[Phase, ...], tuple[Phase, ...]]:
        """The phases before a tile's first step, and those of every step."""
        first: list[Phase] = []
        out = list(phases)
        for i in reversed(range(len(out))):
            if states := self._states(out[i]):
                for j in range(i + 1, len(out)):
                    if new := self._new(out[j], out[i], states):
                        first.append(self._move(out, i, j, new))
                        break
        return tuple(first), tuple(out)

    # -- what can be done ------------------------------------------------
    def _states(self, p: Phase) -> set[str]:
        """The old states that a sweep makes sums of over its rows, if all else that these read is known for the next
        step, and it does nothing else with a point."""
        result = _without_rows(p.shape)
        if not p.sweep or [g.dims for g in p.groups] != [p.shape[-2:-1]] or any(s.shape != result for s in p.stores):
            return set()
        states, seen = set(), set()
        sums = [self.nodes[n] for n in p.groups[0].nodes]
        if any(n.type.shape != result for n in sums):
            return set()
        todo = [a for n in sums for a in n.args]
        while todo:
            n = todo.pop()
            if n in seen:
                continue
            seen.add(n)
            node = self.nodes[n]
            if node.op == "state" and node.type.shape == p.shape:
                states.add(node.attr("name"))
            elif node.op in ("state", "random"):
                return set()
            elif n in self.reads and node.op != "param":
                if self.reads[n] not in self.known or node.type.rank == len(p.shape):
                    return set()
            else:
                todo += node.args
        return states

    def _new(self, q: Phase, p: Phase, states: set[str]) -> dict[str, str]:
        """The states' new values, if the sweep `q` makes them and has registers for more sums."""
        if not q.sweep or q.shape != p.shape:
            return {}
        made = {s.buffer: s.node for s in q.stores if s.shape == q.shape}
        new = {s: made.get(f"{self.scratch.prefix}next.{s}") for s in states}
        sums = sum(len(g.nodes) for g in (*p.groups, *q.groups))
        return new if None not in new.values() and sums <= SUMS else {}

    # -- doing it --------------------------------------------------------
    def _move(self, out: list[Phase], i: int, j: int, new: dict[str, str]) -> Phase:
        """Lets `out[j]` make the sums of `out[i]`, of which what follows from them is left; the phase that makes the
        first step's."""
        p, q = out[i], out[j]
        (group,), now, then = p.groups, [], []
        for n in group.nodes:
            node = self.nodes[n]
            index = tuple((k, 0) for k in range(node.type.rank))
            buffer = self.scratch.add(f"step.{n}@sum", "step", node.type)
            self.nodes[f"{n}@next"] = replace(
                node, name=f"{n}@next", args=tuple(self._next(a, new) for a in node.args))
            self.nodes[f"{n}@sum"] = replace(node, name=f"{n}@sum")
            self.nodes[n] = Node(n, "broadcast", (f"{n}@sum",), (("axes", tuple(range(node.type.rank))),), node.type)
            self.reads[f"{n}@sum"] = buffer
            now.append(Store(f"{n}@sum", buffer, index, node.type.shape))
            then.append(Store(f"{n}@next", buffer, index, node.type.shape))
        groups = {g.dims: g.nodes for g in q.groups}
        groups[group.dims] = (*groups.get(group.dims, ()), *(s.node for s in then))
        q = replace(q, groups=tuple(Group(d, n) for d, n in groups.items()), stores=(*q.stores, *then))
        out[i:j + 1] = self._follow(replace(p, shape=_without_rows(p.shape), groups=(), sweep=False),
                                    out[i + 1:j], q, [*out[:i], *out[j + 1:]], {s.node for s in now})
        return replace(p, groups=(Group(group.dims, tuple(s.node for s in now)),), stores=tuple(now))

    def _next(self, name: str, new: dict[str, str]) -> str:
        """The node that has the value of the next step."""
        node = self.nodes[name]
        if node.op == "state":
            return new[node.attr("name")]
        if node.op == "param" or not node.args and name not in self.reads:
            return name
        then = f"{name}@next"
        if name in self.reads:
            self.reads[then] = self.reads[name]
            self.nodes[then] = Node(then, "next", (), (("name", name),), node.type)
        else:
            self.nodes[then] = replace(node, name=then, args=tuple(self._next(a, new) for a in node.args))
        return then

    def _follow(self, rest: Phase, between: list[Phase], q: Phase, others: list[Phase], sums: set[str]) -> list[Phase]:
        """What follows from the sums is computed in the sweep, where it is used, if that reads them at its own lanes
        only (it stores the next ones block by block), and no phase between has to come between."""
        joiner = Joiner(self.nodes, self.reads)
        elsewhere = {self.reads.get(n) for m in (*between, *others) for n in joiner.reads(m)}
        own = {s.node: s.buffer for s in rest.stores
               if s.buffer in self.scratch.steps and self.reads.get(s.node) == s.buffer not in elsewhere}
        reads = {n: b for n, b in self.reads.items() if n not in own}
        both = replace(q, stores=(*(s for s in rest.stores if own.get(s.node) != s.buffer), *q.stores))
        made, lanes = {s.buffer for s in rest.stores}, tuple((v, 0) for v in both.along(rest.shape))
        stale = {n for n in joiner.reads(q) if self.reads.get(n) in made} - own.keys() - both.written(reads)
        early, late = joiner.around(rest, between)
        if stale or any(at != lanes for at in read_points(both, self.nodes, reads, sums)) or \
                not all(joiner.free(m, q) for m in late):
            return [rest, *between, q]
        for n in own:
            del self.reads[n]
        return [*early, both, *late]


def _without_rows(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    return shape[:-2] + shape[-1:]
