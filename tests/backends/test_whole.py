"""Operations computed as a whole by kernels, against the interpreter: values and gradients."""

import math

import pytest
import torch
from ostinato.backends.llvm import executable
from ostinato.ir import interp
from ostinato.ir.build import Builder
from ostinato.ir.cell import Cell, Input, Output, State
from ostinato.ir.types import Dim, Type
from ostinato.runtime.forms import hoisted

B, T = 2, 3


def cell_of(make, *shapes) -> Cell:
    """y = make(builder, inputs), which also adds to a state half of which goes into the first input."""
    b = Builder()
    types = [Type("real", s) for s in shapes]
    xs = [b.read("input", f"x{i}", t) for i, t in enumerate(types)]
    y = make(b, *xs)
    t = b.type(y)
    h = b.read("state", "h", t)
    z = b.op("add", y, b.op("mul", h, b.literal(0.5)))
    return Cell("c", tuple(dict.fromkeys(d for s in shapes for d in s)), None,
                tuple(Input(f"x{i}", t) for i, t in enumerate(types)), (), (State("h", t, b.full(0.0, t), z),),
                (Output("y", z),), body=tuple(b.nodes))


def check(cell: Cell, change=lambda x: x, dtype=torch.float64, tolerance=1e-11) -> None:
    g = torch.Generator().manual_seed(0)
    xs = [change(torch.randn((B, T, *p.type.sizes), generator=g, dtype=torch.float64)) for p in cell.inputs]
    h = torch.randn((B, *cell.states[0].type.sizes), generator=g, dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in (*xs, h)]
    names = [p.name for p in cell.inputs]
    r = interp.run(cell, dict(zip(names, leaves)), {}, {"h": leaves[-1]})
    ends = [r.outputs["y"], r.state["h"]]
    cts = [torch.randn(y.shape, generator=g, dtype=torch.float64) for y in ends]
    want = torch.autograd.grad(ends, leaves, cts, allow_unused=True)
    want = [torch.zeros_like(x) if d is None else d for x, d in zip(leaves, want)]
    e = hoisted.build(executable, cell, dtype)
    low = lambda some: [x.to(dtype) for x in some]
    outputs, finals, tape = e.forward(low(xs), [], low([h]), seed=0, training=False, keep=True)
    dx, _, ds = e.backward(low(xs), [], low([h]), tape, low(cts[:1]), low(cts[1:]), seed=0, training=False)
    for got, ref in zip((*outputs, *finals, *dx, *ds), (*ends, *want)):
        torch.testing.assert_close(got.double(), ref.detach(), rtol=tolerance, atol=tolerance, equal_nan=False)


def dim(name: str, size: int) -> Dim:
    return Dim(name, size)


@pytest.mark.parametrize("n, m", [(1, 1), (2, 3), (5, 1), (7, 37), (16, 64), (3, 71)])
@pytest.mark.parametrize("semiring, reverse", [("sum", False), ("sum", True), ("max", True), ("lse", False)])
def test_running(semiring, reverse, n, m):
    shape = (dim("L", 2), dim("N", n), dim("M", m))
    check(cell_of(lambda b, a, x: b.running(a, x, 1, semiring, reverse), shape, shape))


@pytest.mark.parametrize("n, m", [(1, 1), (2, 3), (5, 1), (16, 64), (3, 71)])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumprod(reverse, n, m):
    shape = (dim("L", 2), dim("N", n), dim("M", m))
    some = lambda x: torch.where(x.abs() > 0.5, x, 0.0)
    check(cell_of(lambda b, a: b.cumprod(a, 1, reverse), shape), some)
    check(cell_of(lambda b, a: b.cumprod(a, 1, reverse), shape), dtype=torch.float32, tolerance=2e-5)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(axis, reverse):
    shape = (dim("N", 5), dim("M", 21))
    make = lambda b, x: b.add("cumsum", (x,), b.type(x), "cumsum", axis=axis, reverse=reverse)
    check(cell_of(make, shape))
    whole = lambda b, x: b.add("real", (make(b, b.add("int", (x,), Type("int", shape), "int")),), b.type(x), "real")
    check(cell_of(whole, shape))


