"""Every pointwise operation of the IR as vector code: error bounds, limits, agreement with the meaning."""

import math

import numpy as np
import pytest
import torch
from llvmlite import ir
from ostinato.backends.llvm import math as emitter
from ostinato.backends.llvm import ulp
from ostinato.backends.llvm.vector import F32
from ostinato.ir.meaning import POINTWISE
from ostinato.ir.ops import OPS

DTYPES = ("float32", "float64")
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, -1e-40, 1.0, -1.0, 0.5, 2.0, -3.0, 100.0, -100.0,
           800.0, -800.0, 1e30, -1e30, 88.8, -87.4, 1e-300, -709.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ulp.BOUNDS)
def test_error_is_within_the_stated_bound(op, dtype):
    error, at = ulp.measure(op, dtype, 60_000, seed=1)
    assert error <= ulp.BOUNDS[op][DTYPES.index(dtype)], f"{error} ulp at {at!r}"
    assert error > 0.4  # a bound that nothing approaches would measure nothing


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ulp.BOUNDS)
def test_limits_signs_and_nan(op, dtype):
    x = np.array(SPECIAL, dtype)
    y = ulp.apply(op, x)
    wanted = POINTWISE[op](torch.from_numpy(x).double()).numpy()
    with np.errstate(over="ignore"):
        near = wanted.astype(dtype)
    tiny = np.finfo(dtype).tiny
    for x_, y_, w in zip(x, y, near):
        if np.isnan(w):
            assert np.isnan(y_), (x_, y_)
        elif abs(w) < tiny:
            assert abs(y_ - w) <= tiny, (x_, y_, w)  # subnormal results may be 0
        else:
            assert y_ == pytest.approx(w, rel=4 * float(np.finfo(dtype).eps)), (x_, y_, w)
    if op in ("expm1", "log1p", "tanh", "erf"):
        assert np.signbit(y[1]) and y[1] == 0 and not np.signbit(y[0])
    if op in ("exp", "sigmoid", "softplus"):
        assert y[3] == 0


def test_monotone_saturation_is_exact():
    for dtype in DTYPES:
        x = np.array([25.0, 60.0, 500.0, math.inf], dtype)
        assert (ulp.apply("tanh", x) == 1).all() and (ulp.apply("tanh", -x) == -1).all()
        assert (ulp.apply("sigmoid", 2 * x) == 1).all() and (ulp.apply("erf", x) == 1).all()


