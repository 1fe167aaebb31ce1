"""Rules for reductions and contractions.

Canonical form: no contraction has a broadcast operand (transposes are in the
spec), every letter summed occurs in both operands, and a contraction that sums
nothing is a pointwise product of broadcasts (an outer product is
`mul(broadcast, broadcast)`).
"""

from __future__ import annotations

from ...ir.cell import Node
from ...ir.ops import spec_parts
from .algebra import constant, inner, is_op
from .rewrite import Rewriter, Rules


# -- reductions ---------------------------------------------------------------
def reduce(b: Rewriter, n: Node) -> str | None:
    (x,), fn, axes = n.args, n.attr("fn"), n.attr("axes")
    t = b.type(x)
    if not axes and fn != "argmax":                                      # over no axes
        return x
    if all(t.shape[i].size == 1 for i in axes) and fn in ("sum", "prod", "any", "all"):  # over axes of size 1
        for i in sorted(axes, reverse=True):
            x = b.index(x, i, 0)
        return x
    m = b.node(x)
    if m.op == "reduce" and fn == m.attr("fn") and fn in ("sum", "any", "all"):
        kept = [i for i in range(b.type(m.args[0]).rank) if i not in m.attr("axes")]
        return b.reduce(m.args[0], fn, tuple(sorted((*m.attr("axes"), *(kept[i] for i in axes)))))
    if m.op == "broadcast" and (new := tuple(i for i in axes if i not in m.attr("axes"))):
        return _reduce_broadcast(b, n, m, new)
    if m.op == "neg" and fn == "sum":                                    # sum(-x) = -sum(x)
        return b.op("neg", b.reduce(inner(b, x), fn, axes), hint=n.name)
    if m.op == "broadcast":                                              # reduce(transpose(x)) = reduce(x)
        return _reduce_transposed(b, n, m)
    if m.op == "mul" and fn == "sum":
        return _sum_of_product(b, n, m)
    return None


def _reduce_broadcast(b: Rewriter, n: Node, m: Node, new: tuple[int, ...]) -> str | None:
    """sum over an axis that was broadcast = size * x; min, any, all over it = x (not max: no derivative at -inf)"""
    fn, axes = n.attr("fn"), n.attr("axes")
    size = 1
    for i in new:
        size *= m.type.shape[i].size
    if fn not in ("sum", "min", "any", "all") or size == 0 or n.type.kind == "complex":
        return None
    kept = [i for i in range(m.type.rank) if i not in new]
    x = b.broadcast(m.args[0], tuple(m.type.shape[i] for i in kept), tuple(kept.index(i) for i in m.attr("axes")))
    rest = tuple(kept.index(i) for i in axes if i not in new)
    x = b.reduce(x, fn, rest) if rest else x
    return x if fn != "sum" else b.op("mul", x, b.full(size, b.type(x)), hint=n.name)


def _reduce_transposed(b: Rewriter, n: Node, m: Node) -> str | None:
    """The sum over axes that come from the operand, taken before the broadcast."""
    fn, axes, place = n.attr("fn"), n.attr("axes"), m.attr("axes")
    if fn not in ("sum", "any", "all"):
        return None
    y = b.reduce(m.args[0], fn, tuple(i for i, p in enumerate(place) if p in axes))
    kept = [i for i in range(m.type.rank) if i not in axes]
    return b.broadcast(y, n.type.shape, tuple(kept.index(p) for p in place if p not in axes))


def _sum_of_product(b: Rewriter, n: Node, m: Node) -> str | None:
    """sum(x * broadcast(y)) = contraction; sum(x * c) = sum(x) * c for a literal c"""
    axes, (x, y) = n.attr("axes"), m.args
    if (c := constant(b, y)) is not None and is_op(b, y, "broadcast"):
        return b.op("mul", b.reduce(x, "sum", axes), b.full(c, n.type), hint=n.name)
    if not any(is_op(b, a, "broadcast") and b.type(inner(b, a)).rank < m.type.rank for a in (x, y)):
        return None
    letters = "abcdefghijklmnopqrstuvwxyz"[:m.type.rank]
    out = "".join(c for i, c in enumerate(letters) if i not in axes)
    return b.contract(x, y, f"{letters},{letters}->{out}", hint=n.name)


