"""Functions of a text, inlined where they are called."""

from __future__ import annotations

from collections.abc import Iterable

from ...ir.types import Span
from .. import tree as t
from ..diagnostics import Reporter, did_you_mean
from .block import Block
from .calls import bind
from .context import RANK, Context
from .expr import evaluate
from .scope import RESERVED, Scope
from .values import Fn, List, Many, Num, Val, Value, show


def inline(cx: Context, scope: Scope, fn: Fn, e: t.Call) -> Value:
    """The value of `fn(args)`: the body elaborated in a scope that sees the arguments only."""
    item = fn.item
    fn.module.used.add(fn.name)
    if e.loop:
        cx.fail("generator_misplaced", e.span)
    if fn.name in cx.calling:
        cx.fail("recursive_function", e.span, path=" -> ".join([*cx.calling[cx.calling.index(fn.name):], fn.name]))
    bound = bind(cx, fn.name, [p.name for p in item.params], e.args, e.span)
    given = {k: evaluate(cx, scope, x) for k, x in bound.items()}
    for p in item.params:
        if p.name not in given and p.value is None:
            cx.fail("missing_argument", e.span, argument=p.name, name=fn.name)
    arguments = tuple((k, getattr(v, "kind", ""), v) for k, v in given.items())
    key = (item.span, scope.heads, scope.clock, id(cx.b), arguments)
    if key in cx.memo:
        return cx.memo[key]
    draws = cx.sites
    cx.calling.append(fn.name)
    try:
        out = _body(cx, scope, fn, given, e.span)
    finally:
        cx.calling.pop()
    if draws == cx.sites and cx.drawing is None:
        cx.memo[key] = out
    return out


def _body(cx: Context, caller: Scope, fn: Fn, given: dict[str, Value], span: Span) -> Value:
    item = fn.item
    scope = Scope(fn.module, heads=caller.heads, caller=caller)
    _bind_dims(cx, scope, fn, given, span)
    for p in item.params:
        value = given[p.name] if p.name in given else evaluate(cx, scope, p.value)
        if isinstance(value, (List, Many)):
            value = cx.tensor(value, span)
        if p.type is not None:
            value = _matched(cx, scope, fn, p, value, span)
        scope.define(cx, p.name, value, p.span)
    block = Block(cx, scope, item.defines)
    block.force_all()
    results = [evaluate(cx, scope, r) for r in item.results]
    if item.derivative is not None:
        return _overridden(cx, scope, fn, results)
    return results[0] if len(results) == 1 else Many(tuple(results), fn.name)


def check_names(fn: Fn, reporter: Reporter, builtins: Iterable[str]) -> None:
    """Errors in a function that nothing calls: names that mean nothing."""
    item, module = fn.item, fn.module
    nodes = list(t.walk(item))
    own = {p.name for p in item.params} | {x.name for d in item.defines for x in d.targets}
    own |= {d.id for p in item.params if p.type for d in p.type.dims if isinstance(d, t.Name)}
    own |= {n.loop.var for n in nodes if isinstance(n, t.Call) and n.loop}
    known = {*own, *module.functions, *builtins, *RESERVED}
    for n in nodes:
        if isinstance(n, t.Name) and n.id not in known:
            reporter.error("unknown_name", n.span, name=n.id, help=did_you_mean(n.id, known))


def _bind_dims(cx: Context, scope: Scope, fn: Fn, given: dict[str, Value], span: Span) -> None:
    """Names of dimensions in the patterns stand for the arguments' dimensions."""
    for p in fn.item.params:
        value = given.get(p.name)
        if isinstance(value, List):
            value = given[p.name] = cx.tensor(value, span)
        if p.type is None or not isinstance(value, Val) or len(value.shape) != len(p.type.dims):
            continue
        for pattern, dim in zip(p.type.dims, value.shape):
            if isinstance(pattern, t.Name) and pattern.id not in scope.names:
                if scope.define(cx, pattern.id, Num(dim.size, cx.dims.poly(dim)), pattern.span) is False:
                    cx.abandon()


def _matched(cx: Context, scope: Scope, fn: Fn, p: t.Param, value: Value, span: Span) -> Val:
    """The argument, checked against its pattern; scalars fit every shape."""
    from .types import kind_of

    if not isinstance(value, (Num, Val)):
        cx.fail("argument_kind", span, name=p.name, actual="function", expected="value")
    expected = []
    for pattern in p.type.dims:
        if isinstance(pattern, t.Name) and scope.find(pattern.id) is None:
            cx.fail("pattern_mismatch", span, param=p.name, function=fn.name, expected=_pattern(p), actual=show(
                value.shape if isinstance(value, Val) else ()))
        expected.append(cx.dim(evaluate(cx, scope, pattern), pattern.span, "size"))
    x, shape = cx.tensor(value, span), tuple(expected)
    kind = kind_of(cx, p.type)
    if p.type.kind is not None and x.kind != kind:
        if RANK[x.kind] > RANK[kind]:
            cx.fail("kind_mismatch", span, what=f"argument `{p.name}` of `{fn.name}`", expected=kind, actual=x.kind)
        x = cx.cast(x, kind)
    if x.shape == shape:
        return value if isinstance(value, Num) else x
    if x.shape:
        cx.fail("pattern_mismatch", span, param=p.name, function=fn.name, expected=show(shape), actual=show(x.shape))
    return cx.spread(cx.cast(x, "real") if kind == "real" else x, x.lead, shape)


def _pattern(p: t.Param) -> str:
    return "[" + ", ".join(d.id if isinstance(d, t.Name) else "..." for d in p.type.dims) + "]"


def _overridden(cx: Context, scope: Scope, fn: Fn, results: list[Value]) -> Val | Num:
    """The function's value with the gradient that `derivative` says."""
    item = fn.item
    if len(item.derivative) != len(item.params):
        cx.fail("derivative_count", item.span, name=fn.name, params=len(item.params), derivatives=len(item.derivative))
    if len(results) != 1:
        cx.fail("tuple_as_value", item.span, name=fn.name, count=len(results))
    if not isinstance(results[0], Val):
        return results[0]
    pairs: list[Val] = []
    for p, d in zip(item.params, item.derivative):
        x = scope.names.get(p.name)
        slope = cx.single(evaluate(cx, scope, d), d.span)
        if isinstance(x, Val) and x.kind == "real" and not (isinstance(slope, Num) and slope.value == 0):
            pairs += [x, *cx.same_kind([slope], d.span, "a derivative", "real")]
    [y] = cx.same_kind(results, item.span, "a function with a derivative", "real")
    if not pairs:
        return cx.op("stop_gradient", y, span=item.span)
    items = cx.aligned([y, *pairs], item.span, "`derivative`")
    if items[0].type != (y.type if y.shape else items[0].type):
        cx.fail("shape_mismatch", item.span, what="`derivative`", left=show(y.shape), right=show(items[0].shape))
    return cx.op("custom_grad", *items, span=item.span)
