"""Weights in the order of the loops: every way a panel is made, against torch's own permutation."""

import ctypes

import ostinato
import pytest
import torch
from llvmlite import ir
from ostinato.backends.llvm import jit
from ostinato.backends.llvm.executable import FEW_ROWS
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


def test_few_and_many_rows_agree_and_are_compiled_together():
    """Few rows read weights where they lie, many read packs; no number of rows compiles anything later."""
    layer = ostinato.compile("""
cell c(I, H) {
  input  x: [I]
  param  W: [3*H, I], R: [3*H, H] ~ normal(0, 0.2)
  state  h: [H] = 0
  a, b, c = split(W @ x[t] + R @ h[t-1], 3)
  h[t] = tanh(a + sigmoid(b) * c)
  output h
}""", I=21, H=37)
    executable, x = layer._plan.executable, torch.randn(3, 2 * FEW_ROWS, 21)
    want, _ = layer.reference(x)
    with torch.no_grad():
        layer(x[:1, :1])
        compiled = ostinato.compile_count()
        assert executable.infer.packs and not executable.single.packs
        for B, T in ((1, 1), (1, FEW_ROWS), (1, FEW_ROWS + 1), (3, x.shape[1])):
            y, _ = layer(x[:B, :T])
            torch.testing.assert_close(y, want[:B, :T].float(), rtol=1e-4, atol=1e-5)
        assert ostinato.compile_count() == compiled
