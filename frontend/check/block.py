"""Equations: values found on demand, in whatever order they were written."""

from __future__ import annotations

from collections.abc import Callable

from ...ir.types import Span
from .. import tree as t
from ..diagnostics import Abandon
from .context import Context
from .expr import evaluate
from .records import Drawing
from .scope import Entity, Failed, Scope
from .types import Declared, declared
from .values import Fn, Lib, List, Many, Num, Val, Value


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
            start = cx.resolving.index(self.label)
            cx.fail(self.error, self.span, cycle=" -> ".join([*cx.resolving[start:], self.label]))
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
            cx.fail_static(span, f"the local `{self.name}`")
        return self.equation.force()


class Block:
    """The equations of a function, a cell or one iteration of a repeat.

    `label(name)` gives a local's name in the IR (None: leave it unnamed)."""

    own_heads = False
    cell = ""

    def __init__(self, cx: Context, scope: Scope, statements, label: Callable[[str], str | None] = lambda name: None):
        self.cx, self.scope, self.label = cx, scope, label
        self.parts: list[tuple[object, Equation]] = []     # what is computed, in textual order, and its text
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
                from .repeat import Repeat

                self.parts.append((s, Repeat(self, s)))
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
        return self.cx.coerce(v, d.type, d.heads, name, span)

    def draw(self, s: t.Draw, d: Declared | None) -> Value:
        self.cx.drawing = Drawing(d.type, d.lead) if d else Drawing(None, self.scope.heads)
        return evaluate(self.cx, self.scope, s.dist)    # Equation.force restores `drawing`

    def assign(self, target: t.Target, compute, source: t.Expr) -> None:
        """`name[...] = `: only states, by the cell or the repeat that declares them."""
        self.cx.fail("assign_not_state", target.span, name=target.name, role="no state of this block")
