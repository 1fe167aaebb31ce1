"""The adjoint: from a cell to the forward cell that keeps what is needed, and
the cell that runs time backwards and computes the gradients.

1. `cotangents` builds the forward body and, on top of it, the gradients as one
   joint body. `∂NAME` reads the cotangent of an output or state.
2. Values that do not depend on a cotangent can be computed on either side;
   `tape.choose` cuts the joint body in two where that is cheapest.
3. Forward gets the values kept as outputs, backward reads them as inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.cell import Cell, Input, Node, Output, State
from ...ir.types import Type
from .canonicalise import RULES as CANONICAL
from .canonicalise import merge
from .cotangents import Joint
from .cse import Cse
from .dce import Dce, live
from .doubled import Doubled
from .joined import joined
from .linear import COTANGENT, LinearRewriter, outer_products, reads_cotangent
from .linear import RULES as LINEAR_RULES
from .rewrite import rebuild, rename_roots
from .tape import choose
from .tropical import Expand

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
    def lean(self) -> Cell:
        """`backward` without the gradients of inputs, and what only they need."""
        cell = Dce()(replace(self.backward, outputs=()))
        read = {n.attr("name") for n in cell.body if n.op == "input"}
        return replace(cell, inputs=tuple(p for p in cell.inputs if p.name in read))

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the outputs that `forward` has beyond the cell's own."""
        own = {f"d.{o.name}" for o in self.forward.outputs}
        return tuple(p.name for p in self.backward.inputs if p.name in {o.name for o in self.forward.outputs}
                     and p.name not in own)


@dataclass(frozen=True, slots=True)
class MakeAdjoint:
    """`save`: "auto" decides save or recompute by cost, "all" recomputes nothing
    but views, "none" keeps only old state values (`prev.STATE`). "cut" is "auto", but
    the back end keeps these values rather than run tiles of steps again."""

    save: str = "auto"

    def __call__(self, cell: Cell) -> Adjoint:
        if self.save not in ("auto", "cut", "all", "none"):
            raise ValueError(f"save={self.save!r}: expected auto, all or none")
        cell = Dce()(Cse()(Expand()(cell)))
        joint = Joint(cell, RULES)
        return _split(cell, _simplify(joint.build()), joint.titles, self.save)


def adjoint(cell: Cell, save: str = "auto") -> Adjoint:
    """The adjoint of a cell; see `Adjoint` and `MakeAdjoint`."""
    return MakeAdjoint(save)(cell)


# -- 1. the joint body -----------------------------------------------------------
def _simplify(joint: Cell) -> Cell:
    """Rules and dead code, until nothing changes."""
    for _ in range(8):
        new = Dce()(rebuild(joint, RULES, LinearRewriter))
        if new.body == joint.body:
            break
        joint = new
    return joined(Doubled()(outer_products(new)))


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
    states = tuple(State(f"d.{s.name}", s.type, zero(s.type), values[f"next.{s.name}"], span=s.span)
                   for s in real_states)
    outputs = tuple(o for o in joint.outputs if not o.name.startswith("next."))
    needed = live(body, [*(o.value for o in (*outputs, *joint.sums)), *(x for s in states for x in (s.init, s.next))])
    body = [n for n in body if n.name in needed]
    read = {n.attr("name") for n in body if n.op == "input"}
    used = {n.attr("name") for n in body if n.op == "param"}
    params = tuple(replace(p, init=None) for p in cell.params if p.name in used)
    inputs = [p for p in cell.inputs if p.name in read]
    inputs += [Input(name, types[node]) for node, name in kept.items() if name in read]
    ctypes = cell.nodes()
    inputs += [Input(f"d.{o.name}", ctypes[o.value].type) for o in cell.outputs if ctypes[o.value].type.kind == "real"]
    return Dce()(Cse()(Cell(f"{cell.name}.adjoint", cell.dims, cell.heads, tuple(inputs), params, states, outputs,
                            joint.sums, body=tuple(body), reverse=not cell.reverse)))


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
