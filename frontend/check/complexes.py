"""Complex values: their parts, and how they are made."""

from __future__ import annotations

import cmath

from .calls import Call
from .context import NUMBERS
from .expr import binary
from .numbers import number
from .pointwise import apply
from .values import Num, Value


def part(c: Call) -> Value:
    """`re(z)`, `im(z)`, `conj(z)`; of a real number itself, 0 and itself."""
    x = c.single(0)
    if isinstance(x, Num):
        value = complex(x.value)
        return Num({"re": value.real, "im": value.imag, "conj": value.conjugate()}[c.name])
    if x.kind == "complex":
        return c.cx.op(c.name, x, span=c.span)
    [x] = c.cx.same_kind([x], c.span, f"`{c.name}`", "real")
    return x if c.name != "im" else c.cx.spread(c.cx.literal(number(0), "real"), x.lead, x.shape)


def polar(c: Call) -> Value:
    """r (cos phi + i sin phi)"""
    r, phi = c.single(0), c.single(1)
    for x in (r, phi):
        if x.kind == "complex":
            c.fail("complex_value", what="`polar`")
    if isinstance(r, Num) and isinstance(phi, Num):
        return Num(cmath.rect(r.value, phi.value))
    parts = [binary(c.cx, "*", r, apply(c, f, phi), c.span) for f in ("cos", "sin")]
    return c.cx.op("complex", *c.cx.same_kind(parts, c.span, "`polar`", "real"), span=c.span)


def angle(c: Call) -> Value:
    """atan2(im, re), in (-pi, pi]"""
    x = c.single(0)
    if isinstance(x, Num):
        return Num(cmath.phase(x.value))
    [x] = c.cx.same_kind([x], c.span, "`angle`", "complex", NUMBERS)
    return c.cx.op("angle", x, span=c.span)
