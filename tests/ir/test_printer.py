"""The printed form parses back to the identical object, and nothing else parses."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ostinato.ir.cell import Cell, Input, Node, Output, Param, State
from ostinato.ir.errors import IRSyntaxError
from ostinato.ir.parser import parse_cell
from ostinato.ir.printer import print_cell
from ostinato.ir.types import Dim, Span, Type
from strategies import cells, rebuild

KNOBS = dict(sums=True, reverse=True, semirings=True, linalg=True, large=True)


@settings(max_examples=60, deadline=None)
@given(cells(**KNOBS))
def test_generated_cells_come_back(cell):
    assert parse_cell(print_cell(cell)) == cell


def odd(value) -> Cell:
    H, odd = Dim("H", 2), Dim("2*(H + 1)", 6)
    t = Type("real", (H, odd))
    return Cell('a "name"\n', (H,), None, (Input("x@1", t, -0.0, ("in (0, 1)", 'say "so"')),),
                (Param("init", t, None, False), Param("W", t, "W.0", True, ("<= 0",))),
                (State("h'", t, "body", "->", ("nonneg",)),), (Output("}", "h.next"),), (Output("d.W", "é"),),
                (Node("W.0", "broadcast", ("k",), (("axes", ()),), t),),
                (Node("init", "literal", (), (("value", value),), Type("real")),), True)


@pytest.mark.parametrize("value", [
    0.0, -0.0, 1.0, 1e22, 1e-300, 0.1, math.inf, -math.inf, math.nan, 5e-324, 0, -7, 2**63 - 1, True, False, "", "true",
    'quote " and \\ and \n', "é\u2028", (), (1,), (1, 2), ((1,), ("a", 2.5)), "nan", "->"], ids=repr)
def test_odd_names_and_values(value):
    cell = odd(value)
    back = parse_cell(print_cell(cell))
    assert back == cell
    v = back.body[0].attr("value")
    assert type(v) is type(value) and repr(v) == repr(value)
    assert repr(back.inputs[0].default) == "-0.0"


def test_spans_are_left_out():
    bare = rebuild("cell_1_1")
    spanned = bare.with_body(Node(n.name, n.op, n.args, n.attrs, n.type, Span("f", 1, 2, 3, 4)) for n in bare.body)
    assert print_cell(spanned) == print_cell(bare) and parse_cell(print_cell(spanned)) == spanned


def test_the_form_is_readable():
    H = Dim("H", 3)
    v = Type("real", (H,))
    cell = Cell("ema", (H,), None, (Input("x", v),), (Param("a", v, "a.0"),), (State("h", v, "a", "h.next"),),
                (Output("h", "h.next"),), (), (Node("a.0", "literal", (), (("value", 0.5),), Type("real")),),
                (Node("x", "input", (), (("name", "x"),), v), Node("h.next", "mul", ("x", "x"), (), v)))
    assert print_cell(cell) == """cell ema {
  dims H=3
  input x: real[H]
  param a: real[H] init a.0
  state h: real[H] = a -> h.next
  output h = h.next
  init:
    a.0: real[] = literal() value=0.5
  body:
    x: real[H] = input() name="x"
    h.next: real[H] = mul(x, x)
}
"""


GOOD = """cell c {
  dims H=3
  input x: real[H]
  output y = x
  body:
    x: real[H] = input() name="x"
}"""


@pytest.mark.parametrize("line, old, new, message", [
    (1, "cell c {", "cell {", "the cell's name"), (1, "cell c {", "sell c {", "expected 'cell'"),
    (1, "cell c {", "cell c { x", "unexpected 'x'"), (2, "H=3", "H=three", "not a value"),
    (2, "H=3", "H=-1", "size -1"), (2, "H=3", "H=3, H=4", "second size 4"), (2, "H=3", "H=1.5", "expected an integer"),
    (2, "dims", "dimensions", "starts no line"), (3, "real[H]", "float[H]", "no kind is called 'float'"),
    (3, "real[H]", "real[K]", "dimension 'K' has no size"), (3, "real[H]", "real[H", "expected ']'"),
    (3, "real[H]", "real[H] default (1)", "a default is a number"),
    (3, "real[H]", "real[H] facts pos", "quoted string"),
    (3, "x: real", 'x: "re', "cannot read"), (4, "= x", "x", "expected '='"), (4, "= x", "= (", "expected a name"),
    (6, 'name="x"', "name=x", "not a value"), (6, 'name="x"', r'name="\q"', "not a string"),
    (6, 'name="x"', "name=(1,", "expected a value"), (6, 'name="x"', "name=" + "(" * 50, "nested too deeply"),
    (6, 'name="x"', "name=__import__('os')", "cannot read"), (6, 'name="x"', "name=" + "9" * 5000, "not a value"),
    (6, "input()", "input(", "expected ')'"), (6, "input()", "input", "expected '('"),
    (7, "}", "", "not closed"), (8, "}", "}\nmore", "after the cell's end"),
])
def test_bad_text_is_refused_with_its_line(line, old, new, message):
    assert parse_cell(GOOD).name == "c"
    lines = GOOD.split("\n")
    at = next(i for i, text in enumerate(lines) if old in text)
    lines[at] = lines[at].replace(old, new)
    with pytest.raises(IRSyntaxError, match=f"line {line}: ") as e:
        parse_cell("\n".join(lines))
    assert message in str(e.value)


TEXT = print_cell(rebuild("cell_5_2", **KNOBS))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_text_gives_a_cell_or_an_error(data):
    """Never an exception of another kind."""
    start = data.draw(st.integers(0, len(TEXT)))
    length = data.draw(st.integers(0, 20))
    patch = data.draw(st.one_of(st.text(max_size=8), st.sampled_from(["(", ")", "\n", '"', "\\", "-", "=", "}", ":"])))
    try:
        cell = parse_cell(TEXT[:start] + patch + TEXT[start + length:])
    except IRSyntaxError as e:
        assert e.line >= 1
    else:
        assert parse_cell(print_cell(cell)) == cell or "nan" in print_cell(cell)


@given(st.text())
def test_any_text(text):
    with pytest.raises(IRSyntaxError):
        parse_cell(text)
