"""Draws in vector code against the definition in ir.rng: uniform the same bits, normal to a few ulp."""

import ctypes

import numpy as np
import pytest
import torch
from llvmlite import ir
from ostinato.backends.llvm import jit, random
from ostinato.backends.llvm.vector import F32, F64, I64, splat, widen
from ostinato.ir import rng

REAL = {torch.float32: (F32, "float32"), torch.float64: (F64, "float64")}


def draw(dist, dtype, lanes, seed, site, t, n):
    real, name = REAL[dtype]
    module = ir.Module()
    ptr = ir.PointerType()
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [ptr, I64, I64, I64]), "fill")
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    out, start, seed_, t_ = fn.args
    step = widen(I64, lanes)
    offsets = ir.Constant(step, list(range(lanes))) if lanes else I64(0)
    index = b.add(splat(b, start, lanes), offsets)
    y = getattr(random, dist)(b, seed_, site, t_, index, real)
    b.store(y, b.gep(out, [start], source_etype=real), align=1)
    b.ret_void()
    code = jit.compile_module(str(module))
    fill = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)(code.address("fill"))
    y = np.empty(n, name)
    for i in range(0, n, max(lanes, 1)):
        fill(y.ctypes.data, i, seed, t)
    return y


CASES = [(0, 0, 0), (1234567, 3, 17), (2**63 - 1, 2**31, 2**40 + 5), (-5, 7, 1)]


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("seed,site,t", CASES)
@pytest.mark.parametrize("lanes", [0, 4, 16])
def test_uniform_is_the_same_bits(dtype, seed, site, t, lanes):
    wanted = rng.draw("uniform", seed, site, torch.tensor(t), (512,), dtype).numpy()
    assert np.array_equal(draw("uniform", dtype, lanes, seed, site, t, 512), wanted)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("seed,site,t", CASES)
def test_normal_agrees_to_a_few_ulp(dtype, seed, site, t):
    n = 1 << 14
    x0, x1 = (x.numpy() for x in rng.words(seed, site, torch.tensor(t), (n,)))
    u, v = ((x0 >> 8) + 1) * np.longdouble(2.0**-24), (x1 >> 8) * np.longdouble(2.0**-24)
    turn = np.longdouble(8) * np.arctan(np.longdouble(1))
    wanted = np.sqrt(-2 * np.log(u)) * np.cos(turn * v)
    y = draw("normal", dtype, 8, seed, site, t, n)
    near = np.abs(wanted.astype(REAL[dtype][1]))
    error = np.abs(y - wanted) / np.spacing(near)
    assert error[near > 1e-3].max() <= 4  # nearer to its zeros the reference is not good enough
    np.testing.assert_allclose(y, rng.draw("normal", seed, site, torch.tensor(t), (n,), dtype).numpy(),
                               rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-15)