@pytest.mark.parametrize("semiring", ["sum", "max", "lse"])
def test_resets_are_exact(semiring):
    shape = (dim("N", 6), dim("M", 9))
    zero = 0.0 if semiring == "sum" else -math.inf
    check(cell_of(lambda b, a, x: b.running(a, x, 0, semiring), shape, shape),
          lambda x: torch.where(x > 0.8, zero, x))


@pytest.mark.parametrize("semiring", ["max", "lse"])
def test_nothing_gives_no_gradient(semiring):
    shape = (dim("N", 4), dim("M", 5))

    def make(b, a, x):
        y = b.running(a, x, 0, semiring)
        return b.op("select", b.op("eq", y, b.literal(-math.inf)), b.literal(0.0), y)

    check(cell_of(make, shape, shape), lambda x: torch.where(x > -0.3, -math.inf, x))


@pytest.mark.parametrize("n, m", [(1, 1), (3, 2), (4, 16), (6, 33), (16, 8), (21, 40)])
@pytest.mark.parametrize("transposed", [False, True])
def test_solve_lower(transposed, n, m):
    N = dim("N", n)
    make = lambda b, low, x: b.solve_lower(low, x, transposed)
    check(cell_of(make, (N, N), (N, dim("M", m))), lambda x: 0.3 * x)
    check(cell_of(make, (dim("L", 2), N, N), (dim("L", 2), N)), lambda x: 0.3 * x)


@pytest.mark.parametrize("n, k", [(1, 3), (2, 16), (5, 1), (16, 64), (9, 21), (18, 70), (8, 5), (33, 8)])
def test_decayed(n, k):
    L, N, K = dim("L", 2), dim("N", n), dim("K", k)
    some = lambda x: torch.where(x.abs() > 0.5, x, 0.0)         # a third of the decays is 0
    check(cell_of(lambda b, a, d, x: b.decayed((a,), d, (x,)), (L, N, K), (L, N, K), (L, N, K)), some)
    for across in (False, True):
        make = lambda b, g, d, x: b.decayed_sum(g, d, x, across)
        check(cell_of(make, (L, N, N), (L, N, K), (L, N, K)), some)


