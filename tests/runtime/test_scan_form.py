"""Segments side by side against the interpreter: outputs, final states and every gradient."""

import math
import random

import pytest
from agreement import BACKWARDS, Extreme, executable
from agreement import check as agrees
from hypothesis import given, settings
from hypothesis import strategies as st
from ostinato.runtime import forms


def check(source: str, B: int, T: int, P: int, **options) -> None:
    agrees(f"scan({P})", source, B, T, **options)


@pytest.mark.parametrize("P", [1, 3, 8])
@pytest.mark.parametrize("T", [0, 1, 2, 15, 63, 64, 65])
@pytest.mark.parametrize("name", ["iir", "minlstm", "aaren", "gated_deltanet"])
def test_lengths(name, T, P):
    check(name, 2, T, P)


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


@pytest.mark.parametrize("source, extreme", [
    (GATED, (Extreme("g", -5.0), Extreme("g", -50.0), Extreme("g", -math.inf, rows=True))),
    (GATED, (Extreme("g", -math.inf, 1.0),)), (GATED, (Extreme("g", -50.0, 1.0),)),
    (PLAIN, (Extreme("g", 0.0, rows=True),)), (PLAIN, (Extreme("g", 0.0), Extreme("g", 1.0), Extreme("g", -1.0))),
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
        executable("scan(2)", text)
