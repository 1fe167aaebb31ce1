"""Calls: who is called, and how arguments are bound to parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.types import Span
from .. import tree as t
from ..diagnostics import did_you_mean
from .context import Context
from .expr import evaluate, single, tensor
from .scope import Entity, Scope, role_of
from .values import Fn, Lib, Num, Val, Value, describe

DISTRIBUTIONS = "uniform(low, high), normal(mean, sd), bernoulli(p) and, for parameters, orthogonal(gain)"


@dataclass(frozen=True)
class Call:
    """A call of a built-in function with its arguments bound: `args` in the order
    of its parameters (None: left out), more of them if it is variadic."""

    cx: Context
    scope: Scope
    name: str
    args: tuple[t.Expr | None, ...]
    axes: tuple[t.Expr, ...]
    loop: t.Loop | None
    span: Span

    def value(self, i: int) -> Value:
        return evaluate(self.cx, self.scope, self.args[i])

    def single(self, i: int) -> Num | Val:
        return single(self.cx, self.scope, self.args[i])

    def tensor(self, i: int) -> Val:
        return tensor(self.cx, self.scope, self.args[i])

    def number(self, i: int, what: str, default: Num | None = None) -> Num:
        if i >= len(self.args) or self.args[i] is None:
            return default
        x = self.value(i)
        if not isinstance(x, Num):
            self.cx.fail("not_constant", self.args[i].span, what=what)
        return x

    def fail(self, error: str, **fields):
        self.cx.fail(error, self.span, **fields)


def call(cx: Context, scope: Scope, e: t.Call) -> Value:
    match e.callee:
        case t.Name(id):
            axes = ()
        case t.Index(t.Name(id), subs):
            axes = subs
        case t.Attr(_, name):
            cx.fail("attribute_of_value", e.callee.span, name=name)
        case _:
            cx.fail("not_a_function", e.callee.span, name="this", what=describe(evaluate(cx, scope, e.callee)))
    target = resolve(cx, scope, id, e.callee.span)
    if isinstance(target, Entity):
        return target.call(cx, scope, axes, e)
    if isinstance(target, Lib):
        from .builtins import BUILTINS

        return BUILTINS[target.name].call(cx, scope, e, axes)
    from .functions import inline

    if axes:
        cx.fail("axis_not_allowed", e.span, name=id)
    return inline(cx, scope, target, e)


def resolve(cx: Context, scope: Scope, id: str, span: Span) -> Fn | Lib | Entity:
    found = scope.find(id)
    if isinstance(found, (Fn, Lib)) or hasattr(found, "call"):
        return found
    if found is not None:
        cx.fail("not_a_function", span, name=id, what=role_of(found))
    if id in scope.module.functions:
        return scope.module.functions[id]
    if id in cx.builtins:
        return Lib(id)
    if id in scope.module.cells:
        cx.fail("cell_not_used", span, name=id)
    if (error := scope.hides(id)) is not None:
        cx.fail(error, span, name=id)
    callable_ = [n for n in scope.visible() if isinstance(scope.find(n), (Fn, Lib)) or hasattr(scope.find(n), "call")]
    known = (*callable_, *scope.module.functions, *cx.builtins)
    if cx.drawing is not None and did_you_mean(id, known) is None:
        cx.fail("unknown_function", span, name=id, help=f"distributions are {DISTRIBUTIONS}")
    cx.unknown("unknown_function", id, span, known)


def bind(cx: Context, name: str, params: Sequence[str], args: Sequence[t.Arg], span: Span,
         variadic: bool = False) -> dict[str, t.Expr]:
    """Arguments by parameter; those beyond the last of a variadic function as `*0`, `*1`, ..."""
    bound: dict[str, t.Expr] = {}
    named = False
    for i, a in enumerate(args):
        if a.name is None:
            if named:
                cx.fail("positional_after_named", a.span)
            if i >= len(params):
                if not variadic:
                    expected = f"{len(params)} argument{'s' if len(params) != 1 else ''}"
                    cx.fail("argument_count", span, name=name, expected=expected, actual=len(args))
                bound[f"*{i}"] = a.value
            else:
                bound[params[i]] = a.value
            continue
        named = True
        if a.name not in params:
            cx.fail("unknown_argument", a.span, name=name, argument=a.name)
        if a.name in bound:
            cx.fail("repeated_argument", a.span, name=name, argument=a.name)
        bound[a.name] = a.value
    return bound
