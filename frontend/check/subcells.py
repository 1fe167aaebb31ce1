"""Sub-cells: `use f = gru(D, H)`, `f(x[t])`, `f.h[t-1]`, and arrays of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...ir.types import Span
from .. import tree as t
from ..diagnostics import Abandon
from .block import Equation
from .brackets import lag_of, mentions
from .calls import bind
from .context import Context
from .expr import evaluate
from .scope import CellItem, Clock, Entity, Failed, Scope
from .types import Declared
from .values import Many, Num, Val, Value, show

if TYPE_CHECKING:
    from .instance import Instance

MOST_SUBCELLS = 1024


class SubCells(Entity):
    """One `use`: a sub-cell, or an array of them."""

    role = "a sub-cell"

    def __init__(self, parent: Instance, use: t.Use):
        self.parent, self.cx, self.use, self.span = parent, parent.cx, use, use.span
        self.name = use.name
        self.instances: list[Instance] = []

    @staticmethod
    def declare(parent: Instance, use: t.Use) -> None:
        """Enter `use` in its cell's scope; parameters and states appear at once."""
        cx, scope = parent.cx, parent.scope
        if not cx.may_define(scope, use.name, use.span):
            return
        self = SubCells(parent, use)
        try:
            self.build()
        except Abandon:
            scope.names[use.name] = Failed()
            raise
        scope.names[use.name] = self
        parent.subcells.append(self)

    def build(self) -> None:
        from .instance import Instance

        cx, use, parent = self.cx, self.use, self.parent
        item = parent.scope.module.cells.get(use.callee)
        if item is None:
            cx.unknown("unknown_cell", use.callee, use.span, parent.scope.module.cells)
        if item.item.kind == "program":
            cx.fail("program_as_cell", use.span, name=use.callee)
        above, path = parent, [use.callee]
        while above is not None:
            path.insert(0, above.cell)
            if above.item is item.item:
                cx.fail("recursive_cell", use.span, path=" -> ".join(path))
            above = above.owner.parent if above.owner else None
        header = self.header(item)
        prefixes = [f"{parent.prefix}{use.name}."]
        if use.count is not None:
            n = cx.integer(evaluate(cx, parent.scope, use.count), use.count.span, "the number of sub-cells")
            if n > MOST_SUBCELLS:
                cx.fail("repeat_too_long", use.count.span, count=n, limit=MOST_SUBCELLS)
            prefixes = [f"{parent.prefix}{use.name}.{j}." for j in range(max(0, n))]
        with cx.step(use.span):
            for prefix in prefixes:
                clock = parent.scope.clock
                if use.reverse:
                    clock = Clock(f"{prefix}t", not clock.reverse)
                self.instances.append(Instance(cx, item, header, prefix, parent.scope.heads, self, clock))

    def header(self, item: CellItem) -> dict[str, Value]:
        cx, use = self.cx, self.use
        bound = bind(cx, use.callee, [p.name for p in item.header], use.args, use.span)
        header = {}
        for p in item.header:
            if p.name in bound:
                header[p.name] = evaluate(cx, self.parent.scope, bound[p.name])
            elif p.value is None:
                cx.fail("missing_argument", use.span, argument=p.name, name=use.callee)
        return header

    # -- calling ----------------------------------------------------------------
    def bare(self, cx, span):
        cx.fail("not_a_value", span, name=self.name, what="a sub-cell")

    def pick(self, cx: Context, scope: Scope, position: t.Expr | t.Slice | None, span: Span) -> Instance:
        """The sub-cell meant by `f` or `layer[j]`."""
        if self.use.count is None:
            if position is not None:
                cx.fail("not_an_array", span, name=self.name)
            return self.instances[0]
        if position is None:
            cx.fail("cell_array_index", span, name=self.name)
        j = evaluate(cx, scope, position) if not isinstance(position, t.Slice) else None
        if not isinstance(j, Num) or j.kind in ("bool", "complex") or j.value != int(j.value):
            cx.fail("cell_index_constant", span, name=self.name)
        if not 0 <= j.value < len(self.instances):
            cx.fail_sized("index_out_of_range", span, index=j.value, dim=self.name, size=len(self.instances))
            cx.abandon()
        return self.instances[int(j.value)]

    def call(self, cx: Context, scope: Scope, axes: tuple, e: t.Call) -> Value:
        if e.loop:
            cx.fail("generator_misplaced", e.span)
        if len(axes) > 1:
            cx.fail("axis_not_allowed", e.span, name=self.name)
        if cx.init_region:
            cx.fail_static(e.span, f"the sub-cell `{self.name}`")
        inst = self.pick(cx, scope, axes[0] if axes else None, e.callee.span)
        if inst.called is not None:
            cx.fail("called_twice", e.span, name=inst.prefix[:-1])
        inst.called = e.span
        bound = bind(cx, self.name, [p.name for p in inst.inputs], e.args, e.span)
        for port in inst.inputs:
            if port.name not in bound:
                cx.fail("missing_argument", e.span, argument=port.name, name=self.name)
            port.supply = Equation(cx, port.full, e.span, self.supplier(inst, port, scope, bound[port.name]))
        outputs = [self.outward(inst, equation.force()) for equation, _ in inst.outputs.values()]
        return outputs[0] if len(outputs) == 1 else Many(tuple(outputs), self.name)

    def supplier(self, inst: Instance, port, scope: Scope, e: t.Expr):
        """Computes an argument as the sub-cell's input, of the stored type."""
        def value() -> Val:
            cx, d = self.cx, port.declared
            own = Declared(d.stored, d.heads, None, d.facts)
            with cx.step(e.span):
                x = cx.tensor(evaluate(cx, scope, e), e.span)
                above = self.parent.scope.heads
                if d.heads > len(above) and x.shape:    # the caller's first axis are the sub-cell's heads
                    if x.shape[0] != own.lead[-1]:
                        cx.fail("declared_shape", e.span, name=port.name, declared=show(own.type.shape[len(above):]),
                                actual=show(x.shape))
                    x = cx.spread(x, above, x.shape)
                    x = Val(x.node, x.type, d.heads)
                return cx.coerce(x, own.type, own.heads, port.name, e.span)
        return value

    def outward(self, inst: Instance, x: Val) -> Val:
        """A value of the sub-cell as its caller sees it: its own heads become an axis."""
        return Val(x.node, x.type, min(x.heads, len(self.parent.scope.heads)))

    def find_call(self, inst: Instance) -> None:
        """Force the equation that calls `inst`, which was not reached yet."""
        for source, part in list(self.parent.parts):
            equation = part if isinstance(part, Equation) else part.equation
            if inst.called is None and equation.state == "new" and any(
                    isinstance(n, t.Call) and mentions(n.callee, self.name) for n in t.walk(source)):
                part.force()
        if inst.called is None:
            self.cx.fail("never_called", self.span, name=inst.prefix[:-1])

    def finish(self) -> None:
        for inst in self.instances:
            if inst.called is None and not self.cx.reporter.diagnostics:
                self.cx.reporter.error("never_called", self.span, name=inst.prefix[:-1])
            if inst.called is not None:
                for port in inst.inputs:
                    if port.supply is not None:
                        inst.guard(port.supply.force)
                inst.finish()

    # -- members ------------------------------------------------------------------
    def member(self, cx: Context, scope: Scope, position: t.Expr | None, e: t.Attr) -> Member:
        inst = self.pick(cx, scope, position, e.base.span)
        found = inst.scope.names.get(e.name)
        from .ports import State

        if isinstance(found, Failed):
            cx.abandon()
        if e.name not in inst.outputs and not isinstance(found, State):
            names = [*inst.outputs, *(n for n, x in inst.scope.names.items() if isinstance(x, State))]
            cx.unknown("unknown_attribute", e.name, e.span, names, cell=self.name)
        return Member(self, inst, e.name, found if isinstance(found, State) else None)


