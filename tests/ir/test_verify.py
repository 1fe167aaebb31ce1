"""One wrong cell per rule of the verifier, and right ones of every kind."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from ostinato.ir.cell import Cell, Input, Node, Output, Param, State
from ostinato.ir.errors import VerifyError
from ostinato.ir.types import Dim, Type
from ostinato.ir.verify import RULES, verify
from strategies import cells

H, K, N = Dim("H", 3), Dim("K", 3), Dim("N", 2)
VEC, MAT, S = Type("real", (H,)), Type("real", (H, K)), Type("real")
IVEC, BVEC = VEC.with_kind("int"), VEC.with_kind("bool")


def node(label, op, args=(), type=VEC, **attrs):
    return Node(label, op, tuple(args), tuple(sorted(attrs.items())), type)


BASE = Cell(
    "c", (H, K, N), N, (Input("x", VEC), Input("m", MAT), Input("b", BVEC), Input("i", IVEC), Input("s", S)),
    (Param("W", MAT, "w"),), (State("h", VEC, "zero", "next"),), (Output("y", "next"),), (Output("d", "x"),),
    (node("lo", "literal", type=S, value=0.5), node("w", "draw", ("lo", "lo"), MAT, dist="uniform")),
    (node("x", "input", name="x"), node("m", "input", type=MAT, name="m"), node("b", "input", type=BVEC, name="b"),
     node("i", "input", type=IVEC, name="i"), node("s", "input", type=S, name="s"), node("h", "state", name="h"),
     node("W", "param", type=MAT, name="W"), node("k", "literal", type=S, value=0.0),
     node("zero", "broadcast", ("k",), axes=()), node("t", "literal", type=Type("int"), value=0),
     node("next", "add", ("x", "h"))))


def test_right_cells():
    assert verify(BASE) is BASE
    verify(Cell("empty"))


@settings(max_examples=40, deadline=None)
@given(cells(sums=True, reverse=True, semirings=True, linalg=True, large=True))
def test_generated_cells(cell):
    verify(cell)


@settings(max_examples=40, deadline=None)
@given(cells())
def test_a_renamed_axis_is_noticed(cell):
    """Nominal dimensions: another name of the same size is another axis."""
    for i, n in enumerate(cell.body):
        if n.op in ("add", "mul", "tanh", "sigmoid") and n.type.shape:
            other = Dim("OTHER", n.type.shape[-1].size)
            wrong = replace(n, type=n.type.with_shape(n.type.shape[:-1] + (other,)))
            with pytest.raises(VerifyError) as e:
                verify(cell.with_body(cell.body[:i] + (wrong,) + cell.body[i + 1:]))
            assert e.value.rule == "shape" and e.value.where == n.name
            return


def wide(n):
    return Type("real", (Dim(f"w{n}", n),))


WRONG_NODES = {  # rule: nodes, each wrong when added to BASE's body
    "unique": [node("x", "neg", ("h",))],
    "order": [node("v", "neg", ("later",)), node("v", "neg", ("v",))],
    "op": [node("v", "frobnicate", ("x",))],
    "arity": [node("v", "decayed", ("m", "m"), readers=1), node("v", "decayed", ("m", "m", "m"), readers=2),
              node("v", "ends", ("m",), MAT, readers=0), node("v", "ends_back", ("m", "m"), MAT, readers=1),
              node("v", "decayed_back", ("m", "m", "m", "m", "m"), MAT, readers=1, ends=True),
              node("v", "add", ("x",)), node("v", "neg", ("x", "x")), node("v", "custom_grad", ("x", "x")),
              node("v", "concat", (), wide(0), axis=0)],
    "attrs": [
        node("v", "decayed_back", ("m", "m", "m", "m"), MAT, readers=1, ends=1),
        node("v", "decayed", ("m", "m", "m"), MAT, readers=0), node("v", "ends", ("m", "m"), MAT, readers=-1),
        node("v", "neg", ("x",), extra=1), node("v", "literal", type=S), node("v", "literal", type=S, value=1),
        node("v", "literal", type=Type("int"), value=True), node("v", "slice", ("x",), wide(2), axis=0, start=2),
        node("v", "slice", ("x",), wide(2), axis=0, start=-1), node("v", "slice", ("x",), wide(2), axis=1, start=0),
        node("v", "slice", ("x",), wide(2), axis=False, start=0), node("v", "pad", ("x",), wide(4), axis=0, start=2),
        node("v", "index", ("x",), S, axis=0, at=3), node("v", "place", ("s",), wide(2), axis=0, at=2),
        node("v", "broadcast", ("m",), MAT, axes=(0, 0)), node("v", "broadcast", ("m",), MAT, axes=(0, 2)),
        node("v", "broadcast", ("m",), MAT, axes=(0,)), node("v", "broadcast", ("m",), MAT, axes=[0, 1]),
        node("v", "running", ("x", "x"), axis=0, reverse=0, semiring="sum"),
        node("v", "running", ("x", "x"), axis=0, reverse=True, semiring="min"),
        node("v", "running", ("x", "x"), axis=1, reverse=True, semiring="sum"),
        node("v", "gather", ("x", "i"), axis=0, batch=1, places=0),
        node("v", "gather", ("x", "i"), IVEC, axis=0, batch=0, places=2),
        node("v", "cumsum", ("x",), axis=0, reverse=0), node("v", "interleave", ("x",), wide(0), axis=0, times=0),
        node("v", "reduce", ("x",), S, fn="median", axes=(0,)), node("v", "reduce", ("x",), S, fn="sum", axes=(1,)),
        node("v", "reduce", ("m",), Type("int"), fn="argmax", axes=(0, 1)),
        node("v", "contract", ("m", "x"), spec="ij,j", semiring="sum"),
        node("v", "contract", ("m", "x"), spec="ii,i->i", semiring="sum"),
        node("v", "contract", ("m", "x"), spec="ij,j->k", semiring="sum"),
        node("v", "contract", ("m", "x"), spec="i,j->i", semiring="sum"),
        node("v", "contract", ("m", "x"), spec="ij,i->j", semiring="times"),
        node("v", "contract", ("m", "x"), spec="ij,i->j", semiring="sum", below="ik"),
        node("v", "contract", ("m", "x"), spec="ij,i->j", semiring="sum", below="i"),
        node("v", "contract", ("m", "x"), spec="ij,i->j", semiring="max", below="ij"),
        node("v", "contract", ("m", "x"), spec="ij,i->j", semiring="sum", below="ij", above="ij"),
        node("v", "contract", ("m", "m"), Type("int"), spec="ij,ij->", semiring="argmax"),
        node("v", "random", ("t",), dist="cauchy", site=1), node("v", "random", ("t",), dist="normal", site=-1)],
    "kind": [
        node("v", "neg", ("b",), BVEC), node("v", "tanh", ("i",), IVEC), node("v", "add", ("x", "i")),
        node("v", "neg", ("x",), IVEC), node("v", "gt", ("x", "h"), VEC), node("v", "select", ("x", "x", "x")),
        node("v", "select", ("b", "x", "i")), node("v", "real", ("i",), IVEC), node("v", "and", ("x", "h"), BVEC),
        node("v", "reduce", ("x",), Type("bool"), fn="any", axes=(0,)),
        node("v", "reduce", ("x",), S, fn="argmax", axes=(0,)), node("v", "stack", ("x", "i"), MAT, axis=1),
        node("v", "contract", ("m", "i"), spec="ij,i->j", semiring="sum"),
        node("v", "contract", ("i", "i"), Type("int"), spec="i,i->", semiring="lse"),
        node("v", "gather", ("x", "x"), axis=0, batch=0, places=1),
        node("v", "running", ("x", "i"), axis=0, reverse=True, semiring="sum"),
        node("v", "running", ("i", "i"), IVEC, axis=0, reverse=True, semiring="lse"),
        node("v", "random", ("s",), dist="normal", site=1), node("v", "neg", ("x",), VEC.with_kind("quaternion"))],
    "shape": [
        node("v", "add", ("x", "s")), node("v", "neg", ("x",), wide(3)), node("v", "literal", type=VEC, value=0.0),
        node("v", "select", ("b", "m", "m"), MAT), node("v", "broadcast", ("x",), MAT, axes=(1,)),
        node("v", "slice", ("m",), wide(2), axis=0, start=0), node("v", "concat", ("x", "x"), wide(5), axis=0),
        node("v", "concat", ("m", "x"), MAT, axis=0), node("v", "stack", ("x", "x"), MAT, axis=1),
        node("v", "interleave", ("x",), wide(5), axis=0, times=2), node("v", "fold", ("x",), wide(2), axis=0, times=2),
        node("v", "gather", ("x", "i"), S, axis=0, batch=0, places=1),
        node("v", "scatter", ("m", "i"), MAT, axis=1, batch=0, places=1),
        node("v", "cumsum", ("x",), wide(3), axis=0, reverse=True), node("v", "reduce", ("m",), fn="sum", axes=(0,)),
        node("v", "contract", ("m", "x"), spec="ij,j->i", semiring="sum"), node("v", "iota", (), Type("int", (H, K))),
        node("v", "contract", ("m", "x"), spec="ij,i->i", semiring="sum", type=Type("real", (K,))),
        node("v", "running", ("m", "x"), MAT, axis=0, reverse=False, semiring="sum"),
        node("v", "solve_lower", ("m", "x"), transposed=False), node("v", "solve", ("m", "x")), node("v", "logdet", ("m",), S),
        node("v", "decayed", ("x", "x", "x"), readers=1), node("v", "decayed", ("m", "m", "m"), readers=1),
        node("v", "decayed_back", ("m", "m", "m", "m"), readers=1, ends=False),
        node("v", "ends_back", ("m", "m"), MAT, readers=0), node("v", "ends_back", ("s", "x"), readers=0),
        node("v", "ends", ("m", "m", "m"), MAT, readers=1), node("v", "ends", ("x", "x"), readers=0),
        node("v", "decayed_sum", ("m", "m", "m"), MAT, transposed=False), node("v", "index", ("m",), VEC, axis=0, at=0),
        node("v", "random", ("i",), dist="normal", site=1), node("v", "training", type=BVEC)],
    "port": [node("v", "input", name="z"), node("v", "state", name="x"), node("v", "input", type=IVEC, name="x"),
             node("v", "param", type=Type("real", (K, H)), name="W")],
    "region": [node("v", "draw", ("s", "s"), dist="uniform")],
    "dim": [node("v", "iota", type=Type("int", (Dim("H", 4),))), node("v", "iota", type=Type("int", (Dim("Z", -1),)))],
}


@pytest.mark.parametrize("rule, wrong", [(r, n) for r, ns in WRONG_NODES.items() for n in ns],
                         ids=lambda v: v if isinstance(v, str) else v.op)
def test_wrong_nodes(rule, wrong):
    with pytest.raises(VerifyError) as e:
        verify(BASE.with_body(BASE.body + (wrong,)))
    assert e.value.rule == rule, str(e.value)
    assert e.value.where == wrong.name and str(e.value).startswith(f"cell c, {wrong.name}: ")


WRONG_CELLS = {
    "two inputs of a name": ("unique", dict(inputs=BASE.inputs + (Input("x", VEC),))),
    "two states of a name": ("unique", dict(states=BASE.states * 2)),
    "two outputs of a name": ("unique", dict(outputs=BASE.outputs * 2)),
    "init undefined": ("state", dict(states=(State("h", VEC, "nothing", "next"),))),
    "next undefined": ("state", dict(states=(State("h", VEC, "zero", "nothing"),))),
    "init reads an input": ("state", dict(states=(State("h", VEC, "x", "next"),))),
    "init reads a state": ("state", dict(states=(State("h", VEC, "h", "next"),))),
    "next of another type": ("state", dict(states=(State("h", VEC, "zero", "m"),))),
    "init of another kind": ("state", dict(states=(State("h", VEC, "k", "next"),))),
    "output undefined": ("output", dict(outputs=(Output("y", "nothing"),))),
    "sum undefined": ("output", dict(sums=(Output("d", "nothing"),))),
    "sum of a bool": ("output", dict(sums=(Output("d", "b"),))),
    "initial value undefined": ("port", dict(params=(Param("W", MAT, "nothing"),))),
    "initial value of another type": ("port", dict(params=(Param("W", MAT, "lo"),))),
    "init region reads an input": ("region", dict(init=BASE.init + (node("x", "input", name="x"),))),
    "init region reads training": ("region", dict(init=BASE.init + (node("q", "training", type=Type("bool")),))),
    "unknown draw": ("attrs", dict(init=BASE.init + (node("q", "draw", (), dist="cauchy"),))),
    "draw with too few operands": ("arity", dict(init=BASE.init + (node("q", "draw", ("lo",), dist="normal"),))),
    "orthogonal vector": ("shape", dict(init=BASE.init + (node("q", "draw", (), dist="orthogonal"),))),
    "a dim of two sizes": ("dim", dict(inputs=BASE.inputs + (Input("z", Type("real", (Dim("K", 4),))),))),
    "heads of another cell": ("dim", dict(heads=Dim("G", 2))),
    "directions that need each other": ("time", dict(
        states=(replace(BASE.states[0], next="two"), State("g", VEC, "zero", "two", reverse=True)),
        body=BASE.body + (node("g", "state", name="g"), node("two", "add", ("next", "g"))))),
}


@pytest.mark.parametrize("name", WRONG_CELLS)
def test_wrong_cells(name):
    rule, change = WRONG_CELLS[name]
    with pytest.raises(VerifyError) as e:
        verify(replace(BASE, **change))
    assert e.value.rule == rule, str(e.value)


def test_every_rule_has_a_wrong_cell():
    assert set(RULES) == set(WRONG_NODES) | {rule for rule, _ in WRONG_CELLS.values()}


def test_the_message_names_both_types():
    message = r"cell c, v: is real\[K\], but broadcast of its operands is real\[H\] \[shape\]"
    with pytest.raises(VerifyError, match=message):
        verify(BASE.with_body(BASE.body + (node("v", "broadcast", ("x",), Type("real", (K,)), axes=(0,)),)))
