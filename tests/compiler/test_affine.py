"""The analysis says what a component computes: its terms and offsets give the next values and their
gradients, and nothing that is not affine is called so."""

import math

import ostinato
import pytest
import torch
from affine_cells import affine_cells
from affine_meaning import ZOO, elaborate, evaluate, next_values, reads
from hypothesis import given, settings
from ostinato.compiler.analysis.affine import (
    Affine,
    Apply,
    Dense,
    LowRank,
    Mix,
    Nonlinear,
    Outer,
    Scale,
    Term,
    classify,
)
from ostinato.compiler.analysis.describe import describe
from ostinato.compiler.passes.masked import Masked
from ostinato.compiler.passes.realify import realify
from ostinato.compiler.pipeline import CANONICAL, Run, lower
from ostinato.ir.verify import verify
from strategies import cells

SEQUENTIAL = {"elman", "elman_heads", "elman_relu", "gru", "gru_heads", "indrnn", "lem", "lif", "ligru", "lstm",
              "lstm_cifg", "lstm_cifg_peephole", "lstm_heads", "lstm_layernorm", "lstm_peephole", "lstm_projection",
              "ltc", "paragru", "paralstm", "slstm", "sru", "srwm"}


def close(got, want, what):
    want = want.to(got.dtype) if want.dtype == torch.bool else want
    both = torch.isfinite(want)
    assert torch.equal(both, torch.isfinite(got)), what
    error = (got - want)[both].abs().double()
    assert not error.numel() or error.max() <= 1e-12 * (1 + want[both].abs().double().max()), f"{what}: {error.max()}"


def check(cell):
    """Values and gradients of every affine component at random values; gives what was found."""
    found = classify(cell)
    for c in found:
        if isinstance(c, Affine):
            verify(c.cell)
            assert all(c.cell.nodes()[n.name] == n for n in cell.body)
            check_component(cell, c)
        else:
            assert c.reason
    assert sorted(s for c in found for s in c.states) == sorted(s.name for s in cell.states)
    return found


def check_component(cell, c):
    given = reads(cell)
    leaves = [x.requires_grad_() for x in given.values() if x.is_floating_point() or x.is_complex()]
    want, got = evaluate(cell, given), next_values(c, given)
    for s in c.states:
        x, y = want[cell.state(s).next], got[s]
        close(y.detach(), x.detach(), s)
        if x.requires_grad:
            weight = torch.rand_like(x.detach())
            gx, gy = (torch.autograd.grad((weight * v).sum().abs(), leaves, allow_unused=True, retain_graph=True)
                      for v in (x, y))
            for p, q, leaf in zip(gx, gy, leaves):
                p, q = (torch.zeros_like(leaf) if z is None else z for z in (p, q))
                assert torch.allclose(p, q, rtol=1e-9, atol=1e-9), f"gradient of {s}"


# -- all cells -------------------------------------------------------------------
@pytest.mark.parametrize("path", ZOO, ids=lambda p: p.stem)
def test_zoo(path):
    cell = elaborate(path)
    for form in (cell, Run()(CANONICAL, cell)):
        found = check(form)
    lowered = lower(cell)
    again = check(lowered.cell)
    assert [type(c) for c in again] == [type(c) for c in found]
    if all(isinstance(c, Affine) for c in found):       # then so is the adjoint
        for part in lowered.parts:
            assert all(isinstance(c, Affine) for c in check(part.adjoint.backward))


@pytest.mark.parametrize("path", ZOO, ids=lambda p: p.stem)
def test_zoo_classes(path):
    if path.stem in SEQUENTIAL:
        assert any(isinstance(c, Nonlinear) for c in classify(lower(elaborate(path)).cell))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(affine_cells())
def test_affine_cells_are_found(cell):
    for form in (cell, lower(cell).cell):
        for c in check(form):
            assert isinstance(c, Affine), c.reason


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cells(semirings=True, linalg=True))
def test_random_cells_are_not_mistaken(cell):
    for c in check(cell):
        if isinstance(c, Affine) and c.semiring == "sum":
            assert is_affine(cell, c)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(cells(semirings=True, linalg=True), affine_cells(large=True))
def test_many_cells(cell, affine):
    check(cell)
    assert all(isinstance(c, Affine) for c in check(affine))


def is_affine(cell, c):
    """Whether next(a x + (1 - a) y) = a next(x) + (1 - a) next(y) for the states of the component."""
    x, other, a = reads(cell), reads(cell, seed=1), 0.3
    ours = [("state", s) for s in c.states]
    if any(x[k].dtype not in (torch.float64, torch.complex128) for k in ours):
        return True
    y = {**x, **{k: other[k] for k in ours}}
    middle = {**x, **{k: a * x[k] + (1 - a) * y[k] for k in ours}}
    fx, fy, fm = (evaluate(cell, v) for v in (x, y, middle))
    names = [cell.state(s).next for s in c.states]
    return all(torch.allclose(fm[n], a * fx[n] + (1 - a) * fy[n], rtol=1e-9, atol=1e-9) for n in names)


