"""The whole sequence as one chunk, evaluated by torch, against the interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import ostinato
from ostinato.backends.llvm import executable as llvm
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.runtime import forms
from test_scan_form import F64, close, lowered, reference

OPTIONS = dict(seed=0, training=False)


def check(schedule: str, source: str, B: int, T: int, tolerance: float = 1e-11) -> None:
    """Values, final states and gradients of every operand, for random cotangents of outputs and final states."""
    (xs, ps, ss), ends, cts, grads = reference(source, B, T)
    e = forms.build(schedule, forms.Source(llvm, lowered(source), F64))
    ys, finals, tape = e.forward(xs, ps, ss, keep=True, **OPTIONS)
    assert not tape and not e.tape_meta(B, T)
    for got, want in zip((*ys, *finals), (*ends[0], *ends[1]), strict=True):
        assert got.is_contiguous()
        close(got, want, tolerance)
    for names, got, want in zip(("input", "param", "state"), e.backward(xs, ps, ss, tape, *cts, **OPTIONS), grads):
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            assert (a is None) == (b is None), (names, i)
            if a is not None:
                assert a.is_contiguous()
                close(a, b, tolerance, f"{names} {i}")


def errors(schedule: str, source: str, B: int, T: int) -> list[float]:
    """RMS errors in float32, of outputs, final states and gradients, relative to the largest value."""
    (xs, ps, ss), ends, cts, grads = reference(source, B, T)
    e = forms.build(schedule, forms.Source(llvm, lowered(source), torch.float32))
    (xs, ps, ss, *cts) = ([None if x is None else x.float() if x.is_floating_point() else x for x in group]
                          for group in (xs, ps, ss, *cts))
    ys, finals, tape = e.forward(xs, ps, ss, keep=True, **OPTIONS)
    got = [*ys, *finals, *(d for ds in e.backward(xs, ps, ss, tape, *cts, **OPTIONS) for d in ds)]
    want = [*ends[0], *ends[1], *(d for ds in grads for d in ds)]
    return [((a - b).square().mean().sqrt() / (b.abs().max() + 1e-30)).item() for a, b in zip(got, want)
            if a is not None and a.is_floating_point()]


@pytest.mark.parametrize("T", [0, 1, 2, 15, 63, 64, 65, 300])
@pytest.mark.parametrize("name", ["retnet", "gated_deltanet"])
def test_lengths(name, T):
    check("quadratic", name, 2, T)


@pytest.mark.parametrize("name", ["gla", "kda", "mlstm", "rwkv4", "gsa", "ema", "minlstm", "hgrn2",
                                  "deltaproduct", "linear_attention", "aaren"])
def test_zoo(name):
    check("quadratic", name, 2, 19)


@pytest.mark.parametrize("name", ["retnet", "gated_deltanet"])
def test_single_precision(name):
    for ours, sequential in zip(errors("quadratic", name, 2, 64), errors("sequential", name, 2, 64), strict=True):
        assert ours <= 4 * sequential + 1e-6


def test_in_a_layer_and_too_long():
    text = """cell c(K) {
  input  q: [K], k: [K], v: [K]
  state  S: [K, K] = 0
  S[t] = 0.9 * S[t-1] + outer(k[t], v[t])
  output o: [K] = q[t] @ S[t]
}"""
    layers = [ostinato.compile(text, K=3, schedule=s) for s in ("sequential", "quadratic")]
    xs = [torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    (a, x), (b, y) = (layer(*xs) for layer in layers)
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(x["S"], y["S"])
    assert "one chunk" in layers[1].explain()
    with pytest.raises(OstinatoError, match="quadratic.*more than 2 GiB"):
        layers[1](*(x[:1, :1].expand(1, 40_000, 3) for x in xs))


def test_refused():
    with pytest.raises(forms.Unsuitable, match="sigmoid"):
        forms.build("quadratic", forms.Source(llvm, lowered("lstm"), F64))