@pytest.mark.parametrize("lanes", [0, 1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("op", ["tanh", "sigmoid", "log", "softplus"])
def test_any_number_of_lanes_gives_the_same_bits(op, lanes):
    x = np.linspace(0.01, 9, 48, dtype="float32")
    assert np.array_equal(ulp.apply(op, x, lanes=lanes), ulp.apply(op, x, lanes=16))


# -- all operations against the interpreter's definition ---------------------
def operands(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    if dtype == "bool":
        return np.array([0, 0, 1, 1], "bool"), np.array([0, 1, 0, 1], "bool")
    if dtype == "int64":
        small = np.array([0, 1, -1, 2, -2, 3, -3, 7, -7, 2**40, -2**40, 2**53 + 1], "int64")
        return np.repeat(small, len(small)), np.tile(small, len(small))
    some = np.array([0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, -7, math.inf, -math.inf, math.nan, 1e10, 0.3])
    a, b = np.repeat(some, len(some)), np.tile(some, len(some))
    return (np.concatenate([a, rng.normal(size=100) * 4]).astype(dtype),
            np.concatenate([b, rng.normal(size=100) * 4]).astype(dtype))


KIND = {"float32": "real", "float64": "real", "int64": "int", "bool": "bool"}
CASES = [(op.name, dtype) for op in OPS.values() if op.group == "pointwise" and op.name in POINTWISE
         for dtype, kind in KIND.items()
         if kind in op.kinds and op.name not in ("select", "custom_grad", "stop_gradient")]


@pytest.mark.parametrize("op,dtype", CASES)
def test_operation_agrees_with_its_meaning(op, dtype):
    xs = operands(dtype)[:OPS[op].arity]
    y = ulp.apply(op, *xs)
    wanted = POINTWISE[op](*map(torch.from_numpy, xs)).numpy()
    if KIND[dtype] != "real":
        assert np.array_equal(y, wanted)
        return
    assert y.dtype == wanted.dtype
    eps = np.finfo(dtype).eps
    # torch's log-sum-exp rounds 1 + e^-gap, so near 0 it is good to eps only
    np.testing.assert_allclose(y, wanted, rtol=8 * eps, atol=eps if op == "logaddexp" else np.finfo(dtype).tiny)


def test_every_pointwise_operation_is_covered():
    named = {op for op, _ in CASES} | {"select", "custom_grad", "stop_gradient", "real", "int"}
    assert named == {op.name for op in OPS.values() if op.group == "pointwise"}


@pytest.mark.parametrize("dtype", KIND)
def test_select_takes_the_branch_whatever_the_other_holds(dtype):
    a, b = operands(dtype)
    c = np.arange(len(a)) % 3 == 0
    assert np.array_equal(ulp.apply("select", c, a, b), np.where(c, a, b), equal_nan=KIND[dtype] == "real")


def test_casts():
    x = np.array([0.0, 1.9, -1.9, 1e15, -3.0, 2.5], "float64")
    assert np.array_equal(ulp.apply("int", x), x.astype("int64"))
    odd = np.array([math.nan, math.inf, -math.inf, 1e30])
    assert (ulp.apply("int", odd) == np.iinfo("int64").min).all()
    assert np.array_equal(ulp.apply("int", np.array([True, False])), [1, 0])
    whole = np.array([3, -4, 2**60 + 1], "int64")
    assert np.array_equal(ulp.apply("real", whole, real="float32"), whole.astype("float32"))
    assert np.array_equal(ulp.apply("real", np.array([True, False]), real="float64"), [1.0, 0.0])


def test_large_angles_do_not_disturb_their_neighbours():
    x = np.array([1e30, 0.5, -3e20, math.inf, 2.0, math.nan, 1.5, -0.0] * 2, "float32")
    y = ulp.apply("sin", x)
    np.testing.assert_allclose(y, np.sin(x.astype("float64"), where=np.isfinite(x), out=np.full(16, np.nan)), rtol=2e-7)
    assert np.array_equal(y[[1, 4, 6]], ulp.apply("sin", np.array([0.5, 2.0, 1.5], "float32")))


def test_square_is_a_product():
    fn = ir.Function(ir.Module(), ir.FunctionType(F32, [F32]), "f")
    b = ir.IRBuilder(fn.append_basic_block())
    assert emitter.emit(b, "pow", fn.args[0], ir.Constant(F32, 2.0)).opname == "fmul"


def test_integer_division_never_traps():
    a = np.array([5, -5, np.iinfo("int64").min, 0], "int64")
    zero, minus = np.zeros_like(a), -np.ones_like(a)
    assert np.array_equal(ulp.apply("floordiv", a, zero), zero) and np.array_equal(ulp.apply("mod", a, zero), a)
    with np.errstate(over="ignore"):
        assert np.array_equal(ulp.apply("floordiv", a, minus), -a)
    assert np.array_equal(ulp.apply("mod", a, minus), zero)


def test_operations_without_code_are_refused():
    fn = ir.Function(ir.Module(), ir.FunctionType(F32, [F32]), "f")
    b = ir.IRBuilder(fn.append_basic_block())
    with pytest.raises(NotImplementedError, match="gelu"):
        emitter.emit(b, "gelu", fn.args[0])


@pytest.mark.parametrize("real", ["f32", "f64"])
def test_coefficients_are_those_of_the_fit(real):
    from ostinato.backends.llvm import coefficients, fit

    stored = {"f32": coefficients.F32, "f64": coefficients.F64}[real]
    fitted = {name: tuple(fit._rounded(v, real) for v in values) for name, values in fit.tables(real).items()}
    assert stored == fitted