@pytest.mark.parametrize("n, k", [(1, 3), (2, 16), (5, 1), (16, 64), (9, 21), (8, 60), (18, 70), (33, 8)])
@pytest.mark.parametrize("readers, writers", [(2, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_decayed_of_several(n, k, readers, writers, dtype, tolerance):
    L, N, K = dim("L", 2), dim("N", n), dim("K", k)
    some = lambda x: torch.where(x.abs() > 0.5, x, 0.0)
    make = lambda b, d, *rows: b.decayed(rows[:readers], d, rows[readers:])
    check(cell_of(make, *[(L, N, K)] * (1 + readers + writers)), some, dtype, tolerance)


@pytest.mark.parametrize("n, k", [(1, 3), (2, 16), (5, 1), (16, 64), (9, 21), (8, 60), (33, 70)])
@pytest.mark.parametrize("readers, writers", [(1, 1), (2, 2), (1, 0), (0, 2)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_ends(n, k, readers, writers, dtype, tolerance):
    L, N, K = dim("L", 2), dim("N", n), dim("K", k)
    some = lambda x: torch.where(x.abs() > 0.5, x, 0.0)
    make = lambda b, d, *rows: b.ends(rows[:readers], d, rows[readers:])
    check(cell_of(make, *[(L, N, K)] * (1 + readers + writers)), some, dtype, tolerance)


@pytest.mark.parametrize("n, k", [(1, 3), (2, 16), (5, 1), (16, 64), (9, 21), (8, 60), (18, 5)])
@pytest.mark.parametrize("readers, writers", [(1, 1), (2, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("product", [False, True])
def test_derivatives_with_ends(n, k, readers, writers, product):
    L, N, K, operands = dim("L", 2), dim("N", n), dim("K", k), readers + writers
    P = () if readers * writers == 1 else (dim(str(readers * writers), readers * writers),)

    def make(b, g, c, d, *rows):
        at = operands + readers
        return b.decayed_back(g, rows[operands:at], d, rows[at:], (*rows[:operands], *([c] if product else [])))

    same_without_gradients(cell_of(make, (L, *P, N, N), (L, K), *[(L, N, K)] * (1 + 2 * operands)))


@pytest.mark.parametrize("n, k", [(1, 3), (5, 1), (8, 60), (16, 64), (33, 8)])
@pytest.mark.parametrize("readers, writers", [(0, 0), (1, 0), (0, 2), (2, 1)])
def test_derivatives_of_ends_and_product(n, k, readers, writers):
    L, N, K, operands = dim("L", 2), dim("N", n), dim("K", k), readers + writers

    def make(b, c, d, *rows):
        at = operands + readers
        return b.ends_back((*rows[:operands], c), rows[operands:at], d, rows[at:])

    same_without_gradients(cell_of(make, (L, K), *[(L, N, K)] * (1 + 2 * operands)))


@pytest.mark.parametrize("axis, n, k", [(1, 1, 3), (1, 8, 20), (1, 5, 1), (2, 8, 20)])
def test_product(axis, n, k):
    some = lambda x: torch.where(x.abs() > 0.3, x, 0.0)
    check(cell_of(lambda b, d: b.reduce(d, "prod", (axis,)), (dim("L", 2), dim("N", n), dim("K", k))), some)


def same_without_gradients(cell: Cell) -> None:
    """Values, a third of what goes in being 0."""
    some = lambda x: torch.where(x.abs() > 0.5, x, 0.0)
    xs = [some(torch.randn((B, T, *p.type.sizes), dtype=torch.float64)) for p in cell.inputs]
    want = interp.run(cell, {p.name: x for p, x in zip(cell.inputs, xs)}, {})
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-3)):
        e = executable.build(executable.prepare(cell), dtype)
        h = torch.zeros((B, *cell.states[0].type.sizes), dtype=dtype)
        outputs, _, _ = e.forward([x.to(dtype) for x in xs], [], [h], seed=0, training=False, keep=False)
        torch.testing.assert_close(outputs[0].double(), want.outputs["y"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_decays_of_every_size(dtype, tolerance):
    """0, exp(-50), exp(-5), about 1, larger than 1 and negative, one beside the other."""
    L, N, K = dim("L", 2), dim("N", 16), dim("K", 40)
    kinds = torch.tensor([0.0, math.exp(-50), math.exp(-5), 0.99, 1.5, -0.7], dtype=torch.float64)
    mixed = lambda x: kinds[(x * 1000).long() % len(kinds)]
    check(cell_of(lambda b, a, d, x: b.decayed((a,), d, (x,)), (L, N, K), (L, N, K), (L, N, K)), mixed, dtype, tolerance)
    for across in (False, True):
        make = lambda b, g, d, x: b.decayed_sum(g, d, x, across)
        check(cell_of(make, (L, N, N), (L, N, K), (L, N, K)), mixed, dtype, tolerance)


def test_single_precision():
    shape = (dim("N", 9), dim("M", 50))
    check(cell_of(lambda b, a, x: b.running(a, x, 0), shape, shape), lambda x: 0.5 * x, torch.float32, 1e-5)
    N = dim("N", 9)
    check(cell_of(lambda b, low, x: b.solve_lower(low, x), (N, N), (N, dim("M", 50))), lambda x: 0.2 * x,
          torch.float32, 1e-5)
