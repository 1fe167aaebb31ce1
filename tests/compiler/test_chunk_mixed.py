"""Chunks of matrix states that depend on each other channel by channel, and of vector states that do: values, final
states and every gradient; which states are taken as matrices, and that one complex product is one."""

from __future__ import annotations

import math

import ostinato
import pytest
import torch
from agreement import Extreme, check
from ostinato.compiler.passes.chunk import Unchunkable, body, chunk, derive, turned
from ostinato.compiler.passes.masked import Masked
from ostinato.compiler.pipeline import lower
from ostinato.runtime.sources import elaborate

HEADER = """cell c(K, V) heads N {
  input  q: [K], k: [K], v: [V], r: [K], phi: [K], u: [V], g: [] in (0, 1), e: [K], u2: [V]
"""
CELLS = {
    "rows": """
  state  S: complex [K, V] = 0
  S[t] = polar(sigmoid(r[t]), phi[t]) * S[t-1] + outer(k[t], v[t])
  output o: [V] = re(q[t] @ S[t]), p: [V] = im(k[t] @ S[t-1])""",
    "columns": """
  state  S: complex [K, V] = 0
  S[t] = polar(1 / (1 + u2[t]^2), u[t]) * S[t-1] + outer(k[t], v[t])
  output o: [V] = re(q[t] @ S[t])""",
    "scalar": """
  state  S: complex [K, V] = 0
  S[t] = polar(g[t], sum(phi[t])) * S[t-1] + outer(k[t], v[t])
  output o: [V] = re(q[t] @ S[t]), p: [K] = im(S[t-1] @ u[t])""",
    "rows, read along columns": """
  state  S: complex [K, V] = 0
  S[t] = polar(sigmoid(r[t]), phi[t]) * S[t-1] + outer(k[t], v[t])
  output o: [K] = re(S[t] @ u[t]), p: [V] = im(q[t] @ S[t])""",
    "complex writes": """
  state  S: complex [K, V] = 0
  S[t] = polar(sigmoid(r[t]), phi[t]) * S[t-1] + outer((1 + 2i) * k[t], v[t]) + 1i * outer(e[t], u[t])
  output o: [V] = re(conj((1 - 1i) * q[t]) @ S[t]) + abs(q[t] @ S[t-1])""",
    "Cartesian, exactly 0 at times": """
  state  S: complex [K, V] = 0
  a = 0 if r[t] > 0.3 else 0.5 * tanh(r[t])
  b = 0 if r[t] > 0.3 else 0.5 * tanh(phi[t])
  S[t] = (a + 1i * b) * S[t-1] + outer(k[t], v[t])
  output o: [V] = re(q[t] @ S[t])""",
    "a constant angle, negated": """
  state  S: complex [K, V] = 0
  S[t] = -(polar(sigmoid(r[t]), 0.3) * S[t-1] + outer(k[t], v[t]))
  output o: [V] = re(q[t] @ S[t])""",
    "chosen": """
  state  S: complex [K, V] = 0
  S[t] = (polar(sigmoid(r[t]), phi[t]) if e[t] > 0 else 0.8i) * S[t-1] + outer(k[t], v[t])
  output o: [V] = re(q[t] @ S[t])""",
    "Cartesian scalars": """
  state  S: complex [K, V] = 0
  S[t] = (g[t] / 2 - 0.3i * sin(sum(r[t]))) * S[t-1] + outer(k[t], v[t])
  output o: [V] = re(q[t] @ S[t]), p: [K] = im(S[t-1] @ u[t])""",
    "exponentials, columns decay too": """
  state  S: complex [K, V] = 0
  S[t] = outer(exp(-abs(r[t]) + 1i * phi[t]), sigmoid(u2[t])) * S[t-1] - 1i * outer(k[t], v[t])
  output o: [V] = re(q[t] @ S[t]), p: [K] = im(S[t-1] @ u[t])""",
    "scalars in a circle, a delta rule along columns": """
  state  A: [K, V] = 0, B: [K, V] = 0
  A[t] = g[t] * B[t-1] + outer(0.3 * (k[t] - A[t-1] @ u[t] / 4), u[t])
  B[t] = A[t-1] / 2 - g[t] / 4 * B[t-1]
  output o: [V] = q[t] @ A[t], p: [K] = B[t] @ v[t]""",
    "momentum by channel": """
  state  S: [K, V] = 0, P: [K, V] = 0
  P[t] = sigmoid(r[t]) * P[t-1] + outer(k[t], v[t])
  S[t] = sigmoid(phi[t]) * S[t-1] + tanh(e[t]) * P[t]
  output o: [V] = q[t] @ S[t], p: [K] = P[t-1] @ u[t]""",
    "three in a circle": """
  state  A: [K, V] = 0, B: [K, V] = 0, C: [K, V] = 0
  A[t] = 0.5 * tanh(r[t]) * B[t-1] + outer(k[t], v[t])
  B[t] = 0.5 * tanh(phi[t]) * C[t-1] - B[t-1] / 2
  C[t] = 0.5 * tanh(e[t]) * A[t-1] + outer(q[t], u[t])
  output o: [V] = q[t] @ A[t] + k[t] @ C[t]""",
    "one seen one step late": """
  state  A: [K, V] = 0, B: [K, V] = 0
  A[t] = tanh(r[t]) * A[t-1] / 2 - B[t-1] / 4 + outer(k[t], v[t])
  B[t] = A[t-1]
  output o: [V] = q[t] @ A[t] + k[t] @ B[t]""",
    "delta rule, rows": """
  state  S: complex [K, V] = 0
  M = polar(sigmoid(r[t]), phi[t]) * S[t-1]
  S[t] = M + outer(k[t], 0.3 * (v[t] - re(k[t] @ M)))
  output o: [V] = re(q[t] @ S[t])""",
}


