"""Reductions over named axes, and generators `sum(x[t-j] for j in n)`."""

from __future__ import annotations

from ...ir.types import Dim
from . import structure
from .calls import Call
from .context import NUMBERS, ORDERED
from .expr import binary, evaluate, single
from .numbers import number
from .pointwise import apply, extreme
from .scope import Scope
from .types import text
from .values import Num, Val, Value, show

LONGEST_LOOP = 1024
REDUCE = {"sum": "sum", "mean": "sum", "prod": "prod", "max": "max", "min": "min", "any": "any", "all": "all",
          "argmax": "argmax", "logsumexp": "lse", "norm": "sum", "var": "sum"}


# -- axes -----------------------------------------------------------------
def axes_of(c: Call, x: Val, last: bool = False) -> tuple[int, ...]:
    """Positions (in the full type) of the axes in brackets; without brackets the only
    axis, or the last one if `last`."""
    cx = c.cx
    if not c.axes:
        if len(x.shape) == 1 or last and x.shape:
            return (x.type.rank - 1,)
        c.fail("axis_needed", what=c.name, shape=show(x.shape), dim=x.shape[-1].name if x.shape else "K")
    out = []
    for e in c.axes:
        value = evaluate(cx, c.scope, e)
        if not isinstance(value, Num):
            cx.fail("missing_axis", e.span, what=c.name, dim="this", shape=show(x.shape))
        dim = cx.dim(value, e.span, text(e))
        count = x.shape.count(dim)
        if count > 1 or count == 1 and x.lead[-1:] == (dim,):
            cx.fail("axis_twice", e.span, dim=dim.name, shape=show(x.type.shape))
        if count == 1:
            out.append(x.heads + x.shape.index(dim))
        elif x.lead[-1:] == (dim,):
            out.append(x.heads - 1)
        else:
            cx.fail("missing_axis", e.span, what=c.name, dim=dim.name, shape=show(x.shape))
        if out[-1] in out[:-1]:
            cx.fail("axis_twice", e.span, dim=dim.name, shape=show(x.type.shape))
    return tuple(sorted(out))


def reduce(c: Call, x: Val, fn: str, axes: tuple[int, ...]) -> Val:
    return c.cx.val(c.cx.b.reduce(x.node, fn, axes), x.heads - (x.heads - 1 in axes))


def back(c: Call, r: Val, x: Val, axes: tuple[int, ...]) -> Val:
    """A reduced value along x's axes again."""
    kept = tuple(i for i in range(x.type.rank) if i not in axes)
    return c.cx.val(c.cx.b.broadcast(r.node, x.type.shape, kept), x.heads)


# -- reductions -------------------------------------------------------------
def simple(c: Call) -> Value:
    if c.loop is not None:
        return _combine(c, _unrolled(c))
    cx = c.cx
    x = c.tensor(0)
    axes = axes_of(c, x)
    logical = c.name in ("any", "all")
    least = "bool" if logical else "int" if c.name in ("sum", "prod", "argmax") else "real"
    if c.name == "norm" and x.kind == "complex":
        x = cx.op("modulus", x, span=c.span)
    allowed = ("bool",) if logical else NUMBERS if c.name in ("sum", "prod", "mean") else ORDERED
    [x] = cx.same_kind([x], c.span, f"`{c.name}`", least, allowed)
    n = number(float(_size(x, axes)))
    match c.name:
        case "mean":
            return binary(cx, "/", reduce(c, x, "sum", axes), n, c.span)
        case "var":
            mean = binary(cx, "/", reduce(c, x, "sum", axes), n, c.span)
            d = binary(cx, "-", x, back(c, mean, x, axes), c.span)
            return binary(cx, "/", reduce(c, binary(cx, "*", d, d, c.span), "sum", axes), n, c.span)
        case "norm":
            return apply(c, "sqrt", reduce(c, binary(cx, "*", x, x, c.span), "sum", axes))
        case "argmax" if len(axes) != 1:
            c.fail("rank", what="argmax", expected="one axis", actual=show(x.shape))
    return reduce(c, x, REDUCE[c.name], axes)


def _size(x: Val, axes: tuple[int, ...]) -> int:
    n = 1
    for i in axes:
        n *= x.type.shape[i].size
    return n


