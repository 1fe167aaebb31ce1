"""What to say where the parser stopped: a list of rules, the first that knows wins."""

from __future__ import annotations

from typing import Callable

from .diagnostics import Diagnostic, diagnostic, did_you_mean, suggest
from .scan import CLOSING, CONTINUES, ITEM_WORDS, KEYWORDS, STATEMENT_WORDS, Tok
from .syntax import Place

# The parser's tokens in the order they are listed; keywords are called by their text.
SIGNS = {"LBRACE": "{", "RBRACE": "}", "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]", "COLON": ":",
         "EQUAL": "=", "TILDE": "~", "COMMA": ",", "DOT": ".", "MINUS": "-", "PLUS": "+", "MUL": "*", "AT": "@",
         "CIRCUMFLEX": "^", "CMP": "<"}
GROUPS = (
    (frozenset(("INPUT", "REPEAT")), "a statement", frozenset(w.upper() for w in STATEMENT_WORDS) | {"NAME"}),
    (frozenset(("CELL", "IMPORT")), "a cell, function, program or import", frozenset(w.upper() for w in ITEM_WORDS)),
    (frozenset(("NAME", "NUMBER")), "an expression", frozenset("NAME NUMBER LPAR LSQB MINUS NOT".split())),
    (frozenset(("HEADS", "SHARED")), "a fact", frozenset("HEADS SHARED IN CMP NAME".split())),
    (frozenset(("PLUS",)), "an operator",
     frozenset("PLUS MINUS MUL AT CIRCUMFLEX CMP IF AND OR LPAR LSQB DOT FOR".split())),
    (frozenset(("OR",)), "an operator", frozenset(("IF", "AND", "OR"))),
    (frozenset(("NAME",)), "a name", frozenset(("NAME",))),
    (frozenset(("NUMBER",)), "a number", frozenset(("NUMBER",))),
    (frozenset(("STRING",)), 'a file name in `"`', frozenset(("STRING",))),
    (frozenset(("_NL",)), "the end of the line", frozenset(("_NL",))),
    (frozenset(("$END",)), "the end of the file", frozenset(("$END",))),
)
FOREIGN = {
    "**": "a power is written `x^2`", "&&": "write `and`", "||": "write `or`", "&": "write `and`", "|": "write `or`",
    "!": "write `not`", "+=": "write the equation out: `h[t] = h[t-1] + ...`", "-=": "write the equation out",
    "*=": "write the equation out", "/=": "write the equation out", ":=": "write `=`", "->": "write `=`",
    "===": "write `==`", "<>": "write `!=`", "=<": "write `<=`", "=>": "write `>=`",
    ";": "write one statement per line",
    "?": "a selection is written `a if condition else b`", "'": 'a file name is written in `"`, a transpose `W.T`',
}
ROLES = ("input", "param", "const", "state")
# Words of other languages and long forms, where a keyword of ours was meant.
MEANT = {"def": "fn", "function": "fn", "func": "fn", "fun": "fn", "class": "cell", "module": "cell", "layer": "cell",
         "while": "repeat", "loop": "repeat", "parameter": "param", "parameters": "param", "weight": "param",
         "inputs": "input", "outputs": "output", "constant": "const", "hidden": "state", "include": "import"}


def describe(p: Place) -> Diagnostic:
    """One sentence for the place where the parser stopped."""
    for rule in RULES:
        d = rule(p)
        if d is not None:
            return d
    if p.tok.kind == "end" and p.newline:
        return diagnostic("unexpected_end", p.span(), expected=_expected(p))
    return diagnostic("unexpected", p.span(), expected=_expected(p), found=_found(p))


def _expected(p: Place) -> str:
    rest, parts = set(p.accepts), []
    for needed, text, covered in GROUPS:
        if needed <= rest:
            parts.append(text)
            rest -= covered
    if "an operator" in parts:
        rest.discard("COMMA")
    parts += [f"`{SIGNS[name]}`" for name in SIGNS if name in rest]
    parts += sorted(f"`{name.lower()}`" for name in rest if name.lower() in KEYWORDS)
    if not parts:
        return "something else"
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " or " + parts[-1]


