"""Sums over time and batch: gradients of parameters.

A product summed over rows (dR = sum of outer(da, h)) reads its factors from
the tile once the steps are done, so that it is a matrix product over rows. A
value with more elements than its factors have is added up at every step
instead of being kept for the tile.
"""

from __future__ import annotations

from typing import Callable

from ...ir.cell import Node
from ...ir.ops import OPS
from .kernel import Group, Phase, Store
from .phases import Planner
from .units import EXPENSIVE, inline_leaves
from .views import ASSEMBLED, COMPUTED, is_reduction, reduced_dims

STRUCTURE = ("broadcast", "slice", "index", "interleave")


class SumPlanner:
    """Collects phases with rows="sum": `afterwards` (per tile), `in_steps`."""

    def __init__(self, nodes: dict[str, Node], part: dict[str, str], leaves: dict[str, str], *,
                 before_or_kept: Callable[..., bool], after: Planner, steps: Planner,
                 tile: Callable[[str], str]):
        self.nodes, self.part, self.leaves = nodes, part, leaves
        self.cross, self.after, self.steps, self.tile = before_or_kept, after, steps, tile
        self.afterwards: list[Phase] = []
        self.in_steps: list[Phase] = []

    def plan(self, name: str, buffer: str, index=None) -> None:
        """Add `name` (its axes mapped to the buffer's by `index`) up in `buffer`."""
        node = self.nodes[name]
        index = index if index is not None else tuple((i, 0) for i in range(node.type.rank))
        if node.op == "add":                    # the sum of a sum: two accumulations
            for arg in node.args:
                self.plan(arg, buffer, index)
            return
        if node.op in ("pad", "place"):         # only what is not zero
            axis = node.attr("axis")
            if node.op == "pad":
                inner = tuple((a, o + node.attr("start")) if a == axis else (a, o) for a, o in index)
            else:
                inner = tuple((None, o + node.attr("at")) if a == axis else
                              (a - 1 if a is not None and a > axis else a, o) for a, o in index)
            self.plan(node.args[0], buffer, inner)
            return
        store = Store(name, buffer, index, node.type.shape)
        factors = node.args if node.op == "contract" else (name,)
        in_steps = node.type.rank > 1 and self._kept(factors) > node.type.numel
        for f in factors:
            self._supply(f, in_steps, once=node.op != "contract")
        groups = (
            (Group(reduced_dims(node, self.nodes), (name,)),) if is_reduction(node) and node.op == "contract" else ()
        )
        phase = Phase("step" if in_steps else "tile", "sum", node.type.shape, groups, (store,),
                      lane="par" if node.type.rank else None)
        self._append(self.in_steps if in_steps else self.afterwards, phase)

    def _append(self, phases: list[Phase], phase: Phase) -> None:
        """Join a phase of the same shape: factors are then loaded once."""
        if not phase.groups and phases:
            last = phases[-1]
            if last.shape == phase.shape and not last.groups and len(last.stores) < 4:
                phases[-1] = Phase(last.domain, "sum", last.shape, (), last.stores + phase.stores, lane=last.lane)
                return
        phases.append(phase)

    def _kept(self, factors) -> int:
        """Elements per row that the tile would have to keep for these factors."""
        total = 0
        for f in factors:
            leaves, _ = inline_leaves(f, self.nodes, lambda m: m in self.leaves or self.part[m] == "step")
            total += min(self.nodes[f].type.numel, sum(self.nodes[m].type.numel for m in leaves
                                                       if m not in self.leaves and self.part[m] == "step"))
        return total

    def _free(self, node: Node) -> bool:
        """Cheaper to compute in the sum than to keep: at most one operand is not in memory anyway, or made of what is
        by one operation."""
        if OPS[node.op].group != "pointwise" or node.op in EXPENSIVE or self._at_hand(node.name):
            return False
        return sum(not self._at_hand(a) and self.nodes[a].op not in STRUCTURE and not self._cheap(self.nodes[a])
                   for a in set(node.args)) <= 1

    def _cheap(self, node: Node) -> bool:
        """One operation on what depends on inputs only and is in memory."""
        return (self.part[node.name] == "pre" and OPS[node.op].group == "pointwise" and node.op not in EXPENSIVE
                and self._work(node.name) == 1)

    def _work(self, name: str) -> int:
        """Pointwise operations between a value and what is in memory."""
        seen, todo = set(), [name]
        while todo:
            if (n := todo.pop()) not in seen and not self._at_hand(n):
                seen.add(n)
                todo += self.nodes[n].args
        return sum(OPS[self.nodes[n].op].group == "pointwise" for n in seen)

    def _at_hand(self, name: str) -> bool:
        return not self.nodes[name].args or any(
            name in known for known in (self.leaves, self.after.reads, self.after.targets, self.steps.targets))

    def _supply(self, name: str, in_steps: bool, once: bool = False) -> None:
        """See to it that `name` can be read (inline, or from a buffer); `once`: every element is read only once."""
        node = self.nodes[name]
        if name in self.leaves or not node.args and node.op != "state":
            return
        if in_steps:
            if node.op == "state":
                return
            inline = self.part[name] == "pre" and node.op not in ASSEMBLED and not inline_leaves(
                name, self.nodes, lambda m: m in self.leaves)[1]
            if node.op in STRUCTURE or inline:
                self._operands(node, True)
            elif name not in self.steps.targets:
                self.steps.store(name, self.steps.place(name))
            return
        if node.op in STRUCTURE or once and self._free(node):
            self._operands(node, False, once)
        elif self.part[name] == "post":
            if name not in self.after.targets:
                self.after.store(name, self.tile(name))
        elif not self.cross(name, True):
            if not once and self.part[name] == "pre" and self._work(name) > 1:
                self.after.store(name, self.tile(name))     # a product would compute it again for every block of rows
            else:
                self._operands(node, False)

    def _operands(self, node: Node, in_steps: bool, once: bool = False) -> None:
        """See to it that `node` can be computed inline."""
        for k, a in enumerate(node.args):
            if k == 0 and node.op in COMPUTED:
                self._store(a, in_steps)
            else:
                self._supply(a, in_steps, once)

    def _store(self, name: str, in_steps: bool) -> None:
        """See to it that `name` lies in a buffer."""
        if name in self.leaves or (self.nodes[name].op == "state" if in_steps else
                                   self.part[name] != "post" and self.cross(name, True)):
            return
        planner, place = (self.steps, self.steps.place) if in_steps else (self.after, self.tile)
        if name not in planner.targets:
            planner.store(name, place(name))
