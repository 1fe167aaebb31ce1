"""Equations: values found on demand, in whatever order they were written."""

from __future__ import annotations

from collections.abc import Callable

from ...ir.types import Span
from .. import tree as t
from ..diagnostics import Abandon
from .context import Context, Drawing
from .expr import evaluate
from .numbers import number
from .scope import Entity, Failed, Scope
from .types import Declared, declared
from .values import Fn, Lib, List, Many, Num, Val, Value, show

LONGEST_REPEAT = 1024


class Equation:
    """A value computed at most once; asking for it while it is being computed
    is a cycle within one step. `error`: the class that reports such a cycle."""

    def __init__(self, cx: Context, label: str, span: Span, compute: Callable[[], Value], error: str = "cycle"):
        self.cx, self.label, self.span, self.compute, self.error = cx, label, span, compute, error
        self.state = "new"
        self.value: Value | None = None

    def force(self) -> Value:
        cx = self.cx
        if self.state == "busy":
            labels = cx.resolving[cx.resolving.index(self.label):] + [self.label] if self.label in cx.resolving else [self.label]
            cx.fail(self.error, self.span, cycle=" -> ".join(labels))
        if self.state == "failed":
            cx.abandon()
        if self.state == "new":
            self.state = "busy"
            drawing, cx.drawing = cx.drawing, None
            cx.resolving.append(self.label)
            try:
                self.value = self.compute()
                self.state = "done"
            finally:
                cx.resolving.pop()
                cx.drawing = drawing
                if self.state == "busy":
                    self.state = "failed"
        return self.value


class Local(Entity):
    """A name for a value of one step."""

    role = "a local value"

    def __init__(self, equation: Equation, span: Span, name: str):
        self.equation, self.span, self.name = equation, span, name

    def bare(self, cx, span):
        if cx.init_region:
            cx.fail("init_not_static", span, name=cx.resolving[-1] if cx.resolving else self.name, what=f"the local `{self.name}`")
        return self.equation.force()