def _found(p: Place) -> str:
    tok = p.tok
    if tok.kind == "end":
        return "the end of the file"
    if p.newline:
        return "the end of the line"
    if tok.kind == "keyword":
        return f"the keyword `{tok.text}`"
    return "a string" if tok.kind == "string" else f"`{_short(tok.text)}`"


def _short(text: str) -> str:
    return text if len(text) <= 30 else text[:27] + "..."


def _meant(word: str, candidates) -> str | None:
    """Help naming the keyword among `candidates` that `word` stands for."""
    meant = MEANT.get(word.lower())
    return f"did you mean `{meant}`?" if meant in candidates else did_you_mean(word, candidates)


# -- rules --------------------------------------------------------------------
def foreign(p: Place) -> Diagnostic | None:
    """Operators of other languages, spelt with our tokens or not."""
    if p.newline:
        return None
    start, prev = p.tok.pos, p.prev
    if prev is not None and prev.end == start and prev.kind in ("sign", "other"):
        start = prev.pos
    for at in dict.fromkeys((start, p.tok.pos)):
        for size in (3, 2, 1):
            found = p.text[at:at + size]
            if found in FOREIGN and at + len(found) > p.tok.pos:
                column = p.tok.column - (p.tok.pos - at)
                whole = p.span()
                span = type(whole)(p.file, p.tok.line, column, p.tok.line, column + len(found))
                return diagnostic("foreign_operator", span, found=found, instead=FOREIGN[found])
    return None


def characters(p: Place) -> Diagnostic | None:
    """Characters outside of the language."""
    if p.tok.kind != "other" or p.newline:
        return None
    c = p.tok.text
    if c == '"':
        return diagnostic("unterminated_string", p.span())
    shown = f"`{c}`" if c.isprintable() and not c.isspace() else f"the character U+{ord(c):04X}"
    return diagnostic("bad_character", p.span(), char=shown)


def numbers(p: Place) -> Diagnostic | None:
    """`2x`, `1.`, `.5`, `1.2.3`."""
    tok, prev = p.tok, p.prev
    before = p.tokens[p.at - 2] if p.at > 1 else None
    if prev is not None and prev.kind == "number" and tok.kind in ("name", "keyword", "number") and prev.end == tok.pos:
        first, last = prev, tok
    elif p.continued is not None and p.continued.text == ".":
        last = p.continued
        first = p.tokens[p.tokens.index(last) - 1]
        if first.kind != "number":
            return None
    elif before is not None and before.kind == "number" and prev.text == "." and before.end == prev.pos:
        first, last = before, tok if tok.kind == "number" and tok.pos == prev.end else prev
    elif tok.text == "." and p.tokens[p.at + 1].kind == "number" and p.tokens[p.at + 1].pos == tok.end:
        first, last = tok, p.tokens[p.at + 1]
    else:
        return None
    return diagnostic("bad_number", p.span(first, last), text=_short(p.text[first.pos:last.end]))


def brackets(p: Place) -> Diagnostic | None:
    """Brackets that are not closed, or close nothing."""
    tok, inner = p.tok, p.bracket
    if tok.kind == "sign" and tok.text in CLOSING and not (p.newline and tok.text != "}"):
        if inner is not None and CLOSING[tok.text] != inner.text:
            return _unclosed(p, inner, tok)
        if inner is None and (tok.text != "}" or not p.in_block) and not p.newline:
            return diagnostic("unmatched_bracket", p.span(tok), bracket=f"`{tok.text}`")
    if inner is not None:
        new_line = p.prev is not None and p.prev.line < tok.line
        complete = p.prev is not None and p.prev.text not in CONTINUES and p.prev is not inner
        if p.newline or tok.kind == "end" or (new_line and (complete or tok.text in STATEMENT_WORDS + ITEM_WORDS)) or (
                tok.text in ("=", "~") and inner.line < tok.line):
            return _unclosed(p, inner, None)
    if p.in_block and (tok.kind == "end" or (tok is p.first and tok.text in ITEM_WORDS)):
        block = [k for k in p.open if k.text == "{"]
        return _unclosed(p, block[-1 if tok.kind == "end" else 0], tok if tok.kind != "end" else None)
    return None