# -- single cases ------------------------------------------------------------------
def one(text, **sizes):
    """The last component of the only cell in a text, lowered; its values are checked."""
    *_, cell = ostinato.load(text).cells.values()
    return check(lower(cell.elaborate(**sizes)).cell)[-1]


def step(equation, more="", state="h: [D] = 0", inputs="x: [D], g: [D]", header="c(D)"):
    name = state.split(":")[0]
    return f"cell {header} {{\n  input {inputs}\n{more}\n  state {state}\n  {name}[t] = {equation}\n  output {name}\n}}"


@pytest.mark.parametrize("equation, reason", [
    ("tanh(h[t-1])", "tanh"), ("h[t-1] * h[t-1]", "two values"), ("x[t] / h[t-1]", "by a value"),
    ("x[t] if h[t-1] > 0 else h[t-1]", "gt"), ("floor(h[t-1])", "floor"), ("h[t-1] * sum(h[t-1])", "two values"),
    ("stop_gradient(h[t-1]) + x[t]", "gradient"), ("abs(h[t-1])", "abs"), ("softmax(h[t-1])", "max"),
    ("max(h[t-1], 2 * h[t-1])", "not affine over"), ("min(h[t-1], x[t])", "min"), ("h[t-1]^2", "two values"),
    ("exp(h[t-1] + x[t])", "exp"), ("max(h[t-1], x[t]) + logaddexp(h[t-1], x[t])", "max"),
])
def test_reasons(equation, reason):
    c = one(step(equation), D=4)
    assert isinstance(c, Nonlinear)
    assert reason in c.reason and "line 5" in c.reason


@pytest.mark.parametrize("equation, semiring, maps, offset", [
    ("h[t-1]", "sum", ((),), None),
    ("h[t-1] + x[t]", "sum", ((),), Dense("x")),
    ("g[t] * h[t-1] + x[t]", "sum", ((Scale("g", (0,)),),), Dense("x")),
    ("max(x[t], h[t-1] + g[t])", "max", ((Scale("g", (0,)),),), Dense("x")),
    ("logaddexp(h[t-1] + g[t], x[t])", "lse", ((Scale("g", (0,)),),), Dense("x")),
    ("x[t]", "sum", (), Dense("x")),
])
def test_vectors(equation, semiring, maps, offset):
    c = one(step(equation), D=4)
    assert c.semiring == semiring
    assert c.terms["h"] == tuple(Term("h", m) for m in maps)
    assert c.offsets["h"] == (() if offset is None else (offset,))


def test_the_order_of_a_maximum_is_kept():
    assert one(step("max(x[t], h[t-1])"), D=4).first == {"h"}
    assert not one(step("max(h[t-1], x[t])"), D=4).first


def test_resets_are_factors():
    c = one(step("0 if g[t] > 0 else g[t] * h[t-1] + x[t]"), D=4)
    (term,), (offset,) = c.terms["h"], c.offsets["h"]
    assert [type(m) for m in term.maps] == [Scale] and isinstance(offset, Dense)


@pytest.mark.parametrize("op, semiring", [("@", "sum"), ("@max", "max"), ("@lse", "lse")])
def test_static_matrices_stay_apart(op, semiring):
    c = one(step(f"A {op} h[t-1] {'*' if op == '@' else '+'} x[t]", more="  param A: [D, D] ~ normal(0, 1)"), D=4)
    (term,) = c.terms["h"]
    assert c.semiring == semiring
    assert term.maps == (Apply("A", 0), Scale("x", (0,)))


def test_slices_are_matrices():
    c = one(step("concat(h[t-1][1:] * x[t][1:], x[t][:1])"), D=4)
    assert [type(m) for t in c.terms["h"] for m in t.maps] == [Apply]


def matrix(equation, more="", **sizes):
    return one(step(equation, more, "S: [K, V] = 0", "k: [K], v: [V], a: [K], b: [V], g: []", "c(K, V)"), K=3, V=4)


@pytest.mark.parametrize("equation, maps, offset", [
    ("a[t] * S[t-1] + outer(k[t], v[t])", [(Scale("a", (0,)),)], Outer("k", "v")),
    ("S[t-1] * b[t]", [(Scale("b", (1,)),)], None),
    ("a[t] * S[t-1] * b[t]", [(Scale("a", (0,)), Scale("b", (1,)))], None),
    ("S[t-1] + outer(k[t], a[t] @ S[t-1])", [(), (LowRank("a", "k", 0),)], None),
    ("S[t-1] + outer(S[t-1] @ b[t], v[t])", [(), (LowRank("b", "v", 1),)], None),
])
def test_matrix_states(equation, maps, offset):
    c = matrix(equation)
    assert [t.maps for t in c.terms["S"]] == maps
    assert c.offsets["S"] == (() if offset is None else (offset,))


