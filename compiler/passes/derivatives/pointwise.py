"""Elementwise functions: the local derivative beside each."""

from __future__ import annotations

import math
from collections.abc import Callable

from ....ir.cell import Node
from .rule import Cotangents, D, DerivativeRule, finite


def _max(d: D, n: Node, ct: str) -> Cotangents:
    """All to the larger (max) or smaller (min) operand, the first on a tie or
    where it is NaN; nothing at max(-inf, -inf)."""
    a, b = n.args
    if n.op == "max" and d.empty_maximum(n):
        ct = d.choose(d("ne", n.name, -math.inf), ct, 0.0)
    first = d("ge" if n.op == "max" else "le", a, b)
    if d.nonfinite(a):
        first = d("or", first, d("ne", a, a))
    return d.choose(first, ct, 0.0), d.choose(first, 0.0, ct)


def _mul(d: D, n: Node, ct: str) -> Cotangents:
    """b, a; 2 a for a square"""
    a, b = n.args
    return (d.mul(ct, 2.0, a), None) if a == b else (d.mul(ct, b), d.mul(ct, a))


def _logaddexp(d: D, n: Node, ct: str) -> Cotangents:
    """exp(a - y), exp(b - y), and 0 where y = -inf"""
    y = finite(d, n)
    return tuple(d.mul(ct, d("exp", d("sub", x, y))) for x in n.args)


def _pow(d: D, n: Node, ct: str) -> Cotangents:
    """p x^(p-1), 0 where p = 0; y log x, 0 where x = 0 and p >= 0"""
    x, p = n.args
    dx = d.mul(p, d("pow", x, d("sub", p, 1.0)))
    dp = d.choose(d("and", d("eq", x, 0.0), d("ge", p, 0.0)), 0.0, d.mul(n.name, d("log", x)))
    return d.choose(d("eq", p, 0.0), 0.0, d.mul(ct, dx)), d.mul(ct, dp)


def _atan2(d: D, n: Node, ct: str) -> Cotangents:
    """atan2(y, x): x / (x^2 + y^2), -y / (x^2 + y^2), 0 at the origin"""
    y, x = n.args
    r = d("add", d.mul(x, x), d.mul(y, y))
    s = d.choose(d("eq", r, 0.0), 0.0, d("div", ct, r))
    return d.mul(s, x), d("neg", d.mul(s, y))


def _custom_grad(d: D, n: Node, ct: str) -> Cotangents:
    """custom_grad(y, x1, d1, ...): d_i to x_i"""
    out: list[str | None] = [None] * len(n.args)
    for i in range(1, len(n.args), 2):
        out[i] = d.mul(ct, n.args[i + 1])
    return tuple(out)


def _unary(f: Callable[[D, str, str, str], str]) -> DerivativeRule:
    return lambda d, n, ct: (f(d, ct, n.args[0], n.name),)


def _binary(f: Callable[[D, str, str, str, str], Cotangents]) -> DerivativeRule:
    return lambda d, n, ct: f(d, ct, n.args[0], n.args[1], n.name)


RULES: dict[str, DerivativeRule] = {
    "neg": _unary(lambda d, ct, x, y: d("neg", ct)),                                    # -1
    "abs": _unary(lambda d, ct, x, y: d.mul(ct, d("sign", x))),                         # sign(x)
    "exp": _unary(lambda d, ct, x, y: d.mul(ct, y)),                                    # y
    "expm1": _unary(lambda d, ct, x, y: d.mul(ct, d("exp", x))),                        # exp(x); y + 1 would cancel
    "log": _unary(lambda d, ct, x, y: d("div", ct, x)),                                 # 1 / x
    "log1p": _unary(lambda d, ct, x, y: d("div", ct, d("add", x, 1.0))),                # 1 / (1 + x)
    "sqrt": _unary(lambda d, ct, x, y: d("div", d.mul(ct, 0.5), y)),                    # 1 / (2 y)
    "rsqrt": _unary(lambda d, ct, x, y: d.mul(ct, d.mul(y, y), d.mul(y, -0.5))),        # -y^3 / 2
    "sin": _unary(lambda d, ct, x, y: d.mul(ct, d("cos", x))),                          # cos(x)
    "cos": _unary(lambda d, ct, x, y: d("neg", d.mul(ct, d("sin", x)))),                # -sin(x)
    "tan": _unary(lambda d, ct, x, y: d.mul(ct, d("add", d.mul(y, y), 1.0))),           # 1 + y^2
    "tanh": _unary(lambda d, ct, x, y: d.mul(ct, d("sub", 1.0, d.mul(y, y)))),          # 1 - y^2
    "sigmoid": _unary(lambda d, ct, x, y: d.mul(ct, d.mul(y, d("sub", 1.0, y)))),       # y (1 - y)
    "softplus": _unary(lambda d, ct, x, y: d.mul(ct, d("sigmoid", x))),                 # sigmoid(x)
    "logsigmoid": _unary(lambda d, ct, x, y: d.mul(ct, d("sigmoid", d("neg", x)))),     # sigmoid(-x)
    "erf": _unary(lambda d, ct, x, y: d.mul(ct, d("exp", d("neg", d.mul(x, x))), 2 / math.sqrt(math.pi))),
    "atan": _unary(lambda d, ct, x, y: d("div", ct, d("add", d.mul(x, x), 1.0))),       # 1 / (1 + x^2)
    "add": _binary(lambda d, ct, a, b, y: (ct, ct)),                                    # 1, 1
    "sub": _binary(lambda d, ct, a, b, y: (ct, d("neg", ct))),                          # 1, -1
    "mul": _mul,
    "div": _binary(lambda d, ct, a, b, y: (q := d("div", ct, b), d("neg", d.mul(q, y)))),   # 1 / b, -y / b
    "mod": _binary(lambda d, ct, a, b, y: (ct, d("neg", d.mul(ct, d("floor", d("div", a, b)))))),  # 1, -floor(a / b)
    "max": _max, "min": _max, "logaddexp": _logaddexp, "pow": _pow, "atan2": _atan2,
    "select": lambda d, n, ct: (None, d.choose(n.args[0], ct, 0.0), d.choose(n.args[0], 0.0, ct)),
    "custom_grad": _custom_grad,
    "real": lambda d, n, ct: (ct,),
}
