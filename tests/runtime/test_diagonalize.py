"""schedule="diagonalize": dense constant transitions in their eigenvectors' basis, against the interpreter."""

import pytest
import torch
from ostinato import OstinatoError
from ostinato.compiler.analysis.domains import domains
from ostinato.runtime.api import compile as compile_cell

LINEAR = "examples/zoo/linear_rnn.ost"
GATED = """
cell gated(I, H) {
  input  x: [I], c: [], g: [H]
  param  A: [H, H]  ~ orthogonal(0.9)
  param  B: [H, I]  ~ normal(0, 1)
  state  h: [H] = 1, e: [H] = 0, n: int [] = 0
  h[t] = c[t] * (A @ h[t-1]) + 0.1 * h[t-1] + B @ x[t] + e[t-1]
  e[t] = sigmoid(g[t]) * e[t-1] + x[t][0]
  n[t] = n[t-1] + 1
  output y: [H] = tanh(h[t]) * h[t-1] + e[t], n
}"""
MATRIX = """
cell matrix(K, V) heads N {
  input  k: [K], v: [V], q: [K]
  param  A: [K, K]  ~ orthogonal(0.9)
  state  S: [K, V] = 0
  S[t] = A @ S[t-1] + outer(k[t], v[t])
  output o: [V] = q[t] @ S[t]
}"""
CELLS = {"linear": (LINEAR, dict(I=3, H=5)), "gated": (GATED, dict(I=3, H=6)), "matrix": (MATRIX, dict(K=4, V=3, N=2)),
         "lssl": ("examples/zoo/lssl.ost", dict(N=3, M=2, D=3, dt_min=0.1, dt_max=0.5)),
         "legt": ("examples/zoo/hippo_legt.ost", dict(N=4))}


def make(name, dtype=torch.float64, schedule="diagonalize", **values):
    source, sizes = CELLS[name]
    return compile_cell(source, schedule=schedule, dtype=dtype, **sizes, **values)


def run(layer, call, B, T, seed=0, **arguments):
    """Outputs, finals and all gradients for random cotangents of both."""
    g = torch.Generator().manual_seed(seed)
    rand = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64).to(call.__self__._dtype)
    xs = {p.name: rand(B, T, *p.type.sizes).requires_grad_() for p in layer.cell.inputs}
    state = {s.name: rand(B, *s.type.sizes).requires_grad_() if s.type.kind == "real" else torch.zeros(B, dtype=torch.int64)
             for s in layer.cell.states}
    y, end = call(**xs, state=state, **arguments)
    ends = [v for v in (*(y if isinstance(y, tuple) else (y,)), *end.values())]
    real = [v for v in ends if v.is_floating_point()]
    leaves = [*xs.values(), *(s for s in state.values() if s.requires_grad), *layer.parameters()]
    loss = sum((v * rand(*v.shape).to(v.dtype)).sum() for v in real)
    return [*ends, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("T", [0, 1, 2, 15, 65])
@pytest.mark.parametrize("name", CELLS)
def test_agrees_with_the_interpreter(name, T):
    layer = make(name)
    for a, b in zip(run(layer, layer.forward, 2, T), run(layer, layer.reference, 2, T)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11 * max(1.0, float(b.detach().abs().max()) if b.numel() else 1.0))


@pytest.mark.parametrize("name", ["linear", "matrix"])
def test_float32_is_as_good_as_sequential(name):
    layer, plain, exact = make(name, torch.float32), make(name, torch.float32, "sequential"), make(name)
    exact.load_state_dict(layer.state_dict())
    plain.load_state_dict(layer.state_dict())
    for a, b, c in zip(run(layer, layer.forward, 2, 65), run(plain, plain.forward, 2, 65), run(exact, exact.reference, 2, 65)):
        error = [float((v.detach().double() - c.detach()).square().mean().sqrt()) for v in (a, b)]
        assert error[0] <= 4 * error[1] + 1e-6 * float(c.detach().abs().max())


@pytest.mark.parametrize("arguments", [dict(lengths=torch.tensor([7, 0, 3])), dict(reverse=True),
                                       dict(reset=torch.rand(3, 7, generator=torch.Generator().manual_seed(0)) < 0.3)])
def test_sequences(arguments):
    layer = make("linear")
    for a, b in zip(run(layer, layer.forward, 3, 7, **arguments), run(layer, layer.reference, 3, 7, **arguments)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_repeated_eigenvalues_have_the_plain_gradient():
    """The derivative of an eigendecomposition is singular there; nobody takes it."""
    for A in (0.9 * torch.eye(5), torch.diag(torch.tensor([0.5, 0.5, 0.2, 0.2, 0.2])), torch.zeros(5, 5)):
        layer = make("linear", A=A)
        for a, b in zip(run(layer, layer.forward, 2, 9), run(layer, layer.reference, 2, 9)):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def jordan(eps):
    return 0.9 * torch.eye(5, dtype=torch.float64) + torch.diag(torch.ones(4, dtype=torch.float64), 1) + \
        eps * torch.diag(torch.arange(5, dtype=torch.float64))


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_defective_and_ill_conditioned_matrices_are_refused(eps):
    layer = make("linear", A=jordan(eps))
    x = torch.randn(1, 4, 3, dtype=torch.float64)
    with pytest.raises(OstinatoError, match=r"condition number of its eigenvectors is \d\.\de\+\d\d, more than 1e\+04") as e:
        layer(x)
    assert 'schedule="sequential"' in str(e.value)
    with torch.no_grad():
        layer.A.copy_(0.5 * torch.eye(5))
    layer(x)        # the same layer, with a matrix that has eigenvectors


def test_the_basis_follows_the_weights():
    layer = make("linear")
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    sgd = torch.optim.SGD(layer.parameters(), 1e-2)
    for _ in range(3):
        loss = layer(x)[0].square().mean()
        torch.testing.assert_close(loss, layer.reference(x)[0].square().mean())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    assert "condition of the eigenvectors of h" in layer.explain()


def test_steps_and_torch_compile():
    layer = make("linear")
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    y, end = layer(x)
    state = None
    with torch.no_grad():
        for t in range(6):
            yt, state = layer.step(x[:, t], state)
            torch.testing.assert_close(yt, y[:, t])
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x)[0], y)


@pytest.mark.parametrize("name", ["elman", "gla", "ema"])
def test_unsuitable(name):
    sizes = {"elman": dict(I=2, H=3), "gla": dict(K=2, V=3, N=1), "ema": dict(D=2)}[name]
    with pytest.raises(OstinatoError, match="no schedule `diagonalize`: no state is multiplied by a constant matrix"):
        compile_cell(f"examples/zoo/{name}.ost", schedule="diagonalize", **sizes)


def test_no_step_multiplies_by_a_matrix():
    """What is left between steps is element by element; the bases are applied before and after, in the adjoint too."""
    def products(cell):
        of = domains(cell)
        return {of[n.name] for n in cell.body if n.op == "contract"}

    layer = make("linear")
    inner = layer._plan.executable.inner.lowered
    assert products(layer._plan.lowered.split) == {"pre", "step", "post"}
    for cell in (inner.cell, inner.adjoint.forward, inner.adjoint.backward):
        assert products(cell) == {"pre", "post"}
