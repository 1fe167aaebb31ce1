"""Expressions to values."""

from __future__ import annotations

import math

from ...ir.types import BOOL, Span
from .. import tree as t
from . import numbers
from .context import NUMBERS, ORDERED, Context
from .numbers import NoValue, number
from .scope import Entity, Scope
from .values import Lib, List, Num, Val, Value, show

ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod"}
COMPARISON = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
CONSTANTS = {"pi": Num(math.pi), "inf": Num(math.inf), "true": Num(True), "false": Num(False)}


def evaluate(cx: Context, scope: Scope, e: t.Expr) -> Value:
    """The value of an expression; Abandon after an error was reported."""
    with cx.step(e.span):
        match e:
            case t.Name():
                return name(cx, scope, e)
            case t.Number():
                return literal(cx, e)
            case t.Array():
                return List(tuple([evaluate(cx, scope, x) for x in e.items]))
            case t.Unop("-"):
                return negative(cx, evaluate(cx, scope, e.operand), e.span)
            case t.Unop():
                return inverse(cx, evaluate(cx, scope, e.operand), e.span)
            case t.Binop("and" | "or"):
                return logic(cx, scope, e)
            case t.Binop():
                return binary(cx, e.op, evaluate(cx, scope, e.left), evaluate(cx, scope, e.right), e.span)
            case t.Select():
                return select(cx, scope, e)
            case t.Index():
                from .brackets import index

                return index(cx, scope, e)
            case t.Call():
                from .calls import call

                return call(cx, scope, e)
            case t.Attr():
                from .brackets import attribute

                return attribute(cx, scope, e)
            case t.Slice():
                cx.fail("slice_misplaced", e.span)
    raise AssertionError(e)


def single(cx: Context, scope: Scope, e: t.Expr) -> Num | Val:
    """The value of an expression that must be one number or tensor."""
    return cx.single(evaluate(cx, scope, e), e.span)


def tensor(cx: Context, scope: Scope, e: t.Expr) -> Val:
    return cx.tensor(evaluate(cx, scope, e), e.span)


# -- leaves -----------------------------------------------------------------
def literal(cx: Context, e: t.Number) -> Num:
    if e.value == math.inf:
        cx.fail("number_too_large", e.span, text=e.text)
    return Num(complex(0.0, e.value)) if e.imaginary else number(e.value)


def name(cx: Context, scope: Scope, e: t.Name) -> Value:
    found = scope.find(e.id)
    if isinstance(found, Entity):
        return found.bare(cx, e.span)
    if found is not None:
        return found
    if e.id in CONSTANTS:
        return CONSTANTS[e.id]
    if e.id in ("t", "training") and cx.init_region:
        cx.fail_static(e.span, f"`{e.id}`")
    if e.id == "t":
        return cx.time(scope.clock)
    if e.id == "training":
        return cx.val(cx.b.add("training", (), BOOL, "training"))
    if e.id in scope.module.functions:
        return scope.module.functions[e.id]
    if e.id in cx.builtins:
        return Lib(e.id)
    if (error := scope.hides(e.id)) is not None:
        cx.fail(error, e.span, name=e.id)
    if e.id in scope.module.cells:
        cx.fail("not_a_value", e.span, name=e.id, what="a cell")
    cx.unknown("unknown_name", e.id, e.span, (*scope.visible(), *cx.builtins, *CONSTANTS, "training"))


# -- operators -----------------------------------------------------------------
def negative(cx: Context, x: Value, span: Span) -> Value:
    x = cx.single(x, span)
    if isinstance(x, Num):
        return numbers.negate(x if x.kind != "bool" else number(int(x.value)))
    [x] = cx.same_kind([x], span, "`-`", "int", NUMBERS)
    return cx.op("neg", x, span=span)


def inverse(cx: Context, x: Value, span: Span) -> Value:
    x = cx.single(x, span)
    if x.kind != "bool":
        cx.fail("kind_mismatch", span, what="`not`", expected="bool", actual=x.kind)
    return Num(not x.value) if isinstance(x, Num) else cx.op("not", x, span=span)


def logic(cx: Context, scope: Scope, e: t.Binop) -> Value:
    a, b = single(cx, scope, e.left), single(cx, scope, e.right)
    for x, side in ((a, e.left), (b, e.right)):
        if x.kind != "bool":
            cx.fail("kind_mismatch", side.span, what=f"`{e.op}`", expected="bool", actual=x.kind)
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Num):      # true and y = y, false or y = y, otherwise x decides
            return y if x.value == (e.op == "and") else x
    return cx.op(e.op, a, b, span=e.span)


