"""What an expression evaluates to while a cell is elaborated.

Numbers stay numbers (`Num`) until they meet a tensor (`Val`, a node of the
IR); lists, several results and functions are values of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.types import Dim, Type
from .. import tree
from .dims import Poly


@dataclass(frozen=True, slots=True)
class Num:
    """A number known at compile time: bool, int, float or complex. `poly` says which
    dimension it is if it is used as a size (None: not an integer expression)."""

    value: bool | int | float | complex
    poly: Poly | None = None

    @property
    def kind(self) -> str:
        return {bool: "bool", int: "int", float: "real", complex: "complex"}[type(self.value)]


@dataclass(frozen=True, slots=True)
class Val:
    """A node of the IR. The first `heads` axes of `type` are heads: of the outermost
    cell that has any, then of cells in it; `shape` is what the text sees."""

    node: str
    type: Type
    heads: int = 0

    @property
    def kind(self) -> str:
        return self.type.kind

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.type.shape[self.heads:]

    @property
    def lead(self) -> tuple[Dim, ...]:
        """The heads."""
        return self.type.shape[:self.heads]


@dataclass(frozen=True, slots=True)
class List:
    """`[a, b]`, not yet a tensor."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Many:
    """Several results: of split, unstack, a function, a sub-cell. `what` names it in errors."""

    items: tuple[Value, ...]
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class Fn:
    """A function of a text, with the module it was written in; one object per function."""

    item: tree.Function
    module: object

    @property
    def name(self) -> str:
        return self.item.name


@dataclass(frozen=True, slots=True)
class Lib:
    """A built-in function."""

    name: str


Value = Num | Val | List | Many | Fn | Lib


def show(shape) -> str:
    """`[K, V]`"""
    return "[" + ", ".join(d.name for d in shape) + "]"


def describe(value: Value) -> str:
    """For messages: `a function`, `int`, ..."""
    match value:
        case Num() | Val():
            return value.kind
        case Fn() | Lib():
            return "a function"
        case List():
            return "a list"
    return f"{len(value.items)} values"
