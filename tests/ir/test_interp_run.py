"""Running cells over time: states, batch, direction, sums, initial values."""

import pytest
import torch
from hypothesis import given, settings
from ostinato.ir.build import Builder
from ostinato.ir.cell import Cell, Input, Node, Output, Param, State
from ostinato.ir.errors import EvaluationError
from ostinato.ir.interp import initial_params, run
from ostinato.ir.types import Dim, Type
from strategies import cells, draw_data

F64 = torch.float64
I, H = Dim("I", 3), Dim("H", 4)
H4 = Dim("4*H", 16)


def real(*shape):
    return Type("real", shape)


def lstm(reverse=False) -> Cell:
    b = Builder()
    x, h, c = b.read("input", "x", real(I)), b.read("state", "h", real(H)), b.read("state", "c", real(H))
    W, R, bias = (b.read("param", n, real(*s)) for n, s in (("W", (H4, I)), ("R", (H4, H)), ("b", (H4,))))
    pre = b.op("add", b.op("add", b.contract(W, x, "ij,j->i"), b.contract(R, h, "ij,j->i")), bias)
    i, f, g, o = (b.slice(pre, 0, 4 * k, H) for k in range(4))
    new_c = b.op("add", b.op("mul", b.op("sigmoid", f), c), b.op("mul", b.op("sigmoid", i), b.op("tanh", g)))
    new_h = b.op("mul", b.op("sigmoid", o), b.op("tanh", new_c))
    zero = b.full(0.0, real(H))
    return Cell("lstm", (I, H), None, (Input("x", real(I)),), tuple(Param(n, b.type(n)) for n in "WRb"),
                (State("h", real(H), zero, new_h), State("c", real(H), zero, new_c)), (Output("h", new_h),),
                body=tuple(b.nodes), reverse=reverse)


