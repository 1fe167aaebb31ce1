"""Complex values in the language: kinds, what they mix with, what refuses them."""

import math

import pytest
import torch
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.frontend.load import load
from ostinato.ir import interp
from ostinato.ir.parser import parse_cell
from ostinato.ir.printer import print_cell

HEAD = "cell c(H, K) {{\n input z: complex [H], x: [H], W: complex [K, H]\n{}\n}}"
Z, X = torch.randn(2, 1, 3, dtype=torch.complex128), torch.rand(2, 1, 3, dtype=torch.float64) + 0.1
W = torch.randn(2, 1, 4, 3, dtype=torch.complex128)


def cell(line):
    return load(HEAD.format(line)).cell().elaborate(H=3, K=4)


@pytest.mark.parametrize("text, want", [
    ("re(z[t])", Z.real), ("im(z[t])", Z.imag), ("conj(z[t])", Z.conj()), ("abs(z[t])", Z.abs()), ("angle(z[t])", Z.angle()),
    ("re(x[t])", X), ("im(x[t])", 0 * X), ("conj(x[t])", X), ("polar(x[t], im(z[t]))", torch.polar(X, Z.imag.contiguous())),
    ("1i * x[t] + 2", 1j * X + 2), ("2.5i * z[t] / x[t]", 2.5j * Z / X), ("x[t] / z[t]", X / Z), ("-z[t]", -Z), ("z[t]^3", Z**3),
    ("z[t]^-1", 1 / Z), ("z[t]^0.5", Z.sqrt()), ("exp(z[t])", Z.exp()), ("log(z[t])", Z.log()), ("sqrt(z[t])", Z.sqrt()),
    ("sin(z[t])", Z.sin()), ("cos(z[t])", Z.cos()), ("z[t] if x[t] > 0.5 else 0", torch.where(X > 0.5, Z, 0)),
    ("concat(z[t][:1], x[t][1:])", torch.cat([Z[..., :1], X[..., 1:]], -1)), ("cumsum(z[t])", Z.cumsum(-1)),
    ("[z[t][0], 1, 1i]", torch.stack([Z[..., 0], torch.ones_like(Z[..., 0]), 1j + 0 * Z[..., 0]], -1)),
    ("exp(1i * pi) * x[t]", -X + 0j), ("z[t] * re(exp(2i * pi))", Z), ("abs(3 + 4i) * x[t]", 5 * X),
])
def test_values(text, want):
    c = cell(f"y = {text}\noutput y")
    y = interp.run(c, {"z": Z, "x": X, "W": W}, {}).outputs["y"]
    assert y.dtype == want.dtype
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
    assert parse_cell(print_cell(c)) == c


@pytest.mark.parametrize("text, want", [
    ("W[t] @ z[t]", torch.einsum("btij,btj->bti", W, Z)), ("W[t] @ x[t]", torch.einsum("btij,btj->bti", W, X + 0j)),
    ("sum(z[t])", Z.sum(-1)), ("prod(z[t])", Z.prod(-1)), ("mean(z[t])", Z.mean(-1)), ("norm(z[t])", Z.norm(dim=-1).real),
    ("dot(z[t], x[t])", (Z * X).sum(-1)), ("outer(z[t], x[t])", Z[..., None] * X[..., None, :]), ("W[t].T", W.mT),
])
def test_shapes_change(text, want):
    y = interp.run(cell(f"y = {text}\noutput y"), {"z": Z, "x": X, "W": W}, {}).outputs["y"]
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text, says", [
    ("z[t] < 1", "`<` needs real values, got complex"), ("z[t] == z[t]", "`==` needs real"), ("max(z[t], x[t])", "`max` needs real"),
    ("max(z[t])", "`max` needs real"), ("max(1i, 2)", "`max` needs real"), ("clamp(z[t], 0, 1)", "`max` needs real"),
    ("tanh(z[t])", "`tanh` needs real"), ("sigmoid(1i) * x[t]", "`sigmoid` needs real"), ("sign(z[t])", "`sign` needs real"),
    ("z[t] % 2", "`%` needs real"), ("real(z[t])", "`real` needs real"), ("int(z[t])", "`int` needs real"),
    ("logsumexp(z[t])", "needs real"), ("softmax(z[t])", "needs real"), ("argmax(z[t])", "needs real"), ("z[t]^x[t]", "needs real"),
    ("x[t]^1i", "an exponent needs real"), ("polar(z[t], 1)", "`polar` needs real"), ("z[t][1i]", "index must be int"),
    ("z[t-1i]", "is not a constant"), ("zeros(1i)", "not known when the cell is compiled"), ("1i // 2 * x[t]", "no order"),
    ("1i < 2", "no order"), ("sum(z[t] for j in 2i)", "must be a number known"), ("solve(eye(H), z[t])", "`solve` needs real"),
])
def test_refused(text, says):
    with pytest.raises(OstinatoError, match=says.replace("^", r"\^").replace("(", r"\(")):
        cell(f"y = {text}\noutput y")


