"""Segments side by side against the interpreter: outputs, final states and every gradient."""

import math
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ostinato.backends.llvm import executable as llvm
from ostinato.compiler.pipeline import Lowered
from ostinato.ir import interp
from ostinato.ir.cell import Input
from ostinato.runtime import forms
from ostinato.runtime.files import declared_sizes
from ostinato.runtime.sample import sample
from ostinato.runtime.sources import elaborate

BACKWARDS = "backwards "         # in front of a name or text: the cell run backwards in time
ZOO = Path(__file__).parents[2] / "examples" / "zoo"
F64 = torch.float64


@cache
def lowered(source: str) -> Lowered:
    """A zoo cell by name, or a text whose first line has `# sizes: ...`."""
    backwards, source = source.startswith(BACKWARDS), source.removeprefix(BACKWARDS)
    text = source if "\n" in source else (ZOO / f"{source}.ost").read_text()
    cell = elaborate(text, None, declared_sizes(text)).cell
    return llvm.prepare(replace(cell, reverse=True) if backwards else cell)


@cache
def reference(source: str, B: int, T: int, seed: int = 0, extreme: tuple[float, ...] = ()):
    """Inputs, params, states; what the interpreter makes of them; cotangents; gradients.
    `extreme`: values that a fifth of the first input's elements have."""
    low, g = lowered(source), torch.Generator().manual_seed(seed)
    cell, program = low.cell, low.elaborated
    xs = [sample(p, B, T, g) for p in cell.inputs]
    for i, value in enumerate(extreme):
        hit = torch.rand(xs[0].shape, generator=g) < 0.2
        xs[0] = torch.where(hit if i else hit.any(-1, keepdim=True), value, xs[0])
    given = interp.initial_params(program, seed)
    given |= {f"{k}.{part}": getattr(x, name) for k, x in given.items() if x.is_complex()
              for part, name in (("re", "real"), ("im", "imag"))}
    given = {p.name: given[p.name] if p.name in given else sample(Input("", p.type, facts=p.facts), 1, 1, g)[0, 0]
             for p in low.canonical.params}
    static = interp.evaluate(low.static, reads={("param", k): v for k, v in given.items()})
    ps = [given[p.name] if p.name in given else static[p.name] for p in cell.params]
    zero = {p.name: x[:, :0] for p, x in zip(cell.inputs, xs)}
    named = {p.name: x for p, x in zip(cell.params, ps)}
    ss = list(interp.run(cell, zero, named, batch=B, steps=0).state.values())
    ss = [s + sample(Input("", p.type, facts=(">= 0", "<= 1")), B, 1, g)[:, 0] if s.is_floating_point() else s
          for s, p in zip(ss, cell.states)]
    leaves = [[x.clone().requires_grad_(x.is_floating_point()) for x in group] for group in (xs, ps, ss)]
    ins, params, states = ({p.name: x for p, x in zip(ports, group)}
                           for ports, group in zip((cell.inputs, cell.params, cell.states), leaves))
    r = interp.run(cell, ins, params, states)
    ends = [[r.outputs[o.name] for o in cell.outputs], [r.state[s.name] for s in cell.states]]
    cts = [[torch.randn(y.shape, generator=g, dtype=F64) if y.is_floating_point() else None for y in group]
           for group in ends]
    live = [(y, d) for group, ds in zip(ends, cts) for y, d in zip(group, ds) if d is not None and y.requires_grad]
    wanted = [x for group in leaves for x in group if x.requires_grad]
    found = iter(torch.autograd.grad([y for y, _ in live], wanted, [d for _, d in live], allow_unused=True)
                 if live else [None] * len(wanted))
    grads = [[(torch.zeros_like(x) if (d := next(found)) is None else d) if x.requires_grad else None for x in group]
             for group in leaves]
    trained = [p.trainable for p in cell.params]
    grads[1] = [d if t else None for d, t in zip(grads[1], trained)]
    return (xs, ps, ss), [[y.detach() for y in group] for group in ends], cts, grads