@pytest.mark.parametrize("T", [1, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_is_torchs(reverse, T):
    torch.manual_seed(0)
    m = torch.nn.LSTM(3, 4, batch_first=True).double()
    torch.nn.init.zeros_(m.bias_hh_l0)
    x = torch.randn(2, T, 3, dtype=F64, requires_grad=True)
    h0, c0 = (torch.randn(2, 4, dtype=F64, requires_grad=True) for _ in range(2))
    weights = [m.weight_ih_l0, m.weight_hh_l0, m.bias_ih_l0]
    out = run(lstm(reverse), {"x": x}, dict(zip("WRb", weights)), {"h": h0, "c": c0})
    y, (h, c) = m(x.flip(1) if reverse else x, (h0[None], c0[None]))
    y = y.flip(1) if reverse else y
    for ours, theirs in ((out.outputs["h"], y), (out.state["h"], h[0]), (out.state["c"], c[0])):
        torch.testing.assert_close(ours, theirs)
    wrt = [x, h0, c0, *weights]
    ours = torch.autograd.grad((out.outputs["h"] ** 2).sum() + out.state["c"].sum(), wrt)
    theirs = torch.autograd.grad((y**2).sum() + c.sum(), wrt)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_the_state_passed_on_is_the_state_of_one_long_run():
    x, params, state = draw_data(lstm(), B=3, T=7)
    whole = run(lstm(), x, params, state)
    first = run(lstm(), {"x": x["x"][:, :3]}, params, state)
    second = run(lstm(), {"x": x["x"][:, 3:]}, params, first.state)
    assert torch.equal(torch.cat([first.outputs["h"], second.outputs["h"]], 1), whole.outputs["h"])
    assert all(torch.equal(second.state[k], whole.state[k]) for k in "hc")


@settings(max_examples=25, deadline=None)
@given(cells(sums=True, reverse=True))
def test_nothing_to_do(cell):
    """T = 0 and B = 0 give empty outputs, the initial state (a copy), sums of 0."""
    for B, T in ((2, 0), (0, 3), (0, 0)):
        x, params, state = draw_data(cell, B, T)
        out = run(cell, x, params, state)
        types = {n.name: n.type for n in cell.body}
        for o in cell.outputs:
            assert out.outputs[o.name].shape == (B, T, *types[o.value].sizes) and out.outputs[o.name].dtype == F64
        for s in cell.states:
            assert out.state[s.name].shape == (B, *s.type.sizes)
            if T == 0:
                assert torch.equal(out.state[s.name], state[s.name])
                assert out.state[s.name] is not state[s.name]
        assert all(not v.any() for v in out.sums.values())
        run(cell, x, params)


def test_at_length_0_the_gradient_of_the_final_state_is_the_initial_states():
    x, params, state = draw_data(lstm(), 2, 0)
    h0 = state["h"].requires_grad_()
    out = run(lstm(), x, params, state)
    assert torch.autograd.grad(out.state["h"].sum(), h0)[0].tolist() == torch.ones(2, 4).tolist()


@settings(max_examples=20, deadline=None)
@given(cells())
def test_batch_elements_do_not_meet(cell):
    x, params, state = draw_data(cell, 3, 4)
    whole = run(cell, x, params, state, training=False)
    one = run(cell, {k: v[1:2] for k, v in x.items()}, params, {k: v[1:2] for k, v in state.items()})
    for k, v in whole.outputs.items():
        torch.testing.assert_close(v[1:2], one.outputs[k])


@settings(max_examples=20, deadline=None)
@given(cells())
def test_single_precision_is_close(cell):
    x, params, _ = draw_data(cell, 2, 3)
    double, single = run(cell, x, params), run(cell, x, params, dtype=torch.float32)
    for k, v in single.outputs.items():
        assert v.dtype == torch.float32
        torch.testing.assert_close(v.double(), double.outputs[k], rtol=2e-3, atol=2e-4)


def test_reverse_sums_and_constants():
    b = Builder()
    x, s = b.read("input", "x", real(I)), b.read("state", "s", real(I))
    total, one = b.op("add", s, x), b.full(1.0, real(I))
    cell = Cell("c", (I,), None, (Input("x", real(I)),), (), (State("s", real(I), b.full(0.0, real(I)), total),),
                (Output("y", total), Output("one", one)), (Output("count", one), Output("sum", x)),
                body=tuple(b.nodes), reverse=True)
    x = torch.randn(2, 5, 3, dtype=F64)
    out = run(cell, {"x": x}, {})
    torch.testing.assert_close(out.outputs["y"], x.flip(1).cumsum(1).flip(1))
    torch.testing.assert_close(out.state["s"], x.sum(1))
    torch.testing.assert_close(out.sums["sum"], x.sum((0, 1)))
    assert out.sums["count"].tolist() == [10.0] * 3 and out.outputs["one"].shape == (2, 5, 3)


def test_a_cell_without_inputs_is_told_its_extent():
    b = Builder()
    t = b.read("state", "t", Type("int"))
    more = b.op("add", t, b.literal(1, "int"))
    cell = Cell("clock", states=(State("t", Type("int"), b.literal(0, "int"), more),), outputs=(Output("t", t),),
                body=tuple(b.nodes))
    out = run(cell, {}, {}, batch=2, steps=3)
    assert out.outputs["t"].tolist() == [[0, 1, 2]] * 2 and out.state["t"].tolist() == [3, 3]
    with pytest.raises(EvaluationError, match="pass batch= and steps="):
        run(cell, {}, {})


def test_values_that_do_not_fit_are_refused():
    x, params, state = draw_data(lstm(), 2, 3)
    with pytest.raises(EvaluationError, match=r"input x has shape \[2, 3, 4\], expected \[B, T, I=3\]"):
        run(lstm(), {"x": torch.zeros(2, 3, 4)}, params)
    with pytest.raises(EvaluationError, match="no value given for param R"):
        run(lstm(), x, {k: v for k, v in params.items() if k != "R"})
    with pytest.raises(EvaluationError, match=r"batch sizes \[2, 5\]"):
        run(lstm(), x, params, {"h": torch.zeros(5, 4)})


# -- randomness -----------------------------------------------------------------
def noise(dist="uniform") -> Cell:
    b = Builder()
    t = b.read("state", "t", Type("int"))
    u = b.add("random", (t,), real(I), site=3, dist=dist)
    more = b.op("add", t, b.literal(1, "int"))
    return Cell("noise", (I,), states=(State("t", Type("int"), b.literal(0, "int"), more),), outputs=(Output("u", u),),
                body=tuple(b.nodes))


def test_draws_depend_on_step_element_and_seed_only():
    whole = run(noise(), {}, {}, seed=5, batch=2, steps=4).outputs["u"]
    assert whole.unique().numel() == whole.numel()
    late = run(noise(), {}, {}, {"t": torch.tensor([2, 2])}, seed=5, steps=2).outputs["u"]
    assert torch.equal(late, whole[:, 2:])
    assert not torch.isclose(run(noise(), {}, {}, seed=6, batch=2, steps=4).outputs["u"], whole).any()


# -- initial values --------------------------------------------------------------
def with_init(*nodes: Node, **params: tuple[Type, str | None]) -> Cell:
    return Cell("c", params=tuple(Param(n, t, i) for n, (t, i) in params.items()), init=nodes)


def node(label, op, args, type, **attrs):
    return Node(label, op, args, tuple(sorted(attrs.items())), type)


LO, HI = node("lo", "literal", (), real(), value=-0.5), node("hi", "literal", (), real(), value=0.25)


def test_initial_values_are_drawn_from_their_distributions():
    big = real(Dim("P", 200), Dim("Q", 100))
    cell = with_init(LO, HI, node("u", "draw", ("lo", "hi"), big, dist="uniform"),
                     node("n", "draw", ("lo", "hi"), big, dist="normal"),
                     node("b", "draw", ("hi",), big, dist="bernoulli"),
                     node("o", "draw", ("lo",), big, dist="orthogonal"),
                     **{k: (big, k) for k in "unbo"})
    p = initial_params(cell, 1)
    assert -0.5 <= p["u"].min() < -0.49 and 0.24 < p["u"].max() < 0.25
    assert abs(p["n"].mean() + 0.5) < 0.01 and abs(p["n"].std() - 0.25) < 0.01
    assert set(p["b"].unique().tolist()) == {0.0, 1.0} and abs(p["b"].mean() - 0.25) < 0.02
    torch.testing.assert_close(p["o"].T @ p["o"], 0.25 * torch.eye(100, dtype=F64))
    again = initial_params(cell, 1)
    assert all(torch.equal(p[k], again[k]) for k in p)
    assert not torch.equal(p["u"], initial_params(cell, 2)["u"])
    single = initial_params(cell, 1, torch.float32)
    assert all(torch.equal(p[k].float(), single[k]) for k in p)


@pytest.mark.parametrize("shape", [(2, 5), (5, 2), (3, 2, 5), (3, 4, 4)])
def test_orthogonal_per_head(shape):
    t = real(*(Dim(f"d{i}", n) for i, n in enumerate(shape)))
    p = initial_params(with_init(node("o", "draw", (), t, dist="orthogonal"), W=(t, "o")))["W"]
    gram = p @ p.mT if shape[-2] <= shape[-1] else p.mT @ p
    torch.testing.assert_close(gram, torch.eye(gram.shape[-1], dtype=F64).expand_as(gram))


def test_an_initial_value_may_read_other_parameters():
    t = real(I)
    nodes = (LO, HI, node("u", "draw", ("lo", "hi"), t, dist="uniform"), node("A", "param", (), t, name="A"),
             node("C", "param", (), t, name="C"), node("s", "add", ("A", "C"), t))
    cell = with_init(*nodes, A=(t, "u"), B=(t, "s"), C=(t, None))
    given = torch.arange(3.0)
    p = initial_params(cell, 0, given={"C": given})
    torch.testing.assert_close(p["B"], p["A"] + given)
    with pytest.raises(EvaluationError, match="param C"):
        initial_params(cell, 0)
