"""The whole elaboration: a checked text with sizes becomes an `ir.cell.Cell`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace

from ...ir.build import Builder
from ...ir.cell import Cell, Node, Output, Param, State
from ...ir.cell import Input as InputPort
from ...ir.sweeps import NoOrder, sweeps
from ...ir.types import Dim
from .. import tree as t
from ..diagnostics import Abandon, Reporter, did_you_mean
from .builtins import BUILTINS
from .context import Context
from .dims import Poly
from .instance import Instance
from .ports import Parameter
from .records import StateRecord
from .scope import CellItem
from .values import Lib, Num, Val, Value

STACK = 20_000      # Python frames: the context bounds the depth of evaluation to well below


def elaborate_cell(item: CellItem, arguments: Mapping[str, object], reporter: Reporter,
                   sample: bool = False) -> Cell | None:
    """Elaborate one cell. `arguments`: header arguments: whole numbers for
    dimensions, numbers, names of functions. Errors are collected in `reporter`
    (then the result is None); `sample` leaves out those that depend on sizes."""
    cx = Context(reporter, BUILTINS, sample)
    with _deep_stack():
        try:
            header = _header(cx, item, arguments)
            instance = Instance(cx, item, header)
            instance.finish()
            if reporter.diagnostics:
                return None
            return _assemble(cx, instance)
        except Abandon:
            return None


@contextmanager
def _deep_stack():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, STACK))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _header(cx: Context, item: CellItem, arguments: Mapping[str, object]) -> dict[str, Value]:
    cell, names = item.item, [p.name for p in item.header]
    for name in arguments:
        if name not in names:
            cx.reporter.error("unexpected_dim", cell.head, name=name, cell=cell.name, help=did_you_mean(name, names))
    header: dict[str, Value] = {}
    for p in item.header:
        if p.name in arguments:
            header[p.name] = _argument(cx, item, p, arguments[p.name])
        elif p.value is None:
            cx.reporter.error("missing_dim", p.span, name=p.name, cell=cell.name)
        elif isinstance(p.value, t.Number) and isinstance(p.value.value, int) and not p.value.imaginary:
            header[p.name] = Num(p.value.value, Poly.atom(p.name))
    if cx.reporter.diagnostics:
        cx.abandon()
    return header


def _argument(cx: Context, item: CellItem, p: t.Param, x: object) -> Value:
    if isinstance(x, str):
        fn = item.module.functions.get(x) or (Lib(x) if x in BUILTINS else None)
        if fn is None:
            cx.unknown("unknown_function", x, p.span, (*item.module.functions, *BUILTINS))
        return fn
    if hasattr(x, "__index__") and not isinstance(x, bool):
        x = int(x)
        if p.value is None and x < 0:
            cx.fail("size_negative", p.span, text=p.name, value=x)
        return Num(x, Poly.atom(p.name))
    if isinstance(x, (float, complex)) and p.value is not None:
        return Num(x)
    cx.fail("size_not_integer" if isinstance(x, float) else "not_constant", p.span, text=f"`{p.name}`", value=x,
            what=f"the header argument `{p.name}`")


# -- assembly ------------------------------------------------------------------
def _assemble(cx: Context, top: Instance) -> Cell | None:
    states = _states(cx)
    outputs = []
    for name, (equation, span) in top.outputs.items():
        value = equation.force()
        cx.prefer(value, name)
        outputs.append(Output(name, value.node, span))
    init, params = _params(cx, top)
    if cx.reporter.diagnostics:
        return None
    d = top.scope.names
    dims = tuple(
        Dim(p.name, int(d[p.name].value)) for p in top.header
        if isinstance(d[p.name], Num) and type(d[p.name].value) is int
        and (p.value is None or d[p.name].poly == Poly.atom(p.name) and cx.dims.uses(p.name)))
    heads = top.scope.heads[0] if top.own_heads else None
    if heads is not None and heads not in dims:
        dims = (*dims, heads)
    inputs = tuple(InputPort(i.full, i.declared.stored, i.default, i.declared.facts, i.span) for i in top.inputs)
    cell = Cell(top.cell, dims, heads, inputs, params, tuple(states), tuple(outputs), (), init, tuple(cx.body.nodes))
    try:
        sweeps(cell)
    except NoOrder as circle:
        _no_order(cx, top, circle)
        return None
    return _named(cell, cx.preferred)


def _no_order(cx: Context, top: Instance, circle: NoOrder) -> None:
    """Report the reverse sub-cell that a recurrence of the other direction needs and is needed by."""
    name = circle.backward.name
    inside = [i for i in top.all_instances() if name.startswith(i.prefix) and i.owner and i.owner.use.reverse]
    inst = max(inside, key=lambda i: len(i.prefix))
    notes = [(circle.forward.span, f"`{circle.forward.name}`")] if circle.forward.span else []
    cx.reporter.error("no_time_order", inst.owner.span, cell=inst.prefix[:-1], state=circle.forward.name, notes=notes)


def _states(cx: Context) -> list[State]:
    """Initial and next values; finding them may bring up further states."""
    out: list[State] = []
    done: set[str] = set()
    while True:
        todo: list[StateRecord] = [r for r in cx.states.values() if r.name not in done]
        if not todo:
            return out
        for r in todo:
            done.add(r.name)
            following = r.next()
            cx.prefer(Val(following, r.type), f"{r.name}.next")
            out.append(State(r.name, r.type, r.init(), following, r.facts, r.span, r.reverse))


def _params(cx: Context, top: Instance) -> tuple[tuple[Node, ...], tuple[Param, ...]]:
    """The init region and the parameters; each has an initial node of its own."""
    params = []
    names: dict[str, str] = {}
    for p in top.all_params():
        type, facts = p.declared.stored, p.declared.facts
        if not isinstance(p, Parameter):
            params.append(Param(p.full, type, None, False, facts, p.span))
            continue
        node = p.initial_value.force().node
        names.setdefault(node, p.full)
        params.append(Param(p.full, type, node, True, facts, p.span))
    read = {n.attr("name") for n in cx.init.nodes if n.op == "param"} | {p.name for p in params}
    assert read <= {p.name for p in params}, read
    nodes = _renamed(_reachable(cx.init.nodes, [p.init for p in params if p.init]), names)
    new = nodes[1]
    return nodes[0], tuple(replace(p, init=new[p.init]) if p.init else p for p in params)


def _named(cell: Cell, preferred: dict[str, str]) -> Cell:
    """Drop what nothing reads; call nodes as the text does."""
    body, new = _renamed(_reachable(cell.body, list(cell.roots())), preferred)
    return replace(
        cell, body=body,
        states=tuple(replace(s, init=new[s.init], next=new[s.next]) for s in cell.states),
        outputs=tuple(replace(o, value=new[o.value]) for o in cell.outputs))


def _reachable(nodes, roots: list[str]) -> list[Node]:
    needed = set(roots)
    for n in reversed(nodes):
        if n.name in needed:
            needed.update(n.args)
    return [n for n in nodes if n.name in needed]


def _renamed(nodes: list[Node], preferred: dict[str, str]) -> tuple[tuple[Node, ...], dict[str, str]]:
    """Nodes under readable, unique names; the map from old to new names."""
    new: dict[str, str] = {}
    namer = Builder()

    def give(node: Node, hint: str) -> None:
        new[node.name] = namer.fresh(hint)
        namer._taken.add(new[node.name])

    for n in nodes:
        if n.op in ("input", "state", "param") and n.name not in preferred:
            give(n, n.attr("name"))
    for n in nodes:
        if n.name in preferred:
            give(n, preferred[n.name])
    for n in nodes:
        if n.name not in new:
            stem, _, digits = n.name.rpartition(".")
            give(n, stem if stem and digits.isdigit() else n.name)
    return tuple(replace(n, name=new[n.name], args=tuple(new[a] for a in n.args)) for n in nodes), new