def _unclosed(p: Place, bracket: Tok, at: Tok | None) -> Diagnostic:
    notes = () if at is None else ((p.span(at), f"`{_short(at.text)}` comes before its end"),)
    return diagnostic("unclosed_bracket", p.span(bracket), bracket=f"`{bracket.text}`", notes=notes)


def keyword_as_name(p: Place) -> Diagnostic | None:
    """`in = 3`, `cell state(H)`, `input[t] = x`."""
    tok, prev = p.tok, p.prev
    if p.newline:
        return None
    if prev is p.first and prev is not None and prev.kind == "keyword" and tok.text in ("=", "~", "[", ":", "."):
        return diagnostic("keyword_as_name", p.span(prev), word=prev.text)
    if tok.kind != "keyword" or "NAME" not in p.accepts:
        return None
    following = p.tokens[p.at + 1].text
    if ("NUMBER" not in p.accepts and "INPUT" not in p.accepts and "SHARED" not in p.accepts) or (
            tok is p.first and following in ("=", "~", "[", ":", ",")):
        return diagnostic("keyword_as_name", p.span(tok), word=tok.text)
    return None


def misspelt(p: Place) -> Diagnostic | None:
    """`stat h: [H]`, `cel lstm(H) {`, `x if c esle y`."""
    if p.newline or p.first is None:
        return None
    if p.tok is p.first and p.tok.text == "return" and p.in_block:
        return diagnostic("unexpected", p.span(), expected=_expected(p), found=_found(p),
                          help="`return` belongs in a function; a cell gives its values with `output`")
    words = (*STATEMENT_WORDS, "return") if p.in_function else STATEMENT_WORDS
    if p.in_block and p.first.kind == "name" and p.before == [p.first] and p.tok.kind in ("name", "keyword"):
        word = p.first.text
        return diagnostic("unknown_statement", p.span(p.first), word=word, help=_meant(word, words))
    if p.tok.kind == "name" and p.tok is not p.first:
        accepted = {a.lower() for a in p.accepts} & KEYWORDS
        meant = suggest(p.tok.text, accepted) if len(p.tok.text) > 1 else None
        if meant:
            return diagnostic("unexpected", p.span(), expected=f"`{meant}`", found=_found(p),
                              help=f"did you mean `{meant}`?")
    return None


def item(p: Place) -> Diagnostic | None:
    """Something else between the items of a file."""
    if p.in_block or "CELL" not in p.accepts or (p.newline and p.tok.kind == "end"):
        return None
    tok = p.tok
    help = _meant(tok.text, ITEM_WORDS) if tok.kind == "name" else None
    if tok.text in STATEMENT_WORDS or (tok.kind == "name" and p.tokens[p.at + 1].text in ("=", "[", "~")):
        help = "equations and declarations belong inside the braces of a cell"
    return diagnostic("unknown_item", p.span(), found=_found(p), help=help)


def chained(p: Place) -> Diagnostic | None:
    """`a < b < c`"""
    comparisons = ("<", ">", "<=", ">=", "==", "!=")
    if p.newline or p.tok.text not in comparisons or "OR" not in p.accepts:
        return None
    depth = 0
    for tok in reversed(p.before):
        depth += (tok.text in (")", "]")) - (tok.text in ("(", "["))
        if depth < 0 or depth == 0 and tok.text in ("and", "or", "not", "if", "else", "=", ","):
            return None
        if depth == 0 and tok.text in comparisons:
            return diagnostic("chained_comparison", p.span(tok, p.tok))
    return None


def selection(p: Place) -> Diagnostic | None:
    """`a if c` without `else`."""
    if "ELSE" in p.accepts and (p.newline or p.tok.text in (",", ")", "]", "}", "=") or p.tok.kind == "end"):
        start = next((k for k in reversed(p.before or p.line) if k.text == "if"), None)
        return diagnostic("else_missing", p.span(start) if start else p.span())
    return None


