"""Forward values and, on top of them, all cotangents: the joint body of an adjoint.

Goes through the forward body backwards. Every node's cotangent is the sum of
what its users contribute, and `derivatives` turns it into contributions to its
operands. A cotangent of several slices that tile an axis is a concat of them,
and of all elements of an axis a stack, so that no padded temporaries appear.
"""

from __future__ import annotations

from collections import defaultdict

from ...ir.cell import Cell, Node, Output, Param
from ...ir.types import Type
from .derivatives import GATHERED, D, spread
from .derivatives import RULES as DERIVATIVES
from .guards import Guards
from .linear import COTANGENT, LinearRewriter
from .rewrite import Rewriter, Rules


class Backward:
    """One way back through a body that `b` holds. `active`: nodes whose cotangents are wanted, and all
    between them and the results; `guards`: of a cell with that body."""

    def __init__(self, b: Rewriter, guards: Guards, active: set[str]):
        self.b, self.guards, self.active = b, guards, active
        self.d = D(self.b, guards.ranges)
        self.parts: dict[str, list[tuple[str, Node | None]]] = defaultdict(list)
        self.titles: dict[str, str] = {}     # cotangents by their node, for names that a reader recognises

    def give(self, name: str, ct: str, view: Node | None = None) -> None:
        """One more contribution to the cotangent of `name` (of the part that `view` takes of it)."""
        self.parts[name].append((ct, view))

    def propagate(self, n: Node) -> None:
        self.b.span = n.span
        if n.op in GATHERED:
            return self.give(n.args[0], self.total(n), n)
        for ct in self.separate(n) if n.op == "broadcast" else (self.total(n),):
            for a, c, g in zip(n.args, DERIVATIVES[n.op](self.d, n, ct), self.guards.needed(n)):
                if c is not None and a in self.active:
                    self.give(a, self.guard(n, ct, c) if g else c)

    def guard(self, n: Node, ct: str, c: str) -> str:
        """`c`, or 0 where the cotangent that it was made from is 0."""
        ct = spread(self.d, n, ct) if n.op == "reduce" else ct
        return self.d.choose(self.d("eq", ct, 0.0), 0.0, c)

    def separate(self, n: Node) -> list[str]:
        """A broadcast's contributions that become contractions, one by one, then the sum of the others."""
        def is_product(ct: str) -> bool:
            m = self.b.node(ct)
            return m.op == "mul" and any(self.b.node(a).op == "broadcast" for a in m.args)

        alone = [ct for ct, view in self.parts[n.name] if view is None and is_product(ct)]
        self.parts[n.name] = [(ct, view) for ct, view in self.parts[n.name] if view is not None or ct not in alone]
        return alone + ([self.total(n)] if self.parts[n.name] else [])

    # -- sums of contributions ------------------------------------------------
    def total(self, n: Node) -> str:
        """The whole cotangent of a node."""
        self.b.span = n.span
        whole: list[str] = []
        pieces: dict[tuple[str, int], dict[tuple, str]] = defaultdict(dict)
        for ct, view in self.parts[n.name]:
            if view is None:
                whole.append(ct)
            else:
                axis = view.attr("axis")
                place = (view.attr("at"), 1) if view.op == "index" else (view.attr("start"), view.type.shape[axis].size)
                same = pieces[view.op, axis]
                same[place] = self.b.op("add", same[place], ct) if place in same else ct
        for (op, axis), group in pieces.items():
            whole += self.assemble(n.type, op, axis, group)
        value = whole[0]
        for w in whole[1:]:
            value = self.b.op("add", value, w)
        self.titles.setdefault(value, f"d.{n.name}")
        return value

    def assemble(self, t: Type, op: str, axis: int, group: dict[tuple, str]) -> list[str]:
        dim, at = t.shape[axis], 0
        for start, size in sorted(group):
            at = at + size if at == start else -1
            if at < 0:
                break
        tiles = at == dim.size
        cts = tuple(group[key] for key in sorted(group))
        if op == "slice":
            if tiles:
                return [self.b.concat(cts, axis, dim)]
            return [self.b.pad(ct, axis, start, dim) for (start, _), ct in group.items()]
        if tiles:
            return [self.b.stack(cts, axis, dim)]
        return [self.b.place(ct, axis, at, dim) for (at, _), ct in group.items()]

class Joint(Backward):
    """Builds the joint body: a pseudo-cell whose outputs are `d.INPUT` and then
    `next.STATE`, and whose sums are `d.PARAM`."""

    def __init__(self, cell: Cell, rules: Rules):
        super().__init__(LinearRewriter(rules, cell.body), Guards(cell), _active(cell))
        self.cell = cell

    def build(self) -> Cell:
        cell, reads = self.cell, {}
        for ports, value, op in ((cell.outputs, "value", "input"), (cell.states, "next", "state")):
            for p in ports:
                name = getattr(p, value)
                if self.b.type(name).kind == "real":
                    self.give(name, self.b.read(op, COTANGENT + p.name, self.b.type(name)))
        for n in reversed(cell.body):
            if n.op in ("input", "state", "param"):
                if n.type.kind == "real" and self.parts[n.name]:
                    reads[n.op, n.attr("name")] = self.total(n)
            elif self.parts[n.name] and n.name in self.active:
                self.propagate(n)

        def port(op: str, name: str, type: Type, out: str) -> Output:
            return Output(out, reads.get((op, name)) or self.b.full(0.0, type))

        outputs = [port("input", p.name, p.type, f"d.{p.name}") for p in cell.inputs if p.type.kind == "real"]
        nexts = [port("state", s.name, s.type, f"next.{s.name}") for s in cell.states if s.type.kind == "real"]
        sums = [port("param", p.name, p.type, f"d.{p.name}") for p in cell.params if is_trained(p)]
        return Cell(cell.name, outputs=(*outputs, *nexts), sums=tuple(sums), body=tuple(self.b.nodes))


def is_trained(p: Param) -> bool:
    return p.type.kind == "real" and p.trainable


def _active(cell: Cell) -> set[str]:
    """Real nodes that depend on something whose gradient is wanted."""
    active: set[str] = set()
    for n in cell.body:
        match n.op:
            case "input" | "state":
                wanted = True
            case "param":
                wanted = is_trained(cell.param(n.attr("name")))
            case _:
                wanted = n.op != "stop_gradient" and any(a in active for a in n.args)
        if wanted and n.type.kind == "real":
            active.add(n.name)
    return active
