"""Gates at their ends, in every form: decays that underflow, exact zeros (resets), step lengths of 0, 1 and 2, and rows
of nothing but -inf. Values, final states and every gradient are the interpreter's, and no NaN occurs."""

from __future__ import annotations

import math

import pytest
from agreement import Extreme, check

INF = math.inf
MIXED = (Extreme("g", -5.0), Extreme("g", -50.0), Extreme("g", 0.0), Extreme("g", -INF))
DECAYS = [MIXED, *((Extreme("g", value, 1.0),) for value in (-5.0, -50.0, 0.0, -INF)),
          (Extreme("g", -INF, rows=True), Extreme("g", -50.0, rows=True))]
STEPS = [tuple(Extreme("beta", value) for value in (0.0, 1.0, 2.0)), (Extreme("beta", 2.0, 1.0),)]
slow = pytest.mark.slow


def cases(*names: str):
    return [*names, *(pytest.param(n, marks=slow) for n in ("simple_gla", "gla", "hgrn2", "gsa", "deltaproduct", "comba",
                                                            "gated_deltanet", "kda") if n not in names)]


GATES = {"hgrn2": "f"}


def ends(name: str):
    """The extremes that a cell has inputs for."""
    for extreme in DECAYS:
        if name in GATES:       # the decay itself
            yield tuple(e._replace(input=GATES[name], value=math.exp(e.value)) for e in extreme)
        else:
            yield extreme
    if name in ("gated_deltanet", "kda", "deltaproduct", "comba"):
        yield from STEPS
        yield MIXED + STEPS[0]


@pytest.mark.parametrize("name", cases("gated_deltanet", "kda"))
@pytest.mark.parametrize("schedule, T", [("chunk(12)", 31), pytest.param("chunk(64)", 130, marks=slow)])
def test_compiled_chunks(name, schedule, T):
    for extreme in ends(name):
        check(schedule, name, 2, T, extreme=extreme)


@pytest.mark.parametrize("name", cases("gla", "gsa", "deltaproduct"))
def test_chunks(name):
    for extreme in ends(name):
        check("chunk(20)", name, 2, 50, extreme=extreme, backend="interpreter")
        check("quadratic", name, 2, 33, extreme=extreme)


@pytest.mark.parametrize("name", cases("kda"))
@pytest.mark.parametrize("schedule", ["sequential", "scan(3)"])
def test_steps_and_segments(name, schedule):
    for extreme in ends(name):
        check(schedule, name, 2, 31, extreme=extreme)


# -- other semirings: an output that does not see -inf, a state that does ----------------
LANES = """# sizes: D=5
cell lanes(D) {{
  input  a: [D], b: [D]
  state  s: [D] = -inf
  s[t] = {}(a[t] + s[t-1], b[t])
  output y: [D] = 0 if s[t] == -inf else s[t]
}}"""
MATRICES = """# sizes: N=4
cell paths(N) {{
  input  e: [N], w: [N]
  param  A: [N, N]  ~ normal(0, 1)
  state  s: [N] = 0
  s[t] = e[t] + (A + outer(w[t], w[t])) @{} s[t-1]
  output y: [N] = 0 if s[t] == -inf else s[t]
}}"""
MASKED = """# sizes: N=4
cell masked(N) {{
  input  e: [N]
  const  A[i, j]: [N, N] = -inf if j > i or i == 2 else -0.5
  state  s: [N] = 0
  s[t] = e[t] + A @{} s[t-1]
  output y: [N] = 0 if s[t] == -inf else s[t], z: [] = logsumexp(e[t]) if t > 0 else 0
}}"""
LANE_ENDS = [(Extreme("a", -INF, rows=True),), (Extreme("b", -INF, rows=True),), (Extreme("b", -INF, 1.0),),
             (Extreme("a", -INF), Extreme("b", -INF)), (Extreme("a", -INF, 1.0), Extreme("b", -INF, 0.5, True)),
             (Extreme("a", -INF, rows=True), Extreme("a", -50.0))]
PATH_ENDS = [(Extreme("e", -INF, rows=True),), (Extreme("e", -INF, 1.0),), (Extreme("e", -INF, 0.5),)]
FORMS = [("sequential", "llvm"), ("scan(3)", "llvm"), ("chunk(8)", "interpreter"), ("quadratic", "llvm")]


@pytest.mark.parametrize("schedule, backend", [*FORMS, pytest.param("chunk(8)", "llvm", marks=slow)])
@pytest.mark.parametrize("plus", ["max", "logaddexp"])
def test_empty_rows(plus, schedule, backend):
    for extreme in LANE_ENDS:
        check(schedule, LANES.format(plus), 2, 19, extreme=extreme, backend=backend)


@pytest.mark.parametrize("text", [MATRICES, MASKED], ids=["learned", "masked"])
@pytest.mark.parametrize("schedule", ["sequential", "scan(3)"])
@pytest.mark.parametrize("plus", ["max", "lse"])
def test_empty_rows_of_matrices(plus, schedule, text):
    for extreme in PATH_ENDS:
        check(schedule, text.format(plus), 2, 19, extreme=extreme)
