"""The whole sequence as one chunk, evaluated by torch, against the interpreter."""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import as_good_as_sequential, check, executable
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.runtime import forms


@pytest.mark.parametrize("name", ["retnet", "gated_deltanet"])
def test_lengths(name):
    check("quadratic", name, 2, 300)
    as_good_as_sequential("quadratic", name, 2, 64)


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
        executable("quadratic", "lstm")
