"""What a cell declares: inputs, parameters, consts and states, and how they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...ir.types import Span, Type
from .. import tree as t
from .block import Equation
from .brackets import lag_of, mentions
from .expr import evaluate
from .records import Drawing, StateRecord, is_static
from .scope import Entity, Scope
from .types import Declared
from .values import Num, Val, Value

if TYPE_CHECKING:
    from .instance import Instance


class Port(Entity):
    """A declared name; `full` is its name in the IR."""

    def __init__(self, instance: Instance, decl: t.Decl, declared: Declared):
        self.instance, self.cx = instance, instance.cx
        self.decl, self.declared = decl, declared
        self.name, self.full, self.span = decl.name, instance.prefix + decl.name, decl.span
        self.cx.ports[self.full] = declared

    def stored(self, node: str) -> Val:
        """A node of the port's type as a value: groups are repeated for their heads."""
        d = self.declared
        if d.group is not None:
            times = max(1, d.lead[-1].size // d.group.size) if d.group.size else 1
            node = self.cx.b.add("interleave", (node,), d.type, self.name, axis=d.heads - 1, times=times)
        return Val(node, d.type, d.heads)

    def lag(self, scope: Scope, sub: t.Expr, span: Span, previous: str = "") -> int:
        """The lag of `name[sub]`; reports everything that is none."""
        cx = self.cx
        lag = lag_of(cx, scope, sub, "t")
        if lag is None and mentions(sub, "t") and not isinstance(sub, t.Index):
            cx.fail("lag_not_constant", span, name=self.name)
        if lag is None:
            cx.fail("time_needed", span, name=self.name, role=self.role, previous=previous)
        if lag < 0:
            cx.fail("future_read", span, name=self.name, lag=-lag)
        self.no_init(span)
        return lag

    def no_init(self, span: Span) -> None:
        if self.cx.init_region:
            self.cx.fail_static(span, f"`{self.name}`, which is {self.role}")


class Input(Port):
    """An input of the whole cell, or of a sub-cell (then `supply` computes its value)."""

    role = "an input"
    timed = True

    def __init__(self, instance: Instance, decl: t.Decl, declared: Declared, default: float):
        super().__init__(instance, decl, declared)
        self.default = default
        self.supply: Equation | None = None

    def raw(self) -> str:
        """The node of its value at [t], of the stored type."""
        if self.instance.top:
            return self.cx.b.read("input", self.full, self.declared.stored)
        if self.supply is None:
            self.instance.owner.find_call(self.instance)
        if self.supply is None:     # the call has an error
            self.cx.abandon()
        return self.supply.force().node

    def initial(self) -> str:
        kind = self.declared.type.kind
        value = self.cx.literal(Num(self.default if kind in ("real", "complex") else int(self.default)), kind)
        return self.cx.b.broadcast(value.node, self.declared.stored.shape, ())

    def read(self, lag: int, span: Span) -> Val:
        if lag == 0:
            return self.stored(self.raw())
        return self.stored(self.cx.lagged(self.full, self.declared.stored, lag, self.initial, self.raw, span,
                                          self.instance.scope.clock))

    def at(self, cx, scope, sub, span):
        return self.read(self.lag(scope, sub, span), span)

    def bare(self, cx, span):
        self.no_init(span)
        cx.fail("time_needed", span, name=self.name, role=self.role, previous="")


class State(Port):
    """A state: `equation` computes its value at [t]."""

    role = "a state"
    timed = True

    def __init__(self, instance: Instance, decl: t.Decl, declared: Declared):
        super().__init__(instance, decl, declared)
        self.equation: Equation | None = None
        self.initial_value = Equation(self.cx, self.full, decl.span, self.initial)
        self.cx.states[self.full] = StateRecord(
            self.full, declared.type, lambda: self.initial_value.force().node, lambda: self.now().node,
            declared.facts, decl.span, instance.scope.clock.reverse)

    def initial(self) -> Value:
        cx, d = self.cx, self.declared
        with cx.step(self.decl.value.span):
            x = evaluate(cx, self.instance.scope, self.decl.value)
            v = cx.coerce(x, d.type, d.heads, self.name, self.decl.span)
        n = is_static(cx.b, v.node)
        if n is not None:
            what = {"input": "the input", "state": "the state", "random": "a draw"}.get(n.op, "")
            cx.fail("init_not_static", self.decl.value.span, name=self.name,
                    what=f"{what} `{n.attr('name')}`" if n.op in ("input", "state") else what or f"`{n.op}`")
        return v

    def now(self) -> Val:
        if self.equation is None:
            self.cx.fail("state_unassigned", self.span, name=self.name)
        return self.equation.force()

    def read(self, lag: int, span: Span) -> Val:
        if lag == 0:
            return self.now()
        type = self.declared.type
        old = lambda: self.cx.b.read("state", self.full, type)
        if lag == 1:
            return Val(old(), type, self.declared.heads)
        node = self.cx.lagged(self.full, type, lag - 1, lambda: self.initial_value.force().node, old, span,
                              self.instance.scope.clock)
        return Val(node, type, self.declared.heads)

    def at(self, cx, scope, sub, span):
        previous = f", `{self.name}[t-1]` for the previous one"
        return self.read(self.lag(scope, sub, span, previous), span)

    def bare(self, cx, span):
        self.no_init(span)
        cx.fail("time_needed", span, name=self.name, role=self.role,
                previous=f", `{self.name}[t-1]` for the previous one")


class Formula:
    """The value of `name[n, k]: [N, M] = expr` or `name: [N] = expr`."""

    def __init__(self, instance: Instance, decl: t.Decl, declared: Declared):
        self.instance, self.decl, self.declared, self.cx = instance, decl, declared, instance.cx

    def value(self, heads: bool) -> Val:
        """With the heads (a parameter has its value for each), or one for all of them."""
        cx, decl, d = self.cx, self.decl, self.declared
        scope, inner = self.instance.scope, d.shape
        if decl.indices:
            if len(decl.indices) != len(inner):
                cx.fail("const_formula", decl.span, name=decl.name, indices=len(decl.indices),
                        shape="[" + ", ".join(x.name for x in inner) + "]")
            scope = Scope(scope.module, scope)
            for axis, (name, dim) in enumerate(zip(decl.indices, inner)):
                iota = cx.b.add("iota", (), Type("int", (dim,)), "iota")
                scope.define(cx, name, cx.val(cx.b.broadcast(iota, inner, (axis,))), decl.span)
        with cx.step(decl.value.span):
            out = evaluate(cx, scope, decl.value)
            type, lead = (d.type, d.heads) if heads else (Type(d.type.kind, inner), 0)
            return cx.coerce(out, type, lead, decl.name, decl.span)


class Parameter(Port):
    """A parameter; `draw`: the declaration's `~` expression, for names without `=`."""

    role = "a parameter"

    def __init__(self, instance: Instance, decl: t.Decl, declared: Declared, draw: t.Expr | None):
        super().__init__(instance, decl, declared)
        self.draw = draw
        self.initial_value = Equation(self.cx, self.full, decl.span, self.initial, "init_cycle")

    def initial(self) -> Val:
        """The node of the init region that gives its initial value, of the stored type."""
        cx, d = self.cx, self.declared
        own = Declared(d.stored, d.heads, None, d.facts)
        with cx.region(cx.init):
            if self.decl.value is not None:
                return Formula(self.instance, self.decl, own).value(True)
            cx.drawing = Drawing(own.type, own.lead)
            with cx.step(self.draw.span):
                x = evaluate(cx, self.instance.scope, self.draw)
                return cx.coerce(x, own.type, own.heads, self.name, self.decl.span)

    def bare(self, cx, span):
        if cx.init_region:
            self.initial_value.force()
        return self.stored(cx.b.read("param", self.full, self.declared.stored))


class Const(Port):
    """A const: a formula, elaborated in the region that reads it, or supplied when compiled."""

    role = "a const"

    def __init__(self, instance: Instance, decl: t.Decl, declared: Declared):
        super().__init__(instance, decl, declared)
        formula = Formula(instance, decl, declared)
        self.values: dict[bool, Equation] = {
            init: Equation(self.cx, self.full, decl.span, lambda: formula.value(False)) for init in (False, True)}

    def bare(self, cx, span):
        if self.decl.value is None:
            return self.stored(cx.b.read("param", self.full, self.declared.stored))
        out = self.values[cx.init_region].force()
        cx.prefer(out, self.full)
        return out


