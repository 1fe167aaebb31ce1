"""Functions that make, cut and join tensors, and linear algebra."""

from __future__ import annotations

from ...ir.types import Dim, Type
from . import numbers
from .calls import Call
from .context import NUMBERS
from .dims import Poly
from .expr import choose, evaluate, product
from .numbers import number
from .types import text
from .values import List, Many, Num, Val, Value, show

MOST_PARTS = 1024


def connect(c: Call, op: str, a: Num | Val, b: Num | Val) -> Num | Val:
    """`and` / `or` of two values of a generator."""
    for x in (a, b):
        if x.kind != "bool":
            c.fail("kind_mismatch", what=f"`{c.name}`", expected="bool", actual=x.kind)
    if isinstance(a, Num) and isinstance(b, Num):
        return Num(a.value and b.value if op == "and" else a.value or b.value)
    return c.cx.op(op, c.cx.tensor(a, c.span), c.cx.tensor(b, c.span), span=c.span)


# -- products -----------------------------------------------------------------
def outer(c: Call) -> Value:
    """[A..., B...]: every element of x times every element of y."""
    cx = c.cx
    x, y = cx.same_kind([c.tensor(0), c.tensor(1)], c.span, "`outer`", "int", NUMBERS)
    lead = cx.joint_heads([x, y])
    at = len(lead)
    full = lead + x.shape + y.shape

    def placed(v: Val, first: int) -> str:
        return cx.b.broadcast(v.node, full, (*range(v.heads), *range(first, first + len(v.shape))))

    return cx.val(cx.b.op("mul", placed(x, at), placed(y, at + len(x.shape)), hint="outer"), at)


def dot(c: Call) -> Value:
    x, y = c.tensor(0), c.tensor(1)
    for v in (x, y):
        if len(v.shape) != 1:
            c.fail("rank", what="dot", expected="two vectors", actual=show(v.shape))
    return product(c.cx, x, y, c.span)


def _square(c: Call, dim: Dim, lead: tuple[Dim, ...] = ()) -> Val:
    """bool [n, n], true on the diagonal."""
    b = c.cx.b
    iota = b.add("iota", (), Type("int", (dim,)), "iota")
    shape = (dim, dim)
    out = c.cx.val(b.op("eq", b.broadcast(iota, shape, (0,)), b.broadcast(iota, shape, (1,))))
    return c.cx.spread(out, lead, shape)


def eye(c: Call) -> Value:
    return c.cx.cast(_square(c, _dim(c, 0)), "real")


def diag(c: Call) -> Value:
    """A vector as a diagonal matrix; a square matrix's diagonal."""
    cx, x = c.cx, c.tensor(0)
    if len(x.shape) == 1:
        dim = x.shape[0]
        full = x.type.shape + (dim,)
        rows = cx.val(cx.b.broadcast(x.node, full, tuple(range(x.type.rank))), x.heads)
        zero = Num(False) if x.kind == "bool" else number(0)
        return choose(cx, _square(c, dim, x.lead), rows, zero, c.span)
    if len(x.shape) != 2 or x.shape[0] != x.shape[1]:
        c.fail("not_square", what="diag", shape=show(x.shape))
    [x] = cx.same_kind([x], c.span, "`diag`", "int", NUMBERS)
    only = choose(cx, _square(c, x.shape[0], x.lead), x, number(0), c.span)
    return cx.val(cx.b.reduce(only.node, "sum", (x.type.rank - 1,)), x.heads)


# -- cutting and joining --------------------------------------------------------
def _first(c: Call, x: Val) -> Dim:
    if not x.shape:
        c.fail("rank", what=c.name, expected="at least one axis", actual=show(x.shape))
    return x.shape[0]


def split(c: Call) -> Value:
    """Parts of the first axis: `split(x, 4)`, or `split(x, [R, N, N])`."""
    cx, x = c.cx, c.tensor(0)
    dim = _first(c, x)
    whole = cx.dims.poly(dim)
    parts = c.value(1)
    if isinstance(parts, List):
        sizes = _sizes(c, parts)
        total = sum((s.poly for s in sizes), Poly.const(0)) if all(s.poly is not None for s in sizes) else None
        if total != whole:
            count = sum(int(s.value) for s in sizes)
            fixed = [p is not None and p.constant is not None for p in (total, whole)]
            if any(fixed) and not all(fixed):       # `[2, 2]` of H: right where H = 4
                if count != dim.size:
                    c.cx.fail_sized("split_sizes", c.span, total=count, dim=dim.name, size=dim.size)
            else:
                shown = str(total) if count == dim.size and total is not None else count
                c.fail("split_sizes", total=shown, dim=dim.name, size=dim.size)
        dims = [cx.dim(s, c.args[1].span, "part") for s in sizes]
    else:
        n = cx.integer(parts, c.args[1].span, "the number of parts")
        if not 0 < n <= MOST_PARTS:
            c.fail("split_uneven", dim=dim.name, size=dim.size, parts=n)
        if dim.size % n:
            if whole.constant is not None:
                c.fail("split_uneven", dim=dim.name, size=dim.size, parts=n)
            cx.fail_sized("split_uneven", c.span, dim=dim.name, size=dim.size, parts=n)
        part = numbers.arithmetic("//", Num(dim.size, whole), number(n))
        dims = [cx.dim(part, c.span, "part")] * n
    out, start = [], 0
    for d in dims:
        out.append(cx.val(cx.b.slice(x.node, x.heads, start, d), x.heads))
        start += d.size
    return Many(tuple(out), "split")


