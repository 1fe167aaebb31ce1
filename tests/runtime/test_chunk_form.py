"""schedule="chunk" in a module: default size, single precision, tape, refusals. See also test_forms_agree."""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import ZOO, as_good_as_sequential, check
from ostinato.backends.llvm.launch import Launch
from ostinato.compiler.passes.masked import Masked
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.runtime.files import declared_sizes
from ostinato.runtime.sample import sample_inputs
from ostinato.runtime.sources import elaborate


def compiled(name: str, schedule: str, **options):
    file = ZOO / f"{name}.ost"
    return ostinato.compile(str(file), schedule=schedule, dtype=torch.float64,
                            **(declared_sizes(file.read_text()) | options))


def test_default_size_and_odd_sizes():
    assert "chunk(8)" in compiled("gla", "chunk").explain()
    check("chunk(16)", "gla", 2, 37, tolerance=1e-10, K=20, V=12, N=3)


@pytest.mark.parametrize("name, K, V, N", [("rwkv7", 60, 100, 1), ("gated_deltanet", 3, 4, 4), ("deltanet", 100, 60, 2),
                                           ("gla", 33, 7, 3)])
def test_products_of_odd_sizes(name, K, V, N):
    check("chunk(8)", name, 2, 19, tolerance=1e-10, K=K, V=V, N=N)
    as_good_as_sequential("chunk(8)", name, 2, 19, K=K, V=V, N=N)


@pytest.mark.parametrize("T", [0, 3, 64, 65])
def test_lengths(T):
    check("chunk(16)", "deltanet", 2, T, tolerance=1e-10)


TWO_STATES = """cell two_states(K, V) {
  input  q: [K], k: [K], v: [V], g: [K] <= 0, beta: [] in (0, 2)
  param  S0: [K, V] = 0.1
  state  S: [K, V] = S0, A: [K, V] = 0
  M    = exp(g[t]) * S[t-1]
  S[t] = M + beta[t] * outer(k[t], v[t] - k[t] @ M)
  A[t] = A[t-1] + outer(k[t], q[t] @ S[t-1])
  output o: [V] = q[t] @ A[t]
}"""


def test_a_delta_rule_from_a_learned_state_that_feeds_another():
    """In sequences of different lengths, the learned state is a constant that comes in within a chunk."""
    check("chunk(8)", Masked(valid=True)(elaborate(TWO_STATES, None, dict(K=3, V=4)).cell), 2, 19, tolerance=1e-10)


@pytest.mark.parametrize("name", ["gla", "retnet", "rwkv6", "rwkv7"])
def test_rows_are_used_where_they_lie(name, monkeypatch):
    """A chunk's vectors are rows, with those of other heads between them: no call copies them."""
    layer = compiled(name, "chunk(8)")
    xs = {k: x.double().requires_grad_() for k, x in sample_inputs(layer.cell, 2, 24, 0).items()}
    monkeypatch.setattr(Launch, "_copied", lambda *_: pytest.fail("a copy of an input"))
    y, _ = layer(**xs)
    torch.autograd.grad(y, list(xs.values()), torch.randn_like(y))


@pytest.mark.parametrize("change", [
    lambda x: torch.stack((x, -x), -1)[..., 0], lambda x: torch.complex(x, -x).conj().imag, lambda x: x.mT.contiguous().mT,
    lambda x: x[:1].expand(x.shape)], ids=["strided", "negative", "transposed", "repeated"])
@pytest.mark.parametrize("T", [16, 21])
def test_inputs_and_cotangents_of_any_strides(change, T):
    layer, plain = compiled("rwkv7", "chunk(8)"), compiled("rwkv7", "sequential")
    xs = {k: change(x.double()).detach().requires_grad_() for k, x in sample_inputs(layer.cell, 2, T, 0).items()}
    ys = [run(**xs)[0] for run in (layer, plain)]
    d = change(torch.randn_like(ys[0]))
    for a, b in zip(*([y, *torch.autograd.grad(y, list(xs.values()), d)] for y in ys)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_cell_that_needs_no_single_steps(monkeypatch):
    """Steps that are left run only where there are some; all kernels are there after the first call all the same."""
    layer = compiled("gla", "chunk(8)")
    rest = layer._plan.executable.rest
    calls = []
    for name in ("forward", "backward"):
        monkeypatch.setattr(rest, name, lambda *a, f=getattr(rest, name), **k: (calls.append(1), f(*a, **k))[1])
    for T, ran in ((24, 0), (27, 2), (5, 2), (0, 1)):
        xs = {k: x.double().requires_grad_() for k, x in sample_inputs(layer.cell, 2, T, 0).items()}
        calls.clear()
        y, _ = layer(**xs)
        assert "keep" in vars(rest)
        if T:
            torch.autograd.grad(y, list(xs.values()), torch.randn_like(y))
            assert "back" in vars(rest)
        assert len(calls) == ran


def test_training_after_inference():
    """What stands for parts that did not run is made once, and autograd saves it."""
    layer = compiled("gla", "chunk(8)")
    xs = {k: x.double() for k, x in sample_inputs(layer.cell, 2, 16, 0).items()}
    with torch.inference_mode():
        layer(**{k: x[:, :3] for k, x in xs.items()})
        layer(**xs)
    for T in (16, 3):
        y, _ = layer(**{k: x[:, :T].requires_grad_() for k, x in xs.items()})
        y.sum().backward()


def test_single_precision():
    as_good_as_sequential("chunk(16)", "gated_deltanet", 2, 70, K=16, V=16)


def test_refused_with_a_reason():
    with pytest.raises(OstinatoError, match="no schedule"):
        compiled("lstm", "chunk(16)")
    with pytest.raises(OstinatoError, match="chunk"):
        compiled("gla", "chunk(0)")
    with pytest.raises(OstinatoError, match="no schedule"):
        compiled("gla", "chunk(")
