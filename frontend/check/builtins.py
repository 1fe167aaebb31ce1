"""The library: every built-in function with its parameters.

A handler gets the bound `Call` and gives a value. Pointwise functions live in
`pointwise`, reductions in `reductions`, the rest in `structure` and `draws`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import tree as t
from . import complexes, draws, gradient, pointwise, reductions, structure
from .calls import Call, bind
from .context import Context
from .scope import Scope
from .values import Value


@dataclass(frozen=True)
class Builtin:
    """`least`: arguments that must be given; `variadic`: any number more may be;
    `axes`: takes `name[K](...)`; `loop`: takes `name(... for j in n)`."""

    name: str
    params: tuple[str, ...]
    handler: Callable[[Call], Value]
    least: int
    variadic: bool = False
    axes: bool = False
    loop: bool = False

    def call(self, cx: Context, scope: Scope, e: t.Call, axes: tuple) -> Value:
        if axes and not self.axes:
            cx.fail("axis_not_allowed", e.span, name=self.name)
        if e.loop and not self.loop:
            cx.fail("generator_misplaced", e.span)
        bound = bind(cx, self.name, self.params, e.args, e.span, self.variadic)
        args = [bound.get(p) for p in self.params] + [x for k, x in bound.items() if k.startswith("*")]
        if len(bound) < self.least or any(a is None for a in args[:self.least]):
            missing = next((p for p in self.params[:self.least] if p not in bound), self.params[0])
            if not bound or self.variadic or e.args and e.args[0].name is None and len(self.params) == self.least:
                plural = "s" if self.least != 1 else ""
                more = " or more" if self.variadic or self.least < len(self.params) else ""
                cx.fail("argument_count", e.span, name=self.name, actual=len(bound),
                        expected=f"{self.least}{more} argument{plural}")
            cx.fail("missing_argument", e.span, argument=missing, name=self.name)
        while args and args[-1] is None:
            args.pop()
        return self.handler(Call(cx, scope, self.name, tuple(args), axes, e.loop, e.span))


def _builtin(name: str, params: str, handler, **options) -> Builtin:
    """params: names, optional ones with `?`, `...` for any number more."""
    names = params.split()
    variadic = names[-1:] == ["..."]
    names = names[:-1] if variadic else names
    least = sum(not n.endswith("?") for n in names)
    return Builtin(name, tuple(n.rstrip("?") for n in names), handler, least, variadic, **options)


BUILTINS: dict[str, Builtin] = {b.name: b for b in [
    *(_builtin(n, "x", pointwise.real) for n in pointwise.REAL),
    *(_builtin(n, "x", h) for n, h in pointwise.COMPOSED.items()),
    _builtin("clamp", "x low high", pointwise.clamp),
    *(_builtin(n, "x y", pointwise.binary_real) for n in ("pow", "logaddexp", "atan2")),
    *(_builtin(n, "x y? ...", reductions.extremum, axes=True, loop=True) for n in ("max", "min")),
    *(_builtin(n, "x", reductions.simple, axes=True, loop=True) for n in ("sum", "prod", "any", "all", "mean")),
    *(_builtin(n, "x", reductions.simple, axes=True) for n in ("argmax", "logsumexp", "norm", "var")),
    _builtin("l2norm", "x eps?", reductions.l2norm, axes=True),
    *(_builtin(n, "x", reductions.softmax, axes=True) for n in ("softmax", "log_softmax")),
    _builtin("cumsum", "x", reductions.cumsum, axes=True),
    _builtin("outer", "x y", structure.outer),
    _builtin("dot", "x y", structure.dot),
    _builtin("diag", "x", structure.diag),
    _builtin("split", "x parts", structure.split),
    _builtin("unstack", "x", structure.unstack),
    _builtin("concat", "x ...", structure.concat, loop=True),
    _builtin("stack", "x ...", structure.stack, loop=True),
    _builtin("onehot", "index n", structure.onehot),
    _builtin("eye", "n", structure.eye),
    _builtin("iota", "n", structure.iota),
    *(_builtin(n, "n? ...", structure.filled) for n in ("zeros", "ones")),
    _builtin("full", "value n? ...", structure.full),
    _builtin("solve", "a b", structure.solve),
    _builtin("logdet", "a", structure.logdet),
    *(_builtin(n, "low high", draws.draw) for n in ("uniform",)),
    _builtin("normal", "mean sd", draws.draw),
    _builtin("bernoulli", "p", draws.draw),
    _builtin("orthogonal", "gain?", draws.draw),
    *(_builtin(n, "z", complexes.part) for n in ("re", "im", "conj")),
    _builtin("polar", "r phi", complexes.polar),
    _builtin("angle", "z", complexes.angle),
    _builtin("grad", "scalar ...", gradient.grad),
]}
