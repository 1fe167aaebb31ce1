"""Sine, cosine and tangent as vector code.

The argument is reduced to an eighth of a turn about a multiple of a quarter by
three parts of pi/2, exactly as long as |x| <= LIMIT. Larger arguments, which no
sensible cell has, go lane by lane through the C library; that branch lives in
a function of its own per type, so that `emit` never ends a block of its caller.
"""

from __future__ import annotations

import math
import struct

from llvmlite import ir

from .formula import Emitter
from .vector import F32, F64, I1, const, element, intrinsic, lanes, like, suffix

LIMIT = 2.0**20
# pi/2 in parts of 33, 33 and 53 bits: n times the first two is exact for |n| <= 2^20
HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)


def sin(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.call(_function(b.module, "sin", x.type), [x])


def cos(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.call(_function(b.module, "cos", x.type), [x])


def tan(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.call(_function(b.module, "tan", x.type), [x])


def _function(module: ir.Module, name: str, type: ir.Type) -> ir.Function:
    """internal TYPE ostinato.NAME.TYPE(TYPE), made on first use."""
    full = f"ostinato.{name}.{suffix(type)}"
    if full in module.globals:
        return module.globals[full]
    fn = ir.Function(module, ir.FunctionType(type, [type]), full)
    fn.linkage = "internal"
    (x,) = fn.args
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    large = b.fcmp_ordered(">", intrinsic(b, "fabs", x), const(type, LIMIT))
    some = intrinsic(b, "vector.reduce.or", large, result=I1) if lanes(type) else large
    y = _near(b, name, x)
    rare, done = fn.append_basic_block("rare"), fn.append_basic_block("done")
    b.cbranch(some, rare, done)
    b.position_at_end(done)
    b.ret(y)
    b.position_at_end(rare)
    b.ret(b.select(large, intrinsic(b, name, x), y))
    return fn


def _near(b: ir.IRBuilder, name: str, x: ir.Value) -> ir.Value:
    """The function for |x| <= LIMIT, computed in double."""
    if element(x.type) == F32:
        return b.fptrunc(_near(b, name, b.fpext(x, like(x.type, F64))), x.type)
    m = Emitter(b, x.type)
    magic = m.k(1.5 * 2.0**m.form.mantissa)
    shifted = m.fma(x, m.k(2 / math.pi), magic)
    n, r = m.sub(shifted, magic), x
    for part in HALF_PI:
        r = m.fma(n, m.k(-part), r)
    z = m.mul(r, r)
    s = m.fma(m.mul(r, z), m.horner(z, m.table("sin")), r)
    c = m.fma(z, m.fma(z, m.horner(z, m.table("cos")), m.k(-0.5)), m.k(1.0))
    s, c = _turned(m, s, c, m.as_int(shifted))
    if name == "cos":
        return c
    y = s if name == "sin" else m.div(s, c)
    return m.where(b.fcmp_ordered("==", x, m.k(0.0)), x, y)  # -0 stays -0


def _turned(m: Emitter, s: ir.Value, c: ir.Value, quarters: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(sin, cos) after that many quarter turns (the two low bits count)."""
    b = m.b
    swap = b.icmp_unsigned("!=", b.and_(quarters, m.ik(1)), m.ik(0))

    def signed(y: ir.Value, turn: ir.Value) -> ir.Value:
        flip = b.shl(b.and_(turn, m.ik(2)), m.ik(m.form.bits.width - 2))
        return m.as_real(b.xor(m.as_int(y), flip))

    return signed(m.where(swap, c, s), quarters), signed(m.where(swap, s, c), b.add(quarters, m.ik(1)))


def sincos_turns(b: ir.IRBuilder, v: ir.Value) -> tuple[ir.Value, ir.Value]:
    """sin(2 pi v), cos(2 pi v) for 0 <= v <= 1 (v a multiple of 2^-mantissa, so that the
    reduction to an eighth of a turn is exact)."""
    m = Emitter(b, v.type)
    magic = m.k(1.5 * 2.0**m.form.mantissa)
    shifted = m.fma(v, m.k(4.0), magic)
    u = m.fma(m.sub(shifted, magic), m.k(-0.25), v)
    z = m.mul(u, u)
    tail = m.mul(m.mul(u, z), m.horner(z, m.table("sin2pi")))
    single = element(v.type) == F32
    high = struct.unpack("f", struct.pack("f", 2 * math.pi))[0] if single else 2 * math.pi
    low = 2 * math.pi - high if single else 2.4492935982947064e-16
    s = m.fma(u, m.k(high), m.fma(u, m.k(low), tail))
    c = m.fma(z, m.horner(z, m.table("cos2pi")), m.k(1.0))
    return _turned(m, s, c, m.as_int(shifted))