@cache
def scan(source: str, P: int, dtype=F64):
    return forms.build("scan", forms.Source(llvm, lowered(source), dtype, P))


def check(source: str, B: int, T: int, P: int, tolerance: float = 1e-11, seed: int = 0,
          extreme: tuple[float, ...] = ()) -> None:
    (xs, ps, ss), ends, cts, grads = reference(source, B, T, seed, extreme)
    e = scan(source, P)
    options = dict(seed=0, training=False)
    ys, finals, tape = e.forward(xs, ps, ss, keep=True, **options)
    assert [tuple(x.shape) for x in tape] == [tuple(shape) for shape, _ in e.tape_meta(B, T)]
    assert [x.dtype for x in tape] == [dtype for _, dtype in e.tape_meta(B, T)]
    again, _, none = e.forward(xs, ps, ss, keep=False, **options)
    assert not none
    for got, want in zip((*ys, *finals, *again), (*ends[0], *ends[1], *ends[0])):
        close(got, want, tolerance)
    for names, got, want in zip(("input", "param", "state"), e.backward(xs, ps, ss, tape, *cts, **options), grads):
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            assert (a is None) == (b is None), (names, i)
            if a is not None:
                close(a, b, tolerance, f"{names} {i}")


def close(got, want, tolerance, what="") -> None:
    scale = max(1.0, want.abs().nan_to_num(0, 0, 0).max().item()) if want.is_floating_point() and want.numel() else 1.0
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * scale, equal_nan=False,  # no NaN at all
                               msg=lambda m: f"{what}: {m}")


VECTOR = ("ema", "iir", "mingru", "minlstm", "hgrn", "rglru", "qrnn", "mega_ema", "legs", "garch")
STABILISED = ("aaren", "rwkv4", "mlstm")
MATRIX = ("retnet", "gla", "simple_gla", "linear_attention", "deltanet", "gated_deltanet", "rwkv6", "rwkv7", "kda",
          "hgrn2", "gsa", "comba", "deltaproduct")


MORE = ("lru", "s4d", "mamba", "mamba2", "mamba_complex", "hmm", "viterbi", "crf", "gateloop", "linear_rnn", "lssl",
        "hippo_legt", "block_lrnn", "mesa", "abc", "lightnet", "linear_cde", "jrt_rnn", "fast_weights", "rwkv5",
        "titans_linear")


# one of each structure is tested always, the others with `make fuzz` and `make zoo`
ALWAYS = ("iir", "minlstm", "qrnn", "legs", "aaren", "mlstm", "gla", "deltanet", "rwkv7", "gsa", "deltaproduct", "lru",
          "viterbi", "crf", "linear_cde", "jrt_rnn")


@pytest.mark.parametrize("name", [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.slow)
                                  for n in VECTOR + STABILISED + MATRIX + MORE])
def test_zoo(name):
    check(name, 2, 19, 3)
    check(name, 1, 18, 3)       # no steps are left


@pytest.mark.parametrize("P", [1, 3, 8])
@pytest.mark.parametrize("T", [0, 1, 2, 15, 63, 64, 65])
@pytest.mark.parametrize("name", ["iir", "minlstm", "aaren", "gated_deltanet"])
def test_lengths(name, T, P):
    check(name, 2, T, P)


@pytest.mark.parametrize("name", ["ema", "minlstm", "iir", "retnet"])
def test_long(name):
    check(name, 1, 1000, 8)


MAX_PLUS = """# sizes: D=5
cell best(D) {
  input  a: [D], b: [D]
  state  s: [D] = -inf
  s[t] = max(a[t] + s[t-1], b[t])
  output s
}"""

LSE_PLUS = """# sizes: D=5
cell soft(D) {
  input  a: [D], b: [D]
  state  s: [D] = -inf
  s[t] = logaddexp(a[t] + s[t-1], b[t])
  output s
}"""

