"""What follows a value in brackets or after a dot: times, elements, slices, members."""

from __future__ import annotations

from ...ir.types import Dim, Span
from .. import tree as t
from . import numbers
from .context import Context
from .expr import evaluate, single, tensor
from .numbers import number
from .scope import Entity, Scope, role_of
from .values import Fn, Lib, Num, Val, Value, show


def index(cx: Context, scope: Scope, e: t.Index) -> Value:
    match e.base:
        case t.Name(id):
            found = scope.find(id)
            if isinstance(found, Entity) and found.timed:
                if len(e.subs) > 1:
                    cx.fail("not_yet_two_axes", e.span)
                if isinstance(e.subs[0], t.Slice):
                    cx.fail("time_needed", e.span, name=id, role=found.role, previous="")
                return found.at(cx, scope, e.subs[0], e.span)
            if found is not None and isinstance(e.subs[0], t.Expr) and mentions(e.subs[0], "t"):
                lag = lag_of(cx, scope, e.subs[0], "t")
                if lag is not None and len(e.subs) == 1:
                    untimed(cx, id, role_of(found), lag, e)
        case t.Attr():
            member = submember(cx, scope, e.base)
            if member is not None:
                if len(e.subs) > 1:
                    cx.fail("not_yet_two_axes", e.span)
                return member.at(cx, scope, e.subs[0], e.span)
    base = evaluate(cx, scope, e.base)
    if isinstance(base, (Fn, Lib)):
        cx.fail("not_a_value", e.base.span, name=base.name, what="a function")
    return elements(cx, scope, base, e)


def untimed(cx: Context, id: str, role: str, lag: int, e: t.Index):
    """A time bracket on something that has no time."""
    if role == "a local value" and lag > 0:
        cx.fail("lag_on_local", e.span, name=id, lag=lag)
    cx.fail("time_on_local", e.span, name=id, role=role)


def lag_of(cx: Context, scope: Scope, sub: t.Expr, var: str) -> int | None:
    """k where `sub` reads `var - k` with constant k; None if it is no such expression."""
    total = 0
    while True:
        match sub:
            case t.Name(id) if id == var:
                return total
            case t.Binop("+" | "-" as op, left, right) if mentions(left, var) and not mentions(right, var):
                k = evaluate(cx, scope, right)
                if not isinstance(k, Num) or k.kind == "complex" or k.kind == "real" and not k.value.is_integer():
                    return None
                total += int(k.value) * (1 if op == "-" else -1)
                sub = left
            case t.Binop("+", left, right) if mentions(right, var):
                sub = t.Binop("+", right, left, sub.span)
                if mentions(left, var):
                    return None
            case _:
                return None


def mentions(e: t.Expr, var: str) -> bool:
    return any(isinstance(n, t.Name) and n.id == var for n in t.walk(e))


def elements(cx: Context, scope: Scope, base: Value, e: t.Index) -> Value:
    """`base[2]`, `base[1:]`, `base[i, :K]`: constant positions or computed ones, axis by axis."""
    x = cx.tensor(base, e.base.span)
    if len(e.subs) > len(x.shape):
        cx.fail("too_many_indices", e.span, count=len(e.subs), shape=show(x.shape))
    axis = x.heads
    for sub in e.subs:
        dim = x.type.shape[axis]
        if isinstance(sub, t.Slice):
            x = cut(cx, scope, x, axis, dim, sub)
            axis += 1
            continue
        at = single(cx, scope, sub)
        if isinstance(at, Val):
            if at.kind != "int":
                cx.fail("index_kind", sub.span, actual=at.kind)
            x, axis = gather(cx, x, axis, at)
            continue
        if at.kind in ("bool", "complex") or isinstance(at.value, float) and not at.value.is_integer():
            cx.fail("index_kind", sub.span, actual=at.kind)
        position = int(at.value)
        if not 0 <= position < dim.size:
            fixed = at.poly is None or at.poly.constant is not None
            if fixed and (position < 0 or is_constant(cx, dim)):
                cx.fail("index_out_of_range", sub.span, index=position, dim=dim.name, size=dim.size)
            cx.fail_sized("index_out_of_range", sub.span, index=position, dim=dim.name, size=dim.size)
            position = 0
        x = cx.val(cx.b.index(x.node, axis, position), x.heads)
    return x


def gather(cx: Context, x: Val, axis: int, at: Val) -> tuple[Val, int]:
    """`x` at computed positions along an axis, whose place the axes of `at` take; the axis after them."""
    if at.heads > x.heads and axis > x.heads:       # every head reads at its own places: the heads go first
        x, axis = cx.spread(x, at.lead, x.shape), axis + at.heads - x.heads
    both = min(at.heads, x.heads)
    node = cx.b.gather(x.node, at.node, axis, both)
    return cx.val(node, max(x.heads, at.heads)), axis + at.type.rank - both


def is_constant(cx: Context, dim: Dim) -> bool:
    return cx.dims.poly(dim).constant is not None


def cut(cx: Context, scope: Scope, x: Val, axis: int, dim: Dim, sub: t.Slice) -> Val:
    def bound(e: t.Expr | None, default: Num) -> Num:
        if e is None:
            return default
        v = evaluate(cx, scope, e)
        cx.integer(v, e.span, "the end of a slice")
        return v

    low = bound(sub.low, number(0))
    high = bound(sub.high, Num(dim.size, cx.dims.poly(dim)))
    start, stop = int(low.value), int(high.value)
    if not 0 <= start <= stop <= dim.size:
        fixed = all(p is not None and p.constant is not None for p in (low.poly, high.poly))
        text = f"{start}:{stop}"
        if fixed and (is_constant(cx, dim) or start < 0 or stop < start):
            cx.fail("slice_out_of_range", sub.span, slice=text, dim=dim.name, size=dim.size)
        cx.fail_sized("slice_out_of_range", sub.span, slice=text, dim=dim.name, size=dim.size)
        start, stop = 0, max(0, min(stop, dim.size) - max(start, 0))
    size = numbers.arithmetic("-", high, low)
    part = cx.dim(Num(stop - start, size.poly), sub.span, "slice")
    return cx.val(cx.b.slice(x.node, axis, start, part), x.heads)


def attribute(cx: Context, scope: Scope, e: t.Attr) -> Value:
    member = submember(cx, scope, e)
    if member is not None:
        return member.bare(cx, e.span)
    if e.name != "T":
        cx.fail("attribute_of_value", e.span, name=e.name)
    return transpose(cx, tensor(cx, scope, e.base), e.span)


def submember(cx: Context, scope: Scope, e: t.Attr) -> Entity | None:
    """`f.h` or `layer[2].h`: the sub-cell's state or output; None if the base is a value."""
    match e.base:
        case t.Name(id):
            position = None
        case t.Index(t.Name(id), (t.Slice(),)):
            return None
        case t.Index(t.Name(id), (sub,)):
            position = sub
        case _:
            return None
    found = scope.find(id)
    if not hasattr(found, "member"):
        return None
    return found.member(cx, scope, position, e)


def transpose(cx: Context, x: Val, span: Span) -> Val:
    if len(x.shape) != 2:
        cx.fail("rank", span, what=".T", expected="a matrix", actual=show(x.shape))
    i = x.heads
    shape = (*x.type.shape[:i], x.type.shape[i + 1], x.type.shape[i])
    return cx.val(cx.b.broadcast(x.node, shape, (*range(i), i + 1, i)), x.heads)
