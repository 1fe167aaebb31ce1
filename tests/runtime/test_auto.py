"""schedule="auto": what the model chooses, that it explains itself, and that lengths compile nothing."""

import ostinato
import pytest
import torch
from ostinato.runtime.sample import sample_inputs

ZOO = "examples/zoo"


@pytest.mark.parametrize("cell, size, schedule", [
    ("simple_gla", 192, "chunk(16)"), ("simple_gla", 64, "chunk(8)"), ("simple_gla", 32, "sequential"),
    ("gla", 4, "sequential"), ("gated_deltanet", 128, "chunk(8)"), ("rwkv7", 64, "chunk(8)"), ("rwkv7", 32, "sequential"),
    ("retnet", 64, "chunk(8)"), ("gateloop", 32, "sequential"), ("gateloop", 64, "chunk(8)"), ("gateloop", 256, "chunk(8)"),
])
def test_a_state_that_is_large_enough_runs_in_chunks(cell, size, schedule):
    layer = ostinato.compile(f"{ZOO}/{cell}.ost", K=size, V=size, N=1)
    assert layer._plan.schedule == schedule


@pytest.mark.parametrize("cell, sizes", [("mamba", dict(D=128, N=64)), ("mesa", dict(K=128, V=128, N=1))])
def test_all_elements_at_all_steps_are_no_gain(cell, sizes):
    layer = ostinato.compile(f"{ZOO}/{cell}.ost", **sizes)
    assert layer._plan.schedule == "sequential" and "chunks compute every element of" in layer.explain()


BESIDE = """cell c(K, V, H) {{
  input  k: [K], v: [V], g: [] in (0, 1), r: [K], x: [H]
  {}
  S[t] = g[t] * S[t-1] + outer(k[t], v[t]){}
  output o: [V] = k[t] @ S[t]
  output y: [H] = {}
}}"""
LANE = "state  S: [K, V] = 0, h: complex [H] = 0\n  h[t] = polar(0.9, x[t]) * h[t-1] + x[t]"
MOMENTUM = "state  S: [K, V] = 0, P: [K, V] = 0\n  P[t] = tanh(r[t]) * P[t-1] + outer(k[t], v[t])"


@pytest.mark.parametrize("text, H, schedule", [
    (BESIDE.format(LANE, "", "re(h[t])"), 32, "chunk(8)"), (BESIDE.format(LANE, "", "re(h[t])"), 512, "sequential"),
    (BESIDE.format(MOMENTUM, " + tanh(r[t]) * P[t]", "x[t]"), 1, "sequential")])
def test_what_chunks_multiply_up_is_counted(text, H, schedule):
    assert ostinato.compile(text, K=64, V=64, H=H)._plan.schedule == schedule


def test_a_matrix_of_numbers_that_never_meet_is_a_vector():
    """What is added at every step is no outer product: chunks would be running sums."""
    assert ostinato.compile(f"{ZOO}/mega_ema.ost", D=96, K=96)._plan.schedule == "sequential"


def test_the_choice_is_explained():
    text = ostinato.compile(f"{ZOO}/gla.ost", K=64, V=64, N=1).explain(B=1, T=64)
    assert "by the model" in text and "rejected   conv: the transition of S depends on the inputs" in text


def test_no_matrix_state_runs_step_by_step():
    layer = ostinato.compile(f"{ZOO}/lstm.ost", I=4, H=4)
    assert layer._plan.schedule == "sequential"
    text = layer.explain()
    assert "there is no matrix state" in text and "rejected   chunk" in text


def test_lengths_compile_nothing_and_agree_with_the_definition():
    layer = ostinato.compile(f"{ZOO}/simple_gla.ost", K=192, V=192, N=1, dtype=torch.float64)
    assert layer._plan.schedule == "chunk(16)"

    def run(T):
        xs = {k: x.requires_grad_() for k, x in sample_inputs(layer.cell, 2, T).items()}
        y, state = layer(**xs)
        (y.sum() + state["S"].sum()).backward()
        return xs, y, state

    run(3)
    compiled = ostinato.compile_count()
    for T in (1, 16, 37):
        xs, y, state = run(T)
        want, end = layer.reference(**xs)
        torch.testing.assert_close(y, want, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(state["S"], end["S"], rtol=1e-11, atol=1e-11)
    assert ostinato.compile_count() == compiled