def test_a_read_after_a_read_reads_the_old_value():
    """Two Householder steps: the second reader is corrected by what the first one wrote."""
    more = "  M = S[t-1] - outer(k[t], k[t] @ S[t-1])"
    c = matrix("M - outer(a[t], a[t] @ M)", more)
    assert sum(isinstance(m, LowRank) for t in c.terms["S"] for m in t.maps) == 2


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_repeated_steps_are_as_many_reads(n):
    path = next(p for p in ZOO if p.stem == "deltaproduct")
    *_, made = ostinato.load(path).cells.values()
    (c,) = check(lower(made.elaborate(K=3, V=4, n=n, N=2)).cell)
    assert sum(isinstance(m, LowRank) for t in c.terms["S"] for m in t.maps) == n
    assert sum(isinstance(o, Outer) for o in c.offsets["S"]) == n


@pytest.mark.parametrize("equation", [
    "0.5 * S[t-1] + outer(k[t], b[t]) * (k[t] @ S[t-1] @ v[t])", "a[t] * S[t-1] + S[t-1] * b[t]",
    "g[t] * S[t-1] - outer(sum[V](S[t-1]), v[t]) + a[t] * S[t-1]", "outer(a[t], b[t]) * S[t-1] if g[t] > 0 else S[t-1]",
])
def test_other_maps_of_matrices(equation):
    assert isinstance(matrix(equation), Affine)


def test_states_of_different_shapes():
    c = one("""cell c(K, V) {
  input k: [K], a: [K]
  state S: [K, V] = 0, z: [V] = 0
  z[t] = k[t] @ S[t-1] + 0.5 * z[t-1]
  S[t] = 0.9 * S[t-1] + outer(a[t], z[t])
  output z
}""", K=3, V=4)
    assert c.states == ("S", "z")
    assert {type(m) for s in c.states for t in c.terms[s] for m in t.maps} == {Scale, LowRank, Mix}


def test_transposes_and_squares():
    c = one("""cell c(K) {
  input k: [K]
  state S: [K, K] = 0
  S[t] = 0.5 * S[t-1].T + 0.1 * S[t-1]
  output o: [K] = k[t] @ S[t]
}""", K=3)
    assert isinstance(c, Affine)


def test_components_come_in_order():
    found = check(lower(elaborate(next(p for p in ZOO if p.stem == "mlstm"))).cell)
    assert [(c.states, c.semiring) for c in found] == [(("m",), "max"), (("C",), "sum"), (("n",), "sum")]


def test_infinite_offsets():
    """A running maximum from -inf on: nothing becomes NaN."""
    c = one(step("max(h[t-1] + g[t], x[t])", state="h: [D] = -inf"), D=4)
    given = reads(c.cell, state={("state", "h"): torch.full((2, 4), -math.inf, dtype=torch.float64)})
    assert torch.equal(next_values(c, given)["h"], given["input", "x"])


def test_integers():
    """Counters are affine; so is their running maximum, but without choices, as no int is -inf."""
    counted = one(step("h[t-1] * 2 + i[t]", state="h: int [D] = 0", inputs="x: [D], i: int [D]"), D=4)
    assert counted.semiring == "sum"
    assert one(step("max(h[t-1], i[t])", state="h: int [D] = 0", inputs="i: int [D]"), D=4).semiring == "max"
    c = one(step("max(h[t-1], i[t]) if i[t] > 0 else i[t]", state="h: int [D] = 0", inputs="i: int [D]"), D=4)
    assert isinstance(c, Nonlinear) and "-inf" in c.reason


def test_deep_sums():
    """A sum of a thousand terms, per head."""
    text = """cell c(D, W) heads N {
  input x: [D], v: [W]
  state h: [D] = 0
  h[t] = 0.5 * h[t-1] + sum(v[t][j] * x[t] for j in W)
  output h
}"""
    *_, made = ostinato.load(text).cells.values()
    (c,) = classify(Run()(CANONICAL, made.elaborate(D=2, W=1000, N=2)))
    assert isinstance(c, Affine) and "..." in describe(c.cell)


@pytest.mark.parametrize("equation", ["1 if h[t-1] == 0 else 0", "0 if h[t-1] == 0 else g[t] * h[t-1] + x[t]",
                                      "0 if h[t-1] == 0 else h[t-1] * h[t-1]", "h[t-1] if h[t-1] == 0 else x[t]"])
def test_comparisons_with_zero_are_not_affine(equation):
    assert isinstance(one(step(equation), D=4), Nonlinear)


def test_the_guards_of_an_adjoint_are():
    c = one(step("0 if h[t-1] == 0 else -(g[t] * h[t-1])"), D=4)
    assert [type(m) for t in c.terms["h"] for m in t.maps] == [Scale]
    given = reads(c.cell)
    given["state", "h"][:, 0], given["input", "g"][:, 0] = 0.0, math.inf
    assert torch.equal(next_values(c, given)["h"], evaluate(c.cell, given)[c.cell.state("h").next])


@pytest.mark.parametrize("path", ZOO, ids=lambda p: p.stem)
def test_masked_cells_stay_affine(path):
    """Resets and slack are factors 0 and 1; complex states are pairs."""
    cell = realify(elaborate(path))
    if all(isinstance(c, Affine) for c in classify(lower(cell).cell)):
        assert all(isinstance(c, Affine) for c in check(lower(Masked(reset=True, valid=True)(cell)).cell))
