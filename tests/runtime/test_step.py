"""Steps on the short path: after a first step of the same size, nothing is looked at twice, yet everything is checked."""

import ostinato
import pytest
import torch
from ostinato import OstinatoError
from torch import nn

TEXTS = {
    # the kernel takes the parameters as they are
    "as they are": "cell c(D) {\n input x: [D]\n param w: [D] = 0.5\n state s: [D] = 0\n"
                   " s[t] = 0.5 * s[t-1] + w * x[t]\n output s\n output y: [D] = x[t] - s[t]\n}",
    # and here what is computed from them
    "computed": "cell c(D) {\n input x: [D]\n param w: [D] = 0.5\n state s: [D] = 0\n"
                " s[t] = 0.5 * s[t-1] + sigmoid(exp(w)) * x[t]\n output s\n output y: [D] = x[t] - s[t]\n}",
}
X = torch.arange(38.0).reshape(2, 19)


@pytest.fixture(params=TEXTS)
def used(request):
    """A layer that has taken steps, and a state for the next one."""
    layer = ostinato.compile(TEXTS[request.param], D=19)
    with torch.no_grad():
        _, state = layer.step(X)
        _, state = layer.step(X, state)
        assert layer._quick.step((X, state), None, {}) is not None      # the short path is open
        yield layer, state


def expected(layer, x, state):
    y, end = layer(x[:, None], state=state)
    return y.s[:, 0], y.y[:, 0], end["s"]


def stepped(layer, *args, **named):
    y, end = layer.step(*args, **named)
    return y.s, y.y, end["s"]


def test_every_way_to_ask_gives_the_numbers_of_forward(used):
    layer, state = used
    want = expected(layer, X, state)
    for got in (stepped(layer, X, state), stepped(layer, X, state=state), stepped(layer, x=X, state=state),
                stepped(layer, state, x=X), stepped(layer, X.T.contiguous().T, state),
                stepped(layer, nn.Parameter(X), state)):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_results_share_no_memory(used):
    layer, state = used
    results = (X, *state.values(), *stepped(layer, X, state), *stepped(layer, X, state))
    assert len({x.data_ptr() for x in results}) == len(results)


def test_a_parameter_in_place_of_another_counts_at_once(used):
    layer, state = used
    for change in (lambda: setattr(layer, "w", nn.Parameter(torch.full((19,), 2.0))),
                   lambda: layer.w.fill_(3), lambda: layer.reset_parameters(1)):
        change()
        torch.testing.assert_close(stepped(layer, X, state), expected(layer, X, state))
    swapped = torch.func.functional_call(layer, {"w": torch.ones(19)}, (X[:, None], ), {"state": state})
    assert not torch.equal(swapped[0].s[:, 0], stepped(layer, X, state)[0])


def test_another_number_of_threads(used):
    layer, state = used
    want, before = stepped(layer, X, state), torch.get_num_threads()
    try:
        for n in (2, 1, 2):
            torch.set_num_threads(n)
            assert all(map(torch.equal, stepped(layer, X, state), want))
    finally:
        torch.set_num_threads(before)


def test_gradients_are_recorded_where_they_are_wanted(used):
    layer, state = used
    with torch.enable_grad():
        y, _ = layer.step(X, state)
        (d,) = torch.autograd.grad(y.s.sum(), layer.w)
    assert d.abs().sum() > 0


WRONG = [torch.zeros(2, 18), torch.zeros(3, 19), torch.zeros(2, 19, 1), torch.zeros(2, 19, dtype=torch.float64),
         torch.zeros(2, 19, device="meta"), None, 1.0]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda x: str(getattr(x, "shape", x)))
def test_wrong_inputs_and_states_are_still_refused(used, wrong):
    layer, state = used
    for args in ((wrong, state), (X, {"s": wrong})):
        with pytest.raises(OstinatoError):
            layer.step(*args)
        with pytest.raises(OstinatoError):
            layer.step(x=args[0], state=args[1])


@pytest.mark.parametrize("args", [(), (X, X), ({},), (X, {"u": X}), (X, {"s": X, "u": X}), (X, [X]), ({"s": X}, X)])
def test_wrong_arguments_are_still_refused(used, args):
    with pytest.raises(OstinatoError):
        used[0].step(*args)


@pytest.mark.parametrize("wrong", [torch.zeros(1), torch.zeros(19, 1), torch.zeros(19, dtype=torch.float64),
                                   torch.zeros(19, device="meta")], ids=str)
def test_wrong_parameters_are_still_refused(used, wrong):
    layer, state = used
    layer._parameters["w"] = wrong
    with pytest.raises(OstinatoError):
        layer.step(X, state)


def test_a_view_that_means_the_negative_of_its_memory():
    layer = ostinato.compile("cell c(D) {\n input x: [D]\n state s: [D] = 0\n s[t] = 0.5 * s[t-1] + x[t]\n"
                             " output s\n}", D=1)
    x = torch.complex(torch.ones(1, 1), torch.full((1, 1), 2.0)).conj().imag
    assert x.is_neg() and x.is_contiguous()
    with torch.no_grad():
        _, state = layer.step(torch.ones(1, 1))
        for _ in range(2):
            y, _ = layer.step(x, state)
            assert y.item() == 0.5 - 2.0
        assert layer(x[:, None])[0].item() == -2.0


def test_the_short_path_draws_as_the_long_one_does():
    layer = ostinato.compile("cell c(D) {\n input x: [D]\n state s: [D] = 0\n z: [D] ~ normal(0, 1)\n"
                             " s[t] = s[t-1] + x[t] * z\n output s\n}", D=3)
    x, state = torch.ones(2, 3), {"s": torch.zeros(2, 3)}

    def drawn(x, state):
        torch.manual_seed(0)
        return layer.step(x, state)[0]

    with torch.no_grad():
        first = drawn(x, state)
        for given in ((x, state), (x, state), (torch.ones(3, 2).T, state), (x.double().float(), dict(state))):
            assert torch.equal(drawn(*given), first)


def test_another_kind_of_tensor_each_time(used):
    """What was let through last says nothing about what comes next."""
    layer, state = used
    want = expected(layer, X, state)
    with torch.inference_mode():
        marked = X.clone()
    for x in (X, nn.Parameter(X), marked, X.clone(), nn.Parameter(X)):
        torch.testing.assert_close(stepped(layer, x, state), want, rtol=1e-6, atol=1e-6)
        with torch.inference_mode():
            torch.testing.assert_close(stepped(layer, x, state), want, rtol=1e-6, atol=1e-6)