VITERBI = """# sizes: N=4
cell viterbi(N) {
  input  e: [N]
  param  A: [N, N]  ~ normal(0, 1)
  state  s: [N] = 0
  s[t] = e[t] + A @max s[t-1]
  output s
}"""

FORWARD = """# sizes: N=4
cell forward(N) {
  input  e: [N]
  param  A: [N, N]  ~ normal(0, 1)
  state  s: [N] = 0
  s[t] = e[t] + A @lse s[t-1]
  output s
}"""

DENSE = """# sizes: H=4
cell dense(H) {
  input  x: [H], g: []
  param  A: [H, H]  ~ normal(0, 0.4)
  state  h: [H] = 0
  h[t] = A @ h[t-1] * sigmoid(g[t]) + x[t]
  output y: [H] = tanh(h[t]) * h[t-1]
}"""

RESET = """# sizes: D=3
cell reset(D) {
  input  x: [D], z: []
  state  h: [D] = 0
  h[t] = (0 if z[t] > 0.5 else exp(-z[t]^2)) * h[t-1] + x[t]
  output h
}"""

COUPLED = """# sizes: D=3
cell coupled(D) {
  input  x: [D], w: [D]
  state  p: [D] = 0, q: [D] = 0, r: [D] = 0
  p[t] = 0.9 * cos(w[t]) * p[t-1] - 0.9 * sin(w[t]) * q[t-1] + x[t]
  q[t] = 0.9 * sin(w[t]) * p[t-1] + 0.9 * cos(w[t]) * q[t-1]
  r[t] = 0.5 * r[t-1] * sigmoid(p[t-1]) + q[t]
  output y: [D] = p[t] * r[t]
}"""

LAGS = """# sizes: D=3
cell lags(D) {
  input  x: [D]
  state  h: [D] = 0
  h[t] = 0.5 * h[t-1] + x[t-1] * x[t-4]
  output y: [D] = h[t] * x[t-2]
}"""

TEXTS = {"max": MAX_PLUS, "lse": LSE_PLUS, "viterbi": VITERBI, "forward": FORWARD, "dense": DENSE, "reset": RESET,
         "coupled": COUPLED, "lags": LAGS}


@pytest.mark.parametrize("P", [2, 4])
@pytest.mark.parametrize("name", TEXTS)
def test_structures(name, P):
    for T in (3, 17):
        check(TEXTS[name], 2, T, P)


GATED = """# sizes: D=4
cell gated(D) {
  input  g: [D], x: [D]
  state  h: [D] = 0
  h[t] = exp(g[t]) * h[t-1] + x[t]
  output h
}"""

PLAIN = GATED.replace("exp(g[t])", "g[t]")
SOFT_RESET = LSE_PLUS.replace("output s", "output y: [D] = 0 if s[t] == -inf else s[t]")
HARD_RESET = MAX_PLUS.replace("output s", "output y: [D] = 0 if s[t] == -inf else s[t]")


@pytest.mark.parametrize("source, extreme", [
    (GATED, (-5.0, -50.0, -math.inf)), (PLAIN, (0.0,)), (PLAIN, (0.0, 1.0, -1.0)),
    (SOFT_RESET, (-math.inf,)), (HARD_RESET, (-math.inf,)), (SOFT_RESET, (-math.inf, -50.0)),
    (SOFT_RESET.replace("a: [D], b: [D]", "b: [D], a: [D]"), (-math.inf,)),
    (HARD_RESET.replace("a: [D], b: [D]", "b: [D], a: [D]"), (-math.inf, -math.inf)),
])
def test_extreme_gates(source, extreme):
    for P in (2, 5):
        check(source, 2, 33, P, extreme=extreme)


@pytest.mark.parametrize("name", ["minlstm", "iir", "mlstm", LAGS])
def test_backwards(name):
    for T in (3, 17, 24):
        check(BACKWARDS + name, 2, T, 4)


