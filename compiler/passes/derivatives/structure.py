"""Values put elsewhere: what came from one place goes back to it."""

from __future__ import annotations

from ....ir.cell import Node
from .rule import Cotangents, D, DerivativeRule


def _broadcast(d: D, n: Node, ct: str) -> Cotangents:
    """Sum over the axes that are new, the others put back in order."""
    axes = n.attr("axes")
    s = d.b.reduce(ct, "sum", tuple(i for i in range(n.type.rank) if i not in axes))
    kept = sorted(axes)
    shape = tuple(n.type.shape[i] for i in axes)
    return (d.b.broadcast(s, shape, tuple(axes.index(i) for i in kept)),)


def _pad(d: D, n: Node, ct: str) -> Cotangents:
    axis = n.attr("axis")
    return (d.b.slice(ct, axis, n.attr("start"), d.b.type(n.args[0]).shape[axis]),)


def _concat(d: D, n: Node, ct: str) -> Cotangents:
    axis, at, out = n.attr("axis"), 0, []
    for a in n.args:
        dim = d.b.type(a).shape[axis]
        out.append(d.b.slice(ct, axis, at, dim))
        at += dim.size
    return tuple(out)


def _interleave(d: D, n: Node, ct: str) -> Cotangents:
    other = "fold" if n.op == "interleave" else "interleave"
    return (d.b.add(other, (ct,), d.b.type(n.args[0]), other, axis=n.attr("axis"), times=n.attr("times")),)


def _gather(d: D, n: Node, ct: str) -> Cotangents:
    """x at i: adds up where it came from, and back."""
    x, i = n.args
    other = "scatter" if n.op == "gather" else "gather"
    return d.b.add(other, (ct, i), d.b.type(x), other, **dict(n.attrs)), None


RULES: dict[str, DerivativeRule] = {
    "broadcast": _broadcast, "pad": _pad, "concat": _concat, "interleave": _interleave, "fold": _interleave,
    "gather": _gather, "scatter": _gather,
    "place": lambda d, n, ct: (d.b.index(ct, n.attr("axis"), n.attr("at")),),
    "stack": lambda d, n, ct: tuple(d.b.index(ct, n.attr("axis"), i) for i in range(len(n.args))),
}
