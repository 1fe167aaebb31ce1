"""Operations that choose elements, as products with matrices of ones and zeros.

Each takes every element of its result from one place of an operand (or from
several, which it adds), whatever the elements are, so it is linear.
"""

from __future__ import annotations

from ...ir.cell import Node
from ...ir.types import Dim, Type
from ..passes.rewrite import Rewriter
from .multilinear import INNER, Factor, Semiring

MOVES = frozenset("slice index concat stack interleave".split())        # over every semiring
SELECTIONS = MOVES | frozenset("pad place fold cumsum gather scatter".split())  # these put in zeros, or add


def selection(b: Rewriter, s: Semiring, n: Node, t: Type, i: int, start: int) -> tuple[dict[int, int], Factor]:
    """Operand `i`, of type `t`, of selection `n`: new letters for the operand's axes, and the factor
    that is one where the result shows the operand. `start`: elements before it in a concat."""
    if n.op in ("gather", "scatter"):
        return _positions(b, s, n, t)
    axis = n.attr("axis")
    old = None if n.op in ("place", "stack") else t.shape[axis]
    new = None if n.op == "index" else n.type.shape[axis]
    moved = {c: c + (old is None) - (new is None) for c in range(axis, t.rank)}
    if old is not None:
        moved[axis] = INNER
    letters = ((axis,) if new is not None else ()) + ((INNER,) if old is not None else ())
    return moved, Factor(_matrix(b, s, n, new, old, i, start), letters)


def _matrix(b: Rewriter, s: Semiring, n: Node, new: Dim | None, old: Dim | None, i: int, start: int) -> str:
    shape = tuple(d for d in (new, old) if d is not None)
    fixed = b.full({"index": n.attr("at"), "place": n.attr("at"), "stack": i}.get(n.op, 0), Type("int", shape))
    q = _iota(b, new, shape, 0) if new is not None else fixed
    p = _iota(b, old, shape, len(shape) - 1) if old is not None else fixed
    match n.op:
        case "slice":
            q = b.op("add", q, b.literal(n.attr("start"), "int"))
        case "pad" | "concat":
            p = b.op("add", p, b.literal(n.attr("start", start), "int"))
        case "interleave":
            q = b.op("floordiv", q, b.literal(n.attr("times"), "int"))
        case "fold":
            p = b.op("floordiv", p, b.literal(n.attr("times"), "int"))
    test = "eq" if n.op != "cumsum" else "le" if n.attr("reverse") else "ge"
    return _ones(b, s, b.op(test, q, p), n.type.kind)


def _positions(b: Rewriter, s: Semiring, n: Node, t: Type) -> tuple[dict[int, int], Factor]:
    """gather: x [batch, other, n, rest] at [batch, places]; scatter: back."""
    axis, batch, places = n.attr("axis"), n.attr("batch"), n.attr("places")
    wide, at = (t, n.type) if n.op == "gather" else (n.type, t)      # types with n, with the places
    d = wide.shape[axis]
    index = b.type(n.args[1])
    shape = (*index.shape, d)
    equal = b.op("eq", b.broadcast(n.args[1], shape, tuple(range(index.rank))), _iota(b, d, shape, index.rank))
    ones = _ones(b, s, equal, n.type.kind)
    if n.op == "gather":
        moved = {c: c + places - 1 for c in range(axis + 1, t.rank)} | {axis: INNER}
        return moved, Factor(ones, (*range(batch), *range(axis, axis + places), INNER))
    moved = {c: c - places + 1 for c in range(axis + places, at.rank)} | {axis + k: INNER + k for k in range(places)}
    return moved, Factor(ones, (*range(batch), *range(INNER, INNER + places), axis))


def _iota(b: Rewriter, d: Dim, shape: tuple[Dim, ...], at: int) -> str:
    return b.broadcast(b.add("iota", (), Type("int", (d,)), "iota"), shape, (at,))


def _ones(b: Rewriter, s: Semiring, where: str, kind: str) -> str:
    t = b.type(where).with_kind(kind)
    return b.op("select", where, b.full(s.one, t), b.full(s.zero, t))
