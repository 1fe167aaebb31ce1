"""Pointwise rules: one equation each, given as the comment.

Safe everywhere: no rule changes whether a value is NaN or infinite (x * 0 is
not 0), only roundings and the sign of zero may differ. The exception that is
wanted: factors that are broadcast are multiplied with each other first
((X * a) * b = X * (a * b)), so that work is done in the smallest shape.
"""

from __future__ import annotations

import math

from ...ir.cell import Node
from ...ir.ops import OPS
from .rewrite import Rewriter, Rules


def constant(b: Rewriter, name: str) -> float | int | bool | None:
    """The value of a literal, or of a literal broadcast; None for anything else."""
    n = b.node(name)
    if n.op == "broadcast":
        n = b.node(n.args[0])
    return n.attr("value") if n.op == "literal" else None


def is_const(b: Rewriter, name: str, value) -> bool:
    c = constant(b, name)
    return c is not None and c == value


def is_op(b: Rewriter, name: str, op: str) -> bool:
    return b.node(name).op == op


def inner(b: Rewriter, name: str) -> str:
    return b.node(name).args[0]


# -- arithmetic with constants and signs -------------------------------------
def add(b: Rewriter, n: Node) -> str | None:
    x, y = n.args
    if is_const(b, y, 0):                                   # x + 0 = x
        return x
    if is_const(b, x, 0):                                   # 0 + y = y
        return y
    if is_op(b, y, "neg"):                                  # x + (-y) = x - y
        return b.op("sub", x, inner(b, y), hint=n.name)
    if is_op(b, x, "neg"):                                  # (-x) + y = y - x
        return b.op("sub", y, inner(b, x), hint=n.name)
    for p, q in (n.args, n.args[::-1]):
        if (positive := negated_broadcast(b, q)) is not None:   # p + broadcast(-q) = p - broadcast(q)
            return b.op("sub", p, positive, hint=n.name)
    return None


def negated_broadcast(b: Rewriter, name: str) -> str | None:
    """broadcast(q) for broadcast(-q)"""
    n = b.node(name)
    if n.op != "broadcast" or not is_op(b, n.args[0], "neg"):
        return None
    return b.broadcast(inner(b, n.args[0]), n.type.shape, n.attr("axes"))


def sub(b: Rewriter, n: Node) -> str | None:
    x, y = n.args
    if is_const(b, y, 0):                                   # x - 0 = x
        return x
    if is_const(b, x, 0):                                   # 0 - y = -y
        return b.op("neg", y, hint=n.name)
    if is_op(b, y, "neg"):                                  # x - (-y) = x + y
        return b.op("add", x, inner(b, y), hint=n.name)
    if (positive := negated_broadcast(b, y)) is not None:   # x - broadcast(-y) = x + broadcast(y)
        return b.op("add", x, positive, hint=n.name)
    return None


def neg(b: Rewriter, n: Node) -> str | None:
    (x,) = n.args
    if is_op(b, x, "neg"):                                  # -(-x) = x
        return inner(b, x)
    if is_op(b, x, "sub"):                                  # -(x - y) = y - x
        p, q = b.node(x).args
        return b.op("sub", q, p, hint=n.name)
    if (c := constant(b, x)) is not None:                   # -(c) = (-c)
        return b.full(-c, n.type)
    return None


def mul(b: Rewriter, n: Node) -> str | None:
    x, y = n.args
    if n.type.kind != "complex":
        if is_const(b, y, 1):                               # x * 1 = x
            return x
        if is_const(b, x, 1):                               # 1 * y = y
            return y
        if is_const(b, y, -1):                              # x * (-1) = -x
            return b.op("neg", x, hint=n.name)
        if is_const(b, x, -1):                              # (-1) * y = -y
            return b.op("neg", y, hint=n.name)
    if is_op(b, x, "neg"):                                  # (-x) * y = -(x * y)
        return b.op("neg", b.op("mul", inner(b, x), y), hint=n.name)
    if is_op(b, y, "neg"):                                  # x * (-y) = -(x * y)
        return b.op("neg", b.op("mul", x, inner(b, y)), hint=n.name)
    if constant(b, x) is not None and constant(b, y) is None:   # c * x = x * c
        return b.op("mul", y, x, hint=n.name)
    if (c := constant(b, y)) is not None and is_op(b, x, "mul") and n.type.kind == "real":
        p, q = b.node(x).args
        d = constant(b, q)
        if d is not None and 1e-30 < abs(c * d) < 1e30:     # (p * d) * c = p * (c * d)
            return b.op("mul", p, b.full(c * d, n.type), hint=n.name)
    return _scales(b, n)


def _scales(b: Rewriter, n: Node) -> str | None:
    """(X * p) * q = X * (p * q) where p and q are broadcast and p * q is smaller than X."""
    for x, q in (n.args, n.args[::-1]):
        if not is_op(b, q, "broadcast") or not is_op(b, x, "mul"):
            continue
        for X, p in (b.node(x).args, b.node(x).args[::-1]):
            if is_op(b, p, "broadcast") and _small(b, (p, q), n.type.rank):
                return b.op("mul", X, b.op("mul", p, q), hint=n.name)
    return None


