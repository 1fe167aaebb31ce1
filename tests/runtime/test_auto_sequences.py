"""Sequences in chunks: a learned start is restarted, schedule="auto" finds another schedule where chunks cannot, and a
schedule asked for is kept."""

from __future__ import annotations

import ostinato
import pytest
import torch
from ostinato.frontend.diagnostics import OstinatoError

LEARNED = """
cell learned(K, V) {
  input  k: [K], v: [V]
  param  S0: [K, V]  ~ normal(0, 0.3)
  state  S: [K, V] = S0
  S[t] = 0.9 * S[t-1] + outer(k[t], v[t])
  output o: [V] = k[t] @ S[t]
}
"""
WAYS = [{"lengths": torch.tensor([3, 20])}, {"reset": torch.arange(40).view(2, 20) % 7 == 3},
        {"lengths": torch.tensor([20, 0]), "reset": torch.arange(40).view(2, 20) % 7 == 3}]
BOTH = LEARNED.replace("0.9 * S[t-1]", "exp(-abs(k[t])) * S[t-1] * exp(-abs(v[t]))")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=lambda w: " ".join(w))
@pytest.mark.parametrize("source, schedule, K", [(LEARNED, "auto", 192), (LEARNED, "chunk(4)", 5), (BOTH, "chunk(4)", 3)])
def test_a_learned_start_is_restarted(way, reverse, source, schedule, K):
    layer = ostinato.compile(source, dtype=torch.float64, schedule=schedule, K=K, V=K)
    assert "chunk(" in repr(layer)
    k, v = ((torch.randn(2, 20, K, dtype=torch.float64) / K ** 0.5).requires_grad_() for _ in "kv")
    found = []
    for run in (layer.reference, layer):
        y, final = run(k, v, reverse=reverse, **way)
        found.append([y, final["S"], *torch.autograd.grad(y.sin().sum() + final["S"].sin().sum(), [k, v, layer.S0])])
    for want, got in zip(*found):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_a_schedule_asked_for_is_kept():
    layer = ostinato.compile(LEARNED, schedule="conv", dtype=torch.float64, K=3, V=4)
    with pytest.raises(OstinatoError, match="no schedule `conv`.*in a call with `reset`"):
        layer(torch.randn(2, 20, 3, dtype=torch.float64), torch.randn(2, 20, 4, dtype=torch.float64), **WAYS[1])