def binary(cx: Context, op: str, a: Value, b: Value, span: Span) -> Value:
    if op.startswith("@"):
        return product(cx, cx.tensor(a, span), cx.tensor(b, span), span, op)
    a, b = cx.single(a, span), cx.single(b, span)
    if isinstance(a, Num) and isinstance(b, Num):
        try:
            return numbers.arithmetic(op, a, b)
        except NoValue as why:
            cx.fail("bad_constant", span, text=f"{a.value} {op} {b.value}", reason=str(why))
    if op == "^":
        return power(cx, a, b, span)
    if op in COMPARISON:
        items = cx.same_kind([a, b], span, f"`{op}`")
        return cx.op(COMPARISON[op], *items, span=span, what=f"`{op}`")
    allowed = ORDERED if op in ("//", "%") else NUMBERS
    items = cx.same_kind([a, b], span, f"`{op}`", "real" if op == "/" else "int", allowed)
    return cx.op(ARITHMETIC[op], *items, span=span, what=f"`{op}`")


def power(cx: Context, a: Num | Val, b: Num | Val, span: Span) -> Val:
    """Small whole exponents are products; otherwise a real power."""
    if isinstance(b, Num) and b.kind == "complex":
        cx.fail("complex_value", span, what="an exponent")
    if isinstance(b, Num) and isinstance(a, Val) and b.value == int(b.value if abs(b.value) < 9 else 0):
        n = int(b.value)
        [a] = cx.same_kind([a], span, "`^`", "real" if n < 0 else "int", NUMBERS)
        if n == 0:
            return cx.spread(cx.literal(number(1), a.kind), a.lead, a.shape)
        out, base, left = None, a, abs(n)
        while left:
            if left & 1:
                out = base if out is None else cx.op("mul", out, base, span=span)
            left >>= 1
            if left:
                base = cx.op("mul", base, base, span=span)
        return out if n > 0 else cx.op("div", cx.literal(number(1.0), out.kind), out, span=span)
    if isinstance(b, Num) and b.value == 0.5:
        return cx.real("sqrt", a, span=span)
    return cx.real("pow", a, b, span=span, what="`^`")


def select(cx: Context, scope: Scope, e: t.Select) -> Value:
    cond = single(cx, scope, e.cond)
    if cond.kind != "bool":
        cx.fail("condition_kind", e.cond.span, actual=cond.kind)
    if isinstance(cond, Num):
        return evaluate(cx, scope, e.then if cond.value else e.other)
    return choose(cx, cond, single(cx, scope, e.then), single(cx, scope, e.other), e.span)


def choose(cx: Context, cond: Val, a: Num | Val, b: Num | Val, span: Span) -> Val:
    """select(cond, a, b) with kinds and shapes brought together."""
    a, b = cx.same_kind([a, b], span, "`if`", allowed=NUMBERS)
    if a.shape and b.shape and not (set(a.shape) <= set(b.shape) or set(b.shape) <= set(a.shape)):
        cx.fail("branch_shapes", span, left=show(a.shape), right=show(b.shape))
    return cx.op("select", cond, a, b, span=span, what="`if`")


def product(cx: Context, a: Val, b: Val, span: Span, op: str = "@") -> Val:
    """`a @ b`: the left's last axis with the right's first, head by head; over the semiring that `op` names."""
    semiring = op[1:] or "sum"
    allowed = NUMBERS if semiring == "sum" else ORDERED
    a, b = cx.same_kind([a, b], span, f"`{op}`", "real" if semiring == "lse" else "int", allowed)
    for x, side in ((a, "left"), (b, "right")):
        if not x.shape:
            cx.fail("product_scalar", span, side=side, name=op, use="+" if op != "@" else "*")
    if a.shape[-1] != b.shape[0]:
        cx.fail("product_mismatch", span, name=op, left=a.shape[-1].name, right=b.shape[0].name,
                left_shape=show(a.shape), right_shape=show(b.shape))
    letters = "abcdefghijklmopqrstuvwxyz"
    left = letters[:len(a.shape)]
    right = left[-1] + letters[len(a.shape):len(a.shape) + len(b.shape) - 1]
    if len(left) + len(right) + max(a.heads, b.heads) > 25:
        cx.fail("rank", span, what=op, expected="fewer axes", actual=show(a.shape))
    heads = "n" + letters[::-1]
    spec = f"{heads[:a.heads]}{left},{heads[:b.heads]}{right}->{heads[:max(a.heads, b.heads)]}{left[:-1]}{right[1:]}"
    return cx.val(cx.b.contract(a.node, b.node, spec, semiring), max(a.heads, b.heads))