def expression(p: Place) -> Diagnostic | None:
    """An operator, a comma or a bracket with nothing after it."""
    if p.continued is not None:
        return diagnostic("expected_expression", p.span_after(p.continued), after=f"`{p.continued.text}`",
                          found="the end of the line")
    if {"NAME", "NUMBER"} <= p.accepts and "INPUT" not in p.accepts and p.prev is not None:
        return diagnostic("expected_expression", p.span(), after=f"`{p.prev.text}`", found=_found(p))
    return None


def shape(p: Place) -> Diagnostic | None:
    """A declaration without `: [...]`."""
    if p.first is None or not p.before and not p.newline:
        return None
    line = p.before or p.line
    names = [k for k in line if k.kind == "name"]
    if not names:
        return None
    if p.accepts == {"LSQB"} and len(line) > 2 and line[-2].text == ":":
        dim = line[-1].text
        owner = line[-3].text if line[-3].kind == "name" else names[0].text
        return diagnostic("missing_shape", p.span(line[-1]), name=owner, help=f"write `{owner}: [{dim}]`")
    if p.first.text not in ROLES:
        return None
    if p.accepts in ({"COLON", "LSQB"}, {"COLON"}, {"NAME", "LSQB"}):
        depth, owner = 0, names[-1]
        for k in line:
            if k.kind == "name" and depth == 0:
                owner = k
            depth += (k.text == "[") - (k.text == "]")
        return diagnostic("missing_shape", p.span(owner), name=owner.text)
    return None


def target(p: Place) -> Diagnostic | None:
    """Equations whose left side is not a list of names, and expressions on their own."""
    if not p.in_block or p.first is None or p.first.kind == "keyword" and p.first.text != "not":
        return None
    begins = "INPUT" in p.accepts and p.tok is p.first or "RETURN" in p.accepts and p.tok is p.first
    if not begins and not ({"EQUAL", "TILDE"} <= p.accepts) or p.first.text == "}":
        return None
    if any(k.text in ("=", "~") for k in p.before):
        return None
    if p.tok.text == "==" and not p.newline:
        return diagnostic("unexpected", p.span(), expected="`=`", found="`==`", help="did you mean `=`?")
    equal = next((i for i, k in enumerate(p.line) if k.text in ("=", "~") and i), None)
    if equal is not None and not p.newline:
        return diagnostic("bad_target", p.span(p.first, p.line[equal - 1]))
    return diagnostic("no_effect", p.span(p.first, p.line[-1]))


def result(p: Place) -> Diagnostic | None:
    """A function's block without `return`."""
    if "RETURN" in p.accepts and p.tok.text == "}":
        return diagnostic("missing_return", p.span(p.tok))
    return None


def brace(p: Place) -> Diagnostic | None:
    """A head without `{`."""
    heads = ("cell", "program", "repeat")
    if "LBRACE" not in p.accepts or p.first is None or p.first.text not in heads or len(p.line) < 2:
        return None
    help = "put `{` on the same line" if p.newline and p.tok.text == "{" else None
    return diagnostic("missing_brace", p.span(), name=p.line[1].text, help=help)


def line_end(p: Place) -> Diagnostic | None:
    """Two statements on a line, or two values side by side."""
    if "_NL" not in p.accepts or p.newline:
        return None
    if p.first is not None and p.first.text in ROLES and p.tok.text in (",", "~", "=") and any(
            k.text == "~" for k in p.before):
        return diagnostic("after_draw", p.span(), word=p.first.text)
    if p.accepts <= {"_NL", "DERIVATIVE"} or p.tok.text in STATEMENT_WORDS + ITEM_WORDS:
        return diagnostic("missing_newline", p.span(), found=_found(p))
    help = None
    if p.tok.text == "=":
        help = "a comparison is written `==`"
    elif p.tok.kind in ("name", "number") and p.prev is not None and (
            p.prev.kind in ("name", "number") or p.prev.text in (")", "]")):
        help = "a product is written with `*` or `@`"
    return diagnostic("unexpected", p.span(), expected=_expected(p), found=_found(p), help=help)


RULES: tuple[Callable[[Place], Diagnostic | None], ...] = (
    foreign, characters, numbers, brackets, keyword_as_name, misspelt, item, chained, selection, expression,
    shape, result, target, brace, line_end)
