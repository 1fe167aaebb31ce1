"""Arithmetic on numbers known at compile time."""

from __future__ import annotations

import cmath
import math
import operator

from .dims import LARGEST, Poly
from .values import Num

COMPARE = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
           ">=": operator.ge}


class NoValue(Exception):
    """The operation has no value; the message says why."""


def number(value: bool | float) -> Num:
    """A literal; integers are dimensions as well."""
    if type(value) is int:
        return Num(value, Poly.const(value)) if abs(value) < LARGEST else Num(float(value))
    return Num(value)


def negate(x: Num) -> Num:
    value = -x.value
    return Num(value, x.poly.scaled(-1) if x.poly is not None else None)


def arithmetic(op: str, a: Num, b: Num) -> Num:
    """+ - * / // % ^ and comparisons. Raises NoValue."""
    x, y = a.value, b.value
    if isinstance(x, complex) or isinstance(y, complex):
        return _complex(op, x, y)
    if op in COMPARE:
        return Num(bool(COMPARE[op](x, y)))
    try:
        value = _apply(op, x, y)
    except ZeroDivisionError:
        raise NoValue("it divides by zero") from None
    except OverflowError:
        raise NoValue("it is too large") from None
    if isinstance(value, complex) or value != value:
        raise NoValue("it is not a real number")
    if type(value) is int and abs(value) >= LARGEST:
        value = float(value)
    return Num(value, _poly(op, a, b, value))


def _complex(op: str, x: complex, y: complex) -> Num:
    if op in COMPARE or op in ("//", "%"):
        raise NoValue("complex numbers have no order")
    try:
        value = complex(_apply(op, x, y))
    except (ZeroDivisionError, OverflowError):
        raise NoValue("it is not finite") from None
    if not cmath.isfinite(value):
        raise NoValue("it is not finite")
    return Num(value)


def _apply(op: str, x, y):
    match op:
        case "+":
            return x + y
        case "-":
            return x - y
        case "*":
            return x * y
        case "/":
            return x / y
        case "//":
            return x // y
        case "%":
            return x % y
    if isinstance(x, int) and isinstance(y, int) and (y < 0 or y * max(1, x.bit_length()) > 64):
        return float(x) ** y
    return x ** y


def _poly(op: str, a: Num, b: Num, value) -> Poly | None:
    p, q = a.poly, b.poly
    whole = not isinstance(value, float) or value.is_integer()
    if p is None or q is None or not whole and (op != "/" or p.constant is not None):
        return None
    match op:
        case "+":
            out = p + q
        case "-":
            out = p - q
        case "*":
            out = p * q
        case "/" | "//" if (exact := p.divided(q) if q.terms else None) is not None:
            out = exact
        case "^" if q.constant is not None and 0 <= q.constant <= 4:
            out = Poly.const(1)
            for _ in range(q.constant):
                out = out * p
        case _:
            if p.constant is not None and q.constant is not None:
                return Poly.const(int(value))
            out = Poly.atom(f"{_text(p)}{'//' if op == '/' else op}{_text(q)}")    # H/2, where whole, is H//2
    return out if out.manageable() and len(str(out)) < 200 else None


def _text(p: Poly) -> str:
    """As an operand: in parentheses if it is more than a number or a name."""
    digits_or_name = str(p).replace(".", "").replace("_", "").isalnum()
    return str(p) if digits_or_name else f"({p})"


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.7 else math.inf


def _log(x: float) -> float:
    return -math.inf if x == 0 else math.log(x)


def _softplus(x: float) -> float:
    return x + math.log1p(_exp(-x)) if x > 0 else math.log1p(_exp(x))


def _round(x: float) -> float:
    return float(round(x))


FUNCTIONS = {
    "exp": _exp, "expm1": lambda x: math.expm1(x) if x < 709 else math.inf, "log": _log,
    "log1p": lambda x: -math.inf if x == -1 else math.log1p(x), "sqrt": math.sqrt,
    "rsqrt": lambda x: math.inf if x == 0 else 1 / math.sqrt(x), "sin": math.sin, "cos": math.cos, "tan": math.tan,
    "tanh": math.tanh, "sigmoid": lambda x: 1 / (1 + _exp(-x)), "softplus": _softplus,
    "logsigmoid": lambda x: -_softplus(-x), "erf": math.erf, "atan": math.atan,
    "floor": lambda x: float(math.floor(x)), "ceil": lambda x: float(math.ceil(x)), "round": _round,
}


def _expm1(z: complex) -> complex:
    """Without the cancellation of exp(z) - 1."""
    half = math.sin(z.imag / 2)
    return complex(math.expm1(z.real) * math.cos(z.imag) - 2 * half * half, math.exp(z.real) * math.sin(z.imag))


COMPLEX = {"exp": cmath.exp, "expm1": _expm1, "log": cmath.log, "sqrt": cmath.sqrt, "sin": cmath.sin, "cos": cmath.cos}


def apply(name: str, x: Num) -> Num | None:
    """A function of one number, None if it is not in the table. Raises NoValue."""
    if name not in FUNCTIONS or x.kind == "complex" and name not in COMPLEX:
        return None
    try:
        if x.kind == "complex":
            return Num(COMPLEX[name](x.value))
        return Num(FUNCTIONS[name](float(x.value)))
    except (ValueError, OverflowError):
        raise NoValue(f"{name} is not defined there") from None
