"""What has to be computed as a whole: units, found by walking a part of a body.

A unit is a reduction, a value that must be stored, or a value worth computing
once (expensive, and otherwise evaluated at more points than it has elements,
or in several phases). Everything between units is recomputed where it is
read, inside registers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

from ...ir.cell import Node
from .views import ASSEMBLED, CALLS, COMPUTED, is_product, is_reduction, operand_indices, reduced_dims

EXPENSIVE = frozenset("exp expm1 log log1p sqrt rsqrt sin cos tan tanh sigmoid softplus logsigmoid erf atan "
                      "pow div logaddexp atan2 random floordiv mod".split())


@dataclass
class Unit:
    """`uses`: (other unit, read at the identical point)."""

    node: Node
    kind: str                                   # "reduce" | "point" | "call"
    order: int
    uses: list[tuple[str, bool]] = field(default_factory=list)
    costly: set[str] = field(default_factory=set)   # expensive values evaluated inline
    seen: set[tuple[str, tuple]] = field(default_factory=set)   # (value, point) already visited from here
    phase: int = -1


def identity(node: Node) -> tuple:
    return tuple((f"p{i}", 0) for i in range(node.type.rank))


def inline_leaves(name: str, nodes: dict[str, Node], stop: Callable[[str], bool]) -> tuple[set[str], bool]:
    """Leaves that an inline evaluation of `name` reads, and whether it is expensive."""
    leaves, costly, todo, seen = set(), False, [name], set()
    while todo:
        n = todo.pop()
        if n in seen:
            continue
        seen.add(n)
        node = nodes[n]
        if (n != name and stop(n)) or not node.args or is_reduction(node) or node.op in ASSEMBLED + CALLS:
            leaves.add(n)
            costly |= (is_reduction(node) or node.op in CALLS) and not stop(n)
            continue
        costly |= node.op in EXPENSIVE
        todo += node.args[:1] if node.op == "custom_grad" else node.args
    return leaves, costly


class Walk:
    """Units of one part. `reads`: nodes that live in a buffer already.
    `stops`: nodes to be made units. `cross(name, often, dear)`: the part before supplies
    this value (it then counts as read); `often`: it would be evaluated here at more
    points than it has elements, or must be computed as a whole; `dear`: in the midst of
    a product of matrices, each of whose multiply-adds it would hold up."""

    def __init__(self, nodes: dict[str, Node], reads: dict[str, str], stops: set[str],
                 cross: Callable[..., bool] = lambda name, often, dear=False: False):
        self.nodes, self.reads, self.stops, self.cross = nodes, reads, stops, cross
        self.order = {n: i for i, n in enumerate(nodes)}
        self.units: dict[str, Unit] = {}
        self.assembled: dict[str, tuple[str, ...]] = {}
        self.enlarged: set[str] = set()

    def root(self, name: str) -> None:
        """A value that must be computed (an assembled one by its pieces)."""
        node = self.nodes[name]
        if node.op in ASSEMBLED and name not in self.reads:
            if name not in self.assembled:
                self.assembled[name] = node.args
                self.stops.update(node.args)
                for piece in dict.fromkeys(node.args):
                    self.root(piece)
        elif name not in self.units:
            self._unit(name)

    def _unit(self, name: str) -> None:
        node = self.nodes[name]
        leaf = name in self.reads or not node.args
        kind = "point" if leaf else "call" if node.op in CALLS else "reduce" if is_reduction(node) else "point"
        u = self.units[name] = Unit(node, kind, self.order[name])
        if leaf:
            return
        if kind == "call":
            for arg in node.args:
                if arg not in self.reads and not self.cross(arg, True):
                    self.stops.add(arg)
                    self.root(arg)
                    u.uses.append((arg, False))
            return
        dims = reduced_dims(node, self.nodes) if kind == "reduce" else ()
        red = tuple((f"r{i}", 0) for i in range(len(dims)))
        loops = [f"p{i}" for i, d in enumerate(node.type.shape) if d.size > 1]
        loops += [f"r{i}" for i, d in enumerate(dims) if d.size > 1]
        if node.op in EXPENSIVE:
            u.costly.add(name)
        if node.op in COMPUTED and node.args[0] not in self.reads:
            self.stops.add(node.args[0])
        for arg, idx in operand_indices(node, identity(node), red):
            self._visit(arg, idx, u, frozenset(loops))

    def _visit(self, name: str, idx: tuple, user: Unit, loops: frozenset) -> None:
        node = self.nodes[name]
        if name in self.reads or (name, idx) in user.seen:
            return
        user.seen.add((name, idx))              # a value used twice is walked once: not 2^depth paths
        if name in self.units or is_reduction(node) or name in self.stops or node.op in ASSEMBLED + CALLS:
            if name not in self.units and self.cross(name, True):
                return
            self.root(name)
            same = user.kind == "point" and idx == identity(node)
            user.uses.append((name, same and node.type.shape == user.node.type.shape))
            return
        often = not loops <= {v for v, _ in idx}
        dear = user.kind == "reduce" and is_product(user.node)
        if self.cross(name, often, dear):
            return
        if node.op in EXPENSIVE:
            user.costly.add(name)
        if (
            node.type.rank
            and node.args
            and often
            and (dear or inline_leaves(name, self.nodes, lambda n: n in self.reads)[1])
            and node.op not in ("broadcast", "slice", "index")
        ):
            self.enlarged.add(name)             # would be evaluated again and again: worth a unit
            return
        if node.op in COMPUTED and node.args[0] not in self.reads:
            self.stops.add(node.args[0])        # read at computed places: needs a buffer
        for arg, at in operand_indices(node, idx):
            self._visit(arg, at, user, loops)
