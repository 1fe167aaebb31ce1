"""What formulas in vector code are written with: an IEEE format's facts, arithmetic, powers of two,
the reductions of exp and log. Every method appends to the builder and returns a value."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from llvmlite import ir

from . import coefficients
from .vector import F32, F64, I32, I64, const, element, fma, intrinsic, like


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
