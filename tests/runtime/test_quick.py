"""Calls over sequences that look like one that was checked: the same numbers, and nothing else gets through."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.runtime import quick


@pytest.fixture
def lstm(build, lstm_cell):
    return build(lstm_cell)


@pytest.fixture
def taken(monkeypatch):
    """The calls that took the short way, and whether they were recorded."""
    calls = []

    def spy(name):
        run = getattr(quick, name)
        monkeypatch.setattr(quick, name, lambda call, tensors: (calls.append((name, call.training)),
                                                                run(call, tensors))[1])
    spy("recorded"), spy("unrecorded")
    return calls


def randn(*sizes, **options):
    return torch.randn(*sizes, dtype=torch.float64, **options)


def gradients(layer, x, **options):
    y, state = layer(x, **options)
    wanted = [z for z in (x, *layer.parameters()) if z.requires_grad]
    return [y, *state.values(), *torch.autograd.grad((y.sin().sum() + state["c"].sum()), wanted)]


def full(layer, *args, **options):
    layer._quick.seen = None
    return gradients(layer, *args, **options)


@pytest.mark.parametrize("given", [False, True])
def test_the_numbers_of_the_full_path(lstm, taken, given):
    layer = lstm
    state = {k: randn(2, 5) for k in "hc"} if given else None
    full(layer, randn(2, 4, 3, requires_grad=True), state=state)
    for _ in range(2):
        x = randn(2, 4, 3, requires_grad=True)
        found = gradients(layer, x, state=state)
        assert len(taken) == 1 and taken.pop() == ("recorded", True)
        for a, b in zip(found, full(layer, x, state=state), strict=True):
            assert torch.equal(a, b)


def test_every_way_to_ask(lstm, taken):
    x = randn(2, 4, 3)
    y, state = lstm(x)
    assert torch.equal(lstm(x)[0], y) and torch.equal(lstm(x=x)[0], y) and len(taken) == 2
    assert torch.equal(lstm.eval()(x)[0], y) and taken[-1] == ("recorded", False)
    with torch.no_grad():
        assert lstm(x)[0].grad_fn is None and taken[-1] == ("unrecorded", False)
    taken.clear()
    late, _ = lstm(x, state)                # seen with a state now
    assert torch.equal(lstm(x, state)[0], late) and torch.equal(lstm(x, state=state)[0], late) and len(taken) == 2
    assert torch.equal(lstm(x)[0], y) and torch.equal(lstm(x, state={"c": state["c"], "h": state["h"]})[0], late)
    assert len(taken) == 2


@pytest.mark.parametrize("call, pattern", [
    (lambda m, x: m(x[0]), "axes"), (lambda m, x: m(x[..., :2]), "I"), (lambda m, x: m(x.float()), "cast"),
    (lambda m, x: m(x, {"g": x[:, 0]}), "no state"), (lambda m, x: m("x"), "tensor"), (lambda m, x: m(), "x"),
    (lambda m, x: m(x, x), "input"), (lambda m, x: m(y=x), "y"), (lambda m, x: m(x.to_sparse()), "sparse")])
def test_wrong_calls_are_explained_as_ever(lstm, call, pattern):
    x = randn(2, 4, 3)
    lstm(x), lstm(x)
    with pytest.raises(OstinatoError, match=pattern):
        call(lstm, x)


def test_what_looks_different_goes_the_full_way(lstm, taken):
    x = randn(2, 4, 3)
    y, _ = lstm(x)
    for other in (x[:1], x[:, :3], x.mT.contiguous().mT, x.clone().requires_grad_(), torch.nn.Parameter(x.clone())):
        assert torch.allclose(lstm(other)[0], y[:len(other), :other.shape[1]]) and not taken
        lstm(x)
        taken.clear()
    for p in lstm.parameters():
        p.requires_grad_(False)
    assert lstm(x)[0].grad_fn is None and not taken
    lstm.W = torch.nn.Parameter(lstm.W[:3].clone())
    with pytest.raises(OstinatoError, match="W"):
        lstm(x)


def test_transforms_and_other_dtypes_after_a_call(lstm, taken):
    x = randn(2, 4, 3)
    lstm(x)
    lstm.float()
    assert lstm(x.float())[0].dtype == torch.float32 and not taken
    lstm.double()
    lstm(x)
    with suppress(OstinatoError):           # the interpreter alone can
        torch.func.grad(lambda x: lstm(x)[0].sum())(x)
    assert not taken
    lstm.register_forward_hook(lambda module, args, found: found[0])
    assert isinstance(lstm(x), torch.Tensor)


def test_saved_tensors_may_not_change(lstm):
    x = randn(2, 4, 3, requires_grad=True)
    gradients(lstm, x)
    y, _ = lstm(x)
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
