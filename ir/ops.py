"""The operations of the cell IR: one table, the grammar of the IR as data.

Every pointwise operand has exactly the result's shape: broadcasting is an
operation of its own. Semantics live in the interpreter (`interp`), derivatives
in the adjoint's rules, code in the back ends; `tests/ir/test_ops.py` checks
that all of them cover this table.
"""

from __future__ import annotations

from dataclasses import dataclass

ANY = ("real", "int", "bool", "complex")
NUM = ("real", "int", "complex")
ORD = ("real", "int")
FLT = ("real", "complex")


@dataclass(frozen=True, slots=True)
class Op:
    """`group`: leaf | pointwise | complex (pointwise too, removed by `passes.realify`) | structure | reduce | linalg.
    `arity`: number of operands, -1 for variadic. `kinds`: kinds allowed for
    the operands. `result`: kind of the result ("same" as the operands', or a
    kind, or "given": by the node's type). `attrs`: required attribute names; `optional`: others that it may have."""

    name: str
    group: str
    arity: int
    kinds: tuple[str, ...] = ANY
    result: str = "same"
    attrs: tuple[str, ...] = ()
    doc: str = ""
    optional: tuple[str, ...] = ()


def _table(*ops: Op) -> dict[str, Op]:
    return {op.name: op for op in ops}


def _unary(names: str, kinds=FLT, result="same") -> list[Op]:
    return [Op(n, "pointwise", 1, kinds, result) for n in names.split()]


def _binary(names: str, kinds, result="same") -> list[Op]:
    return [Op(n, "pointwise", 2, kinds, result) for n in names.split()]


