"""Large values, and processes that fork, on compiled layers."""

import multiprocessing

import ostinato
import pytest
import torch

SOFTMAX = """
cell picks(D) {
  input  x: [D]
  state  s: [D] = 0
  s[t] = s[t-1] + x[t]
  output y: [D] = softmax(0.3 * s[t])
}
"""
LOOKUP = """
cell lookup(K) heads N {
  input  k: [K], q: [K]
  state  S: [K, K] = 0
  S[t] = 0.9 * S[t-1] + outer(k[t], k[t])
  output y: [K] = q[t] @ S[t]
}
"""


@pytest.mark.parametrize("scale", [1e4, 1e10, 1e30])
def test_no_logit_exceeds_the_largest(scale):
    """`0.3 * s` is computed for the maximum and again for the difference; both have to round alike."""
    layer = ostinato.compile(SOFTMAX, D=19)
    x = (torch.randn(40, 3, 19, generator=torch.Generator().manual_seed(0)) * scale).requires_grad_()
    y, _ = layer(x)
    torch.testing.assert_close(y.sum(-1), torch.ones(40, 3))
    assert torch.isfinite(torch.autograd.grad(y.square().sum(), x)[0]).all()


def _step_in_child(layer, inputs, state, queue):
    with torch.no_grad():
        queue.put(layer.step(*inputs, state=state)[0].tolist())


def test_steps_go_on_in_a_forked_child():
    """The argument block of a step holds the number of threads, and a child has one."""
    layer = ostinato.compile(LOOKUP, K=32, N=4)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        inputs, state = (torch.randn(4, 4, 32), torch.randn(4, 4, 32)), layer.initial_state(4)
        with torch.no_grad():
            expected, _ = layer.step(*inputs, state=state)
            layer(torch.randn(8, 50, 4, 32), torch.randn(8, 50, 4, 32))     # the pool of threads exists
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_step_in_child, args=(layer, inputs, state, queue), daemon=True)
        child.start()
        try:
            assert queue.get(timeout=60) == expected.tolist()
        finally:
            child.kill()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("wrong,message", [
    (torch.zeros(1), "shape"), (torch.zeros(32, 64), "shape"), (torch.zeros(19, dtype=torch.float64), "float32"),
    (torch.zeros(19, dtype=torch.int64), "float32"), (torch.zeros(19, device="meta"), "meta"),
])
def test_what_takes_a_parameters_place_is_checked(wrong, message):
    """Kernels read addresses, so another shape, dtype or device would read foreign memory."""
    layer = ostinato.compile("cell c(D) {\n input x: [D]\n param w: [D] = 1\n state s: [D] = 0\n"
                             " s[t] = 0.5 * s[t-1] + w * x[t]\n output s\n}", D=19)
    x = torch.randn(2, 4, 19)
    layer._parameters["w"] = wrong
    for call in (layer, layer.reference, lambda x: layer.step(x[:, 0])):
        with torch.no_grad(), pytest.raises(ostinato.OstinatoError, match=message):
            call(x)
