"""The adjoint: from a cell to the forward cell that keeps what is needed, and
the cell that runs time backwards and computes the gradients.

1. The forward body and, on top of it, the cotangents (`derivatives`) are built
   as one joint body. `∂NAME` reads the cotangent of an output or state.
2. Values that do not depend on a cotangent can be computed on either side;
   `tape.choose` cuts the joint body in two where that is cheapest.
3. Forward gets the values kept as outputs, backward reads them as inputs.

A cotangent of several slices that tile an axis is a concat of them, and of all
elements of an axis a stack, so that no padded temporaries appear: at a sum or
an output the back end stores the pieces in their places.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from ...ir.cell import Cell, Input, Node, Output, Param, State
from ...ir.ops import OPS
from ...ir.types import Type
from .canonicalise import RULES as CANONICAL
from .canonicalise import merge
from .cse import Cse
from .dce import Dce, live
from .derivatives import GATHERED, D
from .derivatives import RULES as DERIVATIVES
from .guards import Guards
from .linear import COTANGENT, LinearRewriter, outer_products, reads_cotangent
from .linear import RULES as LINEAR_RULES
from .rewrite import rebuild, rename_roots
from .tape import choose

RULES = merge(CANONICAL, LINEAR_RULES)


@dataclass(frozen=True, slots=True)
class Adjoint:
    """`forward`: the cell, its outputs followed by those kept (`tape.NAME`,
    `prev.STATE`). `backward`: reverse cell; inputs: the forward's inputs that it
    needs, the kept outputs in the forward's order, `d.OUTPUT` for every real output;
    states `d.STATE` for every real state (initial value: the cotangent of the final
    state, final value: the gradient of the initial state); outputs `d.INPUT` for every
    real input; sums `d.PARAM` for every trainable real param; params: those it reads."""

    forward: Cell
    backward: Cell

    @property
    def delayed(self) -> dict[str, str]:
        """Kept old states `prev.STATE` that are an output one step later: its name."""
        by_value = {o.value: o.name for o in reversed(self.forward.outputs)}
        return {f"prev.{s.name}": by_value[s.next] for s in self.forward.states
                if f"prev.{s.name}" in self.kept and s.next in by_value}

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the outputs that `forward` has beyond the cell's own."""
        own = {f"d.{o.name}" for o in self.forward.outputs}
        return tuple(p.name for p in self.backward.inputs if p.name in {o.name for o in self.forward.outputs}
                     and p.name not in own)


@dataclass(frozen=True, slots=True)
class MakeAdjoint:
    """`save`: "auto" decides save or recompute by cost, "all" recomputes nothing
    but views, "none" keeps only old state values (`prev.STATE`)."""

    save: str = "auto"

    def __call__(self, cell: Cell) -> Adjoint:
        if self.save not in ("auto", "all", "none"):
            raise ValueError(f"save={self.save!r}: expected auto, all or none")
        cell = Dce()(Cse()(cell))
        joint = _Joint(cell)
        return _split(cell, _simplify(joint.build()), joint.titles, self.save)


def adjoint(cell: Cell, save: str = "auto") -> Adjoint:
    """The adjoint of a cell; see `Adjoint` and `MakeAdjoint`."""
    return MakeAdjoint(save)(cell)


# -- 1. the joint body -----------------------------------------------------------
class _Joint:
    """Builds the joint body: a pseudo-cell whose outputs are `d.INPUT` and then
    `next.STATE`, and whose sums are `d.PARAM`."""

    def __init__(self, cell: Cell):
        self.cell, self.guards = cell, Guards(cell)
        self.nodes = cell.nodes()
        self.b = LinearRewriter(RULES, cell.body)
        self.d = D(self.b, lambda name: name in self.guards.nonfinite)
        self.parts: dict[str, list[tuple[str, Node | None]]] = defaultdict(list)
        self.active = _active(cell)
        self.titles: dict[str, str] = {}     # cotangents by their node, for names that a reader recognises

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
        sums = [port("param", p.name, p.type, f"d.{p.name}") for p in cell.params if _trained(p)]
        joint = Cell(cell.name, outputs=(*outputs, *nexts), sums=tuple(sums), body=tuple(self.b.nodes))
        return joint

    def give(self, name: str, ct: str, view: Node | None = None) -> None:
        """One more contribution to the cotangent of `name` (of the part that `view` takes of it)."""
        self.parts[name].append((ct, view))

    def propagate(self, n: Node) -> None:
        self.b.span = n.span
        if n.op in GATHERED:
            return self.give(n.args[0], self.total(n), n)
        for ct in self.separate(n) if n.op == "broadcast" else (self.total(n),):
            guard = self.guards.needed(n) if OPS[n.op].group == "pointwise" else (False,) * len(n.args)
            for a, c, g in zip(n.args, DERIVATIVES[n.op](self.d, n, ct), guard):
                if c is not None and a in self.active:
                    self.give(a, self.d.choose(self.d("eq", ct, 0.0), 0.0, c) if g else c)

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


def _trained(p: Param) -> bool:
    return p.type.kind == "real" and p.trainable


