"""A scanner that accepts any text: for error messages and the formatter.

The parser's own lexer stops at the first character it does not know and drops
comments; this one keeps everything and never fails. The newline rule is the
parser's (`parse.Newlines`): inside `(` or `[`, after an operator or a comma, a
newline ends nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ITEM_WORDS = ("cell", "program", "fn", "import")
ROLE_WORDS = ("input", "param", "const", "state", "output", "use")
STATEMENT_WORDS = (*ROLE_WORDS, "repeat")
KEYWORDS = frozenset((*ITEM_WORDS, *STATEMENT_WORDS, "from", "derivative", "return", "heads", "shared", "in",
                      "if", "else", "and", "or", "not", "for", "reverse"))
OPENING = {"(": ")", "[": "]", "{": "}"}
CLOSING = {v: k for k, v in OPENING.items()}
OPERATORS = frozenset("+ - * / // % ^ @ @max @min @lse @argmax == != <= >= < >".split())
CONTINUES = OPERATORS | frozenset(", = ~ : . if else and or not for in { derivative".split())

_TOKEN = re.compile(r"""
    (?P<newline>\n) | (?P<blank>[ \t\r]+) | (?P<comment>\#[^\n]*) | (?P<string>"[^"\n]*")
  | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?:i(?!\w))?) | (?P<name>[^\W\d]\w*)
  | (?P<sign>@(?:(?:max|min|lse|argmax)\b)?|==|!=|<=|>=|//|[-+*/%^<>=~:.,()\[\]{}]) | (?P<other>.)
""", re.VERBOSE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tok:
    """kind: newline comment string number name keyword sign other end; columns from 1."""

    kind: str
    text: str
    pos: int
    line: int
    column: int

    @property
    def end(self) -> int:
        return self.pos + len(self.text)


def scan(text: str) -> list[Tok]:
    """Every token of a text but blanks, newlines and comments included; the last is of kind `end`."""
    out, line, start = [], 1, 0
    for m in _TOKEN.finditer(text):
        kind = m.lastgroup
        if kind == "blank":
            continue
        if kind == "name" and m.group() in KEYWORDS:
            kind = "keyword"
        out.append(Tok(kind, m.group(), m.start(), line, m.start() - start + 1))
        if kind == "newline":
            line, start = line + 1, m.end()
    out.append(Tok("end", "", len(text), line, len(text) - start + 1))
    return out


def logical_lines(tokens: list[Tok]) -> list[list[Tok]]:
    """Tokens grouped into statements: a line ends at a newline that ends a
    statement, after `{`, and around `}`. A comment belongs to the line it stands
    in; one on a line of its own, and an empty line (a lone newline), are lines."""
    lines: list[list[Tok]] = []
    now: list[Tok] = []
    depth, last = 0, None           # last: the token before this one in the same statement

    for tok in tokens[:-1]:
        if tok.kind == "comment":
            ended = lines and not now and lines[-1][-1].text == "{" and lines[-1][-1].line == tok.line
            (lines[-1] if ended else now).append(tok)
        elif tok.kind == "newline":
            ends = last is None or (depth == 0 and last.text not in CONTINUES)
            if now or ends:
                now.append(tok)
            if ends:
                lines.append(now)
                now, last = [], None
        else:
            if tok.text == "}" and now:
                lines.append(now)
                now = []
            depth = 0 if tok.text in ("{", "}") else depth
            depth = max(0, depth + (tok.text in ("(", "[")) - (tok.text in (")", "]")))
            now.append(tok)
            last = tok
            if tok.text == "{":
                lines.append(now)
                now, last = [], None
    return lines + ([now] if now else [])
