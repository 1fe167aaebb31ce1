"""schedule="chunk": whole chunks and the steps that are left agree with the sequential interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))

import ostinato
from ostinato.frontend.diagnostics import OstinatoError
from zoo_data import cast, data, path, shake, sizes


def compiled(name: str, schedule: str, backend: str = "interpreter", dtype=torch.float64, **given):
    layer = ostinato.compile(path(name), backend=backend, schedule=schedule, dtype=dtype, **(sizes(name) | given))
    shake(layer)
    return layer


def results(layer, inputs, states):
    """Outputs, final states, and gradients for random cotangents of both."""
    inputs, states = ({k: v.clone().requires_grad_(v.is_floating_point()) for k, v in d.items()}
                      for d in (inputs, states))
    y, final = layer(**inputs, state=states)
    values = [y, *(final[k] for k in states)]
    g = torch.Generator().manual_seed(3)
    cotangents = [torch.randn(v.shape, generator=g, dtype=torch.float64).to(v.dtype) for v in values]
    leaves = [v for d in (inputs, states, dict(layer.named_parameters())) for v in d.values() if v.requires_grad]
    pairs = [(v, d) for v, d in zip(values, cotangents) if v.requires_grad]
    grads = torch.autograd.grad([v for v, _ in pairs], leaves, [d for _, d in pairs], allow_unused=True)
    return values + [torch.zeros_like(x) if d is None else d for x, d in zip(leaves, grads)]


def agree(a, b, inputs, states, tolerance: float = 1e-11) -> None:
    for want, got in zip(results(a, inputs, states), results(b, inputs, states)):
        assert got.is_contiguous()
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("T", [0, 1, 2, 15, 16, 63, 64, 65, 130])
def test_every_length(T):
    a, b = compiled("gated_deltanet", "sequential"), compiled("gated_deltanet", "chunk(16)")
    agree(a, b, *data(a, 2, T))


@pytest.mark.parametrize("name", ["kda", "mlstm", "mingru", *(pytest.param(n, marks=pytest.mark.slow) for n in
                                  ("linear_attention", "retnet", "rwkv4", "gsa", "deltaproduct"))])
def test_zoo_on_the_llvm_back_end(name):
    a, b = compiled(name, "sequential"), compiled(name, "chunk(4)", "llvm")
    agree(a, b, *data(a, 2, 11), tolerance=1e-10)


def test_default_size_and_odd_sizes_on_the_llvm_back_end():
    a, b = (compiled("gla", s, k, K=20, V=12, N=3) for s, k in (("sequential", "interpreter"), ("chunk", "llvm")))
    assert "chunk(16)" in b.explain()
    agree(a, b, *data(a, 2, 37), tolerance=1e-10)


@pytest.mark.parametrize("T", [0, 3, 64, 65])
def test_lengths_on_the_llvm_back_end(T):
    a, b = compiled("deltanet", "sequential"), compiled("deltanet", "chunk(16)", "llvm")
    agree(a, b, *data(a, 2, T), tolerance=1e-10)


def test_single_precision():
    exact, a, b = compiled("gated_deltanet", "sequential", K=16, V=16), *(
        compiled("gated_deltanet", s, "llvm", torch.float32, K=16, V=16) for s in ("sequential", "chunk(16)"))
    inputs, states = data(exact, 2, 70)
    want = results(exact, inputs, states)
    errors = []
    for layer in (a, b):
        got = results(layer, cast(inputs, torch.float32), cast(states, torch.float32))
        errors.append([(x.double() - y).square().mean().sqrt().item() for x, y in zip(got, want)])
    for sequential, chunked in zip(*errors):
        assert chunked <= 4 * sequential + 1e-6


def test_split_with_carried_state():
    a, b = compiled("kda", "sequential"), compiled("kda", "chunk(8)")
    inputs, states = data(a, 2, 29)
    y, final = a(**inputs, state=states)
    at, state, parts = 0, states, []
    for n in (3, 17, 9):
        part, state = b(**{k: v[:, at:at + n] for k, v in inputs.items()}, state=state)
        parts.append(part)
        at += n
    torch.testing.assert_close(torch.cat(parts, 1), y, rtol=1e-11, atol=1e-11)
    for k, v in final.items():
        torch.testing.assert_close(state[k], v, rtol=1e-11, atol=1e-11)


def test_tape_is_as_announced():
    layer = compiled("linear_attention", "chunk(4)", "llvm")
    inputs, states = data(layer, 2, 11)
    plan = layer._plan
    _, _, tape = plan.executable.forward(list(inputs.values()), [], list(states.values()), seed=0, training=False,
                                         keep=True)
    assert [(tuple(x.shape), x.dtype) for x in tape] == plan.executable.tape_meta(2, 11)


GROUPED = """
cell grouped(K, V, G) heads N {
  input  q: [K], k: [K] heads G, v: [V] heads G, g: [] <= 0
  state  S: [K, V] = 0
  S[t] = exp(g[t]) * S[t-1] + outer(k[t], v[t])
  output o: [V] = q[t] @ S[t]
}
"""


@pytest.mark.parametrize("backend, groups", [("interpreter", 1), ("interpreter", 2), ("llvm", 2)])
def test_grouped_heads(backend, groups):
    a, b = (ostinato.compile(GROUPED, backend=k, schedule=s, dtype=torch.float64, K=3, V=4, N=4, G=groups)
            for k, s in (("interpreter", "sequential"), (backend, "chunk(4)")))
    agree(a, b, *data(a, 2, 9), tolerance=1e-10)


def test_refused_with_a_reason():
    with pytest.raises(OstinatoError, match="no schedule"):
        compiled("lstm", "chunk(16)")
    with pytest.raises(OstinatoError, match="chunk"):
        compiled("gla", "chunk(0)")
