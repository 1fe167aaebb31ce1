"""Strongly connected components of the states."""

import ostinato
import pytest
from ostinato.compiler.analysis.components import components, dependences


def cell(equations, states="abcd"):
    lines = [f"  state {s}: [] = 0" for s in states] + [f"  {e}" for e in equations]
    text = "cell c() {\n  input x: []\n" + "\n".join(lines) + "\n  output a\n}"
    *_, made = ostinato.load(text).cells.values()
    return made.elaborate()


@pytest.mark.parametrize("equations, want", [
    (["a[t] = x[t]", "b[t] = a[t]", "c[t] = b[t-1]", "d[t] = c[t-1] + b[t-1]"], (("a",), ("b",), ("c",), ("d",))),
    (["a[t] = b[t-1]", "b[t] = a[t-1]", "c[t] = x[t]", "d[t] = a[t]"], (("a", "b"), ("c",), ("d",))),
    (["a[t] = d[t-1]", "b[t] = a[t]", "c[t] = b[t]", "d[t] = c[t] + d[t-1]"], (("d",), ("a",), ("b",), ("c",))),
    (["a[t] = b[t-1]", "b[t] = c[t-1]", "c[t] = d[t-1]", "d[t] = a[t-1]"], (("a", "b", "c", "d"),)),
])
def test_components(equations, want):
    assert components(cell(equations)) == want


def test_lags_come_before_what_reads_them():
    text = "cell c() {\n  input x: []\n  state y: [] = 0\n  y[t] = y[t-2] + x[t-2]\n  output y\n}"
    *_, made = ostinato.load(text).cells.values()
    assert components(made.elaborate()) == (("x@1",), ("x@2",), ("y", "y@1"))
    assert dependences(made.elaborate())["y@1"] == {"y"}


def test_long_lags():
    """A thousand lags are a thousand components, found without recursion."""
    text = "cell c() {\n  input x: []\n  state y: [] = 0\n  y[t] = y[t-1] + x[t-1000]\n  output y\n}"
    *_, made = ostinato.load(text).cells.values()
    found = components(made.elaborate())
    assert len(found) == 1001 and found[-1] == ("y",)
