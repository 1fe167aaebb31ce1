"""Strips: backward steps of matrix states, a few rows at a time through all of a tile, against the interpreter."""

from __future__ import annotations

from pathlib import Path

import ostinato
import pytest
import torch
from ostinato.backends.llvm import jit
from ostinato.backends.llvm.executable import build
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules import strips
from ostinato.frontend.load import load
from ostinato.runtime.sample import sample_inputs

pytestmark = pytest.mark.skipif(jit.host()["vector_bits"] != 512, reason="sizes for 32 registers of 512 bits")
ZOO = Path(__file__).parents[2] / "examples/zoo"
UPDATES = {
    "rows": "S[t-1] * exp(-g[t]^2) + outer(k[t], v[t])",
    "scalar": "S[t-1] * exp(-b[t]^2) + outer(tanh(k[t]), v[t])",
    "lanes": "S[t-1] * sigmoid(v[t]) + outer(k[t], v[t]) * b[t]",
}
READS = {
    "rows": "output o: [V] = q[t] @ S[t]",
    "lanes": "output o: [K] = S[t] @ v[t]",
    "old": "output o: [V] = q[t] @ S[t-1] + k[t] @ S[t]",
}


def text(update: str, read: str) -> str:
    return f"""cell c(K, V) {{
  input q: [K], k: [K], v: [V], g: [K], b: []
  state S: [K, V] = 0

  S[t] = {UPDATES[update]}
  {READS[read]}
}}
"""


def where(source: str) -> str | Path:
    return source if "\n" in source else ZOO / f"{source}.ost"


def backward(source: str, dtype: torch.dtype = torch.float32, **sizes: int):
    cells = load(where(source)).cells
    return build(lower(next(iter(cells.values())).elaborate(**sizes)), dtype).back.kernel


@pytest.mark.parametrize("name", ["gla", "simple_gla", "rwkv6", "hgrn2", "retnet"])
def test_large_states_go_back_in_strips(name):
    kernel = backward(name, K=64, V=64, N=2)
    (_, trail), = kernel.runs[0].trails.items()
    assert kernel.strip == 4
    assert next(b for b in kernel.scratch if b.name == trail).numel == 4 * 64
    assert all(len(r.steps.phases) == 1 for r in kernel.runs)


@pytest.mark.parametrize("name, K, V", [
    ("gla", 16, 16),                            # fits the first-level cache anyway
    ("gla", 64, 128),                           # a strip would be too few rows
    ("gla", 128, 60),                           # lanes left over
    ("deltanet", 64, 64), ("rwkv7", 64, 64)])   # sums over the rows come before the update
def test_others_do_not(name, K, V):
    kernel = backward(name, K=K, V=V, N=2)
    assert not kernel.strip
    assert "strips" not in ostinato.compile(ZOO / f"{name}.ost", K=K, V=V, N=2, schedule="sequential").ir("schedule")


def test_float64_states_of_that_size_have_no_room_in_the_registers():
    assert not backward("gla", torch.float64, K=64, V=64, N=2).strip


def test_the_schedule_says_so():
    shown = ostinato.compile(ZOO / "gla.ost", K=64, V=64, N=2, schedule="sequential").ir("schedule")
    assert "kernel backward heads N reverse checkpoints load strips of 4 rows" in shown


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("K, V, T", [(99, 32, 67), (402, 16, 33), (197, 32, 1)])
def test_cells(update, read, K, V, T):
    agree(text(update, read), T, 1e-12, torch.float64, K=K, V=V)


@pytest.mark.parametrize("name, T", [("gla", 31), ("gla", 32), ("gla", 1), ("gla", 2), ("simple_gla", 65), ("hgrn2", 40)])
def test_zoo(name, T):
    agree(name, T, 1e-12, torch.float64, K=98, V=32, N=3)


@pytest.mark.parametrize("name", ["gla", "simple_gla", "rwkv5", "rwkv6", "hgrn2", "retnet", "gateloop"])
def test_any_size(name, monkeypatch):
    """Strips of states of any size agree, whether they pay or not."""
    monkeypatch.setattr(strips, "LARGE", 1)
    agree(name, 5, 1e-12, torch.float64, K=10, V=24, N=2)


def test_float32():
    agree("gla", 100, 2e-4, torch.float32, K=67, V=64, N=2)


def agree(source: str, T: int, tolerance: float, dtype: torch.dtype, **sizes: int) -> None:
    layer = ostinato.compile(where(source), dtype=dtype, schedule="sequential", **sizes)
    assert backward(source, dtype, **sizes).strip
    xs = {k: (x / 3).to(dtype).requires_grad_() for k, x in sample_inputs(layer.cell, 3, T, 0).items()}
    results = [[y, *final.values()] for y, final in (layer(**xs), layer.reference(**xs))]
    g = torch.Generator().manual_seed(0)
    cts = [torch.randn(y.shape, generator=g, dtype=torch.float64) for y in results[1]]
    grads = [torch.autograd.grad(ys, list(xs.values()), [c.to(y.dtype) for c, y in zip(cts, ys)],
                                 materialize_grads=True) for ys in results]
    for found, wanted in (*zip(*results), *zip(*grads)):
        assert torch.isfinite(found).all()
        if wanted.numel():
            assert (found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1e-12)
