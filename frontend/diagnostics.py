"""Errors as data: a code, a span, one sentence, help; and how they are shown.

`Reporter` collects; `OstinatoError` carries what was collected to the user;
`render` and `to_json` show it. The runtime raises the same exception for
shapes and dtypes, through `raise_error`, without a span.
"""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import dataclass
from typing import Iterable, Mapping, NoReturn, Sequence

from ..ir.types import Span
from .errors import CATALOGUE

SHOWN = 20          # diagnostics rendered before "and n more"
WIDTH = 110         # columns of a source line shown; longer lines are cut around the carets
TAB = 4


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error. `span.end_column` is exclusive, as are all spans' of the front end."""

    code: str
    span: Span | None
    message: str
    help: str | None = None
    notes: tuple[tuple[Span, str], ...] = ()


class OstinatoError(Exception):
    """A program or a call that cannot be accepted; str() is the plain rendering."""

    def __init__(self, diagnostics: Iterable[Diagnostic], sources: Mapping[str, str] | None = None):
        self.diagnostics = tuple(diagnostics)
        self.sources = dict(sources or {})
        self.args = self.diagnostics, self.sources      # not by super(), which torch.compile cannot trace

    def __str__(self) -> str:
        return render(self.diagnostics, self.sources)


class Abandon(Exception):
    """Raised by `Reporter.fail`: the statement is given up, its error is already collected."""


def diagnostic(name: str, span: Span | None = None, /, *, help: str | None = None,
               notes: Sequence[tuple[Span, str]] = (), **fields: object) -> Diagnostic:
    """The catalogue's entry `name` with its templates filled from `fields`;
    `help` replaces the catalogue's help."""
    entry = CATALOGUE[name]
    template = entry.help
    if help is None and template:
        help = template.format(**fields)
    return Diagnostic(entry.code, span, entry.message.format(**fields), help or None, tuple(notes))


def raise_error(name: str, span: Span | None = None, /, *, sources: Mapping[str, str] | None = None,
                **fields: object) -> NoReturn:
    """Raise one error of the catalogue at once (the runtime's way)."""
    raise OstinatoError((diagnostic(name, span, **fields),), sources)


class Reporter:
    """Collects diagnostics; the same sentence at the same place is kept once."""

    def __init__(self, sources: Mapping[str, str] | None = None):
        self.sources = {} if sources is None else sources
        self._found: dict[tuple, Diagnostic] = {}

    def add(self, d: Diagnostic) -> None:
        """Collect a ready diagnostic."""
        self._found.setdefault((d.code, d.span, d.message), d)

    def error(self, name: str, span: Span | None, /, *, help: str | None = None,
              notes: Sequence[tuple[Span, str]] = (), **fields: object) -> None:
        """Collect the catalogue's error `name` at `span`."""
        self.add(diagnostic(name, span, help=help, notes=notes, **fields))

    def fail(self, name: str, span: Span | None, /, *, help: str | None = None,
             notes: Sequence[tuple[Span, str]] = (), **fields: object) -> NoReturn:
        """Collect the error and give up the statement at hand (raises Abandon)."""
        self.error(name, span, help=help, notes=notes, **fields)
        raise Abandon

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What was collected, in the order of the text."""
        return tuple(sorted(self._found.values(), key=_place))

    def check(self) -> None:
        """Raise OstinatoError if anything was collected."""
        if self._found:
            raise OstinatoError(self.diagnostics, self.sources)


def _place(d: Diagnostic) -> tuple:
    return ("", 0, 0) if d.span is None else (d.span.file, d.span.line, d.span.column)


def suggest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` was probably meant to be, or None."""
    names = sorted(set(candidates) - {word})
    if len(word) > 60:
        return None
    folded = [c for c in names if c.lower() == word.lower()]
    return (folded or difflib.get_close_matches(word, names, 1, 0.6 if len(word) > 3 else 0.5) or [None])[0]


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """Help text naming the closest candidate, or None (then the catalogue's help stands)."""
    best = suggest(word, candidates)
    return best and f"did you mean `{best}`?"


