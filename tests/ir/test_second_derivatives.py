"""Gradients of the interpreter's gradients: by finite differences, and under the rule that no cotangent is no gradient."""

from __future__ import annotations

import math

import pytest
import torch
from ostinato.ir import meaning
from ostinato.ir.interp import run
from ostinato.ir.meaning import POINTWISE, contract, logaddexp, lse
from ostinato.runtime.sources import elaborate
from torch.autograd import gradcheck, gradgradcheck

F64 = torch.float64
INF = math.inf
REAL = "abs exp expm1 log log1p sqrt rsqrt sin cos tan tanh sigmoid erf atan softplus logsigmoid".split()


def leaf(*shape, seed=0):
    """Random numbers in (0.2, 1.2), away from kinks."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64) + 0.2).requires_grad_()


@pytest.mark.parametrize("op", REAL)
def test_functions_of_one_value(op):
    assert gradgradcheck(POINTWISE[op], (leaf(3),))


@pytest.mark.parametrize("op", ["mul", "div", "pow", "atan2", "logaddexp", "max"])
def test_functions_of_two_values(op):
    assert gradgradcheck(POINTWISE[op], (leaf(3), leaf(3, seed=1)))


@pytest.mark.parametrize("f", [
    lambda a, b: contract(a, b, "ij,jk->ik", "sum"), lambda a, b: contract(a, b, "ij,jk->ik", "lse"),
    lambda a, b: meaning.reduce(a @ b, 2, "prod", (1,)), lambda a, b: meaning.running(a, b, -1, False, "sum"),
    lambda a, b: meaning.solve(a + 2 * torch.eye(3, dtype=F64), b, False),
    lambda a, b: meaning.logdet(a + 2 * torch.eye(3, dtype=F64)) * b,
    lambda a, b: POINTWISE["custom_grad"](torch.sin(a).detach(), a, torch.cos(a)) * b], ids=range(7))
def test_reductions_products_systems(f):
    assert gradgradcheck(f, (leaf(3, 3), leaf(3, 3, seed=1)))


@pytest.mark.parametrize("op", ["exp", "sqrt", "log", "modulus", "mul", "div"])
def test_complex_values(op):
    xs = [torch.complex(leaf(2, seed=i), leaf(2, seed=5 + i)).detach().requires_grad_() for i in range(1 + (op in ("mul", "div")))]
    assert gradcheck(POINTWISE[op], xs) and gradgradcheck(POINTWISE[op], xs)


def test_a_zero_cotangent_hides_no_second_derivative():
    """The gradient of (log(x) - y)^2 is 0 where both are equal, its derivative is not."""
    x = torch.tensor([1.0, 2.0], dtype=F64, requires_grad=True)
    y = POINTWISE["log"](x)
    loss = POINTWISE["mul"](*[y - y.detach()] * 2).sum()
    g, = torch.autograd.grad(loss, x, create_graph=True)
    assert g.tolist() == [0.0, 0.0]
    assert torch.autograd.grad(g.sum(), x)[0].tolist() == [2.0, 0.5]


def test_the_branch_not_selected_stays_out():
    x = torch.tensor([0.0, 4.0], dtype=F64, requires_grad=True)
    for op in ("sqrt", "log", "rsqrt"):
        y = torch.where(x > 0, POINTWISE["mul"](POINTWISE[op](x), POINTWISE["tanh"](POINTWISE["exp"](x) - 50)), 3 * x)
        g, = torch.autograd.grad(y.sum(), x, create_graph=True)
        gg, = torch.autograd.grad(g.square().sum(), x)
        assert g[0] == 3 and gg[0] == 0 and gg.isfinite().all()
    for f in (lse, lambda x: logaddexp(x, x)):
        x = torch.full((2,), -INF, dtype=F64, requires_grad=True)
        g, = torch.autograd.grad(f(x).sum(), x, create_graph=True)
        assert not torch.autograd.grad(g.sum(), x)[0].any()


CELL = """
fn cube(v) = v^3  derivative 3 * v^2
cell c(K, V) {
  input  k: [K], v: [V]
  param  w: [K] = 0.3
  state  S: [K, V] = 0, m: [] = -inf
  dS   = grad(sum((k[t] @ S[t-1] - v[t])^2), S[t-1])
  S[t] = S[t-1] - outer(sigmoid(w), ones(V)) * dS
  m[t] = logaddexp(m[t-1], norm(v[t])) if sum(k[t]) > 0 else m[t-1]
  output o: [V] = solve(eye(K) + outer(k[t], k[t]), S[t])[0] * exp(m[t] - 3) * cube(sum(v[t]))
}
"""


def test_a_whole_cell():
    """An inner gradient, a choice, a system, a function with a gradient of its own, a maximum that starts from -inf."""
    cell = elaborate(CELL, None, dict(K=2, V=2)).cell

    def f(k, v, S, w):
        r = run(cell, {"k": k, "v": v}, {"w": w}, {"S": S})
        return r.outputs["o"], r.state["S"]

    assert gradgradcheck(f, (leaf(1, 2, 2), leaf(1, 2, 2, seed=1), leaf(1, 2, 2, seed=2), leaf(2, seed=3)))
