"""Lower: operations that kernels do not have, in terms of those they have.

Disappear here: products over other semirings, logsumexp, argmax, cumsum. `solve` and `logdet` stay, each
behind a copy, since kernels compute them into a buffer of their own. The cell
means the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.build import Builder
from ...ir.cell import Cell, Node
from ...ir.types import Dim, Type
from .tropical import Expand


@dataclass(frozen=True, slots=True)
class Lower:
    """Cell -> Cell; see the module."""

    def __call__(self, cell: Cell) -> Cell:
        cell = Expand()(cell)
        b, new = Builder(taken=(n.name for n in cell.body)), {}
        for n in cell.body:
            args = tuple(new.get(a, a) for a in n.args)
            b.span = n.span
            if n.op == "reduce" and n.attr("fn") == "lse":
                new[n.name] = _logsumexp(b, args[0], n.attr("axes"))
            elif n.op == "reduce" and n.attr("fn") == "argmax":
                new[n.name] = _argmax(b, args[0], n.attr("axes"))
            elif n.op == "cumsum":
                new[n.name] = _cumsum(b, args[0], n.attr("axis"), n.attr("reverse"))
            elif n.op in ("solve", "logdet"):
                whole = b.append(Node(b.fresh(f"{n.name}.whole"), n.op, args, n.attrs, n.type, n.span))
                new[n.name] = b.append(
                    Node(n.name, "broadcast", (whole,), (("axes", tuple(range(n.type.rank))),), n.type)
                )
            else:
                new[n.name] = b.append(Node(n.name, n.op, args, n.attrs, n.type, n.span))
        return _renamed(cell, b, new)


def _renamed(cell: Cell, b: Builder, new: dict[str, str]) -> Cell:
    return replace(cell, body=tuple(b.nodes),
                   states=tuple(replace(s, init=new[s.init], next=new[s.next]) for s in cell.states),
                   outputs=tuple(replace(o, value=new[o.value]) for o in cell.outputs),
                   sums=tuple(replace(o, value=new[o.value]) for o in cell.sums))


def _spread(b: Builder, x: str, like: tuple[Dim, ...], axes: tuple[int, ...]) -> str:
    """`x`, which lacks `axes` of the shape `like`, broadcast over them."""
    return b.broadcast(x, like, tuple(i for i in range(len(like)) if i not in axes))


def _logsumexp(b: Builder, x: str, axes: tuple[int, ...]) -> str:
    """lse(x) = m + log sum exp(x - m), m = max(x), or 0 where that is infinite"""
    shape = b.type(x).shape
    m = b.reduce(x, "max", axes)
    zero, inf = b.literal(0.0), b.literal(float("inf"))
    m = b.op("select", b.op("eq", b.op("abs", m), inf), zero, m)
    return b.op("add", m, b.op("log", b.reduce(b.op("exp", b.op("sub", x, _spread(b, m, shape, axes))), "sum", axes)))


def _argmax(b: Builder, x: str, axes: tuple[int, ...]) -> str:
    """The first position (in row-major order of `axes`) that holds the maximum."""
    shape = b.type(x).shape
    place, stride = None, 1
    for a in sorted(axes, reverse=True):
        step = b.op("mul", b.add("iota", (), Type("int", (shape[a],)), "iota"), b.literal(stride, "int"))
        step = b.broadcast(step, shape, (a,))
        place = step if place is None else b.op("add", place, step)
        stride *= shape[a].size
    hit = b.op("eq", x, _spread(b, b.reduce(x, "max", axes), shape, axes))
    if b.type(x).kind == "real":
        hit = b.op("or", hit, b.op("ne", x, x))  # a NaN counts as the maximum
    return b.reduce(b.op("select", hit, place, b.literal(stride, "int")), "min", axes)


def _cumsum(b: Builder, x: str, axis: int, reverse: bool) -> str:
    """y_i = sum of x_j with j <= i (or j >= i)"""
    t = b.type(x)
    d = t.shape[axis]
    wide = (*t.shape, d)                        # i at `axis`, j last
    at = b.add("iota", (), Type("int", (d,)), "iota")
    here, there = b.broadcast(at, wide, (axis,)), b.broadcast(at, wide, (t.rank,))
    inside = b.op("ge" if reverse else "le", there, here)
    moved = b.broadcast(x, wide, tuple(t.rank if i == axis else i for i in range(t.rank)))
    zero = b.literal(0.0 if t.kind == "real" else 0, t.kind)
    return b.reduce(b.op("select", inside, moved, zero), "sum", (t.rank,))
