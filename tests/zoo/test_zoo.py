"""Every cell of the zoo: the interpreter against the oracle, the compiled cell against the interpreter."""

from __future__ import annotations

from functools import cache

import numpy as np
import oracles
import ostinato
import pytest
import torch
from scipy.signal import lfilter
from torch.func import functional_call
from zoo_data import (
    NAMES,
    assert_close,
    cast,
    data,
    detached,
    evaluate,
    gradients,
    leaves,
    path,
    shake,
    sizes,
)

WIDER = {"I": 7, "H": 19, "D": 37, "K": 18, "V": 21, "N": 3, "M": 6, "n": 2, "S": 9}     # several vectors and a rest


# at small sizes the schedule that is chosen, at wide ones steps: chunks have their own tests, and take long to compile
@cache
def layer(name: str, backend: str, dtype: torch.dtype = torch.float64, wide: bool = False):
    dims = {k: WIDER[k] for k in sizes(name)} if wide else sizes(name)
    made = ostinato.compile(path(name), backend=backend, dtype=dtype, schedule="sequential" if wide else "auto", **dims)
    shake(made)
    return made


def test_every_cell_has_an_oracle():
    assert set(NAMES) == set(oracles.STEPS) | set(oracles.WHOLE)


@pytest.mark.parametrize("name", NAMES)
def test_interpreter_agrees_with_oracle(name):
    """Outputs, final states and gradients by inputs, parameters and initial states, to 1e-10."""
    cell = layer(name, "interpreter")
    xs, states = data(cell, B=3, T=17)
    got = evaluate(cell.reference, cell, xs, states)
    xs, states = leaves(xs), leaves(states)
    params = dict(cell.named_parameters()) | dict(cell.named_buffers())
    outputs, finals = oracles.run(name, xs, params, states)
    results = {k: outputs[k] for k in cell.output_names} | {f"final.{k}": finals[k] for k in cell.state_names}
    want = results | gradients(results, xs | states | dict(cell.named_parameters()))
    assert set(finals) == set(cell.state_names)
    assert_close(got, detached(want), 1e-10, name)


@pytest.mark.parametrize("name", NAMES)
def test_declared_initial_state(name):
    """Without a state, both start from the declared one (where -inf and parameters occur)."""
    cell = layer(name, "interpreter")
    xs, _ = data(cell, B=2, T=5)
    y, finals = cell.reference(**xs)
    outputs, want = oracles.run(name, xs, dict(cell.named_parameters()), cell.initial_state(2))
    got = dict(zip(cell.output_names, (y,) if isinstance(y, torch.Tensor) else y))
    assert_close(detached(got | finals), detached({k: outputs[k] for k in got} | {k: want[k] for k in finals}), 1e-10)


TORCH = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}


@pytest.mark.parametrize("name", TORCH)
def test_interpreter_agrees_with_torch(name):
    """The three cells that torch.nn has, values and gradients."""
    cell = layer(name, "interpreter")
    xs, states = data(cell, B=3, T=17)
    got = evaluate(cell.reference, cell, xs, states)
    xs, states = leaves(xs), leaves(states)
    p = dict(cell.named_parameters())
    theirs = {"weight_ih_l0": p["W"], "weight_hh_l0": p["R"], "bias_ih_l0": p["b"],
              "bias_hh_l0": p.get("br", torch.zeros_like(p["b"]))}
    h = tuple(states[k][None] for k in cell.state_names)
    module = TORCH[name](cell.cell.inputs[0].type.sizes[0], h[0].shape[-1], batch_first=True, dtype=torch.float64)
    y, finals = functional_call(module, theirs, (xs["x"], h if name == "lstm" else h[0]))
    results = {"h": y} | {f"final.{k}": v[0] for k, v in
                          zip(cell.state_names, finals if name == "lstm" else (finals,))}
    assert_close(got, detached(results | gradients(results, xs | states | p)), 1e-10, name)


@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
def test_both_directions_agree_with_torch(backend):
    """torch.nn's own LSTM of both directions."""
    cell = layer("bilstm", backend)
    xs, states = data(cell, B=3, T=17)
    got = evaluate(cell, cell, xs, states)
    xs, states = leaves(xs), leaves(states)
    p = dict(cell.named_parameters())
    theirs = {f"{torchs}_l0{end}": p[f"{way}.{ours}"] for way, end in (("f", ""), ("b", "_reverse"))
              for ours, torchs in (("W", "weight_ih"), ("R", "weight_hh"), ("b", "bias_ih"))}
    theirs |= {k.replace("_ih_", "_hh_"): torch.zeros_like(v) for k, v in theirs.items() if k.startswith("bias")}
    module = torch.nn.LSTM(3, 5, batch_first=True, bidirectional=True, dtype=torch.float64)
    first = tuple(torch.stack([states[f"f.{k}"], states[f"b.{k}"]]) for k in "hc")
    y, finals = functional_call(module, theirs, (xs["x"], first))
    results = {"y": y} | {f"final.{way}.{k}": v[i] for i, way in enumerate("fb") for k, v in zip("hc", finals)}
    assert_close(got, detached(results | gradients(results, xs | states | p)), 1e-10)