def extremum(c: Call) -> Value:
    """max and min: of one value along an axis, of several element by element."""
    if c.loop is not None:
        return _combine(c, _unrolled(c))
    if len(c.args) == 1:
        x = c.tensor(0)
        axes = axes_of(c, x)
        [x] = c.cx.same_kind([x], c.span, f"`{c.name}`", "int")
        return reduce(c, x, c.name, axes)
    if c.axes:
        c.fail("axis_not_allowed", name=c.name)
    out = c.single(0)
    for i in range(1, len(c.args)):
        out = extreme(c, c.name, out, c.single(i))
    return out


def softmax(c: Call) -> Value:
    """exp(x - max) / sum, or x - logsumexp(x); without an axis, along the last."""
    cx = c.cx
    x = c.tensor(0)
    axes = axes_of(c, x, last=True)
    [x] = cx.same_kind([x], c.span, f"`{c.name}`", "real")
    if c.name == "log_softmax":
        return binary(cx, "-", x, back(c, reduce(c, x, "lse", axes), x, axes), c.span)
    top = cx.op("stop_gradient", reduce(c, x, "max", axes), span=c.span)    # moves numerator and denominator alike
    e = apply(c, "exp", binary(cx, "-", x, back(c, top, x, axes), c.span))
    return binary(cx, "/", e, back(c, reduce(c, e, "sum", axes), x, axes), c.span)


def l2norm(c: Call) -> Value:
    """x / sqrt(sum(x^2) + eps), eps = 1e-6 unless given; without an axis, along the last."""
    cx = c.cx
    x = c.tensor(0)
    axes = axes_of(c, x, last=True)
    [x] = cx.same_kind([x], c.span, "`l2norm`", "real")
    eps = c.number(1, "eps", Num(1e-6))
    total = binary(cx, "+", reduce(c, binary(cx, "*", x, x, c.span), "sum", axes), eps, c.span)
    return binary(cx, "*", x, back(c, apply(c, "rsqrt", total), x, axes), c.span)


def cumsum(c: Call) -> Value:
    cx = c.cx
    x = c.tensor(0)
    axes = axes_of(c, x)
    if len(axes) != 1:
        c.fail("rank", what="cumsum", expected="one axis", actual=show(x.shape))
    [x] = cx.same_kind([x], c.span, "`cumsum`", "int", NUMBERS)
    return cx.val(cx.b.add("cumsum", (x.node,), x.type, "cumsum", axis=axes[0], reverse=False), x.heads)


# -- generators ---------------------------------------------------------------
def loop_count(c: Call) -> tuple[int, Dim]:
    cx = c.cx
    value = evaluate(cx, c.scope, c.loop.count)
    n = cx.integer(value, c.loop.count.span, "the range of a generator")
    if n > LONGEST_LOOP:
        cx.fail("repeat_too_long", c.loop.count.span, count=n, limit=LONGEST_LOOP)
    return max(0, n), cx.dim(value, c.loop.count.span, text(c.loop.count))


def _unrolled(c: Call) -> list[Num | Val]:
    """The generator's terms."""
    cx, loop = c.cx, c.loop
    if c.axes:
        c.fail("axis_not_allowed", name=c.name)
    if len(c.args) != 1:
        c.fail("argument_count", name=c.name, expected="1 argument before `for`", actual=len(c.args))
    if not cx.may_define(c.scope, loop.var, loop.span):
        cx.abandon()
    out = []
    for j in range(loop_count(c)[0]):
        scope = Scope(c.scope.module, c.scope)
        scope.names[loop.var] = number(j)
        out.append(single(cx, scope, c.args[0]))
    return out


def _combine(c: Call, terms: list[Num | Val]) -> Num | Val:
    if not terms:
        if c.name in ("sum", "prod"):
            return number(0 if c.name == "sum" else 1)
        if c.name in ("any", "all"):
            return Num(c.name == "all")
        c.fail("empty_generator", name=c.name)
    out = terms[0]
    for x in terms[1:]:
        match c.name:
            case "sum" | "mean":
                out = binary(c.cx, "+", out, x, c.span)
            case "prod":
                out = binary(c.cx, "*", out, x, c.span)
            case "max" | "min":
                out = extreme(c, c.name, out, x)
            case "any" | "all":
                out = structure.connect(c, "or" if c.name == "any" else "and", out, x)
    return binary(c.cx, "/", out, number(len(terms)), c.span) if c.name == "mean" else out


def terms(c: Call) -> list[Num | Val]:
    """The operands of `stack` and `concat`: arguments or a generator's terms."""
    return _unrolled(c) if c.loop is not None else [c.single(i) for i in range(len(c.args))]
