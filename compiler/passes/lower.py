"""Lower: operations that kernels do not have, in terms of those they have.

Disappear here: products over other semirings, logsumexp, argmax. What kernels compute as a whole (`WHOLE`) stays,
each behind a copy, since it goes into a buffer of its own; so does each input of several axes that it reads, whose rows
may lie anywhere (`schedules.strides`). The cell means the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.build import Builder
from ...ir.cell import Cell, Node
from ...ir.types import STEPS, Dim, Type
from .tropical import Expand

DECAYED = ("decayed", "decayed_sum", "decayed_back", "ends", "ends_back")
WHOLE = ("solve", "solve_lower", "logdet", "running", "cumsum", "cumprod", "cumprod_back", *DECAYED)


@dataclass(frozen=True, slots=True)
class Lower:
    """Cell -> Cell; see the module."""

    def __call__(self, cell: Cell) -> Cell:
        cell = Expand()(cell)
        b, new = Builder(taken=(n.name for n in cell.body)), {}
        near: dict[str, str] = {}
        for n in cell.body:
            args = tuple(new.get(a, a) for a in n.args)
            b.span = n.span
            if n.op == "reduce" and n.attr("fn") == "lse":
                new[n.name] = _logsumexp(b, args[0], n.attr("axes"))
            elif n.op == "reduce" and n.attr("fn") == "argmax":
                new[n.name] = _argmax(b, args[0], n.attr("axes"))
            elif n.op == "scatter":
                new[n.name] = _scatter(b, *args, n.type, n.attr("axis"), n.attr("batch"))
            elif n.op in WHOLE:
                args = tuple(_near(b, a, cell.heads, near) for a in args)
                whole = b.append(Node(b.fresh(f"{n.name}.whole"), n.op, args, n.attrs, n.type, n.span))
                new[n.name] = _copy(b, whole, n.name)
            else:
                new[n.name] = b.append(Node(n.name, n.op, args, n.attrs, n.type, n.span))
        return _renamed(cell, b, new)


def _copy(b: Builder, x: str, name: str) -> str:
    """The same value by another name, so that it may be in another buffer."""
    t = b.type(x)
    return b.append(Node(name, "broadcast", (x,), (("axes", tuple(range(t.rank))),), t))


def _near(b: Builder, x: str, heads: Dim | None, copies: dict[str, str]) -> str:
    """An operand; of an input with rows (see `schedules.strides`) its copy."""
    shape = b.type(x).shape
    several = len(shape) - (heads is not None and shape[:1] == (heads,)) > 1 or any(d.name == STEPS for d in shape)
    if b.by_name[x].op != "input" or not several:
        return x
    if x not in copies:
        copies[x] = _copy(b, x, b.fresh(f"{x}.near"))
    return copies[x]


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


def _scatter(b: Builder, y: str, i: str, out: Type, axis: int, batch: int) -> str:
    """x_n = sum of y_p over the places p with i_p = n"""
    places = b.type(i).shape[batch:]
    k, wide = len(places), (*out.shape, *b.type(i).shape[batch:])
    last = tuple(range(out.rank, out.rank + k))
    at = b.add("iota", (), Type("int", (out.shape[axis],)), "iota")
    here = b.op("eq", b.broadcast(i, wide, (*range(batch), *last)), b.broadcast(at, wide, (axis,)))
    moved = b.broadcast(y, wide, (*range(axis), *last, *range(axis + 1, out.rank)))
    zero = b.literal(0.0 if out.kind == "real" else 0, out.kind)
    return b.reduce(b.op("select", here, moved, zero), "sum", last) if k else b.op("select", here, moved, zero)