def test_iir_agrees_with_scipy():
    cell = layer("iir", "interpreter")
    x = data(cell, B=2, T=200)[0]["x"]
    a = np.concatenate([[1.0], cell.get_parameter("a").detach().numpy()])
    want = lfilter(cell.get_parameter("b").detach().numpy(), a, x.numpy(), axis=1)
    assert_close({"y": cell.reference(x)[0].detach()}, {"y": torch.from_numpy(want)}, 1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_llvm_agrees_with_interpreter(name):
    """float64, every B and T, values and all gradients to 1e-10; nothing is compiled anew for a B or a T."""
    cell = layer(name, "llvm")
    evaluate(cell, cell, *data(cell, B=2, T=19))       # 16 steps may be a chunk, and some are left
    compiled = ostinato.compile_count()
    for B in (0, 1, 3):
        for T in (0, 1, 2, 17):
            xs, states = data(cell, B, T)
            assert_close(evaluate(cell, cell, xs, states), evaluate(cell.reference, cell, xs, states), 1e-10,
                         f"{name} B={B} T={T}")
    assert ostinato.compile_count() == compiled


# one of each structure is tested always, the others with `make fuzz`; float32 tests every cell at these widths
ALWAYS = ("aaren", "crf", "deltanet", "gla", "gru", "iir", "kalman", "lru", "lstm_layernorm", "mamba", "mlstm", "srwm",
          "titans", "viterbi")


@pytest.mark.parametrize("name", [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_llvm_at_odd_widths(name):
    """Widths that need whole vectors and a rest, from the declared initial state."""
    cell = layer(name, "llvm", wide=True)
    xs, _ = data(cell, B=5, T=9)
    assert_close(evaluate(cell, cell, xs, {}), evaluate(cell.reference, cell, xs, {}), 1e-10, name)


@pytest.mark.parametrize("name", NAMES)
def test_llvm_in_float32(name):
    """RMS of the error relative to the reference's RMS; the reference sees the same float32 numbers."""
    cell = layer(name, "llvm", torch.float32, wide=True)
    xs, states = data(cell, B=3, T=17)
    xs, states = cast(xs, torch.float32), cast(states, torch.float32)
    got = evaluate(cell, cell, xs, states)
    want = evaluate(cell.reference, cell, cast(xs, torch.float64), cast(states, torch.float64))
    assert all(v.dtype == torch.float32 for v in got.values() if v.is_floating_point())
    assert_close(got, want, 5e-5, name)


@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
@pytest.mark.parametrize("name", sorted(oracles.STEPS))
def test_steps_equal_sequence(name, backend):
    cell = layer(name, backend)
    xs, states = data(cell, B=3, T=7)
    with torch.no_grad():
        y, want = cell(**xs, state=states)
        rows, state = [], states
        for t in range(7):
            y_t, state = cell.step(**{k: v[:, t] for k, v in xs.items()}, state=state)
            rows.append((y_t,) if isinstance(y_t, torch.Tensor) else tuple(y_t))
    got = dict(zip(cell.output_names, (torch.stack(r, 1) for r in zip(*rows))))
    whole = dict(zip(cell.output_names, (y,) if isinstance(y, torch.Tensor) else y))
    assert_close(got | state, whole | want, 1e-12, name)


def test_jrt_rnn_goes_on_from_its_prefix():
    """The prefix at once, then piece by piece from the decoder's states alone."""
    cell = layer("jrt_rnn", "llvm")
    xs, _ = data(cell, B=2, T=12)
    xs["prefix"] = torch.arange(12).expand(2, 12) < 5
    want, ends = cell(**xs)
    ys, state = [], {}
    for at, n in ((0, 5), (5, 1), (6, 6)):
        y, end = cell(**{k: v[:, at:at + n] for k, v in xs.items()}, state=state)
        ys, state = [*ys, y], {k: end[k] for k in "Sz"}
    assert_close({"o": torch.cat(ys, 1).detach(), **state}, {"o": want.detach(), **{k: ends[k] for k in "Sz"}}, 1e-12)