UPDATES = {     # of a state S, x being anything known at the step: structures of transitions
    "scalar": "{S}[t] = sigmoid(g[t]) * {S}[t-1] + {x}",
    "per channel": "{S}[t] = tanh(w[t]) * {S}[t-1] + {x}",
    "rows and columns": "{S}[t] = sigmoid(w[t]) * {S}[t-1] * cos(v[t]) + {x}",
    "dense": "{S}[t] = 0.3 * M @ {S}[t-1] + {x}",
    "rank one": "{S}[t] = {S}[t-1] - 0.5 * outer(u, u @ {S}[t-1]) + outer(u, v[t]) + 0.1 * {x}",
    "decay and rank one": "{S}[t] = sigmoid(w[t]) * ({S}[t-1] - 0.4 * outer(u, u @ {S}[t-1])) + {x}",
    "from the right": "{S}[t] = 0.5 * {S}[t-1] @ Q + {x}",
    "both sides": "{S}[t] = 0.4 * M @ {S}[t-1] * sigmoid(v[t]) + 0.1 * {x}",
    "reset": "{S}[t] = (0 if g[t] > 0.3 else 0.9) * {S}[t-1] + {x}",
    "sum": "{S}[t] = {S}[t-1] + 0.2 * {x}",
    "lag": "{S}[t] = {x}",
}
OFFSETS = ("outer(w[t], v[t])", "outer(w[t-2], v[t])", "tanh({S}[t-1])", "{S}[t] * 0.5", "sin({S}[t]) * g[t]")


@settings(max_examples=5, deadline=None, derandomize=True)
@given(updates=st.lists(st.sampled_from(sorted(UPDATES)), min_size=1, max_size=3), T=st.integers(0, 30),
       P=st.integers(1, 6), B=st.integers(1, 2), seed=st.integers(0, 10**6))
def test_random_structures(updates, T, P, B, seed):
    r = random.Random(seed)
    lines = []
    for i, update in enumerate(updates):
        x = r.choice(OFFSETS if i else OFFSETS[:2]).format(S=f"S{r.randrange(max(1, i))}")
        lines.append("  " + UPDATES[update].format(S=f"S{i}", x=x))
    text = "\n".join(["# sizes: K=3 V=2", "cell c(K, V) {", "  input  g: [], w: [K], v: [V]",
                      "  param  M: [K, K]  ~ normal(0, 0.5)", "  param  Q: [V, V]  ~ normal(0, 0.5)",
                      "  state  " + ", ".join(f"S{i}: [K, V] = 0" for i in range(len(updates))),
                      "  u = w[t] / sqrt(1 + w[t] @ w[t])", *lines,
                      f"  output y: [K, V] = tanh(S{len(updates) - 1}[t]) + S0[t-1]", "}"])
    check(text, B, T, P)


@pytest.mark.parametrize("text, reason", [
    ("# sizes: H=3\ncell c(H) {\n  input x: [H]\n  state h: [H] = 0\n  h[t] = tanh(h[t-1] + x[t])\n  output h\n}",
     "tanh"), ("sru", "sigmoid"), ("kalman", "solve"), ("lif", "stop_gradient"),
])
def test_refused(text, reason):
    with pytest.raises(forms.Unsuitable, match=reason):
        scan(text, 2)


def test_single_precision():
    for name in ("minlstm", "gated_deltanet"):
        (xs, ps, ss), ends, _, _ = reference(name, 2, 64)
        e = scan(name, 4, torch.float32)
        low = lambda some: [x.float() if x.is_floating_point() else x for x in some]
        ys, finals, _ = e.forward(low(xs), low(ps), low(ss), seed=0, training=False, keep=False)
        for got, want in zip((*ys, *finals), (*ends[0], *ends[1])):
            assert math.isfinite(got.sum()) and (got.double() - want).abs().max() < 1e-5 * want.abs().max()
