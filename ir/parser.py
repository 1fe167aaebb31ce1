"""Reads the printed form of a cell (see `printer`) back, exactly.

Line by line: a regular expression makes words, small functions take them.
Nothing is evaluated. The result is not verified; that is `verify`'s work.
Blank lines and lines starting with # are allowed.
"""

from __future__ import annotations

import json
import math
import re

from .cell import Attr, Cell, Input, Node, Output, Param, State
from .errors import IRSyntaxError
from .types import KINDS, Dim, Type

_WORD = re.compile(r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*") | (?P<mark>->|[\[\](){},:=])
  | (?P<plain>-?[A-Za-z0-9_](?:[\w.@*+/^%']|-(?!>))*)
)""", re.VERBOSE | re.ASCII)
_INT = re.compile(r"-?[0-9]{1,40}\Z")
_FLOAT = re.compile(r"-?(?:[0-9]+\.[0-9]+(?:e[+-]?[0-9]+)?|[0-9]+e[+-]?[0-9]+|inf)\Z")


def parse_cell(text: str) -> Cell:
    """The cell that `text` prints. Raises IRSyntaxError, with the line, for anything else."""
    return _Parser(text).cell()


class _Line:
    """The words of one line and a position in them."""

    def __init__(self, number: int, text: str):
        self.number, self.words, self.at = number, [], 0
        position, text = 0, text.rstrip()
        while position < len(text):
            m = _WORD.match(text, position)
            if m is None:
                self.fail(f"cannot read {text[position:].strip()[:20]!r}")
            self.words.append((m.lastgroup, m.group(m.lastgroup)))
            position = m.end()

    def fail(self, message: str):
        raise IRSyntaxError(self.number, message)

    @property
    def done(self) -> bool:
        return self.at == len(self.words)

    def peek(self, word: str) -> bool:
        return not self.done and self.words[self.at] in (("mark", word), ("plain", word))

    def accept(self, word: str) -> bool:
        found = self.peek(word)
        self.at += found
        return found

    def expect(self, word: str) -> None:
        if not self.accept(word):
            found = "the end of the line" if self.done else repr(self.words[self.at][1])
            self.fail(f"expected {word!r}, found {found}")

    def end(self) -> None:
        if not self.done:
            self.fail(f"unexpected {self.words[self.at][1]!r}")

    def take(self, what: str) -> tuple[str, str]:
        if self.done or self.words[self.at][0] == "mark":
            self.fail(f"expected {what}")
        self.at += 1
        return self.words[self.at - 1]

    def unquote(self, text: str) -> str:
        try:
            return json.loads(text)
        except ValueError:
            self.fail(f"not a string: {text[:20]}")

    def name(self, what: str = "a name") -> str:
        group, text = self.take(what)
        return self.unquote(text) if group == "string" else text

    def string(self) -> str:
        group, text = self.take("a quoted string")
        return self.unquote(text) if group == "string" else self.fail(f"expected a quoted string, found {text!r}")

    def integer(self) -> int:
        v = self.value()
        return v if type(v) is int else self.fail(f"expected an integer, found {v!r}")

    def value(self, depth: int = 0) -> Attr:
        if self.accept("("):
            if depth > 20:
                self.fail("tuples nested too deeply")
            items = []
            while not self.accept(")"):
                items.append(self.value(depth + 1))
                if not self.accept(","):
                    self.expect(")")
                    break
            return tuple(items)
        group, text = self.take("a value")
        if group == "string":
            return self.unquote(text)
        if text in ("true", "false"):
            return text == "true"
        if text == "nan":
            return math.nan
        if _INT.match(text):
            return int(text)
        if _FLOAT.match(text):
            return float(text)
        self.fail(f"not a value: {text!r}")


class _Parser:
    def __init__(self, text: str):
        rows = enumerate(text.split("\n"), 1)
        self.lines = [_Line(i, row) for i, row in rows if row.strip() and not row.lstrip().startswith("#")]
        self.last = text.count("\n") + 1
        self.sizes: dict[str, Dim] = {}

    def cell(self) -> Cell:
        if not self.lines:
            raise IRSyntaxError(self.last, "expected a cell")
        head, *rest = self.lines
        head.expect("cell")
        fields: dict = {"name": head.name("the cell's name"), "reverse": head.accept("reverse")}
        head.expect("{")
        head.end()
        lists: dict[str, list] = {k: [] for k in ("inputs", "params", "states", "outputs", "sums", "init", "body")}
        region: str | None = None
        closed = False
        for line in rest:
            if closed:
                line.fail("text after the cell's end")
            if line.accept("}"):
                closed = True
            elif len(line.words) == 2 and line.words[1] == ("mark", ":") and line.words[0][1] in ("init", "body"):
                region, line.at = line.words[0][1], 2
            elif region is not None:
                lists[region].append(self.node(line))
            else:
                self.port(line, fields, lists)
            line.end()
        if not closed:
            raise IRSyntaxError(self.last, "the cell is not closed: expected '}'")
        return Cell(**fields, **{k: tuple(v) for k, v in lists.items()})

    def port(self, line: _Line, fields: dict, lists: dict[str, list]) -> None:
        match line.name("a port or a region"):
            case "dims":
                fields["dims"] = self.dims(line)
            case "sizes":
                self.dims(line)
            case "heads":
                fields["heads"] = self.dim(line)
            case "input":
                name, type = self.typed(line)
                default = line.value() if line.accept("default") else 0.0
                if isinstance(default, (str, tuple)):
                    line.fail("a default is a number")
                lists["inputs"].append(Input(name, type, default, self.facts(line)))
            case "param":
                name, type = self.typed(line)
                init = line.name() if line.accept("init") else None
                lists["params"].append(Param(name, type, init, not line.accept("const"), self.facts(line)))
            case "state":
                name, type = self.typed(line)
                way = line.accept("reverse")
                line.expect("=")
                init = line.name()
                line.expect("->")
                lists["states"].append(State(name, type, init, line.name(), self.facts(line), reverse=way))
            case "output" | "sum" as what:
                name = line.name()
                line.expect("=")
                lists[what + "s"].append(Output(name, line.name()))
            case other:
                line.fail(f"{other!r} starts no line here")

    def node(self, line: _Line) -> Node:
        name, type = self.typed(line)
        line.expect("=")
        op = line.name("an operation")
        line.expect("(")
        args = []
        while not line.accept(")"):
            args.append(line.name("an operand"))
            if not line.accept(","):
                line.expect(")")
                break
        attrs = []
        while not line.done:
            key = line.name("an attribute")
            line.expect("=")
            attrs.append((key, line.value()))
        return Node(name, op, tuple(args), tuple(attrs), type)

    def typed(self, line: _Line) -> tuple[str, Type]:
        """`name: kind[dim, ...]`"""
        name = line.name()
        line.expect(":")
        kind = line.name("a kind")
        if kind not in KINDS:
            line.fail(f"no kind is called {kind!r}")
        line.expect("[")
        shape = []
        while not line.accept("]"):
            shape.append(self.dim(line))
            if not line.accept(","):
                line.expect("]")
                break
        return name, Type(kind, tuple(shape))

    def dim(self, line: _Line) -> Dim:
        name = line.name("a dimension")
        return self.sizes.get(name) or line.fail(f"dimension {name!r} has no size; add it to dims or sizes")

    def dims(self, line: _Line) -> tuple[Dim, ...]:
        out = []
        while True:
            name = line.name("a dimension")
            line.expect("=")
            size = line.integer()
            if size < 0 or self.sizes.setdefault(name, Dim(name, size)).size != size:
                line.fail(f"bad or second size {size} for dimension {name!r}")
            out.append(self.sizes[name])
            if not line.accept(","):
                return tuple(out)

    def facts(self, line: _Line) -> tuple[str, ...]:
        if not line.accept("facts"):
            return ()
        out = [line.string()]
        while line.accept(","):
            out.append(line.string())
        return tuple(out)
