"""Names: where they are looked up, and which cannot be defined.

A scope maps names to values (numbers, tensors, functions) or to entities
(`Entity`), which know how they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...ir.types import Dim, Span
from .. import tree
from .values import Fn, Num, Value, describe

if TYPE_CHECKING:
    from .context import Context

RESERVED = ("t", "inf", "pi", "true", "false", "training")


@dataclass
class Module:
    """One file's functions and cells, its own and imported ones."""

    file: str
    functions: dict[str, Fn] = field(default_factory=dict)
    cells: dict[str, CellItem] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)         # functions inlined so far, so checked

    def names(self) -> Iterator[str]:
        yield from self.functions
        yield from self.cells


@dataclass(frozen=True)
class CellItem:
    """A cell's text and the module that it sees."""

    item: tree.Cell
    module: Module = field(repr=False, compare=False)

    @property
    def header(self) -> tuple[tree.Param, ...]:
        """The header's arguments; `heads N` brings N along if it is not among them."""
        cell = self.item
        if isinstance(cell.heads, tree.Name) and cell.heads.id not in [p.name for p in cell.params]:
            return (*cell.params, tree.Param(cell.heads.id, None, None, cell.heads.span))
        return cell.params


@dataclass(frozen=True)
class Clock:
    """`index`: the state that counts the steps; `reverse`: from the last step to the first."""

    index: str = "t"
    reverse: bool = False


class Entity:
    """Something declared. `role` names it in messages, `timed` says whether it
    takes a time bracket, `span` where it was declared."""

    role = "a name"
    timed = False
    span: Span | None = None

    def bare(self, cx: Context, span: Span) -> Value:
        """Its value where it is written without brackets."""
        raise NotImplementedError

    def at(self, cx: Context, scope: Scope, sub: tree.Expr, span: Span) -> Value:
        """Its value where it is written `name[sub]` (only if `timed`)."""
        raise NotImplementedError


class Failed(Entity):
    """A name whose declaration has an error, reported already."""

    timed = True

    def bare(self, cx, span):
        cx.abandon()

    def at(self, cx, scope, sub, span):
        cx.abandon()

    def call(self, cx, scope, axes, e):
        cx.abandon()

    def member(self, cx, scope, position, e):
        cx.abandon()


class Scope:
    """`heads`: of the cell that this is part of, after those of the cells around it; `clock`: how time runs
    there; `caller`: for a function's scope, where it was called (its names cannot be seen)."""

    def __init__(self, module: Module, parent: Scope | None = None, *, heads: tuple[Dim, ...] = (),
                 clock: Clock | None = None, caller: Scope | None = None):
        self.module, self.parent, self.caller = module, parent, caller
        above = parent or caller
        self.clock = clock or (above.clock if above is not None else Clock())
        self.heads = heads or (parent.heads if parent is not None else ())
        self.names: dict[str, Value | Entity] = {}
        self.hidden: dict[str, str] = {}    # names that cannot be seen from here: error class to report

    def find(self, name: str) -> Value | Entity | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def hides(self, name: str) -> str | None:
        """The error class for a name that exists but cannot be seen from here."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.hidden:
                return scope.hidden[name]
            if scope.caller is not None and scope.caller.find(name) is not None:
                return "in_function"
            scope = scope.parent
        return None

    def visible(self) -> Iterator[str]:
        """All names that may be written here, built-in ones apart."""
        scope: Scope | None = self
        while scope is not None:
            yield from scope.names
            scope = scope.parent
        yield from self.module.functions

    def define(self, cx: Context, name: str, what: Value | Entity, span: Span) -> bool:
        """Enter a name; reports reserved, built-in and already known names."""
        if not cx.may_define(self, name, span):
            return False
        self.names[name] = what
        return True


def role_of(what: Value | Entity) -> str:
    if isinstance(what, Entity):
        return what.role
    return "a number of the header" if isinstance(what, Num) else describe(what)
