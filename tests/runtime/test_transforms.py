"""Derivatives beyond one backward pass: refused by name where kernels run, right where the interpreter does."""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import ZOO
from ostinato.frontend.diagnostics import OstinatoError
from torch.autograd import grad
from torch.autograd.functional import hessian
from torch.func import functional_call, jacrev, jvp, vmap
from torch.func import grad as func_grad

F64 = torch.float64


def data(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def lstm(backend: str):
    return ostinato.compile(ZOO / "lstm.ost", I=3, H=2, dtype=F64, backend=backend, save="none")


def loss(call, x):
    y, state = call(x)
    return y.square().sum() + state["c"].sin().sum()


def twice(call, x):
    x = x.clone().requires_grad_()
    g, = grad(loss(call, x), x, create_graph=True)
    return grad(g.sin().sum(), x)[0]


# -- refused ---------------------------------------------------------------------------------
REFUSED = {
    "second derivative of `lstm`": lambda layer, x: twice(layer, x),
    "second derivative of `lstm` (": lambda layer, x: twice(lambda x: layer(x, lengths=torch.tensor([2, 1])), x),
    "second derivative of `lstm` (a": lambda layer, x: twice(lambda x: layer(x[:1], cu_seqlens=torch.tensor([0, 1, 3])), x),
    "torch.func (grad, vmap, jacrev, ...) of `lstm`": lambda layer, x: func_grad(lambda x: loss(layer, x))(x),
    "torch.func (grad, vmap": lambda layer, x: vmap(lambda x: layer(x)[0])(x[None]),
    "torch.func (grad,": lambda layer, x: vmap(lambda x: layer.step(x)[0])(x[None, :, 0]),
    "torch.func (": lambda layer, x: vmap(lambda x: layer(x, cu_seqlens=torch.tensor([0, 1, 3]))[0])(x[:, None]),
    "a batch of gradients of `lstm`": lambda layer, x: grad(
        layer(x.requires_grad_())[0], x, data(5, 2, 3, 2), is_grads_batched=True),
    "forward-mode differentiation (jvp) of `lstm`": lambda layer, x: jvp(lambda x: layer(x)[0], (x,), (x,)),
    "forward-mode differentiation": lambda layer, x: jvp(lambda x: layer.step(x)[0], (x[:, 0],), (x[:, 0],)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_kernels_refuse(what):
    with pytest.raises(OstinatoError) as refused:
        REFUSED[what](lstm("llvm"), data(2, 3, 3))
    assert what in str(refused.value) and "layer.reference" in str(refused.value)


def test_a_dual_level_without_tangents_is_no_derivative():
    layer, x = lstm("llvm"), data(2, 3, 3)
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        assert layer(x)[0].shape == (2, 3, 2) and layer.step(x[:, 0])[0].shape == (2, 2)


# -- supported --------------------------------------------------------------------------------
def interpreted(way: str):
    layer = lstm("interpreter")
    return layer.reference if way == "reference" else layer


@pytest.mark.parametrize("way", ["reference", "interpreter"])
def test_second_derivatives(way):
    """Against differences of gradients; then of padded and packed sequences against each other."""
    call, x, h = interpreted(way), data(2, 3, 3), 1e-5
    H = hessian(lambda x: loss(call, x), x)
    d = data(2, 3, 3, seed=1)

    def slope(at):
        at = at.clone().requires_grad_()
        return grad(loss(call, at), at)[0]

    torch.testing.assert_close((H * d).sum((3, 4, 5)), (slope(x + h * d) - slope(x - h * d)) / (2 * h), rtol=1e-6, atol=1e-8)
    padded = twice(lambda x: call(x, lengths=torch.tensor([3, 1])), x)
    packed = twice(lambda x: call(x.reshape(1, 6, 3), cu_seqlens=torch.tensor([0, 3, 4, 6])), x)
    torch.testing.assert_close(padded[0], packed[0])
    assert not padded[1, 1:].any()


@pytest.mark.parametrize("way", ["reference", "interpreter"])
def test_torch_func(way):
    call, x = interpreted(way), data(4, 2, 3, 3)
    wanted = []
    for each in x:
        each = each.clone().requires_grad_()
        wanted.append(grad(loss(call, each), each)[0])
    f = func_grad(lambda x: loss(call, x))
    torch.testing.assert_close(f(x[0]), wanted[0])
    torch.testing.assert_close(vmap(f)(x), torch.stack(wanted))
    torch.testing.assert_close(vmap(lambda x: call(x)[0])(x), torch.stack([call(each)[0] for each in x]))
    torch.testing.assert_close(func_grad(lambda x: f(x).sin().sum())(x[0]), twice(call, x[0]))
    assert jacrev(lambda x: call(x)[0])(x[0]).shape == (2, 3, 2, 2, 3, 3)
    first = x[0, :1, :2]
    torch.testing.assert_close(jacrev(jacrev(lambda x: loss(call, x)))(first), hessian(lambda x: loss(call, x), first))


def test_parameters_and_a_penalty():
    """A gradient penalty: the loss, and how steep it is; by the parameters, in one loss with the value itself."""
    layer, x = lstm("interpreter"), data(2, 3, 3).requires_grad_()
    params = {k: p.detach().clone().requires_grad_() for k, p in layer.named_parameters()}
    found = []
    for call in (layer.reference, layer):
        def run(x, call=call):
            return functional_call(layer, params, (x,)) if call is layer else _reference(layer, params, x)

        y = loss(run, x)
        g, = grad(y, x, create_graph=True)
        found.append(grad(y + g.square().sum(), [*params.values()]))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b)


def _reference(layer, params, x):
    return functional_call(Reference(layer), {f"layer.{k}": p for k, p in params.items()}, (x,))


class Reference(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer.reference(x)


# -- tensors that are no arrays -----------------------------------------------------------------
@pytest.mark.parametrize("kind, change", [
    ("sparse_coo", lambda x: x.to_sparse()), ("sparse_csr", lambda x: x[0].to_sparse_csr()),
    ("nested", lambda x: torch.nested.as_nested_tensor([x[0], x[1, :2]]))])
@pytest.mark.filterwarnings("ignore")
def test_only_dense_tensors(kind, change):
    layer, x = lstm("llvm"), change(data(2, 3, 3))
    for call in (layer, layer.reference, layer.step):
        with pytest.raises(OstinatoError, match=f"the input `x` must be a dense tensor, got a {kind} one"):
            call(x)
    with pytest.raises(OstinatoError, match=f"the state `h` must be a dense tensor, got a {kind} one"):
        layer(data(2, 3, 3), state={"h": x})