class Block:
    """The equations of a function, a cell or one iteration of a repeat.

    `label(name)` gives a local's name in the IR (None: leave it unnamed)."""

    own_heads = False
    cell = ""

    def __init__(self, cx: Context, scope: Scope, statements, label: Callable[[str], str | None] = lambda name: None):
        self.cx, self.scope, self.label = cx, scope, label
        self.parts: list[tuple[object, Equation | Repeat]] = []     # what is computed, in textual order, and its text
        for s in statements:
            self.guard(self.add, s)

    def guard(self, fn: Callable, *args) -> object:
        """Call; an error that was reported ends this statement only."""
        try:
            return fn(*args)
        except Abandon:
            return None

    def force_all(self) -> None:
        for _, part in list(self.parts):
            self.guard(part.force)

    # -- statements -----------------------------------------------------------
    def add(self, s: t.Statement) -> None:
        match s:
            case t.Define():
                self.define(s)
            case t.Draw():
                for target in s.targets:
                    self.guard(self.target, target, lambda d, s=s: self.draw(s, d), s.dist)
            case t.Repeat():
                repeat = Repeat(self, s)
                self.parts.append((s, repeat))
            case _:
                self.other(s)

    def other(self, s: t.Statement) -> None:
        raise AssertionError(s)

    def define(self, s: t.Define) -> None:
        if len(s.values) == len(s.targets):
            for target, value in zip(s.targets, s.values):
                self.guard(self.target, target, lambda d, e=value: evaluate(self.cx, self.scope, e), value)
            return
        if len(s.values) != 1:
            self.fail_targets(s, "unpack_count", names=len(s.targets), values=len(s.values))
        names = ", ".join(x.name for x in s.targets)
        together = Equation(self.cx, names, s.span, lambda: evaluate(self.cx, self.scope, s.values[0]))

        def pick(i: int) -> Value:
            out = together.force()
            if isinstance(out, List):
                out = Many(out.items, "the list")
            found = len(out.items) if isinstance(out, Many) else 1
            if found != len(s.targets):
                self.cx.fail("unpack_count", s.span, names=len(s.targets), values=found)
            return out.items[i]

        for i, target in enumerate(s.targets):
            self.guard(self.target, target, lambda d, i=i: pick(i), s.values[0])

    def fail_targets(self, s: t.Define, error: str, **fields) -> None:
        for target in s.targets:
            if target.subs is None:
                self.scope.names.setdefault(target.name, Failed())
        self.cx.fail(error, s.span, **fields)

    def target(self, target: t.Target, compute: Callable[[Declared | None], Value], source: t.Expr) -> None:
        """Enter one name of the left side."""
        if target.subs is not None:
            self.assign(target, compute, source)
            return
        found = self.scope.names.get(target.name)
        if isinstance(found, Entity) and found.role == "a state":
            self.cx.fail("assign_needs_time", target.span, name=target.name)
        if isinstance(found, Entity) and found.role in ("an input", "a parameter", "a const"):
            self.cx.fail("assign_not_state", target.span, name=target.name, role=found.role)
        self.local(target.name, target.type, compute, target.span, source)

    def local(self, name: str, type: t.TypeExpr | None, compute, span: Span, source: t.Expr) -> Equation:
        def value() -> Value:
            d = declared(self.cx, self.scope, type, name, self.own_heads, self.cell) if type else None
            with self.cx.step(span):
                out = compute(d)
                out = self.settled(out, d, name, span)
            if (label := self.label(name)) is not None:
                self.cx.prefer(out, label)
            return out

        equation = Equation(self.cx, name, span, value)
        if self.scope.define(self.cx, name, Local(equation, span, name), span):
            self.parts.append((source, equation))
        else:
            self.scope.names.setdefault(name, Failed())
        return equation

    def settled(self, x: Value, d: Declared | None, name: str, span: Span) -> Num | Val:
        """What a name may stand for: one number or tensor, of the declared type if there is one."""
        if isinstance(x, (Fn, Lib)):
            self.cx.fail("not_a_value", span, name=x.name, what="a function")
        if d is None:
            return self.cx.single(x, span)
        if isinstance(x, Num) and not d.type.shape:
            x = self.cx.tensor(x, span)
        v = self.cx.tensor(x, span)
        if d.heads and not v.heads and not d.type.shape[1:] and not v.shape:
            return self.cx.coerce(v, d.type, True, name, span)
        return self.cx.coerce(v, d.type, d.heads, name, span)

    def draw(self, s: t.Draw, d: Declared | None) -> Value:
        self.cx.drawing = Drawing(d.type if d else None, (d.type.shape[0] if d.heads else None) if d else self.scope.heads)
        return evaluate(self.cx, self.scope, s.dist)    # Equation.force restores `drawing`

    def assign(self, target: t.Target, compute, source: t.Expr) -> None:
        """`name[...] = `: only states, by the cell or the repeat that declares them."""
        self.cx.fail("assign_not_state", target.span, name=target.name, role="no state of this block")


# -- repeat ------------------------------------------------------------------
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
        for name, d in self.decls.items():
            types[name] = declared(cx, outer.scope, d.type, name, outer.own_heads, outer.cell)
            if d.value is None:
                cx.fail("init_missing", d.span, name=name, shape=show(types[name].type.shape))
            last[name] = cx.coerce(evaluate(cx, outer.scope, d.value), types[name].type, types[name].heads, name, d.span)
        for j in range(max(0, count)):
            block = Iteration(self, j, types, last)
            block.force_all()
            last = {name: block.states[name].now() for name in self.decls}
        return Many(tuple(last[name] for name in self.decls), f"repeat {s.var}")

    def result(self, name: str) -> Value:
        return self.force().items[list(self.decls).index(name)]


class RepeatResult(Entity):
    """A repeat's state seen from outside: its value after the last iteration."""

    role = "a state of a repeat"

    def __init__(self, repeat: Repeat, name: str, span: Span):
        self.repeat, self.name, self.span = repeat, name, span

    def bare(self, cx, span):
        if cx.init_region:
            cx.fail("init_not_static", span, name=cx.resolving[-1] if cx.resolving else self.name, what=f"`{self.name}`")
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
        from .expr import lag_of, mentions

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
