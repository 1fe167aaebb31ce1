"""Hoisting: what depends on parameters only leaves the recurrence.

The nodes that leave (`Static.nodes`) are evaluated by the runtime, with
differentiable torch operations, once per value of the parameters; the cell
reads their results as parameters `static.NAME`. Views of a bare parameter
(slice, index, broadcast) and constants stay, and of a broadcast only the
operand leaves, so nothing is stored larger than it has to be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.cell import Cell, Node, Param
from ..analysis.ranges import Ranges, to_facts
from .dce import Dce, live

_VIEWS = frozenset("slice index broadcast".split())
_MOVING = frozenset("input state random training".split())   # vary over time, sequences or calls


@dataclass(frozen=True, slots=True)
class Static:
    """`nodes` in topological order, those named `static.NAME` being what `cell`
    reads as parameters of the same names; `cell`: the rest. Its params: the
    program's that it still reads, in their order, then the hoisted ones."""

    nodes: tuple[Node, ...]
    cell: Cell


@dataclass(frozen=True, slots=True)
class Hoist:
    def __call__(self, cell: Cell) -> Static:
        fixed, views = _classify(cell)
        nodes = cell.nodes()
        wanted = [a for n in cell.body if n.name not in fixed for a in n.args if a in fixed]
        wanted += [o.value for o in (*cell.outputs, *cell.sums) if o.value in fixed]
        wanted += [s.next for s in cell.states if s.next in fixed]
        leaving = [_operand(x, nodes, views) for x in wanted]
        leaving += [s.init for s in cell.states if not _plain(s.init, nodes)]
        names = _named(cell, [x for x in leaving if x is not None])
        if not names:
            return Static((), _without_unread(cell))
        kept = [replace(n, name=names.get(n.name, n.name), args=tuple(names.get(a, a) for a in n.args))
                for n in cell.body if n.name in live(cell.body, names)]
        body = [Node(names[n.name], "param", (), (("name", names[n.name]),), n.type, n.span) if n.name in names
                else replace(n, args=tuple(names.get(a, a) for a in n.args)) for n in cell.body]
        trained = _trained(cell)
        ranges = Ranges(cell).interval      # what is known of a value goes with it, as facts
        params = tuple(Param(names[n.name], n.type, None, n.name in trained,
                             to_facts(ranges[n.name]) if n.type.kind == "real" else (), n.span)
                       for n in cell.body if n.name in names)
        states = tuple(replace(s, init=names.get(s.init, s.init), next=names.get(s.next, s.next)) for s in cell.states)
        outputs = tuple(replace(o, value=names.get(o.value, o.value)) for o in cell.outputs)
        sums = tuple(replace(o, value=names.get(o.value, o.value)) for o in cell.sums)
        rest = replace(cell, params=cell.params + params, states=states, outputs=outputs, sums=sums, body=tuple(body))
        return Static(tuple(kept), _without_unread(rest))


def hoist(cell: Cell) -> Static:
    """See `Static`."""
    return Hoist()(cell)


def _classify(cell: Cell) -> tuple[set[str], set[str]]:
    """Nodes that depend on parameters and constants only; of them those that
    stay: constants, and views of a parameter or constant."""
    fixed: set[str] = set()
    views: set[str] = set()
    for n in cell.body:
        if n.op in _MOVING or any(a not in fixed for a in n.args):
            continue
        fixed.add(n.name)
        if n.op in ("literal", "param", "iota") or (n.op in _VIEWS and n.args[0] in views):
            views.add(n.name)
    return fixed, views


def _named(cell: Cell, leaving: list[str]) -> dict[str, str]:
    """`static.NAME` of the nodes that leave; a cell that has been hoisted before may have such parameters."""
    taken, names = {p.name for p in cell.params} | {n.name for n in cell.body}, {}
    for x in leaving:
        name = f"static.{x}"
        while name in taken:
            name = f"{name}'"
        names[x] = name
    return names


def _operand(name: str, nodes: dict[str, Node], views: set[str]) -> str | None:
    """What has to leave so that the cell can read `name`: the value under its broadcasts."""
    while name not in views and nodes[name].op == "broadcast":
        name = nodes[name].args[0]
    return None if name in views else name


def _plain(init: str, nodes: dict[str, Node]) -> bool:
    """Whether an initial value is a parameter or a constant as it stands."""
    n = nodes[init]
    return n.op in ("param", "literal") or (n.op == "broadcast" and nodes[n.args[0]].op == "literal")


def _trained(cell: Cell) -> set[str]:
    """Real nodes that depend on a trainable parameter."""
    trained: set[str] = set()
    for n in cell.body:
        wanted = cell.param(n.attr("name")).trainable if n.op == "param" else any(a in trained for a in n.args)
        if wanted and n.type.kind == "real" and n.op != "stop_gradient":
            trained.add(n.name)
    return trained


def _without_unread(cell: Cell) -> Cell:
    """The cell without dead nodes, without parameters that nothing reads, and
    without the init region: the runtime draws the values of the program's cell."""
    cell = Dce()(cell)
    read = {n.attr("name") for n in cell.body if n.op == "param"}
    params = tuple(replace(p, init=None) for p in cell.params if p.name in read)
    return replace(cell, params=params, init=())