def cell(name: str, *masks: str, K: int = 3, V: int = 4):
    made = elaborate(HEADER + CELLS[name].strip("\n") + "\n}", None, {"K": K, "V": V, "N": 2}).cell
    return Masked(**dict.fromkeys(masks, True))(made) if masks else made


@pytest.mark.parametrize("name", CELLS)
def test_agrees(name):
    source = cell(name)
    assert not derive(lower(source).split, 5).whole
    for C in (2, 3, 5, 8, 13, 24):
        check(f"chunk({C})", source, 2, 2 * C + 1, backend="interpreter")
    for T in (0, 1, 2, 17, 40):
        check("quadratic", source, 2, T)


@pytest.mark.parametrize("masks", [("reset",), ("valid",), ("reset", "valid")], ids="+".join)
@pytest.mark.parametrize("name", ["rows", "columns", "exponentials, columns decay too", "Cartesian scalars",
                                  "Cartesian, exactly 0 at times", "momentum by channel", "delta rule, rows"])
def test_restarts_and_slack(name, masks):
    source = cell(name, *masks)
    assert not derive(lower(source).split, 5).whole
    check("chunk(5)", source, 2, 23, backend="interpreter")
    check("quadratic", source, 2, 23)


@pytest.mark.parametrize("name", ["rows", "scalar", "rows, read along columns", "delta rule, rows",
                                  "Cartesian, exactly 0 at times", "Cartesian scalars"])
def test_compiled(name):
    source = cell(name, K=18, V=5)
    for T in (0, 1, 5, 17):
        check("chunk(5)", source, 2, T, tolerance=1e-10)


@pytest.mark.parametrize("states", ["a: bool [] = true\n  a[t] = a[t-2]", "a: bool [] = true\n  a[t] = not a[t-1]",
                                    "a: bool [K] = true, b: bool [K] = false\n  a[t] = b[t-1]\n  b[t] = a[t-1]"])
def test_bools_that_depend_on_the_step_before_are_refused(states):
    text = HEADER + f"  state S: [K, V] = 0\n  state {states}\n  S[t] = g[t] * S[t-1] + outer(k[t], v[t])\n" \
        "  output o: [V] = q[t] @ S[t] if any(a[t]) else 0\n}"
    with pytest.raises(Unchunkable):
        chunk(lower(elaborate(text.replace("any(a[t])", "a[t]") if "[K]" not in states else text, None,
                              {"K": 64, "V": 64, "N": 2}).cell).split, 8)


TURNED = {"rows", "columns", "rows, read along columns", "complex writes", "delta rule, rows",
          "exponentials, columns decay too", "a constant angle, negated", "chosen"}


@pytest.mark.parametrize("masks", [(), ("reset",), ("valid",)], ids="+".join)
@pytest.mark.parametrize("name", CELLS)
def test_size_and_angle_make_a_real_state_of_twice_as_many_rows(monkeypatch, name, masks):
    made = []
    monkeypatch.setattr(body, "complex_state", lambda *args: made.append(args) or turned.complex_state(*args))
    chunk(lower(cell(name, *masks)).split, 5)
    assert bool(made) == (name in TURNED)


