"""Gradients inside a cell: `grad(loss, leaf, ...)` becomes ordinary nodes.

The rules are the adjoint's. The leaves are independent of each other and all
else is constant, so nothing goes back beyond a leaf; what is added has
derivatives of its own, so an outer gradient flows through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...ir.build import Builder
from ...ir.cell import Cell, Input, Node, Param, State
from ...ir.types import Dim
from ..schedules.heads import Mixed, follow
from .canonicalise import RULES
from .cotangents import Backward
from .dce import live
from .guards import Guards
from .rewrite import Rewriter
from .tropical import Expand


class Independent(Exception):
    """The loss does not depend on leaf number `leaf`."""

    def __init__(self, leaf: int):
        self.leaf = leaf


class Across(Exception):
    """The loss of one head depends on the leaves of another."""


class Complex(Exception):
    """The loss is made of complex values."""


def differentiate(b: Builder, loss: str, leaves: Sequence[str], start: Callable[[str], str] | None = None,
                  facts: Mapping[str, tuple[str, ...]] | None = None, heads: tuple[Dim, ...] = ()) -> tuple[str, ...]:
    """Nodes of `b` that are the gradient of `loss` (a real scalar, or one for each of `heads`) by
    every leaf (any real nodes). `start`: the node that a state starts from; `facts`: what is
    declared of inputs, params and states. Raises Independent, Across, Complex."""
    cell = Expand()(_cell(b, loss, start, facts or {}))
    nodes = cell.nodes()
    if any(n.type.kind == "complex" for n in cell.body):
        raise Complex
    active = _active(cell, leaves)
    back = Backward(Rewriter(RULES, cell.body, taken=b.by_name), Guards(cell), active)
    back.give(loss, back.b.full(1.0, nodes[loss].type))
    for n in reversed(cell.body):
        if back.parts[n.name] and n.name in active and n.name not in leaves:
            back.propagate(n)
    for i, leaf in enumerate(leaves):
        if loss not in active or not back.parts[leaf]:
            raise Independent(i)
    for axis in range(len(heads)):
        _check_heads(cell, active - set(leaves), heads[:axis + 1])
    return _copied(b, back.b.nodes, [back.total(nodes[leaf]) for leaf in leaves])


def _cell(b: Builder, loss: str, start: Callable[[str], str] | None, facts: Mapping[str, tuple[str, ...]]) -> Cell:
    """What the loss is made of, as a cell whose ports are what it reads."""
    read = live(b.nodes, [loss])
    states = [n for n in b.nodes if n.op == "state" and n.name in read]
    begins = {n.name: start(n.attr("name")) if start else n.name for n in states}
    needed = live(b.nodes, [loss, *begins.values()])
    body = tuple(n for n in b.nodes if n.name in needed)
    ports: dict[str, dict[str, object]] = {"input": {}, "param": {}, "state": {}}
    for n in body:
        if n.op in ports:
            name, known = n.attr("name"), facts.get(n.attr("name"), ())
            ports[n.op][name] = (
                Input(name, n.type, facts=known) if n.op == "input" else Param(name, n.type, facts=known)
                if n.op == "param" else State(name, n.type, begins.get(n.name, n.name), n.name, known))
    return Cell("loss", inputs=tuple(ports["input"].values()), params=tuple(ports["param"].values()),
                states=tuple(ports["state"].values()), body=body)


def _active(cell: Cell, leaves: Sequence[str]) -> set[str]:
    """The leaves, and what depends on them."""
    active: set[str] = set()
    for n in cell.body:
        moves = n.type.kind in ("real", "complex") and n.op != "stop_gradient" and any(a in active for a in n.args)
        if n.name in leaves or moves:
            active.add(n.name)
    return active


def _check_heads(cell: Cell, active: set[str], heads: tuple[Dim, ...]) -> None:
    """Every head's loss depends on its own leaves only: the last of these axes is kept on the way."""
    nodes, at = cell.nodes(), {}
    for n in cell.body:
        own = len(heads) - 1 if n.type.shape[:len(heads)] == heads else None
        try:
            at[n.name] = follow(n, at, nodes, heads[-1], {})[0] if n.name in active else own
        except Mixed:
            raise Across from None


def _copied(b: Builder, nodes: Sequence[Node], roots: Sequence[str]) -> tuple[str, ...]:
    """Adds to `b` those of the nodes that it does not have; the names of the roots in it."""
    needed, names = live(nodes, roots), {}
    for n in nodes:
        if n.name not in needed:
            continue
        if b.by_name.get(n.name) == n:
            names[n.name] = n.name
        else:
            stem, _, digits = n.name.rpartition(".")
            hint = stem if stem and digits.isdigit() else n.name
            names[n.name] = b.add(n.op, tuple(names[a] for a in n.args), n.type, hint, **dict(n.attrs))
    return tuple(names[r] for r in roots)