@pytest.mark.parametrize("line, says", [
    ("y: [H] = z[t]\noutput y", "declared real but its value is complex"),
    ("state s: complex [H] > 0 = 0\ns[t] = z[t]\noutput s", "the fact about `s` needs real"),
    ("input u: complex [H] = 1i\noutput u", "must be a real number"),
])
def test_declarations_refused(line, says):
    with pytest.raises(OstinatoError, match=says):
        cell(line)


def test_promotion_in_declarations():
    c = cell("input u: complex [H] = 2\nstate s: complex [H] = 1\ns[t] = x[t]\noutput a: complex [H] = s[t-1] + u[t-1]")
    r = interp.run(c, {"z": Z, "x": X, "W": W, "u": Z}, {})
    assert torch.equal(r.outputs["a"], torch.full_like(Z, 3)) and torch.equal(r.state["s"], X[:, 0] + 0j)


def test_functions_take_complex_arguments():
    c = load("fn f(a: complex [A], b) = a * b\nfn g(a: [A]) = a * 2\ncell c(H) {\n input x: [H]\n"
             " output y: complex [H] = g(f(x[t], 1i))\n}").cell().elaborate(H=3)
    torch.testing.assert_close(interp.run(c, {"x": X}, {}).outputs["y"], 2j * X)
    with pytest.raises(OstinatoError, match="needs real, got complex"):
        load("fn f(a: real [A]) = a\ncell c(H) {\n input z: complex [H]\n output y = f(z[t])\n}")


def test_draws_are_circular():
    """E|z - mean|^2 = sd^2, parts independent and of equal variance, in initial values and in the body."""
    c = load("cell c(H) {\n input x: [H]\n param w: complex [H] ~ normal(1i, 2)\n n: complex [H] ~ normal(0, 3)\n"
             " param a: complex [H] ~ polar(uniform(0.5, 1), uniform(0, 2*pi))\n output y: complex [H] = w * a + n, n\n}"
             ).cell().elaborate(H=20000)
    w = interp.initial_params(c, 0)
    n = interp.run(c, {"x": torch.zeros(1, 1, 20000)}, w).outputs["n"]
    assert interp.initial_params(c, 0, torch.float32)["w"].dtype == torch.complex64
    for z, sd in ((w["w"] - 1j, 2), (n[0, 0], 3)):
        assert abs(z.abs().square().mean() / sd**2 - 1) < 0.05 and abs((z.real * z.imag).mean()) < 0.05 * sd**2
        assert abs(z.real.square().mean() / z.imag.square().mean() - 1) < 0.08 and abs(z.mean()) < 0.05 * sd
    assert w["a"].abs().min() >= 0.5 and w["a"].abs().max() <= 1 and abs(w["a"].mean()) < 0.02
    assert math.isclose(w["a"].angle().max(), math.pi, abs_tol=0.01)