def _active(cell: Cell) -> set[str]:
    """Real nodes that depend on something whose gradient is wanted."""
    active: set[str] = set()
    for n in cell.body:
        match n.op:
            case "input" | "state":
                wanted = True
            case "param":
                wanted = _trained(cell.param(n.attr("name")))
            case _:
                wanted = n.op != "stop_gradient" and any(a in active for a in n.args)
        if wanted and n.type.kind == "real":
            active.add(n.name)
    return active


def _simplify(joint: Cell) -> Cell:
    """Rules and dead code, until nothing changes."""
    for _ in range(8):
        new = Dce()(rebuild(joint, RULES, LinearRewriter))
        if new.body == joint.body:
            break
        joint = new
    return outer_products(new)


# -- 2. and 3. two cells ------------------------------------------------------------
def _split(cell: Cell, joint: Cell, titles: dict[str, str], policy: str) -> Adjoint:
    cotangent: set[str] = set()
    for n in joint.body:
        if reads_cotangent(n) or any(a in cotangent for a in n.args):
            cotangent.add(n.name)
    primal = [n for n in joint.body if n.name not in cotangent]
    needed = {a for n in joint.body if n.name in cotangent for a in n.args} | set(joint.roots())
    nexts = {s.name: s.next for s in cell.states}
    written = {o.value for o in cell.outputs}
    stored = {n.name for n in primal if (nexts[n.attr("name")] if n.op == "state" else n.name) in written}
    saved = choose(primal, needed - cotangent, {n.name for n in cell.body}, stored, policy)
    forward, names = _forward(cell, primal, saved)
    return Adjoint(forward, _titled(_backward(cell, joint, names), titles))


def _forward(cell: Cell, primal: list[Node], saved: set[str]) -> tuple[Cell, dict[str, str]]:
    """The cell with the values kept as further outputs, and the output of each of them."""
    b = LinearRewriter(CANONICAL, cell.body)
    here: dict[str, str] = {}
    outputs, names = list(cell.outputs), {}
    wanted = live(primal, saved)
    for n in primal:
        if n.name not in wanted:
            continue
        here[n.name] = b.add(n.op, tuple(here[a] for a in n.args), n.type, n.name, **dict(n.attrs))
        if n.name in saved:
            names[n.name] = f"prev.{n.attr('name')}" if n.op == "state" else f"tape.{here[n.name]}"
            outputs.append(Output(names[n.name], here[n.name], n.span))
    return Dce()(replace(cell, outputs=tuple(outputs)).with_body(b.nodes)), names


def _backward(cell: Cell, joint: Cell, kept: dict[str, str]) -> Cell:
    body, types = [], {n.name: n.type for n in joint.body}
    for n in joint.body:
        if n.name in kept:
            n = Node(n.name, "input", (), (("name", kept[n.name]),), n.type, n.span)
        elif reads_cotangent(n):
            n = replace(n, attrs=(("name", "d." + n.attr("name")[len(COTANGENT):]),))
        body.append(n)
    taken = set(types)
    zeros: dict[Type, str] = {}

    def zero(t: Type) -> str:
        """The declared initial value of a cotangent state; callers supply the real one."""
        if t not in zeros:
            literal = _fresh("zero", taken)
            body.append(Node(literal, "literal", (), (("value", 0.0),), Type("real")))
            zeros[t] = literal
            if t.shape:
                zeros[t] = _fresh("zeros", taken)
                body.append(Node(zeros[t], "broadcast", (literal,), (("axes", ()),), t))
        return zeros[t]

    values = {o.name: o.value for o in joint.outputs}
    real_states = [s for s in cell.states if s.type.kind == "real"]
    states = tuple(State(f"d.{s.name}", s.type, zero(s.type), values[f"next.{s.name}"], span=s.span) for s in real_states)
    outputs = tuple(o for o in joint.outputs if not o.name.startswith("next."))
    needed = live(body, [*(o.value for o in (*outputs, *joint.sums)), *(x for s in states for x in (s.init, s.next))])
    body = [n for n in body if n.name in needed]
    read = {n.attr("name") for n in body if n.op == "input"}
    params = {n.attr("name") for n in body if n.op == "param"}
    inputs = [p for p in cell.inputs if p.name in read]
    inputs += [Input(name, types[node]) for node, name in kept.items() if name in read]
    ctypes = cell.nodes()
    inputs += [Input(f"d.{o.name}", ctypes[o.value].type) for o in cell.outputs if ctypes[o.value].type.kind == "real"]
    return Dce()(Cse()(Cell(f"{cell.name}.adjoint", cell.dims, cell.heads, tuple(inputs),
                            tuple(replace(p, init=None) for p in cell.params if p.name in params), states, outputs, joint.sums,
                            body=tuple(body), reverse=True)))


def _titled(backward: Cell, titles: dict[str, str]) -> Cell:
    """Cotangents named after the values that they belong to."""
    taken = {n.name for n in backward.body}
    names = {}
    for n in backward.body:
        title = f"d.{n.attr('name')[2:]}" if n.name.startswith(COTANGENT) else titles.get(n.name)
        names[n.name] = n.name if title is None else _fresh(title, taken)
    body = (replace(n, name=names[n.name], args=tuple(names[a] for a in n.args)) for n in backward.body)
    return rename_roots(backward, names).with_body(body)


def _fresh(name: str, taken: set[str]) -> str:
    i, fresh = 1, name
    while fresh in taken:
        i, fresh = i + 1, f"{name}.{i}"
    taken.add(fresh)
    return fresh
