"""Positions computed from data in cells whose steps run in chunks: tables, and elements of inputs and states."""

from __future__ import annotations

import ostinato
import pytest
import torch

TABLES = """
cell tables(V, K, D) heads N {
  input  token: int [] in [0, 8] shared, head: int [] in [0, 7], v: [D], w: [D, V], p: int [D] in [-1, 6]
  param  E: [V, K]  ~ normal(0, 1)
  param  F: [V, K] shared  ~ normal(0, 1)
  state  S: [K, D] = 0, s: [V] = 0, h: [D] = 0
  S[t] = 0.7 * S[t-1] + outer(E[token[t]], v[t])
  s[t] = 0.5 * s[t-1] + v[t][p[t]] @ w[t]
  h[t] = sigmoid(v[t][p[t]]) * h[t-1] + v[t][head[t]]
  output o: [D] = F[head[t]] @ S[t], y: [D] = s[t][p[t]], h
}
"""


@pytest.mark.parametrize("schedule", ["quadratic", "chunk(4)"])
def test_positions_from_data(schedule):
    layer = ostinato.compile(TABLES, schedule=schedule, dtype=torch.float64, V=7, K=3, D=4, N=2)
    g = torch.Generator().manual_seed(0)
    B, T = 3, 10
    inputs = {"token": torch.randint(0, 9, (B, T), generator=g), "head": torch.randint(0, 8, (B, T, 2), generator=g),
              "v": torch.randn(B, T, 2, 4, generator=g, dtype=torch.float64).requires_grad_(),
              "w": torch.randn(B, T, 2, 4, 7, generator=g, dtype=torch.float64).requires_grad_(),
              "p": torch.randint(-1, 7, (B, T, 2, 4), generator=g)}
    found = []
    for run in (layer.reference, layer):
        y, final = run(**inputs)
        values = [*y, *final.values()]
        h = torch.Generator().manual_seed(1)
        loss = sum((v * torch.randn(v.shape, generator=h, dtype=torch.float64)).sum() for v in values)
        leaves = [inputs["v"], inputs["w"], *layer.parameters()]
        found.append([*values, *torch.autograd.grad(loss, leaves)])
    for want, got in zip(*found):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
