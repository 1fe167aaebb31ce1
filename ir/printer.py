"""The printed form of a cell: one line per port and node, and it parses back
to the identical object (spans excepted; see `parser`).

    cell lstm {
      dims I=64, H=128
      sizes 4*H=512
      input x: real[I]
      param W: real[4*H, I] init W.0
      state h: real[H] = h.init -> h.next
      output h = h.next
      init:
        lo: real[] = literal() value=-0.125
      body:
        x: real[I] = input() name="x"
        dot: real[4*H] = contract(W, x) semiring="sum" spec="ij,j->i"
    }

`dims` are the cell's own, `sizes` those of every other axis. Names with
unusual characters are quoted like JSON strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from .cell import Attr, Cell, Node
from .types import Dim, Type

PLAIN = re.compile(r"[A-Za-z0-9_](?:[\w.@*+/^%']|-(?!>))*\Z", re.ASCII)


def print_cell(cell: Cell) -> str:
    """The text of `cell`. For a cell that breaks the verifier's rule "dim" the
    sizes shown are those met first."""
    return "\n".join(_lines(cell)) + "\n"


def print_node(n: Node) -> str:
    """One assignment, as in the printed cell."""
    attrs = "".join(f" {name(k)}={value(v)}" for k, v in n.attrs)
    return f"{name(n.name)}: {print_type(n.type)} = {name(n.op)}({', '.join(map(name, n.args))}){attrs}"


def print_type(t: Type) -> str:
    return f"{name(t.kind)}[{', '.join(name(d.name) for d in t.shape)}]"


def name(text: str) -> str:
    return text if PLAIN.match(text) else json.dumps(text)


def value(v: Attr) -> str:
    """An attribute; floats always differ from ints ('1.0', 'inf', 'nan', '1e-05')."""
    match v:
        case bool():
            return "true" if v else "false"
        case str():
            return json.dumps(v)
        case tuple():
            return "(" + ", ".join(map(value, v)) + ("," if len(v) == 1 else "") + ")"
        case int() | float():
            return repr(v)
    raise TypeError(f"an attribute cannot be {v!r}")


def _lines(cell: Cell) -> Iterator[str]:
    yield f"cell {name(cell.name)}{' reverse' if cell.reverse else ''} {{"
    if cell.dims:
        yield "  dims " + _sizes(cell.dims)
    if others := _other_dims(cell):
        yield "  sizes " + _sizes(others)
    if cell.heads is not None:
        yield f"  heads {name(cell.heads.name)}"
    for p in cell.inputs:
        default = "" if repr(p.default) == "0.0" else f" default {value(p.default)}"
        yield f"  input {name(p.name)}: {print_type(p.type)}{default}{_facts(p.facts)}"
    for p in cell.params:
        init = "" if p.init is None else f" init {name(p.init)}"
        frozen = "" if p.trainable else " const"
        yield f"  param {name(p.name)}: {print_type(p.type)}{init}{frozen}{_facts(p.facts)}"
    for s in cell.states:
        way = " reverse" if s.reverse else ""
        yield f"  state {name(s.name)}: {print_type(s.type)}{way} = {name(s.init)} -> {name(s.next)}{_facts(s.facts)}"
    for what, ports in (("output", cell.outputs), ("sum", cell.sums)):
        for o in ports:
            yield f"  {what} {name(o.name)} = {name(o.value)}"
    for region, nodes in (("init", cell.init), ("body", cell.body)):
        if nodes:
            yield f"  {region}:"
            yield from (f"    {print_node(n)}" for n in nodes)
    yield "}"


def _facts(facts: tuple[str, ...]) -> str:
    return f" facts {', '.join(map(json.dumps, facts))}" if facts else ""


def _sizes(dims) -> str:
    return ", ".join(f"{name(d.name)}={d.size}" for d in dims)


def _other_dims(cell: Cell) -> list[Dim]:
    types = [p.type for p in (*cell.inputs, *cell.params, *cell.states, *cell.init, *cell.body)]
    found = dict.fromkeys(d for t in types for d in t.shape)
    if cell.heads is not None:
        found[cell.heads] = None
    known = {d.name for d in cell.dims}
    return [d for d in {d.name: d for d in reversed(found)}.values() if d.name not in known][::-1]
