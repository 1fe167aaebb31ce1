"""Pointwise operations of the cell IR as LLVM IR, on scalars or vectors.

`emit(b, "tanh", x)` appends code to the builder `b` and returns the value;
operands are `float`, `double`, `i64` or `i1`, or vectors of any number of
lanes of these, all of the same lane count. `ir.meaning` defines the results.
Pointwise results are rounded as written, never fused: a value that is computed
again elsewhere has to be the same number, or `x == max(x)` can be false. Fused
multiply-adds are for sums of products, which are computed once (`evaluate.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import transcendental as tr
from . import trigonometry
from .vector import F32, I8, I64, const, element, intrinsic, is_bool, is_real, like


def _pow(b, x, y):
    """float through double; double lane by lane through the C library, but x * x for a constant 2."""
    if isinstance(y, ir.Constant) and y == const(y.type, 2.0):
        return b.fmul(x, x)
    return tr.pow_single(b, x, y) if element(x.type) == F32 else intrinsic(b, "pow", x, y)


COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
INLINE: dict[str, Callable[..., ir.Value]] = {
    "exp": tr.exp, "expm1": tr.expm1, "log": tr.log, "log1p": tr.log1p, "tanh": tr.tanh, "sigmoid": tr.sigmoid,
    "softplus": tr.softplus, "logsigmoid": tr.logsigmoid, "erf": tr.erf, "logaddexp": tr.logaddexp,
    "sin": trigonometry.sin, "cos": trigonometry.cos, "tan": trigonometry.tan, "pow": _pow,
}
INTRINSIC = {"floor": "floor", "ceil": "ceil", "round": "roundeven", "sqrt": "sqrt",
             # lane by lane through the C library, whose names the JIT resolves in this process
             "atan": "atan", "atan2": "atan2"}


def emit(b: ir.IRBuilder, op: str, *args: ir.Value, to: ir.Type | None = None) -> ir.Value:
    """The value of pointwise operation `op` (a name in `ir.ops.OPS`).

    `to`: for `real`, the element type wanted (`float` or `double`); ignored by
    other operations. bool is i1, int is i64; memory holds bool as i8 (see
    `from_memory`, `to_memory`). `custom_grad` and `stop_gradient` are their first
    operand. Raises NotImplementedError for an operation or operand type that has no code.
    """
    x = args[0]
    match op:
        case "select":
            return b.select(*args)
        case "real":
            return _to_real(b, x, to)
        case "int":
            return _to_int(b, x)
        case "stop_gradient" | "custom_grad":
            return x
        case _ if op in COMPARE:
            return _compare(b, op, *args)
    if is_real(x.type):
        if op in INLINE:
            return INLINE[op](b, *args)
        if op in INTRINSIC:
            return intrinsic(b, INTRINSIC[op], *args)
        table = _REAL
    else:
        table = _BOOL if is_bool(x.type) else _INT
    if op not in table:
        raise NotImplementedError(f"no code for {op} on {x.type}")
    return table[op](b, *args)


def from_memory(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """i8 bool as loaded from memory -> i1 (lanes kept)."""
    return b.icmp_unsigned("!=", x, const(x.type, 0))


def to_memory(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """i1 -> i8 holding 0 or 1, as torch.bool stores it (lanes kept)."""
    return b.zext(x, like(x.type, I8))


# -- casts and comparisons --------------------------------------------------
def _to_real(b, x, to):
    if is_real(x.type):
        if to is None or like(x.type, to) == x.type:
            return x
        return (b.fpext if isinstance(to, ir.DoubleType) else b.fptrunc)(x, like(x.type, to))
    if to is None:
        raise NotImplementedError("real() of an int or bool needs the element type: pass to=")
    return (b.uitofp if is_bool(x.type) else b.sitofp)(x, like(x.type, to))


def _to_int(b, x):
    """Towards zero; out of range and NaN give the least integer, as the host's own conversion does."""
    if is_bool(x.type):
        return b.zext(x, like(x.type, I64))
    if not is_real(x.type):
        return x
    fits = b.fcmp_ordered("<", intrinsic(b, "fabs", x), const(x.type, 2.0**63))
    whole = b.fptosi(b.select(fits, x, const(x.type, 0.0)), like(x.type, I64))
    return b.select(fits, whole, const(whole.type, -2**63))


def _compare(b, op, x, y):
    if is_real(x.type):
        return (b.fcmp_unordered if op == "ne" else b.fcmp_ordered)(COMPARE[op], x, y)
    return (b.icmp_unsigned if is_bool(x.type) else b.icmp_signed)(COMPARE[op], x, y)


# -- real -------------------------------------------------------------------
def _extreme(sign):
    """The first operand on a tie; NaN wins."""
    def fn(b, x, y):
        best = b.select(b.fcmp_ordered(sign, y, x), y, x)
        return b.select(b.fcmp_unordered("uno", y, y), y, best)
    return fn