# -- contractions -------------------------------------------------------------
def contract(b: Rewriter, n: Node) -> str | None:
    (x, y), semiring = n.args, n.attr("semiring")
    sx, sy, so = spec_parts(n.attr("spec"))
    if semiring == "argmax":
        return None
    for a, s, first in ((x, sx, True), (y, sy, False)):                  # a broadcast operand: its source
        if is_op(b, a, "broadcast") and (got := _unbroadcast(b, n, a, s, first)) is not None:
            return got
    if semiring != "sum" or b.type(x).kind not in ("real", "int"):
        return None
    for a, s, other in ((x, sx, sy), (y, sy, sx)):                       # sum_j x_ij * y_i: sum x first
        alone = tuple(i for i, c in enumerate(s) if c not in other and c not in so)
        if alone:
            a2, s2 = b.reduce(a, "sum", alone), "".join(c for i, c in enumerate(s) if i not in alone)
            return (b.contract(a2, y, f"{s2},{sy}->{so}", hint=n.name) if a == x and s == sx
                    else b.contract(x, a2, f"{sx},{s2}->{so}", hint=n.name))
    if all(c in so for c in sx + sy):                                    # nothing is summed: a product
        spread = [b.broadcast(a, n.type.shape, tuple(so.index(c) for c in s)) for a, s in ((x, sx), (y, sy))]
        return b.op("mul", *spread, hint=n.name)
    if set(sx) == set(sy):                                               # both have all letters: sum(x * y)
        y = b.broadcast(y, b.type(x).shape, tuple(sx.index(c) for c in sy))
        z = b.reduce(b.op("mul", x, y), "sum", tuple(i for i, c in enumerate(sx) if c not in so))
        return b.broadcast(z, n.type.shape, tuple(so.index(c) for c in sx if c in so))
    for a, first in ((x, True), (y, False)):                             # (-x) . y = -(x . y), unless x has fewer axes
        if is_op(b, a, "neg") and n.type.rank <= b.type(a).rank:
            args = (inner(b, a), y) if first else (x, inner(b, a))
            return b.op("neg", b.contract(*args, n.attr("spec"), hint=n.name))
    return None


def _unbroadcast(b: Rewriter, n: Node, a: str, s: str, first: bool) -> str | None:
    """The same contraction with a broadcast operand's source in its place."""
    sx, sy, so = spec_parts(n.attr("spec"))
    x, y = n.args
    other, semiring = (sy if first else sx), n.attr("semiring")
    letters = "".join(s[i] for i in b.node(a).attr("axes"))
    lost = [c for c in s if c not in letters and c not in other]
    sizes = dict(zip(s, b.type(a).shape))
    if lost and (semiring not in ("sum", "max", "min") or b.type(a).kind not in ("real", "int")):
        return None
    if any(sizes[c].size == 0 for c in lost):
        return None
    kept = "".join(c for c in so if c not in lost)
    src = inner(b, a)
    z = (b.contract(src, y, f"{letters},{sy}->{kept}", semiring, n.name) if first
         else b.contract(x, src, f"{sx},{letters}->{kept}", semiring, n.name))
    if semiring == "sum":                                                # summing a constant axis: times its size
        scale = 1
        for c in lost:
            scale *= 1 if c in so else sizes[c].size
        z = z if scale == 1 else b.op("mul", z, b.full(scale, b.type(z)))
    return b.broadcast(z, n.type.shape, tuple(so.index(c) for c in kept))


RULES: Rules = {"reduce": (reduce,), "contract": (contract,)}
