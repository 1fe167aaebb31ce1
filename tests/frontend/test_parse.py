"""The grammar, the tree and its spans."""

import logging
from pathlib import Path

import pytest
from lark import Lark
from lark.lexer import PatternStr
from ostinato.frontend import parse as module
from ostinato.frontend import tree as t
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.frontend.load import load
from ostinato.frontend.parse import parse

CELLS = sorted((Path(__file__).parent / "cells").glob("*.ost"))


def only(source: str):
    [item] = parse(source).items
    return item


def expression(source: str) -> t.Expr:
    return only(f"fn f() = {source}").results[0]


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_design_cells_parse(path):
    file = parse(path.read_text(), str(path))
    assert file.items and all(item.span.file == str(path) for item in file.items)


GRAMMAR = (Path(module.__file__).parent / "grammar.lark").read_text()


def conflicts(grammar, caplog):
    """Shift/reduce conflicts, which Lark resolves silently unless strict."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="lark"):
        Lark(grammar, parser="lalr", lexer="basic", debug=True, postlex=module.Newlines())
    return [r.getMessage() for r in caplog.records if "conflict" in r.getMessage().lower()]


def test_grammar_is_lalr_without_conflicts(caplog):
    assert conflicts(GRAMMAR, caplog) == []
    ambiguous = GRAMMAR.replace('?or: and | or "or" and', '?or: and | or "or" or')
    assert ambiguous != GRAMMAR and conflicts(ambiguous, caplog)


def test_every_keyword_and_sign_is_read_as_itself():
    fixed = [x for x in module.parser().terminals if isinstance(x.pattern, PatternStr)]
    assert len(fixed) > 30
    assert [next(module.parser().lex(x.pattern.value)).type for x in fixed] == [x.name for x in fixed]


def test_tables_from_the_cache_are_those_of_the_grammar():
    fresh = Lark(GRAMMAR, parser="lalr", lexer="basic", propagate_positions=True, maybe_placeholders=True,
                 postlex=module.Newlines())
    for path in CELLS:
        assert module.parser().parse(path.read_text()) == fresh.parse(path.read_text())


@pytest.mark.parametrize("source, same", [
    ("a + b * c", "a + (b * c)"), ("a - b - c", "(a - b) - c"), ("-a ^ b", "-(a ^ b)"), ("a ^ -b", "a ^ (-b)"),
    ("not a and b or c", "((not a) and b) or c"), ("a if b else c if d else e", "a if b else (c if d else e)"),
    ("a @ b @ c", "(a @ b) @ c"), ("a + b < c * d", "(a + b) < (c * d)"), ("x[t-1][1:].T", "((x[t-1])[1:]).T"),
])
def test_precedence(source, same):
    assert expression(source) == expression(same)


def test_imaginary_number_and_keyword_after_number():
    assert expression("1i") == t.Number("1i", None) and expression("1i").imaginary
    assert isinstance(expression("1if a else 2"), t.Select)


def test_at_words_need_no_space_before_a_call():
    assert expression("a @max b").op == "@max"
    assert expression("a @ maximum").op == "@"


@pytest.mark.parametrize("source", [
    "fn f(a,\n     b) = a +\n  b\n", "fn f(a, b) =\n a\\b".replace("\\", " + "), "fn f(\na\n,b\n) = (a\n+ b)",
    "\n\n# comment\nfn f(a, b) = a + b # end",
])
def test_newlines_that_end_nothing(source):
    assert only(source) == only("fn f(a, b) = a + b")


def test_block_on_one_line_and_missing_final_newline():
    one = only("cell c(H) { input x: [H]\n output x }")
    assert one == only("cell c(H) {\n\n  input x: [H]\n\n  output x\n}\n\n")


def test_spans_end_with_the_construct():
    cell = only("cell c(H) {\n  input x: [H]\n  y = x[t] + 1   # comment\n  output y\n}\n")
    declare, define, output = cell.body
    assert (define.span.line, define.span.column, define.span.end_line, define.span.end_column) == (3, 3, 3, 15)
    right = define.values[0].right
    assert (right.span.column, right.span.end_column) == (14, 15)
    assert (cell.head.line, cell.head.column, cell.head.end_column) == (1, 1, 7)
    assert (cell.span.end_line, cell.span.end_column) == (5, 2)
    assert declare.decls[0].type.span.column == 12 and output.ports[0].name == "y"


def test_comments_are_kept_beside_the_tree():
    file = parse('# one\nimport a from "x#y.ost"  # two \nfn f(x) = x\n')
    assert file.comments == (t.Comment("# one", 1, 1), t.Comment("# two", 2, 26))


def test_modifiers():
    cell = only("cell c(H) heads N {\n input x: int [H] in [0, 3) heads G, y: [] <= 0 nonneg shared\n output x\n}")
    x, y = cell.body[0].decls
    assert [(m.word, m.brackets) for m in x.type.modifiers] == [("in", "[)"), ("heads", "")] and x.type.kind == "int"
    assert [m.word for m in y.type.modifiers] == ["<=", "nonneg", "shared"]


@pytest.mark.parametrize("deep", [
    "(" * 5000 + "x" + ")" * 5000, "-" * 5000 + "x", "not " * 5000 + "x", "x" + " + x" * 5000, "[" * 5000 + "]" * 5000,
    "x" + "[0]" * 5000, "1 if a else " * 3000 + "2",
], ids=["parens", "minus", "not", "sum", "arrays", "index", "select"])
def test_deep_texts_are_refused_not_crashed(deep):
    try:
        parse(f"fn f(x, a) = {deep}")
    except OstinatoError as e:
        assert e.diagnostics
    else:
        assert deep.startswith("(")     # parentheses leave no trace in the tree


def test_syntax_error_is_a_diagnostic():
    with pytest.raises(OstinatoError) as e:
        parse("cell c(H) {\n  input x [H]\n}")
    assert e.value.diagnostics[0].span.line == 2


def test_byte_order_mark_is_no_part_of_the_text(tmp_path):
    text = "cell c(H) { input x: [H] }\n"
    path = tmp_path / "c.ost"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    (def_,) = load(path, check=False).cells.values()
    assert def_.syntax == only(text) and def_.syntax.span.column == 1
    (def_,) = load("\ufeff" + text, check=False).cells.values()
    assert def_.sources["<text>"] == text
