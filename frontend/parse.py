"""Text to syntax tree.

Lark's LALR(1) parser with the basic lexer; a post-lexing step keeps only those
newlines that end a statement. Everything here is iterative, so that no text
can exhaust Python's stack; texts nested deeper than `MAX_DEPTH` are refused,
which lets the rest of the front end recurse freely.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lark import Lark, Token, Transformer_NonRecursive, UnexpectedInput, v_args

from ..ir.types import Span
from . import tree as t
from .tables import lalr

MAX_DEPTH = 100

# A newline after one of these ends no statement.
CONTINUES = frozenset(
    "COMMA EQUAL TILDE COLON PLUS MINUS MUL AT CIRCUMFLEX CMP DOT IF ELSE AND OR NOT FOR IN LBRACE DERIVATIVE".split())
OPEN, CLOSE = frozenset(("LPAR", "LSQB")), frozenset(("RPAR", "RSQB"))


class Newlines:
    """Post-lexer: drops newlines inside brackets, after an operator, a comma or
    `{`, and repeated ones; adds one before `}` and at the end where missing.
    A brace closes all brackets, so that one forgotten `)` spoils one statement."""

    always_accept = ("_NL",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth, last = 0, None
        for token in stream:
            if token.type == "_NL":
                if depth == 0 and last is not None and last.type != "_NL" and last.type not in CONTINUES:
                    last = _newline(token)
                    yield last
                continue
            if token.type in ("LBRACE", "RBRACE"):
                depth = 0
            depth = max(0, depth + (token.type in OPEN) - (token.type in CLOSE))
            if token.type == "RBRACE" and last is not None and last.type not in ("_NL", "LBRACE"):
                yield _newline(token)
            last = token
            yield token
        if last is not None and last.type != "_NL":
            yield _newline(last, after=True)


def _newline(at: Token, after: bool = False) -> Token:
    """A newline token of no width, so that spans end with their statement."""
    line, column, pos = (at.end_line, at.end_column, at.end_pos) if after else (at.line, at.column, at.start_pos)
    return Token("_NL", "\n", pos, line, column, line, column, pos)


@cache
def parser() -> Lark:
    """The parser (built once per process)."""
    grammar = (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")
    return lalr(grammar, Newlines())


def comments(source: str) -> tuple[t.Comment, ...]:
    """All comments of a text, in order."""
    found = []
    for number, line in enumerate(source.split("\n"), 1):
        for m in re.finditer(r'"[^"]*"|(#.*)', line):
            if m.group(1):
                found.append(t.Comment(m.group(1).rstrip(), number, m.start() + 1))
    return tuple(found)


def parse(source: str, name: str = "<text>") -> t.File:
    """Parse a text; `name` stands for the file in spans.

    Raises OstinatoError with syntax diagnostics.
    """
    try:
        raw = parser().parse(source)
    except UnexpectedInput as error:
        from .syntax import syntax_errors  # imported where needed: most texts have no errors

        raise syntax_errors(error, source, name) from None
    items = _Build(name).transform(raw)
    file = t.File(items, comments(source), name, source)
    deep = _deeper_than(file, MAX_DEPTH)
    if deep is not None:
        from .syntax import too_deep

        raise too_deep(deep.span, source, name)
    return file


def _deeper_than(root, limit: int):
    """The first node nested deeper than `limit`, if any."""
    stack = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > limit:
            return node
        stack.extend((child, depth + 1) for child in t.children(node))
    return None


@v_args(meta=True)
class _Build(Transformer_NonRecursive):
    """Lark's tree to ours; method names are the grammar's rules and aliases."""

    def __init__(self, file: str):
        super().__init__()
        self.file = file

    def span(self, meta) -> Span:
        if getattr(meta, "empty", True):
            return Span(self.file, 1, 1, 1, 1)
        return Span(self.file, meta.line, meta.column, meta.end_line, meta.end_column)

    # items
    def start(self, meta, c):
        return tuple(c)

    def import_(self, meta, c):
        return t.Import(c[0], str(c[1])[1:-1], self.span(meta))

    def fn(self, meta, c):
        name, params, (block, defines, results), derivative = c
        return t.Function(str(name), params or (), block, defines, results, derivative, self.span(meta))

    def fexpr(self, meta, c):
        return False, (), c[0]

    def fblock(self, meta, c):
        return True, tuple(c[:-1]), c[-1]

    def cell(self, meta, c):
        kind, name, params, heads, body = c
        head = Span(self.file, meta.line, meta.column, name.end_line, name.end_column)
        return t.Cell(kind, str(name), params or (), heads, body, self.span(meta), head)

    def kind(self, meta, c):
        return str(c[0])

    role = kind

    def params(self, meta, c):
        return tuple(c)

    block = exprs = dims = subs = targets = params

    def param(self, meta, c):
        return t.Param(str(c[0]), c[1], c[2], self.span(meta))

    # statements
    def declare(self, meta, c):
        return t.Declare(c[0], tuple(c[1:-1]), c[-1], self.span(meta))

    def output(self, meta, c):
        return t.Output(c[0], self.span(meta))

    def uses(self, meta, c):
        return t.Uses(tuple(c), self.span(meta))

    def use(self, meta, c):
        name, count, reverse, callee, args = c
        return t.Use(str(name), count, reverse is not None, str(callee), args[0] if args else (), self.span(meta))

    def repeat(self, meta, c):
        return t.Repeat(str(c[0]), c[1], c[2], self.span(meta))

    def define(self, meta, c):
        return t.Define(c[0], c[1], self.span(meta))

    def draw(self, meta, c):
        return t.Draw(c[0], c[1], self.span(meta))

    def target(self, meta, c):
        return t.Target(str(c[0]), c[1], c[2], self.span(meta))

    def decl(self, meta, c):
        return t.Decl(str(c[0]), c[1] or (), c[2], c[3], self.span(meta))

    def names(self, meta, c):
        return tuple(map(str, c))

    def type(self, meta, c):
        return t.TypeExpr(str(c[0]) if c[0] else None, c[1] or (), tuple(c[2:]), self.span(meta))

    def modifier(self, meta, c):
        brackets = "".join(x for x in c[1:] if isinstance(x, Token) and x in ("(", ")", "[", "]"))
        args = tuple(x for x in c[1:] if not isinstance(x, Token))
        return t.Modifier(str(c[0]), args, brackets, self.span(meta))

    # expressions
    def select(self, meta, c):
        return t.Select(*c, self.span(meta))

    def binop(self, meta, c):
        return t.Binop(str(c[1]), c[0], c[2], self.span(meta))

    def unop(self, meta, c):
        return t.Unop(str(c[0]), c[1], self.span(meta))

    def index(self, meta, c):
        return t.Index(c[0], c[1], self.span(meta))

    def slice(self, meta, c):
        return t.Slice(c[0], c[1], self.span(meta))

    def call(self, meta, c):
        args, loop = c[1] or ((), None)
        return t.Call(c[0], args, loop, self.span(meta))

    def args(self, meta, c):
        items, var, count = tuple(c[:-2]), c[-2], c[-1]
        return items, None if var is None else t.Loop(str(var), count, count.span)

    def arg(self, meta, c):
        return t.Arg(None, c[0], self.span(meta))

    def named(self, meta, c):
        return t.Arg(str(c[0]), c[1], self.span(meta))

    def attr(self, meta, c):
        return t.Attr(c[0], str(c[1]), self.span(meta))

    def name(self, meta, c):
        return t.Name(str(c[0]), self.span(meta))

    def number(self, meta, c):
        return t.Number(str(c[0]), self.span(meta))

    def array(self, meta, c):
        return t.Array(c[0], self.span(meta))
