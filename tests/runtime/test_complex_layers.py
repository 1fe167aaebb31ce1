"""Complex inputs, parameters, states and outputs of a layer: dtypes, gradients, step, compile, verify, sequences."""

import io
import pickle

import pytest
import torch
from ostinato import OstinatoError
from ostinato.runtime.api import compile as compile_cell
from ostinato.runtime.sources import elaborate
from ostinato.runtime.verify import verify_cell

SOURCE = """
cell rotor(I, H) {
  input  x: complex [I], g: [H]
  param  nu: [H], theta: [H]  ~ uniform(0.1, 1)
  param  B: complex [H, I]  ~ normal(0, 1/sqrt(I))
  param  start: complex [H] = 0.5i
  const  C: complex [H]
  state  h: complex [H] = start, n: [] = 0
  h[t] = exp(-exp(nu) * sigmoid(g[t]) + 1i * theta) * h[t-1] + B @ x[t] + 0.1 * x[t-1][0]
  n[t] = n[t-1] + abs(h[t][0])
  output y: [H] = re(C * h[t]), h
}
"""
C = [1 + 2j, -1j, 0.5, 2 - 1j]


@pytest.fixture(params=["llvm", "interpreter"])
def layer(request):
    return make(backend=request.param)


def make(dtype=torch.float64, **options):
    return compile_cell(SOURCE, I=3, H=4, C=C, dtype=dtype, **options)


def data(B=2, T=5, dtype=torch.complex128):
    g = torch.Generator().manual_seed(1)
    return torch.randn(B, T, 3, generator=g, dtype=dtype), torch.randn(B, T, 4, generator=g, dtype=dtype.to_real())


def test_dtypes_and_state_dict(layer):
    kinds = {k: v.dtype for k, v in layer.state_dict().items()}
    assert kinds == {"nu": torch.float64, "theta": torch.float64, "B": torch.complex128, "start": torch.complex128, "C": torch.complex128}
    assert dict(layer.named_parameters()).keys() == {"nu", "theta", "B", "start"}
    (y, h), state = layer(*data())
    assert (y.dtype, h.dtype, state["h"].dtype, state["x@1"].dtype) == (torch.float64,) + (torch.complex128,) * 3
    assert torch.equal(layer.initial_state(3)["h"], torch.full((3, 4), 0.5j, dtype=torch.complex128))
    for narrow in (layer.float(), layer.to(torch.float64).to(torch.float32)):
        assert narrow.B.dtype == torch.complex64 and narrow.B.imag.abs().sum() > 0
        assert narrow(*data(dtype=torch.complex64))[0].h.dtype == torch.complex64
    other = make(torch.float32)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(*data(dtype=torch.complex64))[0], layer(*data(dtype=torch.complex64))[0])


def test_gradcheck(layer):
    x, g = (v.requires_grad_() for v in data(B=1, T=3))
    h = torch.randn(1, 4, dtype=torch.complex128, requires_grad=True)

    def run(x, g, h, *params):
        (y, hs), state = layer(x, g, state={"h": h})
        return y, hs, state["h"], state["n"]

    assert torch.autograd.gradcheck(run, (x, g, h, *layer.parameters()))


def test_agrees_with_the_reference(layer):
    """Values and gradients in PyTorch's convention, by inputs, parameters and initial states."""
    def gradients(call):
        x, g = (v.requires_grad_() for v in data())
        h = torch.full((2, 4), 1 - 1j, dtype=torch.complex128, requires_grad=True)
        (y, hs), state = call(x, g, state={"h": h})
        loss = y.square().sum() + (hs * (1 + 2j)).imag.sum() + state["h"].abs().sum() + state["n"].sum()
        return (y, hs, state["h"]), torch.autograd.grad(loss, (x, g, h, *layer.parameters()), materialize_grads=True, allow_unused=True)

    torch.testing.assert_close(gradients(layer), gradients(layer.reference), rtol=1e-10, atol=1e-12)


def test_training_with_an_optimiser(layer):
    x, g = data()
    adam = torch.optim.Adam(layer.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        loss = (layer(x, g)[0].h - 1).abs().square().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("grad", [False, True])
def test_steps(layer, grad):
    x, g = data()
    with torch.set_grad_enabled(grad):
        (y, h), final = layer(x, g)
        state = None
        for t in range(5):
            (yt, ht), state = layer.step(x[:, t], g[:, t], state)
            torch.testing.assert_close((yt, ht), (y[:, t], h[:, t]))
    torch.testing.assert_close(state, final)
    with torch.no_grad():
        layer.B.add_(1j)
        torch.testing.assert_close(layer.step(x[:, 0], g[:, 0])[0], tuple(v[:, 0] for v in layer(x, g)[0]))


def test_verify_and_samples():
    made = elaborate(SOURCE, None, dict(I=3, H=4, C=torch.tensor(C)))
    rows, _ = verify_cell(made.cell, values=made.values)
    assert rows and all(r.ok for r in rows), rows


def test_sequences(layer):
    """lengths= and reset= act on complex values as on real ones."""
    x, g = data(B=2, T=6)
    y, state = layer(x, g, lengths=torch.tensor([6, 3]))
    alone, end = layer(x[1:, :3], g[1:, :3])
    torch.testing.assert_close((y.h[1:, :3], state["h"][1:]), (alone.h, end["h"]))
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[:, 2] = True
    y = layer(x, g, reset=reset)[0].h
    torch.testing.assert_close(y[:, 2:], layer(x[:, 2:], g[:, 2:])[0].h)
    torch.testing.assert_close(y, layer.reference(x, g, reset=reset)[0].h)


def test_wrong_dtypes_are_refused(layer):
    x, g = data()
    with pytest.raises(OstinatoError, match="input `x` must be torch.complex128, got torch.float64"):
        layer(x.real, g)
    with pytest.raises(OstinatoError, match="input `g` must be torch.float64, got torch.complex128"):
        layer(x, g + 0j)
    with pytest.raises(OstinatoError, match="state `h` must be torch.complex128"):
        layer(x, g, state={"h": torch.zeros(2, 4)})
    with pytest.raises(OstinatoError, match="`nu` must be torch.float64"):
        compile_cell(SOURCE, I=3, H=4, C=C, nu=torch.ones(4) * 1j)


def test_pickle(layer):
    again = pickle.loads(pickle.dumps(layer))
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(again(*data())[0].h, layer(*data())[0].h)


@pytest.mark.filterwarnings("ignore")
def test_torch_compile():
    layer = make()
    x, g = data()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    want = layer(x, g)
    torch.testing.assert_close(compiled(x, g), want)
    compiled(x, g)[0].h.abs().sum().backward()
    got = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    layer(x, g)[0].h.abs().sum().backward()
    torch.testing.assert_close(got, [p.grad for p in layer.parameters()])
