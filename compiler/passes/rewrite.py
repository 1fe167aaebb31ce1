"""The engine of the rewriting passes: a builder that simplifies as it builds.

A rule is a function `(builder, node) -> name | None`. It sees a node that is
about to be added, its operands already being in canonical form, and gives the
name of an equal node or None. So simplification runs once per node, and code
that builds new bodies (the adjoint) gets canonical ones for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ...ir.build import Builder
from ...ir.cell import Attr, Cell, Node, Output
from ...ir.types import Type

Rule = Callable[["Rewriter", Node], str | None]
Rules = Mapping[str, tuple[Rule, ...]]

COMMUTATIVE = frozenset("add mul eq ne and or".split())  # not max and min: a tie's gradient goes to the first


class Rewriter(Builder):
    """A Builder that applies `rules[op]`, in order, to every node before adding it."""

    def __init__(self, rules: Rules, nodes: Iterable[Node] = (), taken: Iterable[str] = ()):
        super().__init__(nodes, taken)
        self.rules = rules
        self.own: str | None = None  # a reserved name that may be used now: that of the node being rebuilt

    def fresh(self, hint: str = "v") -> str:
        if hint == self.own and hint not in self.by_name:
            return hint
        return super().fresh(hint)

    def add(self, op: str, args: tuple[str, ...], type: Type, hint: str = "v", **attrs: Attr) -> str:
        node = Node(hint, op, tuple(args), tuple(sorted(attrs.items())), type, self.span)
        for rule in self.rules.get(op, ()):
            if (got := rule(self, node)) is not None:
                return got
        if op in COMMUTATIVE:
            swapped = self._seen.get((op, node.args[::-1], node.attrs, type))
            if swapped is not None:
                return swapped
        return super().add(op, args, type, hint, **attrs)

    def node(self, name: str) -> Node:
        return self.by_name[name]

    def emit(self, node: Node, names: Mapping[str, str]) -> str:
        """Rebuild `node` with its operands renamed; its own name is kept where it still exists."""
        self.span, self.own = node.span, node.name
        got = self.add(node.op, tuple(names[a] for a in node.args), node.type, node.name, **dict(node.attrs))
        assert self.type(got) == node.type, f"{node.name}: {node.op} of type {node.type} became {self.type(got)}"
        self.own = None
        return got


def rename_roots(cell: Cell, names: Mapping[str, str]) -> Cell:
    """The cell with its interface reading other body nodes."""
    def ports(outputs):
        return tuple(Output(o.name, names.get(o.value, o.value), o.span) for o in outputs)
    states = tuple(replace(s, init=names.get(s.init, s.init), next=names.get(s.next, s.next)) for s in cell.states)
    return replace(cell, states=states, outputs=ports(cell.outputs), sums=ports(cell.sums))


def rebuild(cell: Cell, rules: Rules, make: type[Rewriter] = Rewriter) -> Cell:
    """The cell with every node rebuilt under `rules` (once)."""
    b = make(rules, taken=(n.name for n in cell.body))
    names: dict[str, str] = {}
    for n in cell.body:
        names[n.name] = b.emit(n, names)
    return rename_roots(cell, names).with_body(b.nodes)