class Member(Entity):
    """`f.h`: a state or an output of a sub-cell."""

    role = "a sub-cell's state or output"
    timed = True

    def __init__(self, owner: SubCells, inst: Instance, name: str, state):
        self.owner, self.inst, self.name, self.state = owner, inst, name, state

    def bare(self, cx, span):
        cx.fail("element_of_output", span, name=self.name, cell=self.owner.name)

    def at(self, cx, scope, sub, span):
        full = f"{self.owner.name}.{self.name}"
        lag = lag_of(cx, scope, sub, "t") if not isinstance(sub, t.Slice) else None
        if lag is None:
            cx.fail("element_of_output", span, name=self.name, cell=self.owner.name)
        if lag < 0:
            cx.fail("future_read", span, name=full, lag=-lag)
        if cx.init_region:
            cx.fail_static(span, f"`{full}`")
        if lag and self.owner.use.reverse:
            cx.fail("past_of_reverse", span, name=full, cell=self.owner.name, lag=lag)
        if self.state is not None:
            if lag == 0 and self.inst.called is None:
                self.owner.find_call(self.inst)
            return self.owner.outward(self.inst, self.state.read(lag, span))
        if lag:
            cx.fail("lag_on_local", span, name=full, lag=lag)
        if self.inst.called is None:
            self.owner.find_call(self.inst)
        return self.owner.outward(self.inst, self.inst.outputs[self.name][0].force())
