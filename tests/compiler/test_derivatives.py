"""Every operation's derivative rule, each in a small cell of its own."""

import math

import pytest
import torch
from gradients import B, T, assert_adjoint, leaf
from handmade import CELLS, H, I, K, Make, V, real
from ostinato.compiler.analysis.ranges import Ranges, from_facts
from ostinato.compiler.passes.adjoint import adjoint
from ostinato.compiler.passes.derivatives import GATHERED, LAST, RULES
from ostinato.compiler.pipeline import lower
from ostinato.ir import interp
from ostinato.ir.cell import Input
from ostinato.ir.ops import OPS
from ostinato.ir.types import BOOL, Dim, Type

M = Dim("M", 4)     # a second nominal axis of H's size
S1, S2 = Dim("2", 2), Dim("6", 6)
INF = math.inf


def pointwise(op):
    def make(m):
        b, x, z, w = m.b, m.input("x", H), m.input("z", H), m.param("w", H)
        match op:
            case "select":
                return b.op(op, b.op("gt", x, z), b.op("mul", x, w), b.op("mul", z, w))
            case "custom_grad":
                return b.op(op, b.op("stop_gradient", x), b.op("mul", x, w), b.op("cos", z), z, w)
            case "not":
                return b.op("select", b.op("not", b.op("gt", x, z)), x, w)
            case "and" | "or":
                return b.op("select", b.op(op, b.op("gt", x, z), b.op("gt", x, w)), x, w)
            case "eq" | "ne" | "lt" | "le" | "gt" | "ge":
                return b.op("select", b.op(op, x, z), x, w)
            case "real" | "int":
                return b.op("mul", x, b.add("real", (b.add("int", (z,), Type("int", (H,)), "int"),), real(H), "real"))
            case "floordiv" | "mod":
                return b.op("add", b.op(op, b.op("mul", x, w), b.op("add", b.op("exp", z), b.literal(0.5))), x)
        positive = {"log", "sqrt", "rsqrt", "pow", "log1p"}
        first = b.op("mul", x, w)
        first = b.op("exp", first) if op in positive else first
        return b.op("mul", b.op(op, first), x) if OPS[op].arity == 1 else b.op(op, first, b.op("add", z, x))
    return make


def structure(op, **attrs):
    def make(m):
        b, x, w = m.b, m.input("x", I, H), m.param("w", H)
        y = b.op("mul", x, b.align(w, (I, H)))

        def add(shape, *args):
            return b.add(op, args or (y,), real(*shape), op, **attrs)

        match op:
            case "broadcast":
                return b.op("mul", add((H, K, I)), b.align(m.input("z", K), (H, K, I)))
            case "slice":
                return b.op("mul", add((I, S1)), b.slice(x, 1, 0, S1))
            case "pad":
                return b.op("mul", add((I, S2)), add((I, S2)))
            case "index":
                return b.op("mul", add((H,)), b.index(x, 0, 0))
            case "place":
                return add((K, I, H))
            case "concat":
                return b.op("tanh", add((I, Dim("8", 8)), y, b.op("exp", y)))
            case "stack":
                return b.op("tanh", add((I, H, S1), y, b.op("exp", y)))
            case "interleave":
                return b.op("tanh", add((I, Dim("8", 8))))
            case "fold":
                return b.op("tanh", add((I, S1)))
        return b.op("tanh", add((I, H)))
    return make


def reduction(fn, axes):
    def make(m):
        b, x, w = m.b, m.input("x", I, H), m.param("w", H)
        y = b.reduce(b.op("mul", x, b.align(w, (I, H))), fn, axes)
        y = b.add("real", (y,), b.type(y).with_kind("real"), "real") if fn == "argmax" else y
        return b.op("mul", y, b.reduce(x, "sum", axes))
    return make


def product(spec, semiring, *shapes):
    def make(m):
        b, x, w = m.b, m.input("x", *shapes[0]), m.input("w", *shapes[1])
        y = b.contract(x, b.op("sin", w), spec, semiring)
        return b.add("real", (y,), b.type(y).with_kind("real"), "real") if semiring == "argmax" else y
    return make


def linalg(op, *rhs):
    def make(m):
        b, x = m.b, m.input("x", I, H, M)
        rows, cols = (b.broadcast(b.add("iota", (), Type("int", (d,)), "iota"), (I, H, M), (i,))
                      for i, d in ((1, H), (2, M)))
        A = b.op("add", x, b.op("mul", b.add("real", (b.op("eq", rows, cols),), real(I, H, M), "eye"), b.literal(5.0)))
        if op == "logdet":
            return b.add(op, (A,), real(I), op)
        z = m.input("z", I, H, *rhs)
        return b.add(op, (A, z), real(I, M, *rhs), op)
    return make


