"""Phases read what is stored before them."""

from __future__ import annotations

import pytest
from agreement import check
from ostinato.compiler.schedules.kernel import Part, Phase, Run, Store
from ostinato.compiler.schedules.order import check_order
from ostinato.compiler.schedules.phases import join_copies
from ostinato.ir.cell import Node
from ostinato.ir.types import Dim, Type

# Both outputs read the state of a chunk; the gradient of what nobody reads is a loop nest of its shape ahead of all
# others, and an operand of a call is found only after the loop nest that would have made it in passing.
BOTH = """# sizes: K=7 V=2
cell both(K, V) {
  input  q: [K], k: [K], v: [V], g: [K] <= 0, f: [V] <= 0
  state  S: [K, V] = 0
  S[t] = exp(g[t]) * S[t-1] + outer(k[t], v[t])
  output o: [V] = q[t] @ S[t], p: [K] = S[t] @ v[t]
}"""


@pytest.mark.parametrize("C, T", [(4, 8), (4, 13), (8, 16), (16, 33)])
def test_gradients_of_outputs_along_both_axes(C, T):
    check(f"chunk({C})", BOTH, 2, T)


def a_run(*order: str) -> Run:
    t = Type("real", (Dim("D", 3),))
    nodes = {"x": Node("x", "input", (), (("name", "x"),), t), "y": Node("y", "exp", ("x",), (), t),
             "z": Node("z", "neg", ("y",), (), t)}
    phases = {n: Phase("tile", "map", t.shape, stores=(Store(n, f"b.tile.{n}", ((0, 0),), t.shape),), lane="par")
              for n in "yz"}
    none = Part((), {})
    return Run("b.", False, nodes, Part(tuple(phases[n] for n in order), {"x": "in.x", "y": "b.tile.y"}), none, none,
               none, (), ())


def test_an_order_that_reads_too_early_is_refused():
    check_order(a_run("y", "z"))
    with pytest.raises(AssertionError, match="b.tile.y is read before it is stored"):
        check_order(a_run("z", "y"))


def test_a_copy_stays_ahead_of_those_who_read_it():
    """A literal in a buffer is a loop nest like an old state's copy, but the next one that has its shape may be late."""
    real, vector = Type("real", ()), Type("real", (Dim("D", 3),))
    nodes = {n.name: n for n in (
        Node("k", "literal", (), (("value", 2.0),), real), Node("x", "input", (), (("name", "x"),), vector),
        Node("bc", "broadcast", ("k",), (("axes", ()),), vector), Node("y", "mul", ("x", "bc"), (), vector),
        Node("s", "input", (), (("name", "s"),), real), Node("z", "exp", ("s",), (), real))}
    order = [Phase("tile", "map", nodes[n].type.shape, stores=(
        Store(n, f"tile.{n}", tuple((i, 0) for i in range(nodes[n].type.rank)), nodes[n].type.shape),)) for n in "kyz"]
    targets = {n: [f"tile.{n}"] for n in "kyz"}
    assert join_copies(order, nodes, targets, {"x": "in.x", "s": "in.s"}) == order
    early, _, late = order                      # with nobody in between who reads it, it moves
    assert len(join_copies([early, late], nodes, targets, {"s": "in.s"})) == 1
