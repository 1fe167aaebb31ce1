"""`repeat j in n { ... }`: an inner time, unrolled; each iteration is a block."""

from __future__ import annotations

from ...ir.types import Span
from .. import tree as t
from .block import Block, Equation
from .brackets import lag_of, mentions
from .expr import evaluate
from .numbers import number
from .scope import Entity, Scope
from .types import Declared, declared
from .values import Many, Val, Value, show

LONGEST_REPEAT = 1024


class Repeat:
    """`repeat j in n { ... }`: one block per iteration, unrolled when the first
    value of it is asked for."""

    def __init__(self, outer: Block, s: t.Repeat):
        self.outer, self.s, self.cx = outer, s, outer.cx
        self.decls = {d.name: d for part in s.body if isinstance(part, t.Declare) and part.role == "state"
                      for d in part.decls}
        label = f"repeat {s.var}"
        self.equation = Equation(self.cx, label, s.span, self.run)
        scope = outer.scope
        if not self.cx.may_define(scope, s.var, _after(s)):
            self.equation.state = "failed"
        for name, d in self.decls.items():
            if not scope.define(self.cx, name, RepeatResult(self, name, d.span), d.span):
                self.equation.state = "failed"
        for part in s.body:
            for target in part.targets if isinstance(part, (t.Define, t.Draw)) else ():
                if target.subs is None:
                    scope.hidden.setdefault(target.name, "local_in_repeat")

    def force(self) -> Value:
        return self.equation.force()

    def run(self) -> Many:
        cx, s, outer = self.cx, self.s, self.outer
        count = cx.integer(evaluate(cx, outer.scope, s.count), s.count.span, "the number of iterations")
        if count > LONGEST_REPEAT:
            cx.fail("repeat_too_long", s.count.span, count=count, limit=LONGEST_REPEAT)
        types, last = {}, {}
        grads = any(isinstance(n, t.Call) and mentions(n.callee, "grad") for n in t.walk(s))
        for name, d in self.decls.items():
            types[name] = declared(cx, outer.scope, d.type, name, outer.own_heads, outer.cell)
            if d.value is None:
                cx.fail("init_missing", d.span, name=name, shape=show(types[name].type.shape))
            first = evaluate(cx, outer.scope, d.value)
            value = cx.coerce(first, types[name].type, types[name].heads, name, d.span)
            last[name] = self.apart(value, name) if grads else value
        for j in range(max(0, count)):
            block = Iteration(self, j, types, last)
            block.force_all()
            last = {name: block.states[name].now() for name in self.decls}
        return Many(tuple(last[name] for name in self.decls), f"repeat {s.var}")

    def apart(self, x: Val, name: str) -> Val:
        """A copy, so that `grad` can tell `M[j-1]` of the first iteration from what it starts from."""
        axes = tuple(range(x.type.rank))
        return Val(self.cx.b.add("broadcast", (x.node,), x.type, name, axes=axes), x.type, x.heads)

    def result(self, name: str) -> Value:
        return self.force().items[list(self.decls).index(name)]


class RepeatResult(Entity):
    """A repeat's state seen from outside: its value after the last iteration."""

    role = "a state of a repeat"

    def __init__(self, repeat: Repeat, name: str, span: Span):
        self.repeat, self.name, self.span = repeat, name, span

    def bare(self, cx, span):
        if cx.init_region:
            cx.fail_static(span, f"`{self.name}`")
        return self.repeat.result(self.name)


class Iteration(Block):
    """One iteration: `j` is a number, `M[j-1]` the last iteration's value."""

    def __init__(self, repeat: Repeat, j: int, types: dict[str, Declared], last: dict[str, Val]):
        self.repeat, outer = repeat, repeat.outer
        self.own_heads, self.cell = outer.own_heads, outer.cell
        scope = Scope(outer.scope.module, outer.scope)
        scope.names[repeat.s.var] = number(j)
        self.states = {name: IterState(repeat, name, types[name], last[name]) for name in types}
        scope.names.update(self.states)

        def label(name: str) -> str | None:
            above = outer.label(name)
            return above and f"{above}.{j}"

        super().__init__(repeat.cx, scope, repeat.s.body, label)
        for name, state in self.states.items():
            if state.equation is None:
                self.cx.fail("repeat_unassigned", state.span or repeat.decls[name].span, name=name, index=repeat.s.var)

    def other(self, s: t.Statement) -> None:
        if isinstance(s, t.Declare) and s.role == "state" and s.draw is None:
            return
        what = {t.Output: "outputs", t.Uses: "sub-cells"}.get(type(s)) or ("draws" if s.draw else f"{s.role}s")
        self.cx.fail("role_in_repeat", s.span, role=s.role if isinstance(s, t.Declare) else what)

    def assign(self, target: t.Target, compute, source: t.Expr) -> None:
        cx, var = self.cx, self.repeat.s.var
        state = self.states.get(target.name)
        if state is None:
            found = self.scope.find(target.name)
            if found is None:
                cx.unknown("unknown_name", target.name, target.span, self.scope.visible())
            role = "a state outside of this repeat" if isinstance(found, Entity) and found.role == "a state" else \
                found.role if isinstance(found, Entity) else "a value"
            cx.fail("assign_not_state", target.span, name=target.name, role=role)
        if len(target.subs) != 1 or not isinstance(target.subs[0], t.Name) or target.subs[0].id != var:
            cx.fail("target_indices", target.span, name=target.name, expected=f"`[{var}]`")
        if state.equation is not None:
            cx.fail("assigned_twice", target.span, name=f"{target.name}[{var}]")
        d = state.declared

        def value() -> Val:
            with cx.step(target.span):
                out = cx.coerce(compute(d), d.type, d.heads, target.name, target.span)
            if (label := self.label(target.name)) is not None:
                cx.prefer(out, label)
            return out

        state.equation = Equation(cx, f"{target.name}[{var}]", target.span, value)
        self.parts.append((source, state.equation))


class IterState(Entity):
    """A repeat's state within one iteration."""

    role = "a state of the repeat"
    timed = True

    def __init__(self, repeat: Repeat, name: str, declared: Declared, last: Val):
        self.repeat, self.name, self.declared, self.last = repeat, name, declared, last
        self.equation: Equation | None = None

    def now(self) -> Val:
        return self.equation.force()

    def bare(self, cx, span):
        cx.fail("repeat_read", span, name=self.name, index=self.repeat.s.var)

    def at(self, cx, scope, sub, span):
        var = self.repeat.s.var
        if mentions(sub, "t"):
            cx.fail("repeat_index", span, name=self.name, index=var)
        lag = lag_of(cx, scope, sub, var)
        if lag is None or lag < 0:
            cx.fail("repeat_read", span, name=self.name, index=var)
        if lag > 1:
            cx.fail("repeat_lag", span, name=self.name, index=var, lag=lag)
        if lag == 1:
            return self.last
        if self.equation is None:
            cx.fail("repeat_unassigned", self.repeat.decls[self.name].span, name=self.name, index=var)
        return self.now()


def _after(s: t.Repeat) -> Span:
    """The index variable's place."""
    column = s.span.column + len("repeat ")
    return Span(s.span.file, s.span.line, column, s.span.line, column + len(s.var))
