"""Diagnostics as values: collecting, rendering, suggestions; the catalogue."""

import copy
import json
import pickle
import re

import pytest
from ostinato.frontend.diagnostics import (
    Abandon,
    Diagnostic,
    OstinatoError,
    Reporter,
    did_you_mean,
    raise_error,
    render,
    suggest,
    to_json,
)
from ostinato.frontend.errors import CATALOGUE
from ostinato.ir.types import Span


def carets(source: str, span: Span) -> list[tuple[str, str]]:
    """(source line as shown, caret line) pairs without the gutter."""
    out = render([Diagnostic("E0000", span, "m")], {"f": source}).split("\n")[2:]
    lines = [line.split("| ", 1)[1] if "| " in line else "" for line in out if "|" in line]
    return list(zip(lines[::2], lines[1::2]))


def marked(source: str, span: Span) -> str:
    """The text above the carets."""
    (line, marks), = carets(source, span)
    return line[marks.index("^"):len(marks)]


@pytest.mark.parametrize("source, span, text", [
    ("y = abc + 1\n", Span("f", 1, 5, 1, 8), "abc"),
    ("\ty =\tabc + 1\n", Span("f", 1, 6, 1, 9), "abc"),
    ("a\n  äöü = abc", Span("f", 2, 9, 2, 12), "abc"),
    ("y = abc", Span("f", 1, 5, 1, 8), "abc"),
    ("y = abc\r\nz = 2\r\n", Span("f", 1, 5, 1, 8), "abc"),
    ("y\x00\x1b = abc", Span("f", 1, 7, 1, 10), "abc"),
    ("x" * 500 + " abc " + "y" * 500, Span("f", 1, 502, 1, 505), "abc"),
], ids=["plain", "tabs", "unicode", "last line without newline", "carriage returns", "control characters", "long line"])
def test_carets_stand_under_the_text(source, span, text):
    assert marked(source, span) == text


def test_wide_characters_take_two_columns():
    (line, marks), = carets("x = 漢字 + q", Span("f", 1, 10, 1, 11))
    assert line == "x = 漢字 + q" and marks == " " * 11 + "^"


def test_combining_characters_take_none():
    (line, marks), = carets("e\u0301 = q", Span("f", 1, 6, 1, 7))
    assert marks == " " * 4 + "^"


def test_span_over_several_lines():
    shown = carets("one {\n  two\n  three\n} four", Span("f", 1, 5, 4, 2))
    assert shown == [("one {", "    ^"), ("} four", "^")]


def test_span_behind_the_end():
    assert carets("y =", Span("f", 1, 4, 1, 5)) == [("y =", "   ^")]
    render([Diagnostic("E0000", Span("f", 9, 1, 9, 2), "m")], {"f": "y ="})


def test_no_control_character_reaches_the_terminal():
    out = render([Diagnostic("E0000", Span("f", 1, 1, 1, 2), "m")], {"f": "a\x1b[2Jb\x07\u202e"})
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", out)


def test_help_notes_and_place():
    note = (Span("f", 1, 1, 1, 2), "first here")
    out = render([Diagnostic("E0205", Span("f", 2, 1, 2, 2), "twice", "rename", (note,))], {"f": "a = 1\na = 2"})
    assert out.split("\n") == ["error[E0205]: twice", " --> f:2:1", "2 | a = 2", "  | ^", " --> f:1:1", "1 | a = 1",
                               "  | - first here", "  = help: rename"]


def test_without_span_or_source():
    assert render([Diagnostic("E0801", None, "m", "h")], {}) == "error[E0801]: m\n  = help: h"
    assert "f:3:4" in render([Diagnostic("E0801", Span("f", 3, 4, 3, 5), "m")], {})


def test_colour_changes_nothing_but_colour():
    d = [Diagnostic("E0205", Span("f", 1, 1, 1, 2), "m", "h")]
    assert re.sub("\x1b\\[[0-9;]*m", "", render(d, {"f": "a"}, color=True)) == render(d, {"f": "a"})


def test_many_errors_are_cut():
    out = render([Diagnostic("E0201", None, f"m{i}") for i in range(100)], {})
    assert out.endswith("... and 80 more errors") and out.count("error[") == 20


def test_reporter_collects_sorts_and_removes_doubles():
    r = Reporter({"f": "ab"})
    r.check()
    r.error("unknown_name", Span("f", 1, 2, 1, 3), name="b")
    r.error("unknown_name", Span("f", 1, 2, 1, 3), name="b")
    with pytest.raises(Abandon):
        r.fail("unknown_name", Span("f", 1, 1, 1, 2), name="a")
    with pytest.raises(OstinatoError) as e:
        r.check()
    assert [d.message for d in e.value.diagnostics] == ["`a` is not defined", "`b` is not defined"]
    assert str(e.value).startswith("error[E0201]: `a` is not defined\n --> f:1:1\n1 | ab\n")


def test_the_exception_travels():
    with pytest.raises(OstinatoError) as e:
        raise_error("input_missing", name="x")
    for again in (pickle.loads(pickle.dumps(e.value)), copy.deepcopy(e.value)):
        assert again.diagnostics == e.value.diagnostics and str(again) == str(e.value)


def test_json():
    d = Diagnostic("E0201", Span("f", 1, 2, 3, 4), "m", None, ((Span("g", 5, 6, 7, 8), "n"),))
    record, = json.loads(json.dumps(to_json([d])))
    assert (record["code"], record["line"], record["end_column"]) == ("E0201", 1, 4)
    assert record["notes"][0]["column"] == 6
    assert to_json([Diagnostic("E0801", None, "m")])[0]["line"] is None


@pytest.mark.parametrize("word, names, best", [
    ("stat", ["state", "input"], "state"), ("imput", ["input", "output"], "input"), ("H", ["h", "x"], "h"),
    ("hidden", ["h", "x"], None), ("q", ["k", "v"], None), ("sigmoyd", ["sigmoid", "tanh"], "sigmoid"),
    ("wxr", ["wx", "wr", "zz"], "wx"), ("x" * 10_000, ["x"], None)])
def test_suggestions(word, names, best):
    assert suggest(word, names) == best
    assert did_you_mean(word, names) == (best and f"did you mean `{best}`?")


def test_the_catalogue():
    codes = [e.code for e in CATALOGUE.values()]
    assert len(set(codes)) == len(codes) >= 50
    assert all(re.fullmatch(r"E0[1-9]\d\d", c) for c in codes)
    for name, e in CATALOGUE.items():
        assert not e.message.endswith("."), name
        fields = set(re.findall(r"(?<!{){(\w+)}", e.message + (e.help or "")))
        filled = (e.message + (e.help or "")).format(**dict.fromkeys(fields, "X"))
        assert not re.search(r"\b(token|terminal|Lark|None|LSQB|RPAR|EQUAL)\b", filled), name


def test_messages_can_always_be_printed():
    out = render([Diagnostic("E0816", Span("a\x1b\n", 1, 1, 1, 2), "there is no file \ud800\x07", "\u202e",
                             ((Span("f", 1, 1, 1, 2), "\x00"),))], {"f": "x"})
    assert out.encode() and out.count("\ufffd") == 6