def _small(b: Rewriter, broadcasts: tuple[str, ...], rank: int) -> bool:
    return len(set().union(*(b.node(x).attr("axes") for x in broadcasts))) < rank


def div(b: Rewriter, n: Node) -> str | None:
    x, y = n.args
    if (c := constant(b, y)) is None or n.type.kind != "real":
        return None
    if c == 1:                                              # x / 1 = x
        return x
    if math.isfinite(c) and 1e-30 < abs(c) < 1e30:          # x / c = x * (1 / c)
        return b.op("mul", x, b.full(1 / c, n.type), hint=n.name)
    return None


def power(b: Rewriter, n: Node) -> str | None:
    x, y = n.args
    c = constant(b, y)
    if c is None or n.type.kind != "real":
        return None
    match c:
        case 0:                                             # x ^ 0 = 1 (also for NaN)
            return b.full(1.0, n.type)
        case 0.5:                                           # x ^ 0.5 = sqrt(x)
            return b.op("sqrt", x, hint=n.name)
        case -0.5:                                          # x ^ -0.5 = rsqrt(x)
            return b.op("rsqrt", x, hint=n.name)
    if not abs(c) <= 16 or c != int(c):                     # infinite and NaN exponents stay, too
        return None
    if c < 0:                                               # x ^ -m = 1 / x ^ m
        return b.op("div", b.full(1.0, n.type), _integer_power(b, x, int(-c)), hint=n.name)
    return _integer_power(b, x, int(c))


def _integer_power(b: Rewriter, x: str, m: int) -> str:
    """x ^ (2 m) = (x ^ m)^2, x ^ (m + 1) = x ^ m * x"""
    if m == 1:
        return x
    if m % 2:
        return b.op("mul", _integer_power(b, x, m - 1), x)
    half = _integer_power(b, x, m // 2)
    return b.op("mul", half, half)


# -- choices and bools --------------------------------------------------------
def select(b: Rewriter, n: Node) -> str | None:
    c, x, y = n.args
    if (known := constant(b, c)) is not None:               # select(true, x, y) = x
        return x if known else y
    if x == y:                                              # select(c, x, x) = x
        return x
    if is_op(b, c, "not"):                                  # select(not c, x, y) = select(c, y, x)
        return b.op("select", inner(b, c), y, x, hint=n.name)
    if is_op(b, x, "select") and b.node(x).args[0] == c:    # select(c, select(c, x, z), y) = select(c, x, y)
        return b.op("select", c, b.node(x).args[1], y, hint=n.name)
    if is_op(b, y, "select") and b.node(y).args[0] == c:    # select(c, x, select(c, z, y)) = select(c, x, y)
        return b.op("select", c, x, b.node(y).args[2], hint=n.name)
    return None


def negation(b: Rewriter, n: Node) -> str | None:
    return inner(b, n.args[0]) if is_op(b, n.args[0], "not") else None   # not not x = x


def conjunction(b: Rewriter, n: Node) -> str | None:
    for x, y in (n.args, n.args[::-1]):
        if (known := constant(b, x)) is not None:
            return y if known else x                        # true and y = y, false and y = false
    return n.args[0] if n.args[0] == n.args[1] else None    # x and x = x


def disjunction(b: Rewriter, n: Node) -> str | None:
    for x, y in (n.args, n.args[::-1]):
        if (known := constant(b, x)) is not None:
            return x if known else y                        # true or y = true, false or y = y
    return n.args[0] if n.args[0] == n.args[1] else None    # x or x = x


def cast(b: Rewriter, n: Node) -> str | None:
    return n.args[0] if b.type(n.args[0]) == n.type else None   # real(x) = x for a real x


# -- work in the smallest shape -----------------------------------------------
def shrink(b: Rewriter, n: Node) -> str | None:
    """f(broadcast p, broadcast q) = broadcast(f(p, q)) where the operands' axes leave some axis out."""
    if not n.args or not all(is_op(b, a, "broadcast") for a in n.args):
        return None
    used = sorted(set().union(*(b.node(a).attr("axes") for a in n.args)))
    if len(used) == n.type.rank:
        return None
    shape = tuple(n.type.shape[i] for i in used)
    small = tuple(b.broadcast(inner(b, a), shape, tuple(used.index(i) for i in b.node(a).attr("axes"))) for a in n.args)
    value = b.add(n.op, small, n.type.with_shape(shape), n.name, **dict(n.attrs))
    return b.broadcast(value, n.type.shape, tuple(used))


_RULES = {
    "add": (add,), "sub": (sub,), "neg": (neg,), "mul": (mul,), "div": (div,), "pow": (power,),
    "select": (select,), "not": (negation,), "and": (conjunction,), "or": (disjunction,),
    "real": (cast,), "int": (cast,),
}

RULES: Rules = {op.name: (*_RULES.get(op.name, ()), shrink) for op in OPS.values() if op.group == "pointwise"}
