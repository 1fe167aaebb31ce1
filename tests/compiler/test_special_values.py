"""Zeros of both signs, infinities and exact ties, in data and in literals: the
rewriting passes change no value, and where the result is finite the adjoint's
gradients are the definition's, branches not selected included."""

import math
import random

import pytest
import torch
from ostinato.compiler.passes.adjoint import adjoint
from ostinato.compiler.pipeline import lower
from ostinato.ir.build import Builder
from ostinato.ir.cell import Cell, Input, Output
from ostinato.ir.interp import run
from ostinato.ir.types import Dim, Type

INF = math.inf
LITERALS = (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, INF, -INF, math.nan, 1e-40, 1e200)
DATA = (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, 0.3, 1.7, -0.9)
H, K = Dim("H", 3), Dim("K", 2)
VEC, MAT = Type("real", (H,)), Type("real", (H, K))
UNARY = ("neg abs sign floor ceil round exp expm1 log log1p sqrt rsqrt sin cos tanh sigmoid softplus logsigmoid erf "
         "atan stop_gradient").split()
BINARY = "add sub mul div pow max min logaddexp".split()


def random_expression(seed: int) -> Cell:
    r, b = random.Random(seed), Builder()
    vectors, matrices = [b.read("input", n, VEC) for n in "xy"], [b.read("input", "m", MAT)]

    def pick() -> str:
        return r.choice(vectors) if r.random() < 0.7 else b.full(r.choice(LITERALS), VEC)

    for _ in range(r.randint(1, 7)):
        match r.choices(range(6), (6, 7, 2, 2, 2, 1))[0]:
            case 0:
                vectors.append(b.op(r.choice(UNARY), pick()))
            case 1:
                vectors.append(b.op(r.choice(BINARY), pick(), pick()))
            case 2:
                vectors.append(b.op("select", b.op(r.choice(("gt", "lt", "eq", "le")), pick(), pick()), pick(), pick()))
            case 3:
                matrices.append(b.op(r.choice(BINARY), r.choice(matrices), b.broadcast(pick(), MAT.shape, (0,))))
            case 4:
                vectors.append(b.reduce(r.choice(matrices), r.choice(("sum", "max", "min", "lse", "prod")), (1,)))
            case 5:
                row = b.index(r.choice(matrices), 0, r.randrange(3))
                vectors.append(b.contract(r.choice(matrices), row, "hk,k->h"))
    return Cell(f"expression_{seed}", (H, K), None, (Input("x", VEC), Input("y", VEC), Input("m", MAT)), (), (),
                (Output("o", vectors[-1]),), body=tuple(b.nodes))


def special_data(seed: int) -> dict[str, torch.Tensor]:
    r = random.Random(-seed - 1)
    return {name: torch.tensor([r.choice(DATA) for _ in range(8 * t.numel)], dtype=torch.float64).reshape(4, 2, *t.sizes)
            for name, t in (("x", VEC), ("y", VEC), ("m", MAT))}


def close(got: torch.Tensor, want: torch.Tensor, what: str) -> None:
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, equal_nan=True, msg=lambda m: f"{what}: {m}")


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_values(start):
    for seed in range(start, start + 100):
        cell, data = random_expression(seed), special_data(seed)
        lowered = lower(cell)
        if not lowered.static:
            close(run(lowered.cell, data, {}).outputs["o"], run(cell, data, {}).outputs["o"], cell.name)


def gradients(cell: Cell, data: dict, ct: torch.Tensor) -> dict[str, torch.Tensor]:
    """By the adjoint, run in the interpreter."""
    a = adjoint(cell)
    kept = run(a.forward, data, {}).outputs
    given = {p.name: ct if p.name == "d.o" else data.get(p.name, kept.get(p.name)) for p in a.backward.inputs}
    back = run(a.backward, given, {}, batch=4, steps=2)
    return {name: back.outputs[f"d.{name}"] for name in data}


@pytest.mark.parametrize("start", range(0, 300, 100))
def test_gradients(start):
    finite = 0
    for seed in range(start, start + 100):
        cell, data = random_expression(seed), special_data(seed)
        leaves = {k: v.clone().requires_grad_() for k, v in data.items()}
        o = run(cell, leaves, {}).outputs["o"]
        if not o.requires_grad or not o.isfinite().all():
            continue
        finite += 1
        ct = torch.randn(o.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ct[ct.abs() < 0.3] = 0
        want = torch.autograd.grad(o, list(leaves.values()), ct, allow_unused=True, materialize_grads=True)
        for (name, got), expected in zip(gradients(cell, data, ct).items(), want):
            if not expected.isinf().any():  # at a pole, 0 and -0 may differ
                close(got, expected, f"{cell.name} d.{name}")
    assert finite > 20


@pytest.mark.parametrize("op", ["max", "logaddexp", "reduce max", "reduce lse"])
def test_nothing_flows_where_all_is_minus_infinity(op):
    """Whether or not the cotangent is 0, and next to rows that are not so."""
    b = Builder()
    x, m = b.read("input", "x", VEC), b.read("input", "m", MAT)
    if op.startswith("reduce"):
        y = b.reduce(m, op.split()[1], (1,))
    else:
        y = b.op(op, x, b.index(m, 1, 0))
    cell = Cell("empty", (H, K), None, (Input("x", VEC), Input("m", MAT)), (), (), (Output("o", y),), body=tuple(b.nodes))
    g = torch.Generator().manual_seed(0)
    data = {"x": torch.randn(4, 2, 3, generator=g, dtype=torch.float64),
            "m": torch.randn(4, 2, 3, 2, generator=g, dtype=torch.float64)}
    data["x"][0], data["m"][:2] = -INF, -INF
    ct = torch.randn(4, 2, 3, generator=g, dtype=torch.float64)
    leaves = {k: v.clone().requires_grad_() for k, v in data.items()}
    want = torch.autograd.grad(run(cell, leaves, {}).outputs["o"], list(leaves.values()), ct, allow_unused=True,
                               materialize_grads=True)
    for (name, got), expected in zip(gradients(cell, data, ct).items(), want):
        assert expected[2:].any() or name == "x" and op.startswith("reduce")
        close(got, expected, name)
