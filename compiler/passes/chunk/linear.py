"""What is written to a matrix state in terms of what is read of it."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.cell import Node
from ....ir.types import Type
from ..algebra import is_const
from ..rewrite import Rewriter
from .lift import Unchunkable, place


@dataclass(frozen=True, slots=True)
class Linear:
    """local [*lead, V] (None: 0) + sum of coefficient [*lead] (None: 1) * read, by the read's leaf."""

    local: str | None
    reads: dict[str, str | None]


def linear(b: Rewriter, name: str, reads: set[str], depends: dict[str, set[str]]) -> Linear:
    """A vector as a linear form in `reads` (leaves). `depends`: the leaves that every node depends on.
    Raises Unchunkable where it is none, or where a coefficient differs from column to column."""
    n = b.node(name)
    lead = n.type.shape[:-1]

    def again(x: str) -> Linear:
        return linear(b, x, reads, depends)

    def scalar(x: str) -> str:
        m = b.node(x)
        if m.op == "broadcast" and len(lead) not in m.attr("axes"):
            return b.broadcast(m.args[0], lead, m.attr("axes"))
        raise Unchunkable(f"what is read is scaled differently in every column ({place(n)}) before it is written")

    def scaled(f: Linear, by: str) -> Linear:
        return Linear(f.local and b.op("mul", f.local, b.broadcast(by, n.type.shape, tuple(range(len(lead))))),
                      {k: by if c is None else b.op("mul", c, by) for k, c in f.reads.items()})

    def negative(f: Linear) -> Linear:
        one = b.full(-1.0, Type("real", lead))
        return Linear(f.local and b.op("neg", f.local),
                      {k: one if c is None else b.op("neg", c) for k, c in f.reads.items()})

    def added(f: Linear, g: Linear) -> Linear:
        out = dict(f.reads)
        one = b.full(1.0, Type("real", lead))
        for k, c in g.reads.items():
            out[k] = b.op("add", one if out[k] is None else out[k], one if c is None else c) if k in out else c
        local = f.local if g.local is None else g.local if f.local is None else b.op("add", f.local, g.local)
        return Linear(local, out)

    if not depends[name] & reads:
        return Linear(None if is_const(b, name, 0) else name, {})
    if name in reads:
        return Linear(None, {name: None})
    match n.op:
        case "neg":
            return negative(again(n.args[0]))
        case "add":
            return added(*map(again, n.args))
        case "sub":
            return added(again(n.args[0]), negative(again(n.args[1])))
        case "mul" | "div":
            x, y = n.args if n.op == "div" or depends[n.args[0]] & reads else n.args[::-1]
            if not depends[y] & reads:
                by = scalar(y)
                return scaled(again(x), by if n.op == "mul" else b.op("div", b.full(1.0, b.type(by)), by))
        case "select" if not depends[n.args[0]] & reads:
            c = scalar(n.args[0])
            real = Type("real", lead)
            m = b.op("select", c, b.full(1.0, real), b.full(0.0, real))
            one = b.op("sub", b.full(1.0, real), m)
            return added(scaled(again(n.args[1]), m), scaled(again(n.args[2]), one))
    raise Unchunkable("what is read of a matrix state is not used linearly where it is written back "
                      f"(`{n.op}`, {place(n)})")


@dataclass(frozen=True, slots=True)
class Error:
    """The node `name` of value local + sign * leaf, of which what is written is a multiple."""

    name: str
    local: str
    sign: int
    leaf: str


def error(b: Rewriter, written: str, leaf: str, depends: dict[str, set[str]], roots: set[str]) -> Error | None:
    """Where what is written is a multiple of a difference such as v - w and the read w is used for nothing else: that
    difference. To solve for it saves what v contributes to the steps after it, which is as large a product as any."""
    name = written
    while (n := b.node(name)).op == "mul":
        x, y = n.args if leaf in depends[n.args[0]] else n.args[::-1]
        if leaf in depends[y] or b.node(y).op != "broadcast" or n.type.rank - 1 in b.node(y).attr("axes"):
            return None
        name = x
    if n.op not in ("add", "sub"):
        return None
    sides = [leaf in depends[a] for a in n.args]
    if sides.count(True) != 1 or n.args[sides.index(True)] != leaf:
        return None
    if any(leaf in m.args and m.name != name for m in b.nodes) or leaf in roots:
        return None
    local = n.args[sides.index(False)]
    if n.op == "sub" and sides[0]:
        return Error(name, b.op("neg", local), 1, leaf)
    return Error(name, local, -1 if n.op == "sub" else 1, leaf)


def dependence(nodes: list[Node], leaves: set[str]) -> dict[str, set[str]]:
    """The leaves that every node depends on."""
    out: dict[str, set[str]] = {}
    for n in nodes:
        out[n.name] = ({n.name} if n.name in leaves else set()).union(*(out[a] for a in n.args))
    return out
