"""States as convolutions with powers of constant transitions, against the interpreter."""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import F64, ZOO, as_good_as_sequential, check, executable
from batches import Batch, by_layer, marks, own
from batches import check as as_alone
from ostinato.compiler.passes.realify import realify
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.ir import interp
from ostinato.runtime import forms
from ostinato.runtime.files import declared_sizes
from ostinato.runtime.layer import Layer
from ostinato.runtime.sources import elaborate


@pytest.mark.parametrize("name", ["ema", "lru", "lssl", "iir"])
def test_long(name):
    check("conv", name, 2, 300)
    for T in (60, 300):
        as_good_as_sequential("conv", name, 2, T)


CHAIN = """# sizes: D=3
cell chain(D) {
  input  x: [D]
  param  a: [D] in (0, 1), c: [] in (0, 1)  ~ uniform(0.1, 0.9)
  state  p: [D] = 0, q: [D] = 0, r: [D] = 0
  p[t] = a * p[t-1] + x[t] * x[t-3]
  q[t] = c * q[t-1] + tanh(p[t-1]) * t
  r[t] = r[t-1] + q[t] * p[t]
  output y: [D] = sigmoid(r[t]) * q[t-1] + x[t], z: [] = 2 * c
}"""

BOTH_AXES = """# sizes: K=3 V=2
cell both(K, V) {
  input  k: [K], v: [V]
  param  M: [K, K], Q: [V, V]  ~ normal(0, 0.3)
  param  u: [K]  ~ normal(0, 0.3)
  state  S: [K, V] = 0, R: [K, V] = 0
  S[t] = M @ S[t-1] @ Q + outer(k[t], v[t])
  R[t] = R[t-1] * 0.9 - outer(u, u @ R[t-1]) + S[t]
  output y: [V] = k[t] @ S[t], z: [K, V] = exp(R[t] - S[t-1])
}"""

COUPLED = """# sizes: D=3
cell coupled(D) {
  input  x: [D]
  param  w: [D, D]  ~ normal(0, 0.3)
  state  p: [D] = 0, q: [D] = 0
  p[t] = 0.5 * p[t-1] - w @ q[t-1] + x[t]
  q[t] = 0.5 * q[t-1] + 0.1 * p[t-1]
  output y: [D] = p[t] * q[t]
}"""

DEFECTIVE = """# sizes: D=3
cell defective(D) {
  input  x: [D]
  state  p: [D] = 0, q: [D] = 0, r: [D] = 0
  p[t] = 0.9 * p[t-1] + x[t]
  q[t] = 0.9 * q[t-1] + p[t-1]
  r[t] = 0 * r[t-1] + q[t]
  output r
}"""

TEXTS = {"chain": CHAIN, "both": BOTH_AXES, "coupled": COUPLED, "defective": DEFECTIVE}


@pytest.mark.parametrize("T", [2, 17, 70])
@pytest.mark.parametrize("name", TEXTS)
def test_structures(name, T):
    check("conv", TEXTS[name], 2, T)


def test_split_with_carried_state_and_too_long():
    text = "cell c(D) {\n  input x: [D]\n  state h: [D] = 0\n  h[t] = 0.9 * h[t-1] + x[t]\n  output h\n}"
    layer = ostinato.compile(text, D=3, schedule="conv", dtype=F64)
    x = torch.randn(2, 200, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    want, end = layer(x)
    one, state = layer(x[:, :111])
    two, state = layer(x[:, 111:], state=state)
    torch.testing.assert_close(torch.cat([one, two], 1), want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state["h"], end["h"], rtol=1e-12, atol=1e-12)
    assert "FFT" in layer.explain()
    with pytest.raises(OstinatoError, match="conv.*more than 2 GiB"):
        layer(x[:1, :1].expand(1, 50_000_000, 3))


@pytest.mark.parametrize("name, reason", [
    ("gla", "transition of S depends on the inputs"), ("lstm", "sigmoid"), ("hgrn", "depends on the inputs"),
    ("legs", "depends on other states"), ("aaren", "max")])
def test_refused(name, reason):
    with pytest.raises(forms.Unsuitable, match=reason):
        executable("conv", name)


# -- slack ---------------------------------------------------------------------------------
INFINITE = """# sizes: D=3
cell infinite(D) {
  input  x: [D]
  param  W: [D, D], V: [D, D]  ~ uniform(0.1, 1)
  state  p: [D] = 0.5, q: [D] = 0, n: int [] = 3
  p[t] = 0.9 * p[t-1] + V @ log(abs(x[t])) * x[t]
  q[t] = 0.5 * q[t-1] + W @ log(p[t]^2)
  n[t] = n[t-1] + 1
  output y: [D] = q[t-1] / p[t], n
}"""


def layer_of(source: str) -> Layer:
    """With complex ports in parts, as `batches` has real ones only."""
    text = source if "\n" in source else (ZOO / f"{source}.ost").read_text()
    cell = elaborate(text if text is source else ZOO / f"{source}.ost", None, declared_sizes(text)).cell
    values = interp.initial_params(cell, 0)
    values |= {f"{k}.{part}": getattr(x, name) for k, x in values.items() for part, name in (("re", "real"), ("im", "imag"))
               if x.is_complex()}
    cell = realify(cell)
    return Layer.from_cell(cell, schedule="conv", dtype=F64, values={p.name: values[p.name] for p in cell.params})


@pytest.mark.parametrize("source", ["iir", "linear_attention", "s4", "jrt_rnn", CHAIN, INFINITE],
                         ids=lambda s: s if "\n" not in s else s.split()[4])
def test_slack_as_sequences_alone(source):
    """Padding on either side, packed, backwards; no steps, one step, and enough for an FFT; NaN in the slack."""
    layer = layer_of(source)
    for T, lengths, form, reverse in (
            (7, [4, 0, 7, 1], "right", False), (7, [4, 0, 7, 1], "left", False), (7, [4, 0, 7], "packed", True),
            (20, [18, 1, 0], "packed", False), (20, [18, 1], "right", True), (1, [1, 0], "right", False),
            (0, [0], "right", False)):
        as_alone(by_layer(layer), layer.cell, own(layer), Batch(form, lengths, T), reverse=reverse)


def test_restarts_are_refused_by_name():
    layer = layer_of("iir")
    batch = Batch("right", [3, 5], 5)
    with pytest.raises(OstinatoError, match="restarts make its transition vary.*with `reset` and `lengths`(.|\n)*sequential"):
        as_alone(by_layer(layer), layer.cell, own(layer), batch, resets=marks(batch, 0.3))
