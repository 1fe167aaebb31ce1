"""The derivative of every operation: from a node's cotangent to its operands'.

`RULES[op](d, n, ct)` gives one cotangent per operand, None where there is
none. `d` is the builder with a few shorthands (`D`); the formula is the line.
Rules use the node's own value y where that is cheaper than its operands.

Where a rule's local derivative may be infinite or NaN, `guards` decides
whether the result is replaced by 0 where ct is exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ...ir.cell import Node
from ...ir.ops import OPS, spec_parts
from ...ir.types import Dim, Type
from ..analysis.ranges import Ranges
from .rewrite import Rewriter

Cotangents = tuple[str | None, ...]
DerivativeRule = Callable[["D", Node, str], Cotangents]


class D:
    """Shorthands over a builder; arithmetic takes names or Python numbers. `ranges`: of the forward cell."""

    def __init__(self, b: Rewriter, ranges: Ranges):
        self.b, self.ranges = b, ranges

    def nonfinite(self, name: str) -> bool:
        """Whether it may be infinite or NaN."""
        return name in self.ranges.nonfinite

    def empty(self, n: Node) -> bool:
        """Whether max or logsumexp have nothing but -inf to take."""
        return all(a in self.ranges.empty for a in n.args)

    def empty_maximum(self, n: Node) -> bool:
        """The same, unless other values would be NaN for it."""
        return self.empty(n) and (n.name not in self.ranges.subtracted or all(map(self.nonfinite, n.args)))

    def __call__(self, op: str, *args: str | float) -> str:
        type = next((self.b.type(a) for a in args if isinstance(a, str) and self.b.type(a).kind != "bool"), None)
        return self.b.op(op, *(a if isinstance(a, str) else self.b.full(a, type) for a in args))

    def mul(self, first: str, *rest: str | float) -> str:
        for r in rest:
            first = self("mul", first, r)
        return first

    def choose(self, cond: str, a: str | float, b: str | float) -> str:
        return self("select", cond, a, b)


def _zero(d: D, n: Node, ct: str) -> Cotangents:
    return (None,) * len(n.args)


# -- structure and reductions ---------------------------------------------------
def _broadcast(d: D, n: Node, ct: str) -> Cotangents:
    """Sum over the axes that are new, the others put back in order."""
    axes = n.attr("axes")
    s = d.b.reduce(ct, "sum", tuple(i for i in range(n.type.rank) if i not in axes))
    kept = sorted(axes)
    shape = tuple(n.type.shape[i] for i in axes)
    return (d.b.broadcast(s, shape, tuple(axes.index(i) for i in kept)),)


def _pad(d: D, n: Node, ct: str) -> Cotangents:
    axis = n.attr("axis")
    return (d.b.slice(ct, axis, n.attr("start"), d.b.type(n.args[0]).shape[axis]),)


def _concat(d: D, n: Node, ct: str) -> Cotangents:
    axis, at, out = n.attr("axis"), 0, []
    for a in n.args:
        dim = d.b.type(a).shape[axis]
        out.append(d.b.slice(ct, axis, at, dim))
        at += dim.size
    return tuple(out)


def _interleave(d: D, n: Node, ct: str) -> Cotangents:
    other = "fold" if n.op == "interleave" else "interleave"
    return (d.b.add(other, (ct,), d.b.type(n.args[0]), other, axis=n.attr("axis"), times=n.attr("times")),)


def _gather(d: D, n: Node, ct: str) -> Cotangents:
    """x at i: adds up where it came from, and back."""
    x, i = n.args
    other = "scatter" if n.op == "gather" else "gather"
    return d.b.add(other, (ct, i), d.b.type(x), other, **dict(n.attrs)), None


def _cumsum(d: D, n: Node, ct: str) -> Cotangents:
    return (d.b.add("cumsum", (ct,), n.type, "cumsum", axis=n.attr("axis"), reverse=not n.attr("reverse")),)


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


def spread(d: D, n: Node, x: str) -> str:
    """A value of a reduction's shape over its operand's shape."""
    t = d.b.type(n.args[0])
    return d.b.broadcast(x, t.shape, tuple(i for i in range(t.rank) if i not in n.attr("axes")))


def _reduce(d: D, n: Node, ct: str) -> Cotangents:
    (x,), y = n.args, n.name
    match n.attr("fn"):
        case "sum":                                  # 1
            return (spread(d, n, ct),)
        case "lse":                                  # exp(x - y), 0 where y = -inf
            return (d.mul(spread(d, n, ct), d("exp", d("sub", x, spread(d, n, _finite(d, n))))),)
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
    """The product of the others: y / x_i without zeros; with one zero only that
    element has a derivative, the product of the rest; with more none has."""
    (x,) = n.args
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
    return (_operand(d, ct, so, y, sy, x, sx), _operand(d, ct, so, x, sx, y, sy))


def _operand(d: D, ct: str, so: str, y: str, sy: str, x: str, sx: str) -> str:
    """sum dy_O B_J over what x does not have, constant along what only x has."""
    here = "".join(c for c in sx if c in so or c in sy)
    t = d.b.contract(ct, y, f"{so},{sy}->{here}")
    return d.b.broadcast(t, d.b.type(x).shape, tuple(sx.index(c) for c in here))


# -- linear algebra -----------------------------------------------------------------
def _transpose(d: D, a: str) -> str:
    t = d.b.type(a)
    r = t.rank
    return d.b.broadcast(a, (*t.shape[:-2], t.shape[-1], t.shape[-2]), (*range(r - 2), r - 1, r - 2))


def _solve(d: D, n: Node, ct: str) -> Cotangents:
    """x = A^-1 b: db = A^-T dx, dA = -db x^T"""
    a, x = n.args[0], n.name
    db = d.b.add("solve", (_transpose(d, a), ct), n.type, "solve")
    lead = "abcdefgh"[:d.b.type(a).rank - 2]
    spec = f"{lead}i,{lead}j->{lead}ij" if n.type.rank < d.b.type(a).rank else f"{lead}im,{lead}jm->{lead}ij"
    return d("neg", d.b.contract(db, x, spec)), db


def _solve_lower(d: D, n: Node, ct: str) -> Cotangents:
    """x = (I + L)^-1 b: db = (I + L)^-T dx, dL = -db x^T below the diagonal; of the transposed: dL = -x db^T"""
    low, x = n.args[0], n.name
    t, across = d.b.type(low), n.attr("transposed")
    db = d.b.solve_lower(low, ct, transposed=not across)
    lead = "abcdefgh"[:t.rank - 2]
    spec = f"{lead}i,{lead}j->{lead}ij" if n.type.rank < t.rank else f"{lead}im,{lead}jm->{lead}ij"
    rows, cols = (d.b.broadcast(d.b.add("iota", (), Type("int", (t.shape[i],)), "iota"), t.shape, (i,))
                  for i in (t.rank - 2, t.rank - 1))
    product = d.b.contract(*((x, db) if across else (db, x)), spec)
    return d.choose(d("gt", rows, cols), d("neg", product), 0.0), db


def _logdet(d: D, n: Node, ct: str) -> Cotangents:
    """log |det A|: dA = ct A^-T"""
    (a,) = n.args
    t = d.b.type(a)
    rows, cols = (d.b.broadcast(d.b.add("iota", (), Type("int", (t.shape[i],)), "iota"), t.shape, (i,))
                  for i in (t.rank - 2, t.rank - 1))
    eye = d.b.add("real", (d("eq", rows, cols),), t, "eye")
    inverse = d.b.add("solve", (_transpose(d, a), eye), t, "solve")
    return (d.mul(d.b.broadcast(ct, t.shape, tuple(range(t.rank - 2))), inverse),)


def _decayed(d: D, n: Node, ct: str) -> Cotangents:
    """G = a . D x: linear in a and x, each with the other decayed up to it"""
    a, decay, x = n.args
    return (d.b.decayed_sum(ct, decay, x), _slope(d, ct, a, decay, x),
            d.b.decayed_sum(ct, decay, a, transposed=True))


def _decayed_sum(d: D, n: Node, ct: str) -> Cotangents:
    """y_i = sum_j G_ij D(i, j) x_j: the roles of rows i and j change where it is transposed"""
    g, decay, x = n.args
    across = n.attr("transposed")
    late, early = (x, ct) if across else (ct, x)
    return (d.b.decayed(late, decay, early), _slope(d, g, late, decay, early),
            d.b.decayed_sum(g, decay, ct, transposed=not across))


def _slope(d: D, g: str, a: str, decay: str, x: str) -> str:
    return d.b.add("decayed_slope", (g, a, decay, x), d.b.type(decay), "slope")


# -- pointwise ------------------------------------------------------------------------
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
    y = _finite(d, n)
    return tuple(d.mul(ct, d("exp", d("sub", x, y))) for x in n.args)


def _finite(d: D, n: Node) -> str:
    """y, or 0 where it is -inf, so that exp(x - y) is 0 there"""
    return d.choose(d("eq", n.name, -math.inf), 0.0, n.name) if d.empty(n) else n.name


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
    "broadcast": _broadcast, "pad": _pad, "concat": _concat, "interleave": _interleave, "fold": _interleave,
    "gather": _gather, "scatter": _gather,
    "cumsum": _cumsum, "running": _running, "reduce": _reduce, "contract": _contract, "solve": _solve,
    "solve_lower": _solve_lower, "logdet": _logdet, "decayed": _decayed, "decayed_sum": _decayed_sum,
    "place": lambda d, n, ct: (d.b.index(ct, n.attr("axis"), n.attr("at")),),
    "stack": lambda d, n, ct: tuple(d.b.index(ct, n.attr("axis"), i) for i in range(len(n.args))),
    # derivative zero almost everywhere, or not a real value
    **{op: _zero for op in "sign floor ceil round floordiv int stop_gradient random iota training literal "
       "not eq ne lt le gt ge and or".split()},
}

# slice and index: `adjoint` gathers the pieces (concat, stack) instead of adding padded ones
GATHERED = frozenset({"slice", "index"})
LAST = frozenset({"decayed_slope"})     # in adjoints only, and of an adjoint none is taken
REAL = {o.name for o in OPS.values() if o.group != "complex"}      # `realify` has come before
assert set(RULES) | GATHERED | LAST | {"input", "param", "state", "draw"} == REAL, REAL - set(RULES)
