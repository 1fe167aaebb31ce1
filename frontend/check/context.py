"""What one elaboration shares: the builder, the reporter, the dimensions; and
the rules by which values meet: kinds, alignment of axes by name, casts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from ...ir.build import Builder
from ...ir.ops import OPS
from ...ir.types import INT, Dim, Span, Type
from ..diagnostics import Abandon, Reporter, did_you_mean
from .dims import Dims
from .records import Drawing, StateRecord, head
from .scope import RESERVED, Clock, Scope
from .values import List, Many, Num, Val, Value, show

if TYPE_CHECKING:
    from .types import Declared

DEEPEST = 600               # nested evaluations: equations in reverse order, functions in functions
MOST_STEPS = 100_000        # expressions evaluated, so that no text can unroll for ever
LONGEST_LAG = 1024
MOST_ELEMENTS = 2**40
RANK = {"bool": 0, "int": 1, "real": 2, "complex": 3}
ORDERED = ("bool", "int", "real")
NUMBERS = (*ORDERED, "complex")


class Context:
    """`sample`: sizes are made up, so errors that depend on them are left out."""

    def __init__(self, reporter: Reporter, builtins: Iterable[str], sample: bool = False):
        self.reporter, self.sample = reporter, sample
        self.builtins = frozenset(builtins)
        self.b = Builder()
        self.dims = Dims()
        self.memo: dict = {}                # calls of functions without draws
        self.sites = 0                      # random draws so far
        self.resolving: list[str] = []          # equations being resolved
        self.calling: list[str] = []        # functions being inlined
        self.drawing: Drawing | None = None     # set inside `~`
        self.body, self.init = self.b, Builder()
        self.preferred: dict[str, str] = {}     # body nodes and the names that the text gives them
        self.states: dict[str, StateRecord] = {}
        self.ports: dict[str, Declared] = {}    # what inputs, parameters and states are declared as
        self.steps = self.depth = 0

    # -- errors -----------------------------------------------------------
    def fail(self, name: str, span: Span | None, /, **fields) -> NoReturn:
        self.reporter.fail(name, span, **fields)

    def fail_sized(self, name: str, span: Span | None, /, **fields) -> None:
        """An error that depends on sizes: nothing happens while sizes are made up."""
        if not self.sample:
            self.reporter.fail(name, span, **fields)

    def fail_static(self, span: Span, what: str) -> NoReturn:
        """An initial value reads `what`, which is not known then."""
        self.fail("init_not_static", span, name=self.resolving[-1] if self.resolving else "this", what=what)

    def abandon(self) -> NoReturn:
        raise Abandon

    def may_define(self, scope: Scope, name: str, span: Span) -> bool:
        error = ("reserved_name" if name in RESERVED else "shadows_builtin" if name in self.builtins else
                 "duplicate_name" if scope.find(name) is not None or name in scope.module.functions else None)
        if error:
            self.reporter.error(error, head(span, name), name=name)
        return error is None

    def unknown(self, error: str, name: str, span: Span, candidates: Iterable[str], **fields) -> NoReturn:
        self.fail(error, span, name=name, help=did_you_mean(name, candidates), **fields)

    @contextmanager
    def step(self, span: Span):
        """Around each evaluation: nodes made inside get `span`, and work is bounded."""
        self.steps += 1
        self.depth += 1
        before, self.b.span = self.b.span, span
        try:
            if self.depth > DEEPEST:
                self.fail("too_deep", span, limit=DEEPEST)
            if self.steps > MOST_STEPS:
                self.fail("unrolled_too_long", span, limit=MOST_STEPS)
            yield
        finally:
            self.depth -= 1
            self.b.span = before

    # -- regions and states -------------------------------------------------
    @property
    def init_region(self) -> bool:
        return self.b is self.init

    @contextmanager
    def region(self, builder: Builder):
        before, self.b = self.b, builder
        try:
            yield
        finally:
            self.b = before

    def prefer(self, x: Value, name: str) -> None:
        """Call the node as the text does (the first name counts)."""
        if isinstance(x, Val) and self.b is self.body and OPS[self.b.by_name[x.node].op].group != "leaf":
            self.preferred.setdefault(x.node, name)

    def time(self, clock: Clock) -> Val:
        """The step index: a state that counts."""
        def following() -> str:
            return self.b.op("add", self.b.read("state", clock.index, INT), self.b.literal(1, "int"))

        if clock.index not in self.states:
            self.states[clock.index] = StateRecord(clock.index, INT, lambda: self.b.literal(0, "int"), following,
                                                   reverse=clock.reverse)
        return self.val(self.b.read("state", clock.index, INT))

    def lagged(self, name: str, type: Type, lag: int, init: Callable[[], str], value: Callable[[], str],
               span: Span, clock: Clock) -> str:
        """The node that reads `name` `lag` steps back, through the states name@1, name@2, ...:
        name@1's next is `value`."""
        if lag > LONGEST_LAG:
            self.fail("lag_too_long", span, name=name, lag=lag, limit=LONGEST_LAG)
        for k in range(1, lag + 1):
            this, before = f"{name}@{k}", f"{name}@{k - 1}"
            following = value if k == 1 else lambda before=before: self.b.read("state", before, type)
            self.states.setdefault(this, StateRecord(this, type, init, following, reverse=clock.reverse))
        return self.b.read("state", f"{name}@{lag}", type)

    # -- making values ------------------------------------------------------
    def val(self, node: str, heads: int = 0) -> Val:
        return Val(node, self.b.type(node), heads)

    def literal(self, x: Num, kind: str | None = None) -> Val:
        kind = kind or x.kind
        value = x.value
        if kind == "int" and isinstance(value, float):
            raise AssertionError("a real number as int")
        return self.val(self.b.literal(value, kind))

    def tensor(self, x: Value, span: Span) -> Val:
        """A single value as a node: numbers become literals, lists are stacked."""
        match x:
            case Val():
                return x
            case Num():
                return self.literal(x)
            case List(items):
                return self.stack([self.tensor(i, span) for i in items], span, "the list")
            case Many(items, what):
                self.fail("tuple_as_value", span, name=what, count=len(items))
        self.fail("not_a_value", span, name=x.name, what="a function")

    def single(self, x: Value, span: Span) -> Num | Val:
        return x if isinstance(x, Num) else self.tensor(x, span)

    def stack(self, items: list[Val], span: Span, what: str, dim: Dim | None = None) -> Val:
        """Values of one shape along a new first axis."""
        from .numbers import number

        items = self.same_kind(items, span, what, allowed=NUMBERS)
        first = max(items, key=lambda v: len(v.shape))
        for x in items:
            if x.shape and x.shape != first.shape:
                self.fail("concat_mismatch", span, what=what, left=show(first.shape), right=show(x.shape))
        lead = self.joint_heads(items)
        items = [self.spread(x, lead, first.shape) for x in items]
        dim = dim or self.dims.dim(number(len(items)).poly, len(items))
        return self.val(self.b.stack(tuple(x.node for x in items), len(lead), dim), len(lead))

    # -- kinds ----------------------------------------------------------------
    def cast(self, x: Val, kind: str) -> Val:
        """bool -> int -> real -> complex; literals and choices between literals are cast in place."""
        if x.kind == kind:
            return x
        if kind == "complex":
            x = self.cast(x, "real")
            return self.val(self.b.op("complex", x.node, self.b.literal(0.0)), x.heads)
        n = self.b.by_name[x.node]
        match n.op:
            case "literal":
                return self.val(self.b.literal(n.attr("value"), kind))
            case "broadcast" if self.b.by_name[n.args[0]].op == "literal":
                inner = self.cast(self.val(n.args[0]), kind)
                return self.val(self.b.broadcast(inner.node, x.type.shape, n.attr("axes")), x.heads)
            case "stack" if all(self._is_literal(a) for a in n.args):
                items = tuple([self.cast(self.val(a), kind).node for a in n.args])
                return self.val(self.b.stack(items, n.attr("axis"), x.type.shape[n.attr("axis")]), x.heads)
            case "select" if all(self._is_literal(a) for a in n.args[1:]):
                a, b = [self.cast(self.val(a), kind).node for a in n.args[1:]]
                return self.val(self.b.op("select", n.args[0], a, b), x.heads)
        if kind == "int" and x.kind == "bool" or kind == "real":
            return self.val(self.b.op(kind, x.node), x.heads)
        raise AssertionError(f"cast of {x.kind} to {kind}")

    def _is_literal(self, node: str) -> bool:
        n = self.b.by_name[node]
        return n.op == "literal" or n.op == "broadcast" and self.b.by_name[n.args[0]].op == "literal"

    def same_kind(self, items: Iterable[Num | Val], span: Span, what: str, least: str = "bool",
                  allowed: tuple[str, ...] = ORDERED) -> list[Val]:
        """Cast to the largest kind among the operands (and `least`)."""
        items = list(items)
        kind = max([least, *(x.kind for x in items)], key=RANK.__getitem__)
        if kind == "complex" and kind not in allowed:
            self.fail("complex_value", span, what=what)
        if kind not in allowed:
            self.fail("kind_mismatch", span, what=what, expected=" or ".join(allowed), actual=kind)
        return [self.literal(x, kind) if isinstance(x, Num) else self.cast(x, kind) for x in items]

    # -- alignment ------------------------------------------------------------
    def joint_heads(self, items: Iterable[Val]) -> tuple[Dim, ...]:
        return max((x.lead for x in items), key=len)

    def joint_shape(self, items: list[Val], span: Span, what: str) -> tuple[Dim, ...]:
        """The shape that all operands fit in, by the names of their axes."""
        widest = max(items, key=lambda x: len(x.shape)).shape
        for x in items:
            if x.shape == widest or not x.shape:
                continue
            for shape in (x.shape, widest):
                twice = next((d for d in shape if shape.count(d) > 1), None)
                if twice and set(x.shape) <= set(widest):
                    self.fail("ambiguous_axis", span, dim=twice.name, shape=show(shape))
            if not set(x.shape) <= set(widest):
                other = next(y.shape for y in items if y.shape == widest)
                left, right = (x.shape, other) if items.index(x) == 0 else (other, x.shape)
                self.fail("shape_mismatch", span, what=what, left=show(left), right=show(right))
        return widest

    def spread(self, x: Val, lead: tuple[Dim, ...], shape: tuple[Dim, ...]) -> Val:
        """Broadcast to heads and a joint shape (transposing where the order differs)."""
        at = len(lead)
        if x.heads == at and x.shape == shape:
            return x
        axes = range(at, at + len(shape)) if x.shape == shape else [at + shape.index(d) for d in x.shape]
        return self.val(self.b.broadcast(x.node, (*lead, *shape), (*range(x.heads), *axes)), at)

    def aligned(self, items: Iterable[Val], span: Span, what: str) -> list[Val]:
        items = list(items)
        shape, lead = self.joint_shape(items, span, what), self.joint_heads(items)
        return [self.spread(x, lead, shape) for x in items]

    def op(self, op: str, *items: Val, span: Span, what: str | None = None, hint: str | None = None) -> Val:
        """A pointwise operation on values of the right kind."""
        assert OPS[op].group in ("pointwise", "complex")
        items = self.aligned(items, span, what or f"`{op}`")
        return self.val(self.b.op(op, *(x.node for x in items), hint=hint), max(x.heads for x in items))

    def real(self, op: str, *items: Value, span: Span, what: str | None = None) -> Val:
        """A pointwise operation on reals, and on complex values where it takes them."""
        allowed = NUMBERS if "complex" in OPS[op].kinds else ORDERED
        items = self.same_kind([self.single(x, span) for x in items], span, what or f"`{op}`", "real", allowed)
        return self.op(op, *items, span=span, what=what)

    def coerce(self, x: Value, type: Type, heads: int, name: str, span: Span) -> Val:
        """`x` as a value of a declared type: scalars spread, bool and int become real."""
        v = self.tensor(x, span)
        if v.heads > heads:
            self.fail("shared_heads", span, name=name, heads=v.lead[-1].name)
        shape = type.shape[heads:]
        if v.shape and v.shape != shape:
            self.fail("declared_shape", span, name=name, declared=show(shape), actual=show(v.shape))
        if RANK[v.kind] > RANK[type.kind]:
            self.fail("declared_kind", span, name=name, declared=type.kind, actual=v.kind)
        if v.kind != type.kind:
            v = self.cast(v, type.kind)
        return self.spread(v, type.shape[:heads], shape)

    # -- numbers --------------------------------------------------------------
    def integer(self, x: Value, span: Span, what: str) -> int:
        if not isinstance(x, Num) or x.kind in ("bool", "complex"):
            self.fail("not_constant", span, what=what)
        if isinstance(x.value, float) and not x.value.is_integer():
            self.fail_sized("size_not_integer", span, text=what, value=x.value)
        return int(x.value) if abs(x.value) != float("inf") else self.fail("not_constant", span, what=what)

    def dim(self, x: Value, span: Span, text: str) -> Dim:
        """A number as a dimension."""
        from .dims import Poly

        if not isinstance(x, Num) or x.kind in ("bool", "complex"):
            self.fail("size_unknown", span, name=text)
        if abs(x.value) == float("inf") or isinstance(x.value, float) and not x.value.is_integer():
            self.fail_sized("size_not_integer", span, text=text, value=x.value)
            if abs(x.value) == float("inf"):
                self.fail("size_not_integer", span, text=text, value=x.value)
        size = int(x.value)
        if size < 0:
            if x.poly is None or x.poly.constant is not None:
                self.fail("size_negative", span, text=text, value=size)
            self.fail_sized("size_negative", span, text=text, value=size)
            size = 0
        poly = x.poly if x.poly is not None else (
            Poly.const(size) if float(x.value).is_integer() else Poly.atom(text))
        return self.dims.dim(poly, size)
