"""Functions of one element at a time."""

from __future__ import annotations

import math

from . import numbers
from .calls import Call
from .expr import binary, choose
from .numbers import NoValue, number
from .values import Num, Val, Value

REAL = ("exp expm1 log log1p sqrt rsqrt sin cos tan tanh sigmoid softplus logsigmoid erf atan "
        "floor ceil round").split()


def apply(c: Call, name: str, x: Value) -> Num | Val:
    """A real function of the table of operations, folded where x is a number."""
    if isinstance(x, Num):
        try:
            folded = numbers.apply(name, x)
        except NoValue as why:
            c.fail("bad_constant", text=f"{name}({x.value})", reason=str(why))
        if folded is not None:
            return folded
        if x.kind == "complex":
            x = c.cx.literal(x)
    return c.cx.real(name, x, span=c.span, what=f"`{name}`")


def real(c: Call) -> Value:
    return apply(c, c.name, c.single(0))


def binary_real(c: Call) -> Value:
    if c.name == "pow":
        return binary(c.cx, "^", c.single(0), c.single(1), c.span)
    return c.cx.real(c.name, c.single(0), c.single(1), span=c.span, what=f"`{c.name}`")


def _do(c: Call, op: str, a: Value, b: Value) -> Value:
    return binary(c.cx, op, a, b, c.span)


def _if(c: Call, cond: Value, a: Value, b: Value) -> Value:
    if isinstance(cond, Num):
        return a if cond.value else b
    return choose(c.cx, cond, a, b, c.span)


def _ordered(name: str):
    def handler(c: Call) -> Value:
        x = c.single(0)
        if x.kind == "complex":
            if name != "abs":
                c.fail("complex_value", what=f"`{name}`")
            return Num(abs(x.value)) if isinstance(x, Num) else c.cx.op("modulus", x, span=c.span)
        if isinstance(x, Num):
            value = x.value if not isinstance(x.value, bool) else int(x.value)
            out = abs(value) if name == "abs" else type(value)((value > 0) - (value < 0))
            return number(out) if isinstance(out, int) else Num(out)
        [x] = c.cx.same_kind([x], c.span, f"`{name}`", "int")
        return c.cx.op(name, x, span=c.span)
    return handler


def _relu(c: Call) -> Value:
    x = c.single(0)
    return _if(c, _do(c, ">", x, number(0)), x, number(0))


def _silu(c: Call) -> Value:
    x = c.single(0)
    return _do(c, "*", x, apply(c, "sigmoid", x))


def _gelu(c: Call) -> Value:
    """x (1 + erf(x / sqrt 2)) / 2, as torch.nn.functional.gelu."""
    x = c.single(0)
    inner = apply(c, "erf", _do(c, "*", x, Num(1 / math.sqrt(2))))
    return _do(c, "*", _do(c, "*", Num(0.5), x), _do(c, "+", number(1), inner))


def _elu(c: Call) -> Value:
    x = c.single(0)
    return _if(c, _do(c, ">", x, number(0)), x, apply(c, "expm1", x))


def _softplus_inverse(c: Call) -> Value:
    """y with softplus(y) = x > 0: x + log(-expm1(-x))."""
    x = c.single(0)
    inner = _do(c, "*", number(-1), apply(c, "expm1", _do(c, "*", number(-1), x)))
    return _do(c, "+", x, apply(c, "log", inner))


def _stop_gradient(c: Call) -> Value:
    x = c.single(0)
    return x if isinstance(x, Num) else c.cx.op("stop_gradient", x, span=c.span)


def _identity(c: Call) -> Value:
    return c.single(0)


def _to_real(c: Call) -> Value:
    x = c.single(0)
    if x.kind == "complex":
        c.fail("complex_value", what="`real`")
    return Num(float(x.value)) if isinstance(x, Num) else c.cx.cast(x, "real")


def _to_int(c: Call) -> Value:
    """Towards zero, as a cast."""
    x = c.single(0)
    if x.kind == "complex":
        c.fail("complex_value", what="`int`")
    if isinstance(x, Num):
        if not math.isfinite(x.value):
            c.fail("bad_constant", text=f"int({x.value})", reason="it is not finite")
        return number(int(x.value))
    return x if x.kind == "int" else c.cx.val(c.cx.b.op("int", x.node), x.heads)


def clamp(c: Call) -> Value:
    """min(max(x, low), high)"""
    return extreme(c, "min", extreme(c, "max", c.single(0), c.single(1)), c.single(2))


def extreme(c: Call, op: str, a: Num | Val, b: Num | Val) -> Num | Val:
    """Element-wise max or min."""
    if "complex" in (a.kind, b.kind):
        c.fail("complex_value", what=f"`{op}`")
    if isinstance(a, Num) and isinstance(b, Num):
        pick = max if op == "max" else min
        out = pick(a, b, key=lambda n: n.value)
        known = a.poly == b.poly or all(n.poly is not None and n.poly.constant is not None for n in (a, b))
        return out if known else Num(out.value)
    items = c.cx.same_kind([a, b], c.span, f"`{op}`", "int")
    return c.cx.op(op, *items, span=c.span)


COMPOSED = {
    "abs": _ordered("abs"), "sign": _ordered("sign"), "relu": _relu, "silu": _silu, "gelu": _gelu, "elu": _elu,
    "softplus_inverse": _softplus_inverse, "stop_gradient": _stop_gradient, "identity": _identity,
    "real": _to_real, "int": _to_int,
}
