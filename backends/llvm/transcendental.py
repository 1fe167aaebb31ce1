"""Transcendental functions as straight-line vector code: no branch, no table, no library call.

All take and return `float` or `double`, scalar or of any number of lanes.
NaN goes through, infinities and signed zeros give the exact limits. Results
that would be subnormal may come out as 0 (exp, sigmoid, softplus near their
lower end). Error bounds in ulp are measured by `ulp.py` and stated in docs/math.md.

The polynomials are in `coefficients`.
"""

from __future__ import annotations

import math

from llvmlite import ir

from .formula import Emitter
from .vector import F32, F64, element, intrinsic, like

INF, NAN = math.inf, math.nan


def exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    m = Emitter(b, x.type)
    r, n = m.reduce(x)
    y = m.add(m.expm1_reduced(r), m.k(1.0))  # as expm1 has it: of one argument, both cost little more than one
    # an integer add into the exponent: 2^n itself would overflow for n = bias + 1
    bits = b.add(m.as_int(y), b.shl(n, m.ik(m.form.mantissa)))
    inside = b.fcmp_ordered("<=", x, m.k(m.form.high))
    y = m.where(inside, m.as_real(bits), m.add(x, m.k(INF)))  # inf, or NaN for NaN
    return m.where(m.less(x, m.k(m.form.low)), m.k(0.0), y)


