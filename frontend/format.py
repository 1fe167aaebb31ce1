"""The formatter: one layout for every program, comments and line breaks kept.

It works on tokens, not on the tree, so parentheses, comments and the author's
line breaks inside long statements survive; only blanks and empty lines change:
two blanks of indentation per block, the names of declarations in a column, the
`=` of neighbouring equations in a column, one blank around operators (none
where the author wrote none around + - * / // %, which shows grouping; none
around ^). Formatting twice changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .parse import parse
from .scan import OPERATORS, ROLE_WORDS, Tok, logical_lines, scan

INDENT = 2
SHORT = 12          # single names up to this width align with each other; lists of names among themselves
TIGHT = frozenset("+ - * / // %".split())
PREFIX = OPERATORS | frozenset("( [ { , = : ~".split())         # after these a `-` is a sign


@dataclass(slots=True)
class Line:
    """One output line. `block` numbers the braces it stands in; `role`: the keyword of a
    declaration; `cut`: where an equation's left side ends (0: no equation); `comment` trails."""

    text: str = ""
    block: int = 0
    role: str = ""
    cut: int = 0
    comment: str = ""
    opens: bool = False
    more: list[Line] = field(default_factory=list)


def format_source(text: str, file: str = "<text>") -> str:
    """The text in the standard layout. Raises OstinatoError if it does not parse."""
    parse(text, file)
    lines = _layout(logical_lines(scan(text)))
    _align_roles(lines)
    _align_equations(lines)
    flat = [line for first in lines for line in (first, *first.more)]
    _align_comments(flat)
    return "".join(line.text.rstrip() + "\n" for line in flat)


def _layout(groups: list[list[Tok]]) -> list[Line]:
    """Indented lines, at most one empty line in a row, one after each block of a file."""
    out: list[Line] = []
    blocks, count = [0], 0
    after_block = False
    for group in groups:
        if group[0].kind == "newline":
            if out and out[-1].text and not out[-1].opens:
                out.append(Line())
            continue
        closes = group[0].text == "}"
        if out and not out[-1].text and closes:
            out.pop()
        elif out and out[-1].text and after_block:
            out.append(Line())
        if closes:
            blocks.pop()
        out.append(_line(group, " " * (INDENT * (len(blocks) - 1)), blocks[-1]))
        if out[-1].opens:
            count += 1
            blocks.append(count)
        after_block = closes and len(blocks) == 1
    while out and not out[-1].text:
        out.pop()
    return out


def _line(group: list[Tok], pad: str, block: int) -> Line:
    """A statement, or a comment on its own, with the author's line breaks."""
    code = [tok for tok in group if tok.kind not in ("newline", "comment")]
    gaps = dict(zip(code, _gaps(code)))
    role = code[0].text if code and code[0].text in ROLE_WORDS else ""
    first = now = Line(pad, block, role, opens=bool(code) and code[-1].text == "{")
    depth = 0
    for tok in group:
        fresh = not now.text.strip()
        if tok.kind == "newline":
            if not fresh:
                now = Line(pad + " " * (2 * INDENT), block)
                first.more.append(now)
        elif tok.kind == "comment" and not fresh:
            now.comment = tok.text.rstrip()
        elif tok.kind == "comment":
            now.text += tok.text.rstrip()
        else:
            if tok.text == "=" and not depth and not role and now is first:
                first.cut = len(now.text)
            depth += (tok.text in ("(", "[")) - (tok.text in (")", "]"))
            now.text += tok.text if fresh else " " * gaps[tok] + tok.text
    first.more = [line for line in first.more if line.text.strip()]
    if code and code[0].text in ("fn", "cell", "program"):
        first.cut = 0
    return first


def _gaps(code: list[Tok]) -> list[int]:
    """Blanks before each token of a statement."""
    out = []
    brackets: list[list] = []             # [bracket, a shape was given since its last comma]
    role = code[0].text in ROLE_WORDS if code else False
    kind = -1                             # where the kind of a type may stand: after its `:`
    glued = False                         # the token before takes no blank after it
    for i, tok in enumerate(code):
        text, p = tok.text, code[i - 1] if i else None
        inner, typed = brackets[-1] if brackets else ("", False)
        starts = p is None or p.text in PREFIX or p.kind == "keyword"
        sign = text == "-" and starts
        tight = text in TIGHT and not starts and p.end == tok.pos and i + 1 < len(code) and code[i + 1].pos == tok.end
        if glued or p is None or text in (")", "]", ",", ".", "^") or tight or (text == ":"):
            gap = 0
        elif text == "=":
            gap = int(inner != "(" or typed)
        elif text == "(" or text == "[" and kind != i - 1:
            gap = int(starts)
        else:
            gap = 2 if text == "derivative" or (text == "~" and role) else 1
        out.append(gap)

        colon = text == ":" and inner != "["
        if colon:
            kind = i + 1
            if brackets:
                brackets[-1][1] = True
        glued = (text in ("(", "[", ".", "^") or sign or tight or (text == ":" and not colon)
                 or (text == "=" and gap == 0))
        if text in ("(", "["):
            brackets.append([text, False])
        elif text in (")", "]") and brackets:
            brackets.pop()
        elif text == "," and brackets:
            brackets[-1][1] = False
    return out


def _align_roles(lines: list[Line]) -> None:
    """The names declared in one block start in one column."""
    width: dict[int, int] = {}
    for line in lines:
        width[line.block] = max(width.get(line.block, 0), len(line.role))
    for line in lines:
        if line.role:
            at = line.text.index(line.role) + len(line.role)
            line.text = line.text[:at] + " " * (width[line.block] - len(line.role)) + line.text[at:]


def _align_equations(lines: list[Line]) -> None:
    """The `=` of neighbouring equations in a column."""
    run: list[Line] = []
    before = None

    def finish():
        at = max((line.cut for line in run), default=0)
        for line in run:
            line.text = line.text[:line.cut] + " " * (at - line.cut) + line.text[line.cut:]
        run.clear()

    for line in lines:
        left = line.text[:line.cut].strip()
        kind = (line.block, len(left) > SHORT or re.search(r",(?![^\[]*\])", left) is not None)
        if run and (not line.cut or kind != before):
            finish()
        if line.cut:
            run.append(line)
            before = kind
    finish()


def _align_comments(lines: list[Line]) -> None:
    """Trailing comments of neighbouring lines in a column, two blanks from the text."""
    run: list[Line] = []
    for line in (*lines, Line()):
        if line.comment:
            run.append(line)
            continue
        at = max((len(r.text) for r in run), default=0)
        for r in run:
            r.text = f"{r.text:<{at}}  {r.comment}"
        run.clear()
