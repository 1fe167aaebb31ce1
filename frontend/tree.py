"""Syntax tree: frozen nodes, one class per construct, every node with its span.

Spans do not take part in equality, so that two texts which differ in layout
only (a file and its formatted form) give equal trees. Comments are kept beside
the tree (`File.comments`), by line and column, for the formatter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from ..ir.types import Span


def _span() -> Span:
    return field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Comment:
    """`# text` at a place; `text` keeps the hash sign, without trailing blanks."""

    text: str
    line: int
    column: int


# -- expressions -----------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Name:
    id: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Number:
    """`text` as written; `1i` is imaginary."""

    text: str
    span: Span = _span()

    @property
    def imaginary(self) -> bool:
        return self.text.endswith("i")

    @property
    def value(self) -> float | int:
        text = self.text.rstrip("i")
        return int(text) if text.isdigit() and len(text) < 16 else float(text)


@dataclass(frozen=True, slots=True)
class Array:
    """`[a, b, c]`"""

    items: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Unop:
    """op: `-` or `not`."""

    op: str
    operand: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Binop:
    """op: + - * / // % ^ @ @max @min @lse @argmax == != <= >= < > and or."""

    op: str
    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Select:
    """`then if cond else other`"""

    then: Expr
    cond: Expr
    other: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Slice:
    """`low:high` inside brackets; either may be missing."""

    low: Expr | None
    high: Expr | None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Index:
    """`base[subs]`: a time bracket, an element, a slice, or a reduction's axis."""

    base: Expr
    subs: tuple[Expr | Slice, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Arg:
    """An argument of a call, `name=value` if `name` is given."""

    name: str | None
    value: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Loop:
    """`for var in count` of a generator."""

    var: str
    count: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Call:
    callee: Expr
    args: tuple[Arg, ...]
    loop: Loop | None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Attr:
    """`base.name`: a sub-cell's member, or `.T`."""

    base: Expr
    name: str
    span: Span = _span()


Expr = Name | Number | Array | Unop | Binop | Select | Index | Call | Attr


# -- types and declarations -------------------------------------------------
@dataclass(frozen=True, slots=True)
class Modifier:
    """What may follow a shape. `word`: `in` (brackets like `(]`, args low and
    high), a comparison sign (one arg), `heads` (one arg), `shared`, or the name
    of a fact such as `symmetric`."""

    word: str
    args: tuple[Expr, ...]
    brackets: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class TypeExpr:
    """`int [H, 2*K] in (0, 1) shared`; kind None means real."""

    kind: str | None
    dims: tuple[Expr, ...]
    modifiers: tuple[Modifier, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Decl:
    """One declared name: `A[n, k]: [N, N] = value`."""

    name: str
    indices: tuple[str, ...]
    type: TypeExpr
    value: Expr | None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Declare:
    """role: input | param | const | state; `draw` covers the decls without value."""

    role: str
    decls: tuple[Decl, ...]
    draw: Expr | None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Param:
    """Of a header, a function or an `output` line: `name: type = value`."""

    name: str
    type: TypeExpr | None
    value: Expr | None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Output:
    ports: tuple[Param, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Use:
    """`name[count] = reverse callee(args)`"""

    name: str
    count: Expr | None
    reverse: bool
    callee: str
    args: tuple[Arg, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Uses:
    items: tuple[Use, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Target:
    """Left of `=` or `~`: `name[subs]: type`."""

    name: str
    subs: tuple[Expr | Slice, ...] | None
    type: TypeExpr | None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Define:
    """`a, b = x, y` or `a, b = f(x)`"""

    targets: tuple[Target, ...]
    values: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Draw:
    """`a, b ~ dist` in a body."""

    targets: tuple[Target, ...]
    dist: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Repeat:
    """`repeat var in count { body }`"""

    var: str
    count: Expr
    body: tuple[Statement, ...]
    span: Span = _span()


Statement = Declare | Output | Uses | Repeat | Define | Draw


# -- items -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Import:
    names: tuple[str, ...]
    path: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Function:
    """`fn name(params) = results` or with a block of `defines` and `return results`
    (`block` tells which was written)."""

    name: str
    params: tuple[Param, ...]
    block: bool
    defines: tuple[Define | Draw, ...]
    results: tuple[Expr, ...]
    derivative: tuple[Expr, ...] | None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Cell:
    """kind: cell | program. `span` is the whole item, `head` the line that names it."""

    kind: str
    name: str
    params: tuple[Param, ...]
    heads: Expr | None
    body: tuple[Statement, ...]
    span: Span = _span()
    head: Span = _span()


@dataclass(frozen=True, slots=True)
class File:
    """A parsed text. `name`: path or `<text>`, as in the spans."""

    items: tuple[Import | Function | Cell, ...]
    comments: tuple[Comment, ...] = field(compare=False)
    name: str = field(compare=False)
    source: str = field(compare=False, repr=False)


def children(node) -> Iterator:
    """The nodes directly under a node, in textual order."""
    for f in fields(node):
        value = getattr(node, f.name)
        for item in value if isinstance(value, tuple) else (value,):
            if hasattr(item, "__dataclass_fields__") and not isinstance(item, (Span, Comment)):
                yield item


def walk(node) -> Iterator:
    """The node and all nodes under it (iteratively: texts may be deep)."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(list(children(node))))
