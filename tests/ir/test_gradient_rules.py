"""Where the definition's gradients differ from torch's, and why each case matters."""

import math

import pytest
import torch
from ostinato.ir import meaning
from ostinato.ir.meaning import POINTWISE, contract, logaddexp, logdet, lse, maximum, minimum, reduce, solve

F64 = torch.float64
INF, NAN = math.inf, math.nan


def leaf(*values):
    return torch.tensor(values, dtype=F64, requires_grad=True)


def grads(y, *xs, ct=None):
    ct = torch.ones_like(y) if ct is None else torch.tensor(ct, dtype=F64)
    return [g.tolist() for g in torch.autograd.grad(y, xs, ct)]


BAD = {  # operands at which the local derivative is not finite
    "log": [0.0], "sqrt": [0.0], "rsqrt": [0.0], "log1p": [-1.0], "exp": [INF], "expm1": [INF], "div": [1.0, 0.0],
    "pow": [0.0, -1.0], "mul": [INF, NAN], "atan2": [0.0, 0.0], "tan": [INF], "tanh": [NAN], "sin": [INF],
    "cos": [INF], "sigmoid": [NAN], "softplus": [NAN], "logsigmoid": [NAN], "erf": [NAN], "atan": [NAN], "abs": [NAN],
    "logaddexp": [NAN, 0.0], "mod": [1.0, 0.0],
}


@pytest.mark.parametrize("op", BAD)
def test_no_cotangent_no_gradient(op):
    xs = [leaf(v, v) for v in BAD[op]]
    for g in grads(POINTWISE[op](*xs), *xs, ct=[0.0, 0.0]):
        assert g == [0.0, 0.0]


@pytest.mark.parametrize("op", BAD)
def test_the_branch_not_selected_contributes_nothing(op):
    xs = [leaf(v) for v in BAD[op]]
    other = leaf(2.0)
    y = torch.where(torch.tensor([False]), POINTWISE[op](*xs), other * 3)
    assert grads(y, other, *xs) == [[3.0], *([[0.0]] * len(xs))]


def test_the_rule_reaches_through_reductions_and_products():
    x, w = leaf(INF, 1.0), leaf(2.0, NAN)
    y = contract(x, w, "i,i->i", "sum")
    assert grads(y, x, w, ct=[0.0, 0.0]) == [[0.0, 0.0], [0.0, 0.0]]
    m = torch.tensor([[INF, 1.0], [2.0, 3.0]], dtype=F64, requires_grad=True)
    v = leaf(5.0, 7.0)
    gm, gv = grads(contract(m, v, "ij,j->i", "sum"), m, v, ct=[0.0, 1.0])
    assert gm == [[0.0, 0.0], [5.0, 7.0]] and gv == [2.0, 3.0]
    p = leaf(INF, 3.0)
    assert grads(reduce(p, 1, "prod", (0,)), p, ct=0.0) == [[0.0, 0.0]]


def test_singular_systems_without_cotangent():
    a = torch.stack([torch.zeros(2, 2), torch.eye(2)]).double().requires_grad_()
    b = torch.ones(2, 2, dtype=F64, requires_grad=True)
    y = solve(a, b, vector=True)
    assert not y[0].isfinite().any() and y[1].tolist() == [1.0, 1.0]
    ga, gb = torch.autograd.grad(y, (a, b), torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=F64))
    assert ga[0].tolist() == [[0.0, 0.0]] * 2 and gb.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert ga[1].tolist() == [[-1.0, -1.0]] * 2
    d = logdet(a)
    assert d[0].item() == -INF and d[1].item() == 0
    assert torch.autograd.grad(d, a, torch.tensor([0.0, 1.0], dtype=F64))[0].tolist() == [[[0.0] * 2] * 2,
                                                                                         [[1.0, 0.0], [0.0, 1.0]]]


@pytest.mark.parametrize("fn, bound", [(maximum, -INF), (minimum, INF)])
def test_ties_give_the_first_operand_everything(fn, bound):
    a, b = leaf(2.0, 1.0), leaf(2.0, 1.0)
    assert grads(fn(a, b), a, b) == [[1.0, 1.0], [0.0, 0.0]]
    assert math.isnan(fn(leaf(NAN), leaf(0.0)).item()) and math.isnan(fn(leaf(0.0), leaf(NAN)).item())
    assert fn(leaf(3.0), leaf(bound)).item() == 3.0


def test_ties_in_a_reduction_go_to_the_first_index():
    x = torch.tensor([[1.0, 4.0], [4.0, 4.0]], dtype=F64, requires_grad=True)
    assert grads(reduce(x, 2, "max", (0, 1)), x) == [[[0.0, 1.0], [0.0, 0.0]]]
    assert grads(reduce(x, 2, "max", (1, 0)), x) == [[[0.0, 1.0], [0.0, 0.0]]]
    assert grads(reduce(x, 2, "min", (1,)), x) == [[[1.0, 0.0], [1.0, 0.0]]]
    w = torch.zeros(2, 2, dtype=F64, requires_grad=True)
    v = leaf(1.0, 1.0)
    assert grads(contract(w, v, "ij,j->i", "max"), w, v) == [[[1.0, 0.0], [1.0, 0.0]], [2.0, 0.0]]


def test_running_over_resets_ties_and_nothing():
    a, b = leaf(NAN, 0.0, 2.0), leaf(3.0, 5.0, 7.0)
    assert grads(meaning.running(a, b, -1, False, "sum"), a, b, ct=[0.0, 0.0, 1.0]) == [[0.0, 6.0, 5.0], [0.0, 2.0, 1.0]]
    a, b = leaf(NAN, 1.0, -INF), leaf(0.0, 1.0, -INF)
    assert meaning.running(a, b, -1, False, "max").tolist() == [0.0, 1.0, -INF]
    assert grads(meaning.running(a, b, -1, False, "max"), a, b) == [[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]]
    for semiring in ("max", "lse"):
        a, b = leaf(0.0, 1.0, -INF), leaf(-INF, -INF, -INF)
        assert grads(meaning.running(a, b, -1, False, semiring), a, b) == [[0.0] * 3] * 2


def test_nothing_but_minus_infinity_has_no_derivative():
    x = leaf(-INF, -INF)
    a, b = leaf(-INF), leaf(-INF)
    for y, xs in ((lse(x), (x,)), (logaddexp(a, b), (a, b)), (maximum(a, b), (a, b)), (reduce(x, 1, "max", (0,)), (x,)),
                  (contract(x, x, "i,i->", "lse"), (x,)), (contract(x, x, "i,i->", "max"), (x,))):
        assert torch.all(y == -INF)
        assert all(not torch.tensor(g).any() for g in grads(y, *xs))
    partly = leaf(-INF, 0.0)
    assert grads(lse(partly), partly) == [[0.0, 1.0]]


def test_power_at_zero():
    """As torch: no gradient to the exponent at 0^b, nor to the base at a^0."""
    a, b = leaf(0.0, 0.0, 3.0), leaf(2.0, 0.0, 0.0)
    ga, gb = grads(meaning.POINTWISE["pow"](a, b), a, b)
    assert ga == [0.0, 0.0, 0.0] and gb == [0.0, 0.0, pytest.approx(math.log(3))]


def test_an_infinite_factor_only_where_there_is_a_cotangent():
    gate, x = leaf(0.0, 2.0), leaf(INF, 5.0)
    y = meaning.multiply(gate, x)
    assert grads(y, gate, x, ct=[0.0, 1.0]) == [[0.0, 5.0], [0.0, 2.0]]
