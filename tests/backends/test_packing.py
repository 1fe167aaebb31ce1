"""Weights in the order of the loops: every way a panel is made, against torch's own permutation."""

import ctypes

import pytest
import torch
from llvmlite import ir
from ostinato.backends.llvm import jit
from ostinato.backends.llvm.packing import _panel


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind, n, here", [("transposed", 0, 16), ("transposed", 5, 16), ("transposed", 32, 16),
                                           ("transposed", 37, 16), ("copied", 7, 16), ("any", 7, 16), ("any", 7, 3),
                                           ("any", 4, 0)])
def test_a_panel(dtype, kind, n, here):
    w, real = 16, ir.FloatType() if dtype == torch.float32 else ir.DoubleType()
    module = ir.Module()
    _panel(module, kind, real, w).linkage = "external"
    code = jit.compile_module(str(module))
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 4, ctypes.c_void_p, ctypes.c_int64)(
        code.address(f"panel.{kind}"))
    memory = torch.randn(4096, dtype=dtype)
    along, across = {"transposed": (53, 1), "copied": (1, 29), "any": (31, 2)}[kind]
    to = torch.full((n, 20), 7.0, dtype=dtype)
    run(memory.data_ptr(), along, across, n, here, to.data_ptr(), 20)
    want = torch.full_like(to, 7.0)
    want[:, :w] = 0
    want[:, :here] = memory.as_strided((n, here), (across, along))
    assert torch.equal(to, want)