def expm1(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    m = Emitter(b, x.type)
    r, n = m.reduce(x)
    s = m.power(n, -1)  # half, so that n = bias + 1 is in range
    half = m.fma(s, m.expm1_reduced(r), m.sub(s, m.k(0.5)))
    y = m.copysign(m.add(half, half), x)  # -0 stays -0
    y = m.where(b.fcmp_ordered("<=", x, m.k(m.form.high)), y, m.add(x, m.k(INF)))
    return m.where(m.less(x, m.k(m.form.low)), m.k(-1.0), y)


def log(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    m = Emitter(b, x.type)
    small = m.less(x, m.k(m.form.tiny))
    up = m.form.mantissa + 1
    e, mant = m.split(m.where(small, m.mul(x, m.k(2.0**up)), x))
    e = m.where(small, b.sub(e, m.ik(up)), e)
    return _log_limits(m, x, m.log_parts(e, m.sub(mant, m.k(1.0))))


def _log_limits(m: Emitter, u: ir.Value, y: ir.Value) -> ir.Value:
    """`y`, but -inf at u = 0, NaN below, u itself at inf and NaN."""
    y = m.where(m.less(u, m.k(INF)), y, u)
    low = m.where(m.b.fcmp_ordered("==", u, m.k(0.0)), m.k(-INF), m.k(NAN))
    return m.where(m.b.fcmp_ordered("<=", u, m.k(0.0)), low, y)


def log1p(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    m = Emitter(b, x.type)
    one = m.k(1.0)
    u = m.add(x, one)
    back = m.sub(u, one)  # two-sum: x + 1 = u + lost exactly
    lost = m.add(m.sub(one, m.sub(u, back)), m.sub(x, back))
    e, mant = m.split(u)
    f = m.fma(lost, m.power(b.neg(_least(m, e))), m.sub(mant, one))
    y = _log_limits(m, u, m.log_parts(e, f))
    return m.copysign(y, x)  # -0 stays -0


def _least(m: Emitter, e: ir.Value) -> ir.Value:
    """min(e, bias): 2^-e stays in range (it comes out as 0, which then is close enough)."""
    return m.where(m.b.icmp_signed("<", e, m.ik(m.form.bias)), e, m.ik(m.form.bias))


def sigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 / (1 + e^-x), the sum in one fma as 2^n e^r + 1."""
    m = Emitter(b, x.type)
    top = m.form.bias * math.log(2)
    t = m.at_least(m.at_most(x, 0.8 * m.form.mantissa), -top)
    r, n = m.reduce(t, -1.0)
    y = m.div(m.k(1.0), m.fma(m.exp_reduced(r, -1.0), m.power(n), m.k(1.0)))
    return m.where(m.less(x, m.k(-top)), m.k(0.0), y)


def tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    m = Emitter(b, x.type)
    t = m.at_most(m.abs(x), 0.4 * m.form.mantissa)  # 1 - tanh is below half an ulp there
    h, n = m.reduce_near(t, 2.0)  # 2t = n ln 2 + 2h
    s = m.power(n)
    tail = m.horner(h, [2 * c for c in m.table("exp")], 2.0)
    half = m.fma(m.mul(h, h), tail, h)  # (e^2h - 1) / 2
    y = m.fma(s, half, m.fma(s, m.k(0.5), m.k(-0.5)))  # (e^2t - 1) / 2
    return m.copysign(m.div(y, m.add(y, m.k(1.0))), x)


def _log1p_exp(m: Emitter, t: ir.Value) -> ir.Value:
    """ln(1 + e^t), t <= 0 (NaN goes through; 0 below `low`)."""
    r, n = m.reduce(m.at_least(t, m.form.low))
    e = m.mul(m.exp_reduced(r), m.power(n))
    s, hfsq, tail = m.log1p_of(e, "log1p_unit")
    y = m.sub(e, m.sub(hfsq, m.mul(s, m.add(hfsq, tail))))
    return m.where(m.less(t, m.k(m.form.low)), m.k(0.0), y)


def softplus(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """max(x, 0) + ln(1 + e^-|x|)"""
    m = Emitter(b, x.type)
    return m.add(m.at_least(x, 0.0), _log1p_exp(m, b.fneg(m.abs(x))))


def logsigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    m = Emitter(b, x.type)
    return m.sub(m.at_most(x, 0.0), _log1p_exp(m, b.fneg(m.abs(x))))


def logaddexp(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """max + ln(1 + e^-|x-y|); equal infinities have difference 0."""
    m = Emitter(b, x.type)
    same = b.fcmp_ordered("==", x, y)
    gap = m.where(same, m.k(0.0), m.abs(m.sub(x, y)))
    top = m.where(b.fcmp_ordered(">", x, y), x, y)
    return m.add(top, _log1p_exp(m, b.fneg(gap)))


def erf(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x P(x^2) up to 1, then 1 - e^-Q(x), the sign put back."""
    m = Emitter(b, x.type)
    t = m.at_most(m.abs(x), 4.0 if element(x.type) == F32 else 6.0)
    near = m.fma(t, m.horner(m.mul(t, t), m.table("erf")), t)
    r, n = m.reduce(b.fneg(m.horner(m.sub(t, m.k(1.0)), m.table("erfc"))))
    far = m.sub(m.k(1.0), m.mul(m.exp_reduced(r), m.power(n)))
    return m.copysign(m.where(b.fcmp_ordered(">", t, m.k(1.0)), far, near), x)


def pow_single(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """x^y for `float`, as e^(y ln |x|) in double, with the cases that IEEE 754 fixes."""
    wide = like(x.type, F64)
    m, xd, yd = Emitter(b, wide), b.fpext(x, wide), b.fpext(y, wide)
    zero = m.k(0.0)
    ln = log(b, m.abs(xd))
    is_one = b.or_(b.fcmp_ordered("==", ln, zero), b.fcmp_ordered("==", yd, zero))  # whatever the other is
    size = exp(b, m.where(is_one, zero, m.mul(yd, ln)))
    whole = b.fcmp_ordered("==", intrinsic(b, "floor", yd), yd)
    half = m.mul(yd, m.k(0.5))
    odd = b.and_(whole, b.fcmp_ordered("!=", intrinsic(b, "floor", half), half))
    signed = m.where(odd, m.copysign(size, xd), size)  # -0 too has its sign
    no_value = b.and_(b.and_(m.less(xd, zero), m.less(m.k(-INF), xd)), b.not_(whole))
    return b.fptrunc(m.where(no_value, m.k(NAN), signed), x.type)
