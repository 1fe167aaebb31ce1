"""Syntax errors: a sentence in terms of the language, several per run, no parser internals."""

import re

import mutate
import pytest
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.frontend.parse import parse
from ostinato.frontend.syntax_rules import SIGNS


def errors(text: str) -> list:
    with pytest.raises(OstinatoError) as e:
        parse(text)
    return list(e.value.diagnostics)


def in_cell(line: str):
    found = errors(f"cell a(H) {{\n  input x: [H]\n  {line}\n  y = x[t]\n  output y\n}}\n")
    assert len(found) == 1, [d.message for d in found]
    return found[0]


@pytest.mark.parametrize("line, column, message, help", [
    ("stat h: [H] = 0", 3, "`stat` begins no statement", "did you mean `state`?"),
    ("imput z: [H]", 3, "`imput` begins no statement", "did you mean `input`?"),
    ("parameter w: [H] = 0", 3, "`parameter` begins no statement", "did you mean `param`?"),
    ("h[t] = h[t-1] +", 18, "expected an expression after `+`, found the end of the line", None),
    ("h = f(, x)", 9, "expected an expression after `(`, found `,`", None),
    ("h = in", 7, "expected an expression after `=`, found the keyword `in`", None),
    ("h = tanh(x[t] + 1", 11, "unclosed `(`", None),
    ("h = tanh(x[t) + 1", 13, "unclosed `[`", None),
    ("h = x[t]) + 1", 11, "`)` closes nothing", None),
    ("h = a < b < c", 9, "comparisons do not chain", "write `a < b and b < c`"),
    ("h = a if b", 9, "`if` without `else`", "a selection is written `a if condition else b`"),
    ("h = a if b esle c", 14, "expected `else`, found `esle`", "did you mean `else`?"),
    ("h = 2x", 7, "`2x` is not a number", ...),
    ("h = 1.", 7, "`1.` is not a number", ...),
    ("h = .5", 7, "`.5` is not a number", ...),
    ("h = x ** 2", 9, "`**` is not an operator of the language", "a power is written `x^2`"),
    ("h += 1", 5, "`+=` is not an operator of the language", ...),
    ("h = a && b", 9, "`&&` is not an operator of the language", "write `and`"),
    ("h = x; g = x", 8, "`;` is not an operator of the language", "write one statement per line"),
    ('h = "abc', 7, "unterminated string", ...),
    ("h = §", 7, "`§` has no meaning in the language", None),
    ("h = \x00", 7, "the character U+0000 has no meaning in the language", None),
    ("in = 3", 3, "`in` is a keyword and cannot be a name", None),
    ("state[t] = 3", 3, "`state` is a keyword and cannot be a name", None),
    ("h = x.if", 9, "`if` is a keyword and cannot be a name", None),
    ("state h = 0", 9, "`h` is declared without a shape", ...),
    ("state h: H = 0", 12, "`h` is declared without a shape", "write `h: [H]`"),
    ("tanh(x[t])", 3, "an expression on its own does nothing", ...),
    ("tanh(x[t]) = 3", 3, "the left side of `=` must be names", ...),
    ("h == 3", 5, "expected `=`, found `==`", "did you mean `=`?"),
    ("h = x = z", 9, "expected an operator or the end of the line, found `=`", "a comparison is written `==`"),
    ("h = 2 x", 9, "expected an operator or the end of the line, found `x`", "a product is written with `*` or `@`"),
    ("h = 3 input z: [H]", 9, "expected the end of the line, found the keyword `input`",
     "write one statement per line"),
    ("return x", 3, "expected a statement or `}`, found the keyword `return`", ...),
    ("use f = gru H", 15, "expected `(`, found `H`", None),
])
def test_statement(line, column, message, help):
    d = in_cell(line)
    assert (d.span.line, d.span.column, d.message) == (3, column, message)
    assert help is ... or d.help == help


@pytest.mark.parametrize("text, place, message", [
    ("cel a(H) {\n}\n", (1, 1), "expected a cell, function, program or import, found `cel`"),
    ("h[t] = 3\n", (1, 1), "expected a cell, function, program or import, found `h`"),
    ("cell a(H)\n{\n}\n", (1, 10), "expected `{` to open the body of `a`"),
    ("cell a(H) {\n y = 3\n", (1, 11), "unclosed `{`"),
    ("fn f(x) {\n y = x\n}\n", (3, 1), "the block of the function ends without `return`"),
    ("fn f(x) = x derivativ 1\n", (1, 13), "expected `derivative`, found `derivativ`"),
    ("cell a(H) hads N {\n}\n", (1, 11), "expected `heads`, found `hads`"),
    ("import f form \"a.ost\"\n", (1, 10), "expected `from`, found `form`"),
    ("cell", (1, 5), "the file ends where a name was expected"),
])
def test_item(text, place, message):
    d, = errors(text)
    assert ((d.span.line, d.span.column), d.message) == (place, message)


def test_several_errors_of_one_run():
    found = errors("""cell a(H) {
  imput x: [H]
  h[t] = tanh(x[t] + 1
  g = = 3
  repeat j n {
    state u: [] = 0
    u[j] = 3
  }
  y = 2x
  output y
cell b(H) {
  state h = 0
  y = h *
  output y
}
fn f(x) {
  y = x
}
""")
    assert [(d.span.line, d.code) for d in found] == [
        (2, "E0106"), (3, "E0103"), (4, "E0105"), (5, "E0101"), (9, "E0111"), (1, "E0103"), (12, "E0109"),
        (13, "E0105"), (18, "E0122")]


def test_an_unclosed_block_names_what_comes_before_its_end():
    d, = errors("cell a(H) {\n  y = 3\ncell b(H) {\n  y = 3\n}\n")
    assert d.span.line == 1 and d.notes[0][0].line == 3 and "`cell`" in d.notes[0][1]


def test_deep_nesting_is_refused():
    for bomb in ("(" * 5000 + "1" + ")" * 5000, "-" * 5000 + "1", "f(" * 5000 + "1" + ")" * 5000, "1+" * 5000 + "1"):
        try:
            parse(f"fn f(x) = {bomb}\n")
        except OstinatoError as e:
            assert e.diagnostics[0].code == "E0112"


def test_mutants_never_show_the_parsers_inside():
    names = "|".join({*SIGNS, "_NL", r"\$END", "__ANON", "Unexpected", "Traceback"})
    broken = 0
    for seed in range(250):
        text = mutate.mutant(seed)
        try:
            parse(text)
        except OstinatoError as e:
            broken += 1
            said = " ".join(f"{d.message} {d.help or ''}" for d in e.diagnostics)
            assert not re.search(rf"(?<![`\w])({names})(?![`\w])", said), said
            assert str(e)
            for d in e.diagnostics:
                assert 1 <= d.span.line <= text.count("\n") + 1 and d.span.column >= 1
    assert broken > 60
