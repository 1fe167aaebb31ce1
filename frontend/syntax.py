"""Syntax errors, several per run: where the parser stopped, and how it goes on.

The parser says at which token it stopped and which it would have taken;
`syntax_rules.describe` turns that into a sentence. Then the statement is
blanked and the text parsed again, so that errors of other statements are found
too. Positions never move: text is only replaced by blanks.
"""

from __future__ import annotations

from bisect import bisect_left

from lark import UnexpectedCharacters, UnexpectedInput

from ..ir.types import Span
from .diagnostics import Diagnostic, OstinatoError, diagnostic
from .scan import CLOSING, CONTINUES, ITEM_WORDS, OPENING, STATEMENT_WORDS, Tok, logical_lines, scan

MOST_ERRORS = 10
LONG = 20_000          # of longer texts only the first error is reported


def syntax_errors(error: UnexpectedInput, text: str, file: str) -> OstinatoError:
    """All syntax errors of a text whose first parse stopped with `error`."""
    from .parse import parser

    found: list[Diagnostic] = []
    now = text
    while True:
        place = Place(error, now, file)
        d = _describe(place)
        if d not in found:
            found.append(d)
        rest = place.without_statement()
        if rest == now or len(found) >= MOST_ERRORS or len(text) > LONG:
            break
        now = rest
        try:
            parser().parse(now)
            break
        except UnexpectedInput as following:
            error = following
    return OstinatoError(found, {file: text})


def syntax_diagnostic(error: UnexpectedInput, text: str, file: str) -> Diagnostic:
    """One sentence for the place where the parser stopped."""
    return _describe(Place(error, text, file))


def too_deep(span: Span, text: str, file: str, limit: int = 100) -> OstinatoError:
    """The error for an expression nested deeper than the front end allows."""
    return OstinatoError((diagnostic("too_deep", span, limit=limit),), {file: text})


def _describe(place: Place) -> Diagnostic:
    from .syntax_rules import describe

    return describe(place)


class Place:
    """Where the parser stopped. `tok`: the token it refused (`newline`: it was the end of a line),
    `prev`: the one before; `accepts`: names of the terminals it would have taken; `line`: the
    statement's tokens; `open`: brackets open at that place, outermost first."""

    def __init__(self, error: UnexpectedInput, text: str, file: str):
        self.text, self.file = text, file
        lexical = isinstance(error, UnexpectedCharacters)
        token = getattr(error, "token", None)
        if lexical:
            pos = error.pos_in_stream
        else:
            pos = len(text) if token.type == "$END" else token.start_pos
        self.newline = not lexical and token.type in ("_NL", "$END")
        self.accepts = frozenset() if lexical else frozenset(error.accepts or error.expected or ())

        everything = scan(text)
        self.tokens = [k for k in everything if k.kind not in ("newline", "comment")]
        at = min(bisect_left(self.tokens, pos, key=lambda k: k.pos), len(self.tokens) - 1)
        self.at, self.tok = at, self.tokens[at]
        self.prev = self.tokens[at - 1] if at else None
        lines = ([k for k in line if k.kind not in ("newline", "comment")] for line in logical_lines(everything))
        self.lines = [line for line in lines if line]
        anchor = self.prev if self.prev and (self.newline or self.tok.kind == "end") else self.tok
        self.line = next((line for line in self.lines if line[0].pos <= anchor.pos <= line[-1].pos), [])
        self.first = self.line[0] if self.line else None
        self.before = [k for k in self.line if k.pos < self.tok.pos]
        self.after = [k for k in self.line if k.pos >= self.tok.pos]
        self.open = self._open()
        self.continued = self._continued()

    def _open(self) -> list[Tok]:
        """Brackets open before the error; a brace closes all others."""
        stack: list[Tok] = []
        for tok in self.tokens[:self.at]:
            if tok.text in ("{", "}"):
                stack = [k for k in stack if k.text == "{"]
            if tok.text in OPENING:
                stack.append(tok)
            elif stack and stack[-1].text == CLOSING.get(tok.text):
                stack.pop()
        return stack

    def _continued(self) -> Tok | None:
        """The operator at the end of the line before, if the parser took the next statement for
        the rest of this one."""
        earlier = [k for k in self.before if k.line < self.tok.line]
        if not earlier or self.bracket is not None or self.newline or earlier[-1].text not in CONTINUES:
            return None
        second = self.tok.text in ("=", "~") and any(k.text in ("=", "~") for k in earlier)
        return earlier[-1] if second or self.tok.text in STATEMENT_WORDS else None

    @property
    def bracket(self) -> Tok | None:
        """The innermost open `(` or `[`."""
        return self.open[-1] if self.open and self.open[-1].text != "{" else None

    @property
    def in_block(self) -> bool:
        return any(k.text == "{" for k in self.open)

    @property
    def in_function(self) -> bool:
        """In the block of a function."""
        return self.in_block and next(line[0].text for line in self.lines if self.open[0] in line) == "fn"

    def span(self, first: Tok | None = None, last: Tok | None = None) -> Span:
        """From one token to another; without them, the offending token, or the place behind the
        last one where the end of a line is the surprise."""
        if first is None and self.newline and self.prev is not None:
            return self.span_after(self.prev)
        first = first or self.tok
        last = last or first
        return Span(self.file, first.line, first.column, last.line, last.column + max(1, len(last.text)))

    def span_after(self, tok: Tok) -> Span:
        """The place right behind a token."""
        return Span(self.file, tok.line, tok.column + len(tok.text), tok.line, tok.column + len(tok.text) + 1)

    def without_statement(self) -> str:
        """The text with the offending statement blanked: the whole block if its head is wrong, the
        whole item if its block is not closed."""
        tok = self.tok
        if not self.line or (tok.text == "}" and not self.in_block):
            return self._blank(tok.pos, max(tok.end, tok.pos + 1))
        start, last = self.line[0], self.line[-1]
        if self.in_block and (tok.kind == "end" or (tok is start and tok.text in ITEM_WORDS)):
            item = next(line for line in self.lines if line[-1].pos >= self.open[0].pos)
            return self._blank(item[0].pos, tok.pos)
        if self.in_block and self.bracket is not None and self.bracket.line < tok.line:
            lines = self.text[:tok.pos].rfind("\n")       # an unclosed bracket swallowed the next lines
            return self._blank(start.pos, max(lines, self.bracket.end))
        if self.continued is not None:
            return self._blank(start.pos, self.continued.end)
        if self.in_block and tok.text == "}" and "RETURN" in self.accepts:
            start = next(line[0] for line in self.lines if self.open[0] in line)
            return self._blank(start.pos, self._block_end(start))
        if last.text == "{" or not self.in_block:
            return self._blank(start.pos, self._block_end(start))
        return self._blank(start.pos, last.end)

    def _block_end(self, start: Tok) -> int:
        """Where the block ends whose head begins at `start`, or the next item begins."""
        depth, end, opened = 0, start.end, start.text not in ("cell", "program")
        for line in self.lines:
            if line[0].pos < start.pos:
                continue
            if line[0].pos > start.pos and line[0].text in ITEM_WORDS:
                break
            depth += sum((k.text == "{") - (k.text == "}") for k in line)
            opened = opened or depth != 0
            end = line[-1].end
            if depth <= 0 and opened:
                break
        return end

    def _blank(self, start: int, end: int) -> str:
        middle = "".join(c if c == "\n" else " " for c in self.text[start:end])
        return self.text[:start] + middle + self.text[end:]