def _real_sign(b, x):
    """-1, 0, 1; 0 for NaN, as torch."""
    zero, one = const(x.type, 0.0), const(x.type, 1.0)
    positive = b.select(b.fcmp_ordered(">", x, zero), one, zero)
    return b.select(b.fcmp_ordered("<", x, zero), const(x.type, -1.0), positive)


def _wrong_side(b, rest, y):
    """A truncated remainder that is not 0 and has the other sign than the divisor."""
    zero = const(y.type, 0.0)
    differ = b.xor(b.fcmp_ordered("<", rest, zero), b.fcmp_ordered("<", y, zero))
    return b.and_(b.fcmp_unordered("!=", rest, zero), differ)


def _real_mod(b, x, y):
    """The remainder with the divisor's sign: C's fmod, moved up by one divisor where the signs differ."""
    rest = b.frem(x, y)
    return b.select(_wrong_side(b, rest, y), b.fadd(rest, y), rest)


def _real_floordiv(b, x, y):
    """floor(x / y) found from the exact remainder, so that rounding of x / y cannot step over a whole number."""
    zero = const(x.type, 0.0)
    rest = b.frem(x, y)
    ratio = b.fdiv(b.fsub(x, rest), y)
    ratio = b.select(_wrong_side(b, rest, y), b.fsub(ratio, const(x.type, 1.0)), ratio)
    whole = intrinsic(b, "floor", ratio)
    above = b.fcmp_ordered(">", b.fsub(ratio, whole), const(x.type, 0.5))
    whole = b.select(above, b.fadd(whole, const(x.type, 1.0)), whole)
    plain = b.fdiv(x, y)
    whole = b.select(b.fcmp_unordered("!=", ratio, zero), whole, intrinsic(b, "copysign", zero, plain))
    return b.select(b.fcmp_ordered("==", y, zero), plain, whole)


_REAL: dict[str, Callable[..., ir.Value]] = {
    "neg": lambda b, x: b.fneg(x), "abs": lambda b, x: intrinsic(b, "fabs", x), "sign": _real_sign,
    "rsqrt": lambda b, x: b.fdiv(const(x.type, 1.0), intrinsic(b, "sqrt", x)),
    "add": lambda b, x, y: b.fadd(x, y), "sub": lambda b, x, y: b.fsub(x, y), "mul": lambda b, x, y: b.fmul(x, y),
    "div": lambda b, x, y: b.fdiv(x, y),
    "max": _extreme(">"), "min": _extreme("<"), "mod": _real_mod, "floordiv": _real_floordiv,
}


# -- int and bool -----------------------------------------------------------
def _safe_divide(b, x, y):
    """(quotient, remainder) towards minus infinity. No trap: x // 0 = 0, x % 0 = x; by -1 it is negation."""
    zero, one, minus = (const(x.type, k) for k in (0, 1, -1))
    by_zero, by_minus = b.icmp_signed("==", y, zero), b.icmp_signed("==", y, minus)
    safe = b.select(b.or_(by_zero, by_minus), one, y)
    q = b.sdiv(x, safe)
    r = b.sub(x, b.mul(q, safe))
    down = b.and_(b.icmp_signed("!=", r, zero), b.icmp_signed("<", b.xor(r, safe), zero))
    q, r = b.select(down, b.sub(q, one), q), b.select(down, b.add(r, safe), r)
    q = b.select(by_minus, b.neg(x), q)
    return b.select(by_zero, zero, q), b.select(by_zero, x, r)


def _int_sign(b, x):
    zero = const(x.type, 0)
    up, down = (b.zext(b.icmp_signed(c, x, zero), x.type) for c in "><")
    return b.sub(up, down)


_INT: dict[str, Callable[..., ir.Value]] = {
    "neg": lambda b, x: b.neg(x), "sign": _int_sign,
    "abs": lambda b, x: b.select(b.icmp_signed("<", x, const(x.type, 0)), b.neg(x), x),
    "add": lambda b, x, y: b.add(x, y), "sub": lambda b, x, y: b.sub(x, y), "mul": lambda b, x, y: b.mul(x, y),
    "max": lambda b, x, y: b.select(b.icmp_signed(">", y, x), y, x),
    "min": lambda b, x, y: b.select(b.icmp_signed("<", y, x), y, x),
    "floordiv": lambda b, x, y: _safe_divide(b, x, y)[0], "mod": lambda b, x, y: _safe_divide(b, x, y)[1],
}
_BOOL: dict[str, Callable[..., ir.Value]] = {
    "not": lambda b, x: b.not_(x), "and": lambda b, x, y: b.and_(x, y), "or": lambda b, x, y: b.or_(x, y),
}


if __name__ == "__main__":
    from .ulp import table

    print(table())
