"""Declared types: kinds, dimensions, facts."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.types import KINDS, Dim, Type
from .. import tree as t
from ..diagnostics import did_you_mean
from .context import MOST_ELEMENTS, Context
from .expr import evaluate
from .scope import Scope
from .values import Num, show

WORDS = ("nonneg", "symmetric", "orthonormal")


@dataclass(frozen=True)
class Declared:
    """The first `heads` axes of `type` are heads; `group`: the axis that stands in
    the place of the last of them where there are fewer groups than heads."""

    type: Type
    heads: int
    group: Dim | None
    facts: tuple[str, ...]

    @property
    def stored(self) -> Type:
        """The type of the port: with the groups in place of the heads."""
        if not self.group:
            return self.type
        shape = self.type.shape
        return self.type.with_shape((*shape[:self.heads - 1], self.group, *shape[self.heads:]))

    @property
    def lead(self) -> tuple[Dim, ...]:
        return self.type.shape[:self.heads]

    @property
    def shape(self) -> tuple[Dim, ...]:
        """What the text sees."""
        return self.type.shape[self.heads:]


def kind_of(cx: Context, e: t.TypeExpr) -> str:
    kind = e.kind or "real"
    if kind not in KINDS:
        cx.fail("unknown_kind", e.span, name=kind, help=did_you_mean(kind, KINDS))
    return kind


def declared(cx: Context, scope: Scope, e: t.TypeExpr, name: str, own_heads: bool, cell: str) -> Declared:
    """A declaration's type. `own_heads`: the cell itself (not the one that uses it) has heads."""
    kind = kind_of(cx, e)
    dims = [cx.dim(size(cx, scope, d), d.span, text(d)) for d in e.dims]
    lead, group, facts = scope.heads, None, []
    for m in e.modifiers:
        match m.word:
            case "shared" | "heads" if not own_heads:
                cx.fail("heads_missing", m.span, name=name, cell=cell)
            case "shared":
                lead = scope.heads[:-1]
            case "heads":
                group = cx.dim(size(cx, scope, m.args[0]), m.span, text(m.args[0]))
            case _:
                facts.append(fact(cx, scope, m))
    if group is not None and (lead != scope.heads or group == lead[-1]):
        group = None
    if group is not None and (not group.size or lead[-1].size % group.size):
        cx.fail_sized("heads_uneven", e.span, outer=lead[-1].name, size=lead[-1].size, inner=group.name,
                      group=group.size)
    if kind == "complex" and facts:
        cx.fail("complex_value", e.span, what=f"the fact about `{name}`")
    type = Type(kind, lead + tuple(dims))
    if type.numel > MOST_ELEMENTS:
        cx.fail("size_too_large", e.span, shape=show(type.shape), size=type.numel, limit=MOST_ELEMENTS)
    return Declared(type, len(lead), group, tuple(facts))


def size(cx: Context, scope: Scope, e: t.Expr):
    """A size: names that are no numbers get a message about dimensions."""
    if isinstance(e, t.Name) and scope.find(e.id) is None and e.id not in cx.builtins:
        cell = scope.cell_name if hasattr(scope, "cell_name") else None
        if cell:
            names = [n for n in scope.visible() if isinstance(scope.find(n), Num)]
            cx.fail("unknown_dim", e.span, name=e.id, cell=cell, help=did_you_mean(e.id, names))
    value = evaluate(cx, scope, e)
    if not isinstance(value, Num):
        cx.fail("size_unknown", e.span, name=text(e))
    return value


def text(e: t.Expr) -> str:
    return e.id if isinstance(e, t.Name) else e.text if isinstance(e, t.Number) else "of this axis"


def fact(cx: Context, scope: Scope, m: t.Modifier) -> str:
    """Canonical text with numbers for names: `in (0, 2)`, `<= 0`, `symmetric`."""
    if not m.args:
        if m.word not in WORDS:
            cx.unknown("unknown_fact", m.word, m.span, (*WORDS, "shared"))
        return m.word
    bounds = []
    for a in m.args:
        v = evaluate(cx, scope, a)
        if not isinstance(v, Num) or v.kind == "complex":
            cx.fail("not_constant", a.span, what="a bound")
        bounds.append(v.value)
    if m.word != "in":
        return f"{m.word} {bounds[0]}"
    low, high = bounds
    shown = f"{m.brackets[0]}{low}, {high}{m.brackets[1]}"
    if low > high or low == high and m.brackets != "[]":
        if not cx.sample or all(isinstance(a, (t.Number, t.Unop)) for a in m.args):
            cx.fail("bound_order", m.span, interval=shown)
    return f"in {shown}"