def to_json(diags: Iterable[Diagnostic]) -> list[dict]:
    """JSON-ready records: code, message, help, file, line, column, end_line, end_column, notes."""
    def place(s: Span | None) -> dict:
        return {k: getattr(s, k, None) for k in ("file", "line", "column", "end_line", "end_column")}

    return [{"code": d.code, "message": d.message, "help": d.help, **place(d.span),
             "notes": [{"message": m, **place(s)} for s, m in d.notes]} for d in diags]


def render(diags: Iterable[Diagnostic], sources: Mapping[str, str], color: bool = False) -> str:
    """Text for people: code and message, file:line:column, the source line with carets, help."""
    diags = tuple(diags)
    paint = _paint if color else _plain
    blocks = ["\n".join(_block(d, sources, paint)) for d in diags[:SHOWN]]
    if len(diags) > SHOWN:
        more = len(diags) - SHOWN
        blocks.append(f"... and {more} more error{'s' if more > 1 else ''}")
    return "\n\n".join(blocks)


def _plain(text: str, style: str) -> str:
    return text


def _paint(text: str, style: str) -> str:
    return f"\x1b[{ {'error': '1;31', 'bold': '1', 'dim': '34', 'help': '1;36'}[style] }m{text}\x1b[0m"


def _block(d: Diagnostic, sources: Mapping[str, str], paint) -> list[str]:
    spans = [s for s in (d.span, *(s for s, _ in d.notes)) if s]
    margin = max((len(str(s.end_line)) for s in spans), default=1)
    out = [paint(f"error[{d.code}]", "error") + paint(f": {_clean(d.message)}", "bold")]
    if d.span:
        out += _excerpt(d.span, sources, margin, "^", "error", "", paint)
    for span, message in d.notes:
        out += _excerpt(span, sources, margin, "-", "dim", _clean(message), paint)
    if d.help:
        out.append(" " * margin + paint(" = help: ", "help") + _clean(d.help))
    return out


def _excerpt(s: Span, sources: Mapping[str, str], margin: int, mark: str, style: str, label: str, paint) -> list[str]:
    gutter = lambda text="": paint(f"{text:>{margin}} |", "dim")
    out = [" " * margin + paint("--> ", "dim") + f"{_clean(s.file)}:{s.line}:{s.column}"]
    if s.file not in sources:
        return out + ([f"{' ' * margin} = {label}"] if label else [])
    lines = sources[s.file].split("\n")
    shown = [s.line] if s.line == s.end_line else [s.line, s.end_line]
    for i, number in enumerate(shown):
        text = lines[number - 1].rstrip("\r") if 0 < number <= len(lines) else ""
        first = s.column - 1 if i == 0 else len(text) - len(text.lstrip())
        last = s.end_column - 1 if number == s.end_line else len(text)
        if i and number > s.line + 1:
            out.append(" " * margin + paint(" ...", "dim"))
        text, at, width = _display(text, first, last)
        tail = f" {label}" if label and number == shown[-1] else ""
        out.append(f"{gutter(str(number))} {text}".rstrip())
        out.append(f"{gutter()} {' ' * at}{paint(mark * width, style)}{tail}")
    return out


def _display(text: str, first: int, last: int) -> tuple[str, int, int]:
    """The line as shown, the column of the first caret, the number of carets:
    tabs become spaces, control characters a replacement mark, long lines are cut."""
    first = max(0, min(first, len(text)))
    last = max(first, min(last, len(text)))
    start = max(0, min(first - WIDTH // 3, len(text) - WIDTH)) if len(text) > WIDTH else 0
    end = min(len(text), start + WIDTH)
    last = min(last, end)
    shown, at, width = "..." if start else "", 0, 0
    column = len(shown)
    for i in range(start, end):
        if i == first:
            at = column
        c = text[i]
        if c == "\t":
            c = " " * (TAB - column % TAB)
        else:
            c = _clean(c)
        column += _columns(c)
        if first <= i < last:
            width += _columns(c)
        shown += c
    if first >= end:
        at = column
    return shown + ("..." if end < len(text) else ""), at, max(1, width)


def _clean(text: str) -> str:
    """Without characters that a terminal would obey, or that cannot be encoded."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def _columns(c: str) -> int:
    """Terminal columns of one character (or of a run of spaces)."""
    if len(c) > 1:
        return len(c)
    return 0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