def _sizes(c: Call, parts: List) -> list[Num]:
    for s in parts.items:
        if not isinstance(s, Num) or isinstance(s.value, bool):
            c.cx.fail("not_constant", c.args[1].span, what="the size of a part")
    return list(parts.items)


def unstack(c: Call) -> Value:
    """The elements of the first axis."""
    cx, x = c.cx, c.tensor(0)
    dim = _first(c, x)
    if dim.size > MOST_PARTS:
        c.fail("repeat_too_long", count=dim.size, limit=MOST_PARTS)
    return Many(tuple([cx.val(cx.b.index(x.node, x.heads, i), x.heads) for i in range(dim.size)]), "unstack")


def concat(c: Call) -> Value:
    """Joined along the first axis; `[x]` makes a scalar fit."""
    from .reductions import terms

    cx = c.cx
    items = [cx.tensor(x, c.span) for x in _listed(c, terms)]
    if not items:
        c.fail("empty_generator", name=c.name)
    items = cx.same_kind(items, c.span, "`concat`", allowed=NUMBERS)
    rest = max((x.shape[1:] for x in items), key=len)
    for x in items:
        _first(c, x)
        if x.shape[1:] != rest:
            c.fail("concat_mismatch", what="concat", left=show(items[0].shape), right=show(x.shape))
    lead = cx.joint_heads(items)
    items = [cx.spread(x, lead, x.shape) for x in items]
    poly = sum((cx.dims.poly(x.shape[0]) for x in items), Poly.const(0))
    dim = cx.dims.dim(poly, sum(x.shape[0].size for x in items))
    if len(items) == 1:
        return items[0]
    return cx.val(cx.b.concat(tuple(x.node for x in items), len(lead), dim), len(lead))


def _listed(c: Call, terms) -> list[Value]:
    if c.loop is not None:
        return terms(c)
    return [c.value(i) for i in range(len(c.args))]


def stack(c: Call) -> Value:
    """Along a new first axis."""
    from .reductions import loop_count, terms

    items = [c.cx.tensor(x, c.span) for x in _listed(c, terms)]
    if not items:
        c.fail("empty_generator", name=c.name)
    dim = loop_count(c)[1] if c.loop is not None else None
    return c.cx.stack(items, c.span, "stack", dim)


# -- making --------------------------------------------------------------------
def _dim(c: Call, i: int) -> Dim:
    e = c.args[i]
    return c.cx.dim(evaluate(c.cx, c.scope, e), e.span, text(e))


def filled(c: Call) -> Value:
    value = number(1 if c.name == "ones" else 0)
    return _full(c, Num(float(value.value)), [_dim(c, i) for i in range(len(c.args))])


def full(c: Call) -> Value:
    return _full(c, c.single(0), [_dim(c, i) for i in range(1, len(c.args))])


def _full(c: Call, value: Num | Val, dims: list[Dim]) -> Value:
    x = c.cx.tensor(value, c.span)
    if x.shape:
        c.fail("rank", what=c.name, expected="a scalar", actual=show(x.shape))
    return c.cx.spread(x, x.lead, tuple(dims))


def iota(c: Call) -> Value:
    """0, 1, ..., n-1 (int)"""
    return c.cx.val(c.cx.b.add("iota", (), Type("int", (_dim(c, 0),)), "iota"))


def onehot(c: Call) -> Value:
    """bool [..., n], true at the index; all false where it is out of range."""
    cx, x = c.cx, c.tensor(0)
    if x.kind != "int":
        cx.fail("index_kind", c.args[0].span, actual=x.kind)
    dim = _dim(c, 1)
    positions = cx.b.add("iota", (), Type("int", (dim,)), "iota")
    shape = x.type.shape + (dim,)
    here = cx.b.broadcast(x.node, shape, tuple(range(x.type.rank)))
    return cx.val(cx.b.op("eq", here, cx.b.broadcast(positions, shape, (x.type.rank,)), hint="onehot"), x.heads)


# -- linear algebra ---------------------------------------------------------------
def solve(c: Call) -> Value:
    """x with a @ x = b; a [n, n], b [n] or [n, m]."""
    cx = c.cx
    a, b = cx.same_kind([c.tensor(0), c.tensor(1)], c.span, "`solve`", "real")
    if len(a.shape) != 2 or a.shape[0] != a.shape[1]:
        c.fail("not_square", what="solve", shape=show(a.shape))
    if len(b.shape) not in (1, 2):
        c.fail("rank", what="solve", expected="a vector or a matrix on the right", actual=show(b.shape))
    if b.shape[0] != a.shape[0]:
        c.fail("product_mismatch", name="solve", left=a.shape[0].name, right=b.shape[0].name, left_shape=show(a.shape),
               right_shape=show(b.shape))
    lead = cx.joint_heads([a, b])
    a, b = cx.spread(a, lead, a.shape), cx.spread(b, lead, b.shape)
    return cx.val(cx.b.add("solve", (a.node, b.node), b.type, "solve"), len(lead))


def logdet(c: Call) -> Value:
    cx = c.cx
    [a] = cx.same_kind([c.tensor(0)], c.span, "`logdet`", "real")
    if len(a.shape) != 2 or a.shape[0] != a.shape[1]:
        c.fail("not_square", what="logdet", shape=show(a.shape))
    return cx.val(cx.b.add("logdet", (a.node,), Type("real", a.type.shape[:-2]), "logdet"), a.heads)