def places(op, *common):
    """gather or scatter along H of [I, H], one place per K, the same for all of I or different."""
    def make(m):
        b, x, w, z = m.b, m.input("x", I, H), m.param("w", H), m.input("z", *common, K)
        at = b.add("int", (b.op("mul", z, b.literal(2.0)),), Type("int", (*common, K)), "int")
        y = b.op("mul", x, b.align(w, (I, H)))
        picked = b.gather(y, at, 1, len(common))
        if op == "gather":
            return b.op("tanh", picked)
        return b.op("tanh", b.add(op, (b.op("sin", picked), at), real(I, H), op, axis=1, batch=len(common), places=1))
    return make


def running(semiring, axis, reverse=False):
    def make(m):
        b, x, z = m.b, m.input("x", I, H), m.input("z", I, H)
        return b.running(b.op("mul", x, z), b.op("sin", z), axis, semiring, reverse)
    return make


def cumprod(axis, reverse):
    return lambda m: m.b.cumprod(m.b.op("mul", m.input("x", I, H), m.input("z", I, H)), axis, reverse)


def solve_lower(transposed, *rhs):
    def make(m):
        return m.b.solve_lower(m.input("x", I, H, H), m.input("z", I, H, *rhs), transposed)
    return make


def decayed(readers, writers):
    def make(m):
        rows = [m.input(name, K, I, H) for name in "xdzuvw"[:readers + 1 + writers]]
        return m.b.decayed(tuple(rows[:readers]), rows[readers], tuple(rows[readers + 1:]))
    return make


def ends(readers, writers):
    def make(m):
        rows = [m.input(name, K, I, H) for name in "xdzuvw"[:readers + 1 + writers]]
        return m.b.ends(tuple(rows[:readers]), rows[readers], tuple(rows[readers + 1:]))
    return make


def decayed_sum(transposed):
    return lambda m: m.b.decayed_sum(m.input("g", K, I, I), m.input("d", K, I, H), m.input("z", K, I, H), transposed)


def leafy(op):
    def make(m):
        b, x = m.b, m.input("x", H)
        match op:
            case "iota":
                k = b.add("iota", (), Type("int", (H,)), "iota")
                return b.op("mul", x, b.add("real", (k,), real(H), "real"))
            case "training":
                return b.op("select", b.broadcast(b.add(op, (), BOOL, op), (H,), ()), b.op("exp", x), b.op("sin", x))
            case "random":
                t = m.state("t", init=0, kind="int")
                return b.op("mul", x, b.add(op, (t,), real(H), op, site=3, dist="normal"))
        return b.op("mul", x, b.literal(0.3))
    return make


CASES = {
    **{op: pointwise(op) for op, o in OPS.items() if o.group == "pointwise"},
    "broadcast": structure("broadcast", axes=(2, 0)), "slice": structure("slice", axis=1, start=1),
    "pad": structure("pad", axis=1, start=1), "index": structure("index", axis=0, at=2),
    "place": structure("place", axis=0, at=1), "concat": structure("concat", axis=1),
    "stack": structure("stack", axis=2),
    "interleave": structure("interleave", axis=1, times=2), "fold": structure("fold", axis=1, times=2),
    "gather": places("gather"), "gather each": places("gather", I),
    "scatter": places("scatter"), "scatter each": places("scatter", I),
    "cumsum": structure("cumsum", axis=1, reverse=False), "cumsum reversed": structure("cumsum", axis=0, reverse=True),
    **{f"reduce {fn} {axes}": reduction(fn, axes) for fn in ("sum", "max", "min", "prod", "lse", "argmax")
       for axes in ((0,), (1,), (0, 1))},
    **{f"contract {s} {r}": product(s, r, *shapes) for r in ("sum", "max", "min", "lse", "argmax") for s, shapes in {
        "ij,j->i": ((I, H), (H,)), "kij,kj->ki": ((K, I, H), (K, H)), "ij,jk->ki": ((I, H), (H, K))}.items()},
    **{f"contract {s}": product(s, "sum", *shapes) for s, shapes in {
        "i,j->ij": ((I,), (H,)), "ij,k->k": ((I, H), (K,)), "i,i->i": ((I,), (I,)), "ij,ij->": ((I, H), (I, H)),
        "ij,ji->j": ((I, H), (H, I)), "ijk,k->ji": ((I, H, K), (K,)), "i,jk->ij": ((I,), (H, K))}.items()},
    "solve": linalg("solve"), "solve several": linalg("solve", V), "logdet": linalg("logdet"),
    **{f"running {s} {axis} {r}": running(s, axis, r) for s in ("sum", "max", "lse") for axis in (0, 1)
       for r in (False, True)},
    **{f"solve_lower {t} {len(r)}": solve_lower(t, *r) for t in (False, True) for r in ((), (V,))},
    **{f"cumprod {axis} {r}": cumprod(axis, r) for axis in (0, 1) for r in (False, True)},
    **{f"decayed {r} {w}": decayed(r, w) for r, w in ((1, 1), (2, 1), (1, 2), (2, 3))},
    **{f"ends {r} {w}": ends(r, w) for r, w in ((1, 1), (2, 0), (0, 1), (2, 2))}, **{f"decayed_sum {t}": decayed_sum(t) for t in (False, True)},
    **{op: leafy(op) for op in ("iota", "training", "random", "literal")},
}


