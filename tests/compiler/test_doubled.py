"""Exponentials of doubled arguments: how many are left, and that neither values nor gradients lose digits, from gates of
exactly 0 to those that are all but shut."""

import math

import ostinato
import pytest
import torch
from ostinato.compiler.passes.doubled import Doubled
from ostinato.compiler.pipeline import lower
from ostinato.ir import interp
from ostinato.ir.build import Builder
from ostinato.ir.cell import Cell, Input, Output
from ostinato.ir.types import Dim, Type

D = Dim("D", 3)
VEC = Type("real", (D,))
SPECIAL = (0.0, -0.0, 1e-30, -1e-30, 1e-9, -1e-9, -0.3, 0.3, -5.0, -50.0, -400.0, -math.inf, 5.0, 300.0, 400.0, math.inf,
           math.nan, 1.0)
GATED = """cell gated(D) {
  input  x: [D], a: [D]
  state  h: [D] = 0
  h[t] = exp(a[t]) * h[t-1] + sqrt(-expm1(2 * a[t])) * x[t]
  output h
}"""

BOTH = """cell both(D) {
  input  a: [D]
  state  n: [] = 0
  n[t] = n[t-1] + 1
  output p: [D] = exp(a[t]), q: [D] = sqrt(-expm1(2 * a[t]))
}"""


def body(*made: tuple[str, float]) -> Cell:
    """Outputs y0, y1, ... = operation(c * x) for (operation, c)."""
    b = Builder()
    x = b.read("input", "x", VEC)
    ys = [b.op(op, x if c == 1 else b.op("mul", x, b.full(c, VEC))) for op, c in made]
    return Cell("f", (D,), None, (Input("x", VEC),), (), (), tuple(Output(f"y{i}", y) for i, y in enumerate(ys)),
                body=tuple(b.nodes))


def exponentials(cell: Cell) -> list[str]:
    return sorted(n.op for n in cell.body if n.op in ("exp", "expm1"))


@pytest.mark.parametrize("made, left", [
    ((("exp", 1), ("exp", 2)), ["exp"]),
    ((("exp", 2), ("exp", 1)), ["exp"]),                                    # in any order
    ((("exp", -3), ("exp", -6)), ["exp"]),
    ((("exp", 1), ("exp", 2), ("exp", 4)), ["exp"]),
    ((("exp", 1), ("expm1", 2)), ["exp", "expm1"]),                         # of one argument
    ((("expm1", 1), ("expm1", 2)), ["expm1"]),
    ((("expm1", 1), ("exp", 2)), ["exp", "expm1"]),                         # expm1 + 1 would lose digits
    ((("exp", 2), ("expm1", 2)), ["exp", "expm1"]),
    ((("exp", 1), ("exp", 3)), ["exp", "exp"]),
    ((("exp", 0.0), ("exp", 1)), ["exp", "exp"]),
])
def test_what_is_left(made, left):
    cell = body(*made)
    new = Doubled()(cell)
    assert exponentials(new) == left
    x = torch.tensor(SPECIAL, dtype=torch.float64).reshape(1, -1, 3)
    want, got = (interp.run(c, {"x": x}, {}).outputs for c in (cell, new))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=8e-16 if 4 not in (c for _, c in made) else 2e-15, atol=1e-320,
                                   equal_nan=True)
        zeros = want[name] == 0
        assert torch.equal(torch.signbit(got[name][zeros]), torch.signbit(want[name][zeros]))


def test_arguments_are_those_of_the_doubled_ones():
    """exp(exp(2x)) is not exp(exp(x)) squared."""
    b = Builder()
    x = b.read("input", "x", VEC)
    e, f = (b.op("exp", a) for a in (x, b.op("mul", x, b.full(2.0, VEC))))
    cell = Cell("f", (D,), None, (Input("x", VEC),), (), (),
                tuple(Output(n, b.op("exp", a)) for n, a in (("y", e), ("z", f))), body=tuple(b.nodes))
    new = Doubled()(cell)
    assert exponentials(new) == ["exp"] * 3
    x = torch.tensor([[[-1.0, 0.5, 1.5]]], dtype=torch.float64)
    torch.testing.assert_close(interp.run(new, {"x": x}, {}).outputs, interp.run(cell, {"x": x}, {}).outputs)


def test_a_gated_recurrence_needs_two():
    """Of one argument: forward; what is left for the way back is at most that."""
    made = lower(ostinato.compile(GATED, D=3).cell)
    for cell in (made.cell, made.adjoint.forward, made.adjoint.backward):
        assert exponentials(cell) in (["exp", "expm1"], ["exp"], [])


@pytest.mark.parametrize("log_decay", [-1e-30, -1e-20, -1e-7, -3e-4, -0.02, -0.7, -9.0, -40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_digit_is_lost(dtype, log_decay):
    """Every element of values and gradients beside float64 (its formula: torch's derivative of expm1 is expm1 + 1). A
    root of 1 - exp(a)^2 would be off by 100 % at a = -1e-8, and so would be 2 expm1(a) + 2 for 2 exp(a) at a = -40."""
    layer = ostinato.compile(BOTH, D=24, dtype=dtype)
    a = log_decay * (0.5 + torch.rand(2, 5, 24, generator=torch.Generator().manual_seed(1), dtype=dtype))
    (p, q), _ = layer(a=a.requires_grad_())
    d, = torch.autograd.grad((p, q), a, (-torch.ones_like(p), torch.ones_like(q)))
    a = a.detach().double()
    root = torch.sqrt(-torch.expm1(2 * a))
    info = torch.finfo(dtype)
    for got, want in ((p, torch.exp(a)), (q, root), (d, -torch.exp(a) - torch.exp(2 * a) / root)):
        torch.testing.assert_close(got.detach().double(), want, rtol=8 * info.eps, atol=2 * info.tiny)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_gates(dtype):
    """Gates of exactly 0, -50 and -inf: the interpreter's values and gradients."""
    layer = ostinato.compile(GATED, D=6, dtype=dtype)
    a = torch.tensor([0.0, -0.0, -50.0, -math.inf, -1e-12, -0.5], dtype=dtype).expand(2, 4, 6).clone().requires_grad_()
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2), dtype=dtype).requires_grad_()
    y, _ = layer(x=x, a=a)
    got = y, *torch.autograd.grad(y.sum(), (x, a))
    xs = [v.detach().double().requires_grad_() for v in (x, a)]
    y, _ = layer.reference(x=xs[0], a=xs[1])
    want = y, *torch.autograd.grad(y.sum(), xs)
    for p, q in zip(got, want):
        torch.testing.assert_close(p.double(), q, rtol=2e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)
