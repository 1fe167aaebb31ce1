"""Transcendental functions as straight-line vector code: no branch, no table, no library call.

All take and return `float` or `double`, scalar or of any number of lanes.
NaN goes through, infinities and signed zeros give the exact limits. Results
that would be subnormal may come out as 0 (exp, sigmoid, softplus near their
lower end). Error bounds in ulp are measured by `ulp.py` and stated in docs/math.md.

The polynomials are in `coefficients`.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from llvmlite import ir

from . import coefficients
from .vector import F32, F64, I32, I64, const, element, fma, intrinsic, like

INF, NAN = math.inf, math.nan


def _f32(x: float) -> float:
    return struct.unpack("f", struct.pack("f", x))[0]


@dataclass(frozen=True)
class Format:
    """What the code must know of an IEEE format. `low`, `high`: exp is normal and finite
    from `low` to `high` inclusive; `tiny`: the smallest normal number."""

    bits: ir.IntType
    mantissa: int
    bias: int
    low: float
    high: float
    ln2: tuple[float, float]
    table: dict[str, tuple[float, ...]]

    @property
    def tiny(self) -> float:
        return 2.0 ** (1 - self.bias)


def _ln2(bits: int) -> tuple[float, float]:
    """ln 2 as a part of `bits` bits and the rest (whose own error is 2^-53 of it)."""
    high = math.floor(math.log(2) * 2.0**bits) / 2.0**bits
    return high, (math.log(2) - high) + LN2_TAIL


LN2_TAIL = 2.3190468138462996e-17  # ln 2 - float64(ln 2), to double precision
FORMATS = {
    F32: Format(I32, 23, 127, -87.33654, 88.72283, _ln2(16), coefficients.F32),
    F64: Format(I64, 52, 1023, -708.3964185322641, 709.782712893384, _ln2(42), coefficients.F64),
}


class Emitter:
    """Arithmetic on values of one type, for formulas that read like formulas."""

    def __init__(self, b: ir.IRBuilder, type: ir.Type):
        self.b, self.type = b, type
        self.form = FORMATS[element(type)]
        self.int = like(type, self.form.bits)

    def k(self, x: float) -> ir.Constant:
        return const(self.type, x)

    def ik(self, x: int) -> ir.Constant:
        return const(self.int, x)

    def add(self, x, y):
        return self.b.fadd(x, y)

    def sub(self, x, y):
        return self.b.fsub(x, y)

    def mul(self, x, y):
        return self.b.fmul(x, y)

    def div(self, x, y):
        return self.b.fdiv(x, y)

    def fma(self, x, y, z):
        return fma(self.b, x, y, z)

    def horner(self, x, c, scale: float = 1.0):
        """c[0] + c[1] (scale x) + c[2] (scale x)^2 + ..."""
        *rest, y = (self.k(v * scale**i) for i, v in enumerate(c))
        for v in reversed(rest):
            y = self.fma(y, x, v)
        return y

    def table(self, name: str) -> tuple[float, ...]:
        return self.form.table[name]

    def less(self, x, y):
        return self.b.fcmp_ordered("<", x, y)

    def where(self, c, x, y):
        return self.b.select(c, x, y)

    def at_least(self, x, low: float):
        """max(x, low), NaN kept (one instruction)."""
        return self.where(self.less(x, self.k(low)), self.k(low), x)

    def at_most(self, x, high: float):
        return self.where(self.b.fcmp_ordered(">", x, self.k(high)), self.k(high), x)

    def abs(self, x):
        return intrinsic(self.b, "fabs", x)

    def copysign(self, x, sign):
        return intrinsic(self.b, "copysign", x, sign)

    def as_int(self, x):
        return self.b.bitcast(x, self.int)

    def as_real(self, x):
        return self.b.bitcast(x, self.type)

    # -- 2^n and e^x --------------------------------------------------------
    def reduce(self, x, scale: float = 1.0):
        """scale x = n ln 2 + scale r, |scale r| <= ln 2 / 2, scale +-2^k. Returns r and an integer
        whose low bits are n: adding 1.5 * 2^mantissa leaves n in the low bits of the representation.
        r is rounded once, since n times the leading part of ln 2 is exact."""
        n, bits = self._nearest(x, scale)
        high, low = self.form.ln2
        return self.fma(n, self.k(-low / scale), self.fma(n, self.k(-high / scale), x)), bits

    def reduce_near(self, x, scale: float = 1.0):
        """`reduce` for small n, where ln 2 in one part will do."""
        n, bits = self._nearest(x, scale)
        return self.fma(n, self.k(-math.log(2) / scale), x), bits

    def _nearest(self, x, scale: float):
        magic = self.k(1.5 * 2.0**self.form.mantissa)
        shifted = self.fma(x, self.k(scale / math.log(2)), magic)
        return self.sub(shifted, magic), self.as_int(shifted)

    def power(self, n, offset: int = 0):
        """2^(n + offset), -bias < n + offset <= bias."""
        bits = self.b.shl(n, self.ik(self.form.mantissa))
        return self.as_real(self.b.add(bits, self.ik((self.form.bias + offset) << self.form.mantissa)))

    def exp_reduced(self, r, scale: float = 1.0):
        """e^(scale r) for a reduced scale r."""
        return self.horner(r, (1.0, 1.0, *self.table("exp")), scale)

    def expm1_reduced(self, r):
        """e^r - 1 for a reduced r, relatively exact about 0."""
        tail = self.horner(r, self.table("exp"))
        return self.fma(self.mul(r, r), tail, r)

    # -- logarithm ----------------------------------------------------------
    def log1p_of(self, f, table: str):
        """(s, hfsq, R) with ln(1 + f) = f - hfsq + s (hfsq + R), s = f / (2 + f), hfsq = f^2/2:
        from ln(1+f) = 2 atanh s = 2s + sR and 2s = f - sf, sf = hfsq - s hfsq."""
        s = self.div(f, self.add(f, self.k(2.0)))
        z = self.mul(s, s)
        return s, self.mul(self.mul(f, f), self.k(0.5)), self.mul(z, self.horner(z, self.table(table)))

    def split(self, x):
        """x = 2^e m with sqrt(1/2) <= m < sqrt 2, x normal and positive. (e as integer, m)"""
        form = self.form
        origin = _bits(math.sqrt(0.5), form)
        moved = self.b.sub(self.as_int(x), self.ik(origin))
        e = self.b.ashr(moved, self.ik(form.mantissa))
        m = self.b.add(self.b.and_(moved, self.ik((1 << form.mantissa) - 1)), self.ik(origin))
        return e, self.as_real(m)

    def log_parts(self, e, f, extra=None):
        """e ln 2 + ln(1 + f)"""
        s, hfsq, tail = self.log1p_of(f, "log")
        high, low = self.form.ln2
        n = self.b.sitofp(e, self.type)
        correction = self.fma(n, self.k(low), self.mul(s, self.add(hfsq, tail)))
        return self.fma(n, self.k(high), self.sub(f, self.sub(hfsq, correction)))


def _bits(x: float, form: Format) -> int:
    pack = ("f", "I") if form.bits == I32 else ("d", "Q")
    return struct.unpack(pack[1], struct.pack(pack[0], x))[0]


def exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    m = Emitter(b, x.type)
    r, n = m.reduce(x)
    # an integer add into the exponent: 2^n itself would overflow for n = bias + 1
    bits = b.add(m.as_int(m.exp_reduced(r)), b.shl(n, m.ik(m.form.mantissa)))
    inside = b.fcmp_ordered("<=", x, m.k(m.form.high))
    y = m.where(inside, m.as_real(bits), m.add(x, m.k(INF)))  # inf, or NaN for NaN
    return m.where(m.less(x, m.k(m.form.low)), m.k(0.0), y)


def expm1(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    m = Emitter(b, x.type)
    t = m.at_least(x, -0.8 * m.form.mantissa)  # e^t is below half an ulp of 1 there
    r, n = m.reduce(t)
    s = m.power(n, -1)  # half, so that n = bias + 1 is in range
    half = m.fma(s, m.expm1_reduced(r), m.sub(s, m.k(0.5)))
    y = m.copysign(m.add(half, half), x)  # -0 stays -0
    return m.where(b.fcmp_ordered("<=", x, m.k(m.form.high)), y, m.add(x, m.k(INF)))


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


def sincos_turns(b: ir.IRBuilder, v: ir.Value) -> tuple[ir.Value, ir.Value]:
    """sin(2 pi v), cos(2 pi v) for 0 <= v <= 1 (v a multiple of 2^-mantissa, so that the
    reduction to an eighth of a turn is exact)."""
    m = Emitter(b, v.type)
    magic = m.k(1.5 * 2.0**m.form.mantissa)
    shifted = m.fma(v, m.k(4.0), magic)
    u = m.fma(m.sub(shifted, magic), m.k(-0.25), v)
    z = m.mul(u, u)
    tail = m.mul(m.mul(u, z), m.horner(z, m.table("sin2pi")))
    high = 2 * math.pi if element(v.type) == F64 else _f32(2 * math.pi)
    low = 2.4492935982947064e-16 if element(v.type) == F64 else 2 * math.pi - high
    sin = m.fma(u, m.k(high), m.fma(u, m.k(low), tail))
    cos = m.fma(z, m.horner(z, m.table("cos2pi")), m.k(1.0))
    quarter = m.as_int(shifted)
    swap = b.icmp_unsigned("!=", b.and_(quarter, m.ik(1)), m.ik(0))
    sign = m.form.bits.width - 1

    def signed(y: ir.Value, turn: ir.Value) -> ir.Value:
        flip = b.shl(b.and_(turn, m.ik(2)), m.ik(sign - 1))
        return m.as_real(b.xor(m.as_int(y), flip))

    return (signed(m.where(swap, cos, sin), quarter),
            signed(m.where(swap, sin, cos), b.add(quarter, m.ik(1))))
