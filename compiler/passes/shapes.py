"""Structure rules: slices, broadcasts, concatenations. They move no arithmetic
and hold exactly; those that duplicate or push work live in `gates`."""

from __future__ import annotations

from ...ir.cell import Node
from ...ir.types import Dim
from .rewrite import Rewriter, Rules


def _drop(axes: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Positions after position `at` has disappeared."""
    return tuple(a - (a > at) for a in axes)


def _zeros(b: Rewriter, n: Node) -> str:
    return b.full({"real": 0.0, "int": 0, "bool": False}[n.type.kind], n.type)


def broadcast(b: Rewriter, n: Node) -> str | None:
    (x,), axes = n.args, n.attr("axes")
    inner = b.node(x)
    if axes == tuple(range(n.type.rank)) and inner.type == n.type:      # broadcast to the same shape
        return x
    if inner.op == "broadcast":                                         # composition of the axis maps
        return b.broadcast(inner.args[0], n.type.shape, tuple(axes[i] for i in inner.attr("axes")))
    return None


def slice_(b: Rewriter, n: Node) -> str | None:
    (x,), axis, start = n.args, n.attr("axis"), n.attr("start")
    inner, dim = b.node(x), n.type.shape[n.attr("axis")]
    if inner.type == n.type:                                            # all of it
        return x
    match inner.op:
        case "slice" if inner.attr("axis") == axis:                     # x[p:q][r:s] = x[p+r:p+s]
            return b.slice(inner.args[0], axis, start + inner.attr("start"), dim, n.name)
        case "broadcast":
            axes = inner.attr("axes")
            y = inner.args[0]
            if axis in axes:                                            # slice(broadcast x) = broadcast(slice x)
                y = b.slice(y, axes.index(axis), start, dim, n.name)
            return b.broadcast(y, n.type.shape, axes)
        case "concat" if inner.attr("axis") == axis:                    # the pieces it touches
            return _slice_of_concat(b, n, inner, axis, start, dim)
        case "stack" if inner.attr("axis") == axis:                     # stack of fewer
            return b.stack(inner.args[start:start + dim.size], axis, dim)
        case "pad" if inner.attr("axis") == axis:
            at = start - inner.attr("start")
            width = b.type(inner.args[0]).shape[axis].size
            if 0 <= at and at + dim.size <= width:                      # inside
                return b.slice(inner.args[0], axis, at, dim, n.name)
            if at + dim.size <= 0 or at >= width:                       # outside
                return _zeros(b, n)
    return None


def _slice_of_concat(b: Rewriter, n: Node, cat: Node, axis: int, start: int, dim: Dim) -> str:
    pieces, at, stop = [], 0, start + dim.size
    for a in cat.args:
        d = b.type(a).shape[axis]
        lo, hi = max(start, at), min(stop, at + d.size)
        if lo < hi:
            part = d if hi - lo == d.size else Dim(f"{d.name}[{lo - at}:{hi - at}]", hi - lo)
            part = dim if (lo, hi) == (start, stop) else part
            pieces.append(a if d == part else b.slice(a, axis, lo - at, part, n.name))
        at += d.size
    return pieces[0] if len(pieces) == 1 else b.concat(tuple(pieces), axis, dim)


def index(b: Rewriter, n: Node) -> str | None:
    (x,), axis, at = n.args, n.attr("axis"), n.attr("at")
    inner = b.node(x)
    match inner.op:
        case "slice" if inner.attr("axis") == axis:                     # x[p:q][i] = x[p+i]
            return b.index(inner.args[0], axis, at + inner.attr("start"), n.name)
        case "broadcast":
            axes, y = inner.attr("axes"), inner.args[0]
            if axis in axes:                                            # index(broadcast x) = broadcast(index x)
                i = axes.index(axis)
                y, axes = b.index(y, i, at, n.name), axes[:i] + axes[i + 1:]
            return b.broadcast(y, n.type.shape, _drop(axes, axis))
        case "stack" if inner.attr("axis") == axis:                     # stack(x0, x1, ...)[i] = xi
            return inner.args[at]
        case "concat" if inner.attr("axis") == axis:
            for a in inner.args:
                size = b.type(a).shape[axis].size
                if at < size:
                    return b.index(a, axis, at, n.name)
                at -= size
        case "place" if inner.attr("axis") == axis:
            return inner.args[0] if inner.attr("at") == at else _zeros(b, n)
        case "pad" if inner.attr("axis") == axis:
            i = at - inner.attr("start")
            inside = 0 <= i < b.type(inner.args[0]).shape[axis].size
            return b.index(inner.args[0], axis, i, n.name) if inside else _zeros(b, n)
    return None


def concat(b: Rewriter, n: Node) -> str | None:
    axis = n.attr("axis")
    if len(n.args) == 1 and b.type(n.args[0]) == n.type:                # concat(x) = x
        return n.args[0]
    first = b.node(n.args[0])
    if first.op != "slice" or first.attr("axis") != axis:
        return None
    at = first.attr("start")                                            # concat(x[p:q], x[q:r]) = x[p:r]
    for a in map(b.node, n.args):
        if a.op != "slice" or a.args != first.args or a.attr("axis") != axis or a.attr("start") != at:
            return None
        at += a.type.shape[axis].size
    return b.slice(first.args[0], axis, first.attr("start"), n.type.shape[axis], n.name)


def stack(b: Rewriter, n: Node) -> str | None:
    axis, first = n.attr("axis"), b.node(n.args[0])
    if first.op == "index" and b.type(first.args[0]) == n.type and all(  # stack(x[0], x[1], ...) = x
            (a := b.node(name)).op == "index" and a.args == first.args and a.attr("axis") == axis and a.attr("at") == i
            for i, name in enumerate(n.args)):
        return first.args[0]
    if len(set(n.args)) == 1:                                           # stack(x, x, ...) = broadcast(x)
        return b.broadcast(n.args[0], n.type.shape, tuple(i for i in range(n.type.rank) if i != axis))
    return None


def repeat(b: Rewriter, n: Node) -> str | None:
    """interleave and fold once."""
    return n.args[0] if n.attr("times") == 1 and b.type(n.args[0]) == n.type else None


RULES: Rules = {
    "broadcast": (broadcast,), "slice": (slice_,), "index": (index,), "concat": (concat,), "stack": (stack,),
    "interleave": (repeat,), "fold": (repeat,),
}
