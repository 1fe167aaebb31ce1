"""schedule="step": a call for each step. The same values as the interpreter's and gradients, for any cell and direction."""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import BACKWARDS, ZOO, as_good_as_sequential, check


@pytest.mark.parametrize("name", ["lstm", "gla", "titans", "lru", "viterbi", "bilstm", "vim", BACKWARDS + "gru"])
def test_agrees(name):
    for T in (0, 1, 2, 9):
        check("step", name, 2, T)


def test_single_precision():
    as_good_as_sequential("step", "gated_deltanet", 2, 33)


def test_a_layer_is_a_loop_over_its_steps():
    layer = ostinato.compile(ZOO / "gru.ost", schedule="step", I=3, H=5)
    x, h = torch.randn(2, 7, 3), None
    y, last = layer(x)
    for t in range(7):
        y_t, h = layer.step(x[:, t], h)
        assert torch.equal(y_t, y[:, t])
    assert torch.equal(h["h"], last["h"])
    assert "one call for each step" in layer.explain(B=2, T=7)
    y, last = layer(x, lengths=torch.tensor([7, 3]))
    z, end = layer(x[1:, :3])
    assert torch.equal(y[1:, :3], z) and torch.equal(last["h"][1:], end["h"]) and not y[1, 3:].any()


def test_draws_are_those_of_other_schedules():
    text = """cell c(D) {
  input  x: [D]
  state  h: [D] = 0
  u: [D] ~ bernoulli(0.5)
  h[t] = u * x[t] + h[t-1] / 2
  output h
}"""
    x = torch.randn(2, 9, 3)
    for given in ({}, {"lengths": torch.tensor([9, 4])}):
        y, z = (ostinato.compile(text, schedule=s, D=3)(x, seed=5, **given)[0] for s in ("sequential", "step"))
        assert torch.equal(y, z)
