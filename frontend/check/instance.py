"""A cell's text with its header bound: its names, its equations, its sub-cells.

The compiled cell is an instance, and so is every sub-cell, inlined under a
prefix. Time, states and draws are shared through the context.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...ir.types import Dim, Span
from .. import tree as t
from ..diagnostics import Abandon
from .block import Block, Equation
from .context import Context
from .expr import evaluate
from .ports import Const, Input, Parameter, Port, State
from .scope import CellItem, Clock, Entity, Failed, Scope
from .types import declared, size, text
from .values import Fn, Lib, Num, Val, Value, show


class Instance(Block):
    """`header`: values of header arguments by name; `owner`: the `use` that made
    a sub-cell, None for the whole cell; `heads`: of the cell around; `clock`: its time."""

    def __init__(self, cx: Context, item: CellItem, header: dict[str, Value], prefix: str = "",
                 heads: tuple[Dim, ...] = (), owner=None, clock: Clock | None = None):
        self.item, self.header, self.prefix, self.owner = item.item, item.header, prefix, owner
        self.top, self.cell = owner is None, item.item.name
        self.inputs: list[Input] = []
        self.params: list[Parameter | Const] = []
        self.subcells: list = []
        self.outputs: dict[str, tuple[Equation, Span]] = {}
        self.called: Span | None = None
        scope = Scope(item.module, heads=heads, clock=clock)
        scope.cell_name = self.cell
        self.cx, self.scope = cx, scope
        self.bind_header(header)
        if self.item.heads is not None:
            self.own_heads = True
            own = cx.dim(size(cx, scope, self.item.heads), self.item.heads.span, text(self.item.heads))
            scope.heads = (*heads, own)
        super().__init__(cx, scope, self.item.body, lambda name: prefix + name)
        if not self.outputs and not any(isinstance(s, t.Output) for s in self.item.body):
            cx.reporter.error("output_missing", self.item.head, cell=self.cell)

    def bind_header(self, header: dict[str, Value]) -> None:
        cx, scope = self.cx, self.scope
        for p in self.header:
            if p.name in scope.names:
                cx.fail("duplicate_dim", p.span, name=p.name)
            if not cx.may_define(scope, p.name, p.span):
                cx.abandon()
            value = header.get(p.name)
            if value is None:
                value = evaluate(cx, scope, p.value)
            if not isinstance(value, (Num, Fn, Lib)):
                cx.fail("not_constant", p.span, what=f"the header argument `{p.name}`")
            scope.names[p.name] = value

    # -- statements -----------------------------------------------------------
    def other(self, s: t.Statement) -> None:
        match s:
            case t.Declare():
                for d in s.decls:
                    self.guard(self.declare, s, d)
            case t.Uses():
                from .subcells import SubCells

                for use in s.items:
                    self.guard(SubCells.declare, self, use)
            case t.Output():
                for p in s.ports:
                    self.guard(self.output, p)

    def declare(self, s: t.Declare, d: t.Decl) -> None:
        cx, scope = self.cx, self.scope
        if not cx.may_define(scope, d.name, d.span):
            scope.names.setdefault(d.name, Failed())
            return
        try:        # until it is complete the name is unknown, so that `x: [x]` is an error
            port = self.port(s, d)
        except Abandon:
            scope.names[d.name] = Failed()
            raise
        scope.names[d.name] = port

    def port(self, s: t.Declare, d: t.Decl) -> Port:
        cx = self.cx
        type = declared(cx, self.scope, d.type, d.name, self.own_heads, self.cell)
        if s.draw is not None and s.role != "param":
            cx.fail("random_here", s.draw.span)
        if d.indices and s.role in ("input", "state"):
            cx.fail("const_formula", d.span, name=d.name, indices=len(d.indices), shape=show(type.type.shape))
        match s.role:
            case "input":
                port = Input(self, d, type, self.default(d))
                self.inputs.append(port)
            case "param":
                if self.item.kind == "program":
                    cx.fail("program_param", d.span)
                if d.value is None and s.draw is None:
                    cx.fail("param_without_init", d.span, name=d.name)
                if type.type.kind not in ("real", "complex"):
                    cx.fail("kind_mismatch", d.span, what=f"the parameter `{d.name}`", expected="real or complex",
                            actual=type.type.kind)
                port = Parameter(self, d, type, s.draw)
                self.params.append(port)
            case "const":
                port = Const(self, d, type)
                self.params.append(port)
            case "state":
                if d.value is None:
                    cx.fail("init_missing", d.span, name=d.name, shape=show(type.type.shape))
                if type.group is not None:
                    cx.fail("not_yet", d.span, what="a state with fewer groups than heads",
                            instead="declare it without `heads`")
                port = State(self, d, type)
        return port

    def default(self, d: t.Decl) -> float:
        if d.value is None:
            return 0.0
        v = evaluate(self.cx, self.scope, d.value)
        if not isinstance(v, Num) or v.kind == "complex":
            self.cx.fail("input_default", d.span, name=d.name, text="value")
        return float(v.value)

    def assign(self, target: t.Target, compute, source: t.Expr) -> None:
        cx = self.cx
        state = self.scope.find(target.name)
        if isinstance(state, Failed):
            cx.abandon()
        if state is None:
            cx.unknown("unknown_name", target.name, target.span,
                       [n for n in self.scope.visible() if isinstance(self.scope.find(n), State)])
        if not isinstance(state, State):
            role = state.role if isinstance(state, Entity) else "no state"
            cx.fail("assign_not_state", target.span, name=target.name, role=role)
        if len(target.subs) != 1 or isinstance(target.subs[0], t.Slice):
            cx.fail("target_indices", target.span, name=target.name, expected="`[t]`")
        sub = target.subs[0]
        if not (isinstance(sub, t.Name) and sub.id == "t"):
            cx.fail("assign_past", target.span)
        if state.equation is not None:
            cx.fail("assigned_twice", target.span, name=f"{target.name}[t]",
                    notes=[(state.equation.span, "first here")])
        d = state.declared

        def value() -> Val:
            with cx.step(target.span):
                out = cx.coerce(compute(d), d.type, d.heads, target.name, target.span)
            cx.prefer(out, f"{state.full}.next")
            return out

        state.equation = Equation(cx, f"{state.full}[t]", target.span, value)
        self.parts.append((source, state.equation))

    def output(self, p: t.Param) -> None:
        cx, scope = self.cx, self.scope
        if p.name in self.outputs:
            cx.fail("output_twice", p.span, name=p.name)
        if p.value is not None:
            equation = self.local(p.name, p.type, lambda d: evaluate(cx, scope, p.value), p.span, p.value)
        else:
            equation = Equation(cx, f"output {p.name}", p.span, lambda: self.shown(p))
            self.parts.append((p, equation))

        def value() -> Val:
            x = equation.force()
            return cx.tensor(x, p.span)

        self.outputs[p.name] = (Equation(cx, f"output {p.name}", p.span, value), p.span)

    def shown(self, p: t.Param) -> Value:
        """The value of `output name` without `=`: a state or an input at [t], or a local."""
        cx, found = self.cx, self.scope.find(p.name)
        if found is None:
            cx.unknown("output_undefined", p.name, p.span, self.scope.visible())
        with cx.step(p.span):
            x = found.read(0, p.span) if isinstance(found, (Input, State)) else \
                found.bare(cx, p.span) if isinstance(found, Entity) else found
            d = declared(cx, self.scope, p.type, p.name, self.own_heads, self.cell) if p.type else None
            return self.settled(x, d, p.name, p.span)

    # -- finishing --------------------------------------------------------------
    def finish(self) -> None:
        """Force everything, so that every error is found; sub-cells too."""
        self.force_all()
        for p in self.params:
            if isinstance(p, Parameter):
                self.guard(p.initial_value.force)
            else:
                self.guard(p.bare, self.cx, p.span)
        for e in list(self.scope.names.values()):
            if isinstance(e, State):
                self.guard(e.initial_value.force)
                self.guard(e.now)
        for equation, _ in self.outputs.values():
            self.guard(equation.force)
        for sub in self.subcells:
            sub.finish()

    def all_instances(self) -> Iterator[Instance]:
        """This and all sub-cells, theirs too."""
        yield self
        for sub in self.subcells:
            for inst in sub.instances:
                yield from inst.all_instances()

    def all_params(self) -> list[Parameter | Const]:
        """Own and sub-cells' parameters, and consts that are supplied, in textual order."""
        own = [p for p in self.params if isinstance(p, Parameter) or p.decl.value is None]
        return own + [p for sub in self.subcells for inst in sub.instances for p in inst.all_params()]