def cell_of(make, name="case"):
    """The case, its value also fed through a state."""
    m = Make(name)
    y = make(m)
    h = m.state("h", *m.b.type(y).shape)
    y = m.b.op("add", y, m.b.op("mul", h, m.b.literal(0.5)))
    m.output("y", y)
    ticks = {"t": m.b.op("add", m.b.read("state", "t", Type("int")), m.b.literal(1, "int"))} if any(
        n == "t" for n, _, _ in m.states) else {}
    return m.cell(h=y, **ticks)


@pytest.mark.parametrize("name", CASES)
def test_derivative(name):
    cell = cell_of(CASES[name])
    for save in ("auto", "all"):
        assert_adjoint(cell, adjoint(cell, save))


def test_every_operation_is_covered():
    real = {o.name for o in OPS.values() if o.group != "complex"}      # `realify` comes before
    assert set(RULES) | GATHERED | LAST | {"input", "param", "state", "draw"} == real
    tested = {n.op for make in CASES.values() for n in cell_of(make).body}
    assert tested | LAST | {"draw"} == real


# -- where derivatives are infinite or values tie --------------------------------------
def gradient_of(make, **inputs):
    """d.INPUT of a cell fed with given values at every step, all output cotangents 1; and autograd's."""
    cell = cell_of(make)
    adj = adjoint(cell)
    types = {p.name: p.type for p in cell.inputs}
    xs = {k: torch.tensor(v, dtype=torch.float64).expand(B, T, *types[k].sizes).contiguous() for k, v in inputs.items()}
    params = {p.name: torch.ones(p.type.sizes, dtype=torch.float64) for p in cell.params}
    leaves = {k: leaf(x) for k, x in xs.items()}
    y = interp.run(cell, leaves, params).outputs["y"]
    want = torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y), allow_unused=True)
    with torch.no_grad():
        forward = interp.run(adj.forward, xs, params)
        back = {p.name: xs[p.name] if p.name in xs else forward.outputs.get(p.name, torch.ones_like(y))
                for p in adj.backward.inputs}
        got = interp.run(adj.backward, back, params).outputs
    for (name, x), d in zip(leaves.items(), want):
        d = torch.zeros_like(x) if d is None else d
        torch.testing.assert_close(got[f"d.{name}"], d, equal_nan=True)
        assert torch.isfinite(d).all(), "the case should have a finite gradient"


def unary(op):
    return lambda m: m.b.op(op, m.input("x", H))


def branch(op, bad=0.0):
    """op is infinite at `bad`, and not selected there."""
    def make(m):
        x = m.input("x", H)
        return m.b.op("select", m.b.op("eq", x, m.b.literal(bad)), m.b.literal(1.0), op(m.b, x))
    return make


@pytest.mark.parametrize("op", [
    lambda b, x: b.op("log", x), lambda b, x: b.op("sqrt", x), lambda b, x: b.op("rsqrt", x),
    lambda b, x: b.op("div", x, x), lambda b, x: b.op("pow", x, b.literal(0.3)), lambda b, x: b.op("pow", x, x),
    lambda b, x: b.op("log", b.op("mul", x, x)), lambda b, x: b.op("exp", b.op("div", b.literal(1.0), x)),
    lambda b, x: b.op("mul", b.op("log", x), b.op("sin", x)), lambda b, x: b.op("atan2", x, x),
    lambda b, x: b.op("sqrt", b.op("abs", x)), lambda b, x: b.op("tanh", b.op("log", x)),
])
def test_a_branch_not_selected_contributes_nothing(op):
    gradient_of(branch(op), x=[0.0, 1.0, 2.0, 0.5])


def test_overflow_in_a_branch_not_selected():
    def make(m):
        b, x = m.b, m.input("x", H)
        safe = b.op("log1p", b.op("exp", x))
        return b.op("select", b.op("gt", x, b.literal(30.0)), x, b.op("mul", safe, b.op("exp", x)))
    gradient_of(make, x=[1e4, 1.0, 31.0, -3.0])


