"""Complex values as pairs of reals: every operation against torch's complex arithmetic, values and gradients."""

import pytest
import torch
from ostinato.compiler.passes.realify import pairs, realify
from ostinato.compiler.pipeline import lower
from ostinato.frontend.load import load
from ostinato.ir import interp
from ostinato.ir.verify import verify
from ostinato.runtime.layer import Layer

TEXTS = """z[t] + u[t]; z[t] - 2i; -z[t]; z[t] * u[t]; z[t] / u[t]; z[t] / x[t]; x[t] / z[t]; z[t] / 2i; 1i * x[t]; z[t] + x[t]; x[t] - z[t]
conj(z[t]); exp(z[t]); exp(1i * x[t]); exp(complex_(x[t])); log(z[t]); log(-complex_(x[t])); sqrt(z[t]); sqrt(-complex_(x[t])); sqrt(1i * x[t])
expm1(z[t]); expm1(1i * x[t]); expm1(complex_(x[t])); sin(z[t]); sin(1i * x[t]); sin(complex_(x[t])); cos(z[t]); cos(1i * x[t]); cos(complex_(x[t])); z[t]^3; z[t]^-2; polar(x[t], x[t])
re(z[t]); im(z[t]); abs(z[t]); abs(1i * x[t]); angle(z[t]); im(complex_(x[t])); z[t] if x[t] > 0 else u[t]; 1 if x[t] > 0 else z[t]; stop_gradient(z[t]) * u[t]
W @ z[t]; W @ x[t]; re(W) @ z[t]; 1i * im(W) @ z[t]; outer(z[t], x[t]); dot(z[t], u[t]); sum(z[t]); prod(z[t]); mean(z[t]); norm(z[t]); cumsum(z[t]); diag(z[t]); diag(W)
W.T; concat(z[t][1:], [x[t][0]]); [z[t], u[t]]; [1i, z[t][1]]; z[t-2]; prod[H](W); outer(z[t], [1, 2i, x[t][0], 0]) @ ones(4); angle(-complex_(x[t])); log(-polar(x[t], 0)); sqrt(-polar(x[t], 0)); concat(z[t], x[t]); z[t][2]"""
TEXTS = [x.strip() for line in TEXTS.splitlines() for x in line.split(";")]
SOURCE = """
fn complex_(x) = x + 0i
cell c(H) {{
  input  z: complex [H], u: complex [H], x: [H]
  param  W: complex [H, H]  ~ normal(0, 1)
  state  s: complex [H] = 1
  s[t] = 0.5i * s[t-1] + z[t]
  output y = {}, s
}}"""


def cell_of(text):
    source = SOURCE.format(text.replace("prod[H](W)", "prod[K](V)"))
    source = source.replace("c(H)", "c(H, K=4)").replace("  state  s", "  param  V: complex [H, K]  ~ normal(0, 1)\n  state  s")
    return load(source).cell().elaborate(H=3)


def gradients(y, leaves):
    g = torch.Generator().manual_seed(3)
    ct = torch.randn(y.shape, generator=g, dtype=y.dtype)
    return torch.autograd.grad((y * ct.conj()).sum().real, leaves, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
@pytest.mark.parametrize("text", TEXTS)
def test_every_operation(text, backend):
    cell = cell_of(text)
    layer = Layer.from_cell(cell, backend=backend, dtype=torch.float64)
    g = torch.Generator().manual_seed(5)
    given = [torch.randn(2, 4, 3, generator=g, dtype=d).requires_grad_() for d in (torch.complex128,) * 2 + (torch.float64,)]
    leaves = [*given, *layer.parameters()]
    (y, s), _ = layer(*given)
    (y_, s_), _ = layer.reference(*given)
    torch.testing.assert_close((y, s), (y_, s_), rtol=1e-11, atol=1e-12)
    for a, b in zip(gradients(y, leaves), gradients(y_, leaves)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_no_complex_value_is_left():
    for text in TEXTS:
        cell = verify(realify(cell_of(text)))
        kinds = {x.type.kind for x in (*cell.body, *cell.inputs, *cell.params, *cell.states)}
        assert "complex" not in kinds
        assert pairs(cell)[0] == ("s.re", "s.im") and cell.inputs[0].name == "z.re"
        lower(cell_of(text)).adjoint


def test_a_real_cell_is_left_alone():
    cell = load("cell a(H) {\n input x: [H]\n output y: [H] = 2 * x[t]\n}").cell().elaborate(H=2)
    assert realify(cell) is cell


def test_real_values_among_complex_ones_cost_nothing():
    """lambda h + B x with complex lambda, B, h and real x: 4 products for the state, 2 for the input."""
    cell = realify(load("""cell a(H, I) {
      input x: [I]
      param l: complex [H], B: complex [H, I]  ~ normal(0, 1)
      state h: complex [H] = 0
      h[t] = l * h[t-1] + B @ x[t]
      output y: [H] = re(h[t])
    }""").cell().elaborate(H=2, I=3))
    ops = [n.op for n in cell.body]
    assert ops.count("mul") == 4 and ops.count("contract") == 2 and not {"neg", "select"} & set(ops)


EXTREME = [1e-30, 1e30, 0.0, 1e-200, 1e200, 1.0, -1.0, 3e-20]


def test_extreme_values():
    """Modulus, quotient and root neither overflow nor vanish where the result is in range."""
    parts = torch.tensor(EXTREME, dtype=torch.float64)
    z = torch.complex(*torch.meshgrid(parts, parts, indexing="ij")).reshape(-1)
    cell = load("cell a() {\n input z: complex [], u: complex []\n output a: [] = abs(z[t]), r = sqrt(z[t]), q = z[t] / u[t]\n}").cell().elaborate()
    layer = Layer.from_cell(cell, backend="interpreter", dtype=torch.float64)
    u = torch.where(z == 0, 1 + 0j, z) * (1 + 2j)
    y, _ = layer(z[:, None], u[:, None])
    torch.testing.assert_close(y.a[:, 0], torch.hypot(z.real, z.imag), rtol=1e-14, atol=0)
    ok = z.abs() > 1e-290
    torch.testing.assert_close(y.q[:, 0], z / u, rtol=1e-13, atol=1e-300)
    torch.testing.assert_close(y.r[ok, 0] ** 2 / z[ok], torch.ones_like(z[ok]), rtol=1e-13, atol=1e-13)


def test_gradients_at_zero():
    """|z| has gradient 0 at 0, as in torch; a branch not selected contributes nothing."""
    cell = load("cell a() {\n input z: complex []\n output a: [] = abs(z[t]), b = log(z[t]) if re(z[t]) > 0 else 0\n}").cell().elaborate()
    layer = Layer.from_cell(cell, dtype=torch.float64)
    z = torch.zeros(1, 2, dtype=torch.complex128, requires_grad=True)
    y, _ = layer(z)
    (d,) = torch.autograd.grad(y.a.sum() + y.b.real.sum(), z)
    assert torch.equal(d, torch.zeros_like(z))
    assert torch.equal(interp.run(cell, {"z": z.detach()}, {}).outputs["a"], torch.zeros(1, 2, dtype=torch.float64))