OPS: dict[str, Op] = _table(
    # leaves
    Op("literal", "leaf", 0, (), "given", ("value",), "a scalar of the node's kind (rank 0)"),
    Op("input", "leaf", 0, (), "given", ("name",), "input at t"),
    Op("param", "leaf", 0, (), "given", ("name",), "parameter"),
    Op("state", "leaf", 0, (), "given", ("name",), "state's old value (t-1)"),
    Op("iota", "leaf", 0, (), "int", (), "0, 1, ..., n-1 along the single axis"),
    Op("training", "leaf", 0, (), "bool", (), "true while the module is in training mode"),
    Op("random", "leaf", 1, ("int",), "real", ("site", "dist"),
       "counter-based draw: dist uniform in [0,1) or standard normal; operand: t"),
    Op("draw", "leaf", -1, ("real",), "real", ("dist",),
       "init region only: uniform(lo, hi), normal(mean, sd), bernoulli(p), orthogonal(gain); operands rank 0"),
    # pointwise
    *_unary("neg", NUM), *_unary("abs sign", ORD), *_unary("floor ceil round", ("real",)),
    *_unary("exp expm1 log sqrt sin cos", FLT),
    *_unary("log1p rsqrt tan tanh sigmoid softplus logsigmoid erf atan", ("real",)),
    *_unary("not", ("bool",)),
    *_unary("real", ("int", "bool", "real"), "real"), *_unary("int", ("real", "bool", "int"), "int"),
    *_unary("stop_gradient", ANY),
    *_binary("add sub mul", NUM), *_binary("div", FLT),
    *_binary("max min", ORD),          # on a tie the first operand gets the whole gradient
    *_binary("floordiv mod", ORD),     # towards minus infinity, sign of the divisor, as in Python
    *_binary("pow logaddexp atan2", ("real",)),
    *_binary("eq ne lt le gt ge", ("real", "int", "bool"), "bool"), *_binary("and or", ("bool",), "bool"),
    Op("select", "pointwise", 3, ANY, "same", (), "select(cond: bool, a, b)"),
    Op("custom_grad", "pointwise", -1, ("real",), "same", (),
       "custom_grad(y, x1, d1, x2, d2, ...): the value y; gradient d_i * ct to x_i, none to y or d_i"),
    # complex values; there are no complex literals
    Op("complex", "complex", 2, ("real",), "complex", (), "complex(re, im)"),
    Op("re", "complex", 1, ("complex",), "real"), Op("im", "complex", 1, ("complex",), "real"),
    Op("conj", "complex", 1, ("complex",)), Op("modulus", "complex", 1, ("complex",), "real", (), "|z|"),
    Op("angle", "complex", 1, ("complex",), "real", (),
       "in (-pi, pi]; an imaginary part -0 counts as 0, also in log and sqrt"),
    # structure
    Op("broadcast", "structure", 1, ANY, "same", ("axes",),
       "axes[i]: position in the result of the operand's axis i (any order: transposes too)"),
    Op("slice", "structure", 1, ANY, "same", ("axis", "start"), "a stretch of one axis; size from the type"),
    Op("pad", "structure", 1, ANY, "same", ("axis", "start"), "adjoint of slice: zeros around"),
    Op("index", "structure", 1, ANY, "same", ("axis", "at"), "one element of an axis, which disappears"),
    Op("place", "structure", 1, ANY, "same", ("axis", "at"), "adjoint of index: a new axis, zero but at `at`"),
    Op("concat", "structure", -1, ANY, "same", ("axis",)),
    Op("stack", "structure", -1, ANY, "same", ("axis",), "operands along a new axis"),
    Op("interleave", "structure", 1, ANY, "same", ("axis", "times"),
       "each element `times` times in a row along an axis (grouped heads)"),
    Op("fold", "structure", 1, NUM, "same", ("axis", "times"), "adjoint of interleave: sums of `times` neighbours"),
    Op("gather", "structure", 2, ANY, "same", ("axis", "batch", "places"),
       "gather(x, i: int): the axis replaced by the last `places` axes of i; the `batch` axes before them are x's "
       "first, too; 0 where i is out of range"),
    Op("scatter", "structure", 2, NUM, "same", ("axis", "batch", "places"),
       "adjoint of gather: scatter(y, i) adds up the elements of y that have the same position"),
    Op("cumsum", "structure", 1, NUM, "same", ("axis", "reverse")),
    Op("running", "structure", 2, NUM, "same", ("axis", "reverse", "semiring"),
       "y[i] = a[i] (x) y[i-1] (+) b[i] along an axis, y = b at its start; semiring: sum max lse "
       "(on a tie of max the path through y[i-1] is first)"),
    Op("cumprod", "structure", 1, ("real",), "same", ("axis", "reverse"),
       "y[i] = product of the a[j] with j < i along an axis (j > i if reverse)"),
    Op("cumprod_back", "structure", 2, ("real",), "same", ("axis", "reverse"),
       "cumprod_back(a, c): the derivative of sum c[i] cumprod(a)[i] by a; has none itself"),
    # reductions and products
    Op("reduce", "reduce", 1, ANY, "given", ("fn", "axes"),
       "fn: sum max min prod lse argmax any all; axes: tuple of positions, which disappear"),
    Op("contract", "reduce", 2, ANY, "same", ("spec", "semiring"),
       "einsum of two operands, spec like 'ij,j->i'; semiring: sum max min lse (argmax: int result). below='ij': of a "
       "sum, terms or results where j >= i are 0 or read by nobody, and may be left out (as 0)", optional=("below",)),
    # linear algebra, with leading batch axes
    Op("solve", "linalg", 2, ("real",), "same", (), "A[..., n, n], b[..., n] or b[..., n, m] (by b's rank): A^-1 b"),
    Op("solve_lower", "linalg", 2, ("real",), "same", ("transposed",),
       "(I + the part of L[..., n, n] below its diagonal)^-1 b, or its transpose's; b as for solve"),
    Op("logdet", "linalg", 1, ("real",), "same", (), "log |det A| of A[..., n, n]"),
    # with D(i, j) = the product of the d[m] strictly between the rows j < i, 0 for j >= i; a, d, x: [..., n, k]
    Op("decayed", "linalg", -1, ("real",), "same", ("readers",),
       "decayed(a, ..., d, x, ...): G[i, j] = sum over k of a[i] D(i, j) x[j] for each of the `readers` a with each x: "
       "[..., n, n], or of several pairs [..., pairs, n, n], the first reader's first"),
    Op("decayed_sum", "linalg", 3, ("real",), "same", ("transposed",),
       "decayed_sum(G, d, x): sum over j of G[i, j] D(i, j) x[j]; transposed: sum over i of G[i, j] D(i, j) x[i]; "
       "of G[..., n, n] only what is below the diagonal is read"),
    Op("ends", "linalg", -1, ("real",), "same", ("readers",),
       "ends(a, ..., d, x, ...): each a[i] times the d[m] before it, each x[j] times those after it, side by side "
       "[..., operands without d, n, k]"),
    Op("decayed_back", "linalg", -1, ("real",), "same", ("readers", "ends"),
       "decayed_back(G, a, ..., d, x, ...), G of all pairs: the derivatives of the sum over pairs of sum G[i, j] a[i] "
       "D(i, j) x[j] by every a, d and every x, side by side [..., operands, n, k]; if `ends`, after G a factor for "
       "every a and x, and if one operand more for the product of all d [..., k]: those of the sum of factors times "
       "`ends` and that product, too; has none itself"),
    Op("ends_back", "linalg", -1, ("real",), "same", ("readers",), "ends_back(factors ..., a, ..., d, x, ...): as "
       "decayed_back, without G"),
)


def spec_parts(spec: str) -> tuple[str, str, str]:
    """'ij,j->i' -> ('ij', 'j', 'i')."""
    left, out = spec.split("->")
    a, b = left.split(",")
    return a, b, out
