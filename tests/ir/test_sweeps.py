"""The order in which states of both directions are found, and what they mean."""

from dataclasses import replace

import pytest
import torch
from ostinato.frontend.load import load
from ostinato.ir import interp
from ostinato.ir.parser import parse_cell
from ostinato.ir.printer import print_cell
from ostinato.ir.sweeps import NoOrder, sweeps
from ostinato.ir.verify import verify

PARTS = """
cell ema() {
  input  x: []
  state  s: [] = 0
  s[t] = 0.5 * s[t-1] + x[t]
  output s
}
"""


def cell(body: str):
    return load(f"{PARTS}cell c() {{\n  input  x: []\n{body}\n}}\n").cells["c"].elaborate()


def order(c) -> list[tuple[bool, tuple[str, ...]]]:
    return [(s.reverse, s.states) for s in sweeps(c)]


@pytest.mark.parametrize("body, want", [
    ("  output y: [] = x[t]", [(False, ())]),
    ("  use f = ema()\n  output y: [] = f(x[t])", [(False, ("f.s",))]),
    ("  use b = reverse ema()\n  output y: [] = b(x[t])", [(True, ("b.s",))]),
    ("  use f = ema(), b = reverse ema()\n  output y: [] = f(x[t]) + b(x[t])", [(False, ("f.s",)), (True, ("b.s",))]),
    ("  use f = ema(), b = reverse ema()\n  output y: [] = f(b(x[t]))", [(True, ("b.s",)), (False, ("f.s",))]),
    ("  use b = reverse ema(), f = ema(), g = ema()\n  output y: [] = f(b(x[t])) + g(x[t])",
     [(True, ("b.s",)), (False, ("f.s", "g.s"))]),
    ("  use a = ema(), b = reverse ema(), c = ema(), d = reverse ema()\n  output y: [] = d(c(b(a(x[t]))))",
     [(False, ("a.s",)), (True, ("b.s",)), (False, ("c.s",)), (True, ("d.s",))])])
def test_order(body, want):
    c = verify(cell(body))
    assert order(c) == want
    assert order(replace(c, reverse=True)) == [(not way, states) for way, states in want]


def test_no_order():
    """What b hands to f becomes b's own next value."""
    c = cell("  use f = ema(), b = reverse ema()\n  output y: [] = f(b(x[t]))")
    circle = replace(c, states=tuple(replace(s, next=c.state("f.s").next) for s in c.states))
    with pytest.raises(NoOrder, match="f.s and b.s need each other"):
        sweeps(circle)


def test_the_meaning():
    """s[t] = s[t+1] / 2 + x[t] from the end, fed by and feeding sums from the start."""
    c = cell("  use a = ema(), b = reverse ema()\n  state t2: [] = 1\n  u = b(a(x[t]))\n  t2[t] = t2[t-1] + u\n"
             "  output y: [] = t2[t], u, n: int [] = t")
    x = torch.randn(2, 5, dtype=torch.float64)
    start = {"a.s": torch.tensor([1.0, 2.0]), "b.s": torch.tensor([-1.0, 0.5])}
    r = interp.run(c, {"x": x}, {}, start)
    a, b, s = start["a.s"].double(), start["b.s"].double(), torch.ones(2, dtype=torch.float64)
    forward, back = [], [None] * 5
    for t in range(5):
        forward.append(a := a / 2 + x[:, t])
    for t in reversed(range(5)):
        back[t] = b = b / 2 + forward[t]
    for t in range(5):
        s = s + back[t]
        torch.testing.assert_close(r.outputs["y"][:, t], s)
    torch.testing.assert_close(r.outputs["u"], torch.stack(back, 1))
    torch.testing.assert_close(r.state, {"a.s": a, "b.s": b, "t2": s, "t": torch.tensor([5, 5])}, check_dtype=False)
    assert r.outputs["n"].tolist() == [[0, 1, 2, 3, 4]] * 2


def test_the_index_and_lags_run_backwards():
    text = ("cell lags() {\n  input x: [] = 7\n  state s: [] = 3\n  s[t] = x[t]\n"
            "  output a: [] = x[t-2], b: [] = s[t-2], n: int [] = t\n}\n"
            "cell c() {\n  input x: []\n  use r = reverse lags()\n  a, b, n = r(x[t])\n  output a, b, n, t0: int [] = t\n}\n")
    c = verify(load(text).cells["c"].elaborate())
    r = interp.run(c, {"x": torch.arange(4.0)[None]}, {})
    assert {k: v[0].tolist() for k, v in r.outputs.items()} == {
        "a": [2, 3, 7, 7], "b": [2, 3, 3, 3], "n": [3, 2, 1, 0], "t0": [0, 1, 2, 3]}
    assert {s.name for s in c.states if s.reverse} == {s.name for s in c.states} - {"t"}


def test_nested_directions():
    """A reverse sub-cell of a reverse sub-cell runs forwards again."""
    text = (PARTS + "cell pair() {\n  input x: []\n  use f = ema(), b = reverse ema()\n  output y: [] = f(x[t]) - b(x[t])\n}\n"
            "cell c() {\n  input x: []\n  use p = reverse pair()\n  output y: [] = p(x[t])\n}\n")
    c = load(text).cells["c"].elaborate()
    assert {s.name: s.reverse for s in c.states} == {"p.f.s": True, "p.b.s": False}
    pair = load(text).cells["pair"].elaborate()
    x = torch.randn(2, 6, dtype=torch.float64)
    torch.testing.assert_close(interp.run(c, {"x": x}, {}).outputs["y"],
                               interp.run(pair, {"x": x.flip(1)}, {}).outputs["y"].flip(1))


def test_printed():
    c = cell("  use f = ema(), b = reverse ema()\n  output y: [] = f(x[t]) + b(x[t])")
    assert "state b.s: real[] reverse = " in print_cell(c)
    assert parse_cell(print_cell(c)) == c