def test_rounding_errors_of_angles_do_not_grow_with_the_chunk():
    """In float32, relative to the gradient's own size: most of it would cancel if long chunks were turned."""
    text = """cell c(K, V) {
  input  q: [K], k: [K], v: [V], r: [K], phi: [K]
  state  S: complex [K, V] = 0
  S[t] = polar(0.1 * sigmoid(r[t]), phi[t]) * S[t-1] + outer(k[t], v[t])
  output o: [V] = re(q[t] @ S[t])
}"""
    g = torch.Generator().manual_seed(0)
    *xs, ct = (torch.randn(1, 200, 8, generator=g, dtype=torch.float64) for _ in range(6))

    def gradients(schedule, dtype):
        layer = ostinato.compile(text, K=8, V=8, schedule=schedule, dtype=dtype)
        leaves = [x.to(dtype).requires_grad_() for x in xs]
        return torch.autograd.grad(layer(*leaves)[0], leaves, ct.to(dtype))

    want = gradients("sequential", torch.float64)

    def errors(schedule):
        return [((d - w).square().mean() / w.square().mean()).sqrt() for d, w in zip(gradients(schedule, torch.float32), want)]

    alone = errors("sequential")
    for schedule in ("chunk(8)", "chunk(16)", "chunk(64)", "quadratic"):
        for error, least in zip(errors(schedule), alone):
            assert error < 6 * least, schedule


@pytest.mark.parametrize("size", [-math.inf, -800.0, 40.0])
def test_sizes_of_0_and_1(size):
    """sigmoid gives exactly 0, a number that underflows, and exactly 1."""
    for schedule, backend in (("chunk(12)", "interpreter"), ("quadratic", "llvm")):
        check(schedule, cell("rows"), 2, 29, extreme=(Extreme("r", size),), backend=backend)


def test_a_complex_product_is_made_once():
    """Of the elements [[a, -b], [b, a]] two are different; in slack and at restarts, too."""
    made = [chunk(lower(cell("Cartesian, exactly 0 at times", *masks)).split, 16) for masks in ((), ("reset",), ("valid",))]
    counts = [sum(n.op == "pad" for n in m.body) for m in made]
    assert counts[0] == counts[1] == counts[2]


VECTORS = {
    "a complex lane": "state  h: complex [K] = 0\n  h[t] = polar(sigmoid(r[t]), phi[t]) * h[t-1] + k[t]\n"
                      "  output o: [K] = re(h[t]) + im(h[t-1])",
    "three lanes": "state  x: [K] = 0, y: [K] = 0, z: [K] = 1\n  x[t] = tanh(r[t]) * z[t-1] / 2 + k[t]\n"
                   "  y[t] = x[t-1] - y[t-1] / 3\n  z[t] = y[t] * tanh(phi[t])\n  output o: [K] = x[t] * y[t] + z[t-1]",
    "every element of a complex matrix": "state  S: complex [K, V] = 0\n"
                                         "  S[t] = polar(sigmoid(r[t]), phi[t]) * S[t-1] + outer(k[t], v[t])\n"
                                         "  output o: [K, V] = abs(S[t] + 2)",
    "one matrix, one not": "state  H: [K, V] = 0, S: [K, V] = 0\n  H[t] = g[t] * H[t-1] + outer(k[t], v[t])\n"
                           "  S[t] = sigmoid(r[t]) * S[t-1] + outer(e[t], u[t])\n"
                           "  output o: [V] = q[t] @ (tanh(H[t]) * 2) + k[t] @ S[t]",
}


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("masks", [(), ("reset", "valid")], ids="+".join)
def test_values_at_all_steps(name, masks):
    made = elaborate(HEADER + "  " + VECTORS[name] + "\n}", None, {"K": 3, "V": 4, "N": 2}).cell
    source = Masked(**dict.fromkeys(masks, True))(made) if masks else made
    for C in (2, 5, 8):
        check(f"chunk({C})", source, 2, 2 * C + 1, backend="interpreter")
    check("quadratic", source, 2, 19)
    if "matrix" in name:
        assert derive(lower(source).split, 5).whole == (("H",) if "H" in VECTORS[name] else ("S.re", "S.im"))


def test_compiled_values_at_all_steps():
    for name in VECTORS:
        source = elaborate(HEADER + "  " + VECTORS[name] + "\n}", None, {"K": 3, "V": 4, "N": 2}).cell
        check("chunk(4)", source, 2, 9, tolerance=1e-10)