def test_norm_at_zero_below_its_floor():
    def make(m):
        b, x = m.b, m.input("x", H)
        norm = b.op("sqrt", b.reduce(b.op("mul", x, x), "sum", (0,)))
        return b.op("div", x, b.op("max", norm, b.literal(1e-12)))
    gradient_of(make, x=[0.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("first", [True, False])
def test_ties_go_to_the_first(op, first):
    def make(m):
        x, z = m.input("x", H), m.input("z", H)
        return m.b.op(op, *((x, z) if first else (z, x)))
    gradient_of(make, x=[1.0, 2.0, 3.0, 0.0], z=[1.0, 3.0, 2.0, 0.0])


@pytest.mark.parametrize("fn", ["max", "min", "prod", "lse"])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("x", [[[1.0, 1.0, 0.0, 1.0]] * 3, [[0.0, 0.0, 2.0, 0.0]] * 3, [[3.0, 0.0, 2.0, -1.0]] * 3])
def test_reductions_with_ties_and_zeros(fn, axes, x):
    gradient_of(lambda m: m.b.reduce(m.input("x", I, H), fn, axes), x=x)


@pytest.mark.parametrize("make", [
    lambda b, y: b.reduce(y, "lse", (0,)), lambda b, y: b.reduce(y, "max", (0,)),
    lambda b, y: b.op("logaddexp", y, y), lambda b, y: b.op("max", y, y),
    lambda b, y: b.contract(y, y, "i,i->", "max"), lambda b, y: b.contract(y, y, "i,i->", "lse"),
])
def test_nothing_at_all_minus_infinity(make):
    def build(m):
        b, x = m.b, m.input("x", H)
        masked = b.op("select", b.op("gt", x, b.literal(0.0)), x, b.literal(-INF))
        y = make(b, masked)
        return b.op("max", y, b.literal(-1.0))
    gradient_of(build, x=[-1.0, -2.0, -3.0, -1.0])
    gradient_of(build, x=[-1.0, 2.0, 3.0, -1.0])


def test_unguarded_where_the_divisor_stays_away_from_zero():
    def make(m):
        b, x = m.b, m.input("x", H)
        var = b.op("add", b.reduce(b.op("mul", x, x), "sum", (0,)), b.literal(1e-5))
        return b.op("mul", x, b.op("rsqrt", var))
    backward = adjoint(cell_of(make)).backward
    assert not any(n.op == "select" for n in backward.body)
    assert any(n.op == "select" for n in adjoint(cell_of(unary("rsqrt"))).backward.body)


def test_a_handwritten_sigmoid_far_out():
    def make(m):
        b, x = m.b, m.input("x", H)
        return b.op("div", b.literal(1.0), b.op("add", b.literal(1.0), b.op("exp", b.op("neg", x))))
    gradient_of(make, x=[-1e4, -800.0, 0.0, 1e4])


def test_guards_only_where_values_may_be_infinite():
    def guards(name):
        return [n for n in lower(CELLS[name]()).adjoint.backward.body if n.op == "eq"]

    assert len(guards("slstm")) == 1    # the division by n; exp(l - max(l, i)) does not overflow
    assert not [*guards("lstm"), *guards("gru"), *guards("lstm_layernorm"), *guards("delta_rule")]


def test_a_choice_bounds_its_branches():
    m = Make("elu")
    b, x = m.b, m.input("x", H)
    y = b.op("select", b.op("gt", x, b.literal(0.0)), b.op("add", x, b.literal(1.0)), b.op("exp", x))
    z = b.op("select", b.op("gt", x, b.literal(0.0)), b.op("exp", x), x)
    top = b.reduce(x, "max", (0,))
    e = b.op("exp", b.op("sub", x, b.broadcast(top, (H,), ())))
    total = b.reduce(e, "sum", (0,))
    m.output("y", b.op("add", b.op("mul", y, z), b.broadcast(total, (H,), ())))
    ranges = Ranges(m.cell())
    assert y not in ranges.wild and z in ranges.wild
    assert ranges.interval[y] == (0, INF) and ranges.interval[total] == (1, INF)


def test_ranges_follow_facts():
    assert from_facts(("in (0, 1)",)) == (0, 1)
    assert from_facts(("<= 0",)) == (-INF, 0) and from_facts(("> -2.5",)) == (-2.5, INF)
    assert from_facts(("nonneg", "in [-5, 1e-05]")) == (0, 1e-05)
    assert from_facts(("symmetric",)) == (-INF, INF)
    for facts, finite in (((), False), (("<= 0",), True)):
        m = Make("decay")
        m.inputs.append(Input("g", real(H), facts=facts))
        y = m.b.op("exp", m.b.read("input", "g", real(H)))
        m.output("y", y)
        assert (y not in Ranges(m.cell()).nonfinite) == finite
