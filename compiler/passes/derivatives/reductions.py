"""Sums, extrema and products over axes, contractions, and running sums along one."""

from __future__ import annotations

import math

from ....ir.cell import Node
from ....ir.ops import spec_parts
from ....ir.types import Dim, Type
from .rule import Cotangents, D, DerivativeRule, finite, spread


def _reduce(d: D, n: Node, ct: str) -> Cotangents:
    (x,), y = n.args, n.name
    match n.attr("fn"):
        case "sum":                                  # 1
            return (spread(d, n, ct),)
        case "lse":                                  # exp(x - y), 0 where y = -inf
            return (d.mul(spread(d, n, ct), d("exp", d("sub", x, spread(d, n, finite(d, n))))),)
        case "max" | "min":
            if n.attr("fn") == "max" and d.empty_maximum(n):
                ct = d.choose(d("ne", y, -math.inf), ct, 0.0)
            return (_extremum(d, n, ct),)
        case "prod":
            return (_prod(d, n, ct),)
    return (None,)


def _extremum(d: D, n: Node, ct: str) -> str:
    """All to the first largest (smallest) element, in row-major order of the
    reduced axes. Several axes one by one, the last first."""
    (x,), fn = n.args, n.attr("fn")
    t, axes = d.b.type(x), sorted(n.attr("axes"))
    if len(axes) > 1:
        last = d.b.node(d.b.reduce(x, fn, (axes[-1],)))
        rest = Node(n.name, "reduce", (last.name,), (("axes", tuple(axes[:-1])), ("fn", fn)), n.type)
        ct = _extremum(d, rest, ct)
        return _extremum(d, Node(last.name, "reduce", (x,), (("axes", (axes[-1],)), ("fn", fn)), last.type), ct)
    at = d.b.reduce(x if fn == "max" else d("neg", x), "argmax", tuple(axes))
    iota = d.b.add("iota", (), Type("int", (t.shape[axes[0]],)), "iota")
    position = d.b.broadcast(iota, t.shape, (axes[0],))
    return d.choose(d("eq", position, spread(d, n, at)), spread(d, n, ct), 0.0)


def _prod(d: D, n: Node, ct: str) -> str:
    """The product of the others: along one axis of those before and of those after; y / x_i without zeros; with one
    zero only that element has a derivative, the product of the rest; with more none has."""
    (x,), axes = n.args, n.attr("axes")
    if len(axes) == 1 and axes[0] == d.b.type(x).rank - 2:
        return d.b.index(d.b.ends_back((ct,), (), x, ()), axes[0], 0)
    if len(axes) == 1:
        others = d.mul(d.b.cumprod(x, axes[0]), d.b.cumprod(x, axes[0], reverse=True))
        return d.mul(others, spread(d, n, ct))
    zero = d("eq", x, 0.0)
    zeros = d.b.reduce(d.b.add("real", (zero,), d.b.type(x), "real"), "sum", n.attr("axes"))
    rest = d.b.reduce(d.choose(zero, 1.0, x), "prod", n.attr("axes"))
    at_zero = spread(d, n, d.choose(d("le", zeros, 1.0), d.mul(ct, rest), 0.0))
    elsewhere = spread(d, n, d.choose(d("eq", zeros, 0.0), d.mul(ct, rest), 0.0))
    return d.choose(zero, at_zero, d("div", elsewhere, d.choose(zero, 1.0, x)))


def _contract(d: D, n: Node, ct: str) -> Cotangents:
    """y_O = sum A_I B_J: dA_I = sum dy_O B_J. Other semirings are reductions by now (`tropical`)."""
    (x, y), (sx, sy, so) = n.args, spec_parts(n.attr("spec"))
    assert n.attr("semiring") == "sum", n
    below = n.attr("below", "")                      # terms that are 0 have no derivatives
    return (_operand(d, ct, so, y, sy, x, sx, below), _operand(d, ct, so, x, sx, y, sy, below))


def _operand(d: D, ct: str, so: str, y: str, sy: str, x: str, sx: str, below: str) -> str:
    """sum dy_O B_J over what x does not have, constant along what only x has."""
    here = "".join(c for c in sx if c in so or c in sy)
    t = d.b.contract(ct, y, f"{so},{sy}->{here}", below=below if {*below} <= {*so, *sy} else "")
    return d.b.broadcast(t, d.b.type(x).shape, tuple(sx.index(c) for c in here))


def _cumsum(d: D, n: Node, ct: str) -> Cotangents:
    return (d.b.add("cumsum", (ct,), n.type, "cumsum", axis=n.attr("axis"), reverse=not n.attr("reverse")),)


def _cumprod(d: D, n: Node, ct: str) -> Cotangents:
    axis, back = n.attr("axis"), n.attr("reverse")
    return (d.b.add("cumprod_back", (n.args[0], ct), n.type, "back", axis=axis, reverse=back),)


def _running(d: D, n: Node, ct: str) -> Cotangents:
    """y_i = a_i y_{i-1} + b_i, with u_i, v_i the derivatives to y_{i-1} and b_i (at the start 0 and 1):
    g_i = ct_i + u_{i+1} g_{i+1} is a running sum the other way; db = v g, da = (dy/da) g.
    sum: u = a, dy/da = y_{i-1}. max: u = dy/da says that a_i + y_{i-1} is the larger, or the same.
    lse: u = dy/da = exp(a_i + y_{i-1} - y_i), v = exp(b_i - y_i). max and lse: all 0 where y = -inf."""
    (a, b), y, axis, back = n.args, n.name, n.attr("axis"), n.attr("reverse")
    dim = n.type.shape[axis]
    if dim.size == 0:
        return None, None
    at = d.b.add("iota", (), Type("int", (dim,)), "iota")
    start = d.b.op("eq", at, d.b.literal(dim.size - 1 if back else 0, "int"))
    start = d.b.broadcast(start, n.type.shape, (axis,))

    def before(x: str, reverse: bool) -> str:
        """x one place on: at i, the element that is met before i (0 at the start)."""
        if dim.size == 1:
            return d.b.full(0.0, n.type)
        rest = d.b.slice(x, axis, int(reverse), Dim(f"{dim.name}-1", dim.size - 1))
        return d.b.pad(rest, axis, int(not reverse), dim)

    def collected(u: str) -> str:
        return d.b.running(before(u, not back), ct, axis, reverse=not back)

    old = before(y, back)
    match n.attr("semiring"):
        case "sum":
            g = collected(a)
            da = d.mul(g, old)
            return d.choose(d("eq", g, 0.0), 0.0, da) if d.nonfinite(y) else da, g
        case "max":
            path = d("add", a, old)
            dead = d("eq", y, -math.inf)
            first = d("and", d("not", start), d("or", d("ge", path, b), d("ne", path, path)))
            u = d.choose(d("and", first, d("not", dead)), d.b.full(1.0, n.type), 0.0)
            g = collected(u)
            return d.choose(first, d.choose(dead, 0.0, g), 0.0), d.choose(d("or", first, dead), 0.0, g)
    top = d.choose(d("eq", y, -math.inf), 0.0, y)
    u = d.choose(start, 0.0, d("exp", d("sub", d("add", a, old), top)))
    g = collected(u)
    return d.mul(g, u), d.mul(g, d("exp", d("sub", b, top)))


RULES: dict[str, DerivativeRule] = {"reduce": _reduce, "contract": _contract, "cumsum": _cumsum, "running": _running,
                                    "cumprod": _cumprod}
