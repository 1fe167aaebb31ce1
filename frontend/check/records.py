"""Small records of an elaboration, and questions about spans and nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...ir.build import Builder
from ...ir.cell import Node
from ...ir.types import Dim, Span, Type


@dataclass(frozen=True)
class Drawing:
    """Inside `name ~ dist`: the declared type, if any (with the heads), and the heads."""

    type: Type | None
    lead: tuple[Dim, ...]


@dataclass(frozen=True)
class StateRecord:
    """A state of the cell; the nodes of its initial value and of its value at [t] are found when needed."""

    name: str
    type: Type
    init: Callable[[], str]
    next: Callable[[], str]
    facts: tuple[str, ...] = ()
    span: Span | None = None
    reverse: bool = False


def head(span: Span, name: str) -> Span:
    """The name at the beginning of a declaration's span."""
    return Span(span.file, span.line, span.column, span.line, span.column + len(name))


def is_static(b: Builder, node: str) -> Node | None:
    """The first node under `node` that is no function of params and literals, or None."""
    stack, seen = [node], set()
    while stack:
        n = b.by_name[stack.pop()]
        if n.name in seen:
            continue
        seen.add(n.name)
        if n.op in ("input", "state", "random", "training"):
            return n
        stack.extend(n.args)
    return None
