"""Weights from torch.nn modules."""

import pytest
import torch
from ostinato import compile
from ostinato.frontend.diagnostics import OstinatoError
from torch import nn


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"batch_first": True}])
def test_lstm(build, lstm_cell, options):
    module = nn.LSTM(3, 5, **options).double()
    layer = build(lstm_cell)
    assert layer.load_torch(module) is layer
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    expected, (h, c) = module(x if module.batch_first else x.transpose(0, 1))
    y, state = layer(x)
    torch.testing.assert_close(y, expected if module.batch_first else expected.transpose(0, 1))
    torch.testing.assert_close((state["h"], state["c"]), (h[0], c[0]))
    assert layer.W.requires_grad and layer.W.data_ptr() != module.weight_ih_l0.data_ptr()


def test_the_module_keeps_its_precision(build, lstm_cell):
    layer = build(lstm_cell, dtype=torch.float32).load_torch(nn.LSTM(3, 5).double())
    assert layer.W.dtype == torch.float32


@pytest.mark.parametrize("module,pattern", [
    (nn.Linear(3, 5), "Linear is none of"),
    (nn.LSTM(3, 5, 2), "2 layers"),
    (nn.LSTM(3, 5, bidirectional=True), "two directions"),
    (nn.LSTM(3, 5, proj_size=2), "proj_size"),
    (nn.LSTM(4, 5), r"`W` is \[4\*H=20, I=3\] here and \[20, 4\]"),
    (nn.GRU(3, 5), r"`W` is .* and \[15, 3\]"),
    (nn.RNN(3, 20), r"`R`|`W`|`b`"),
])
def test_what_does_not_fit_is_refused(build, lstm_cell, module, pattern):
    layer = build(lstm_cell)
    before = {k: x.clone() for k, x in layer.state_dict().items()}
    with pytest.raises(OstinatoError, match=pattern):
        layer.load_torch(module)
    torch.testing.assert_close(dict(layer.state_dict()), before)


def test_another_gate_order_is_refused(build, make_cell):
    """The shapes fit, the numbers do not."""
    cell = make_cell["lstm"]()
    swapped = {"sl": "sl.1", "sl.1": "sl"}
    body = tuple(n if n.op == "slice" else type(n)(n.name, n.op, tuple(swapped.get(a, a) for a in n.args), n.attrs, n.type)
                 for n in cell.body)
    with pytest.raises(OstinatoError, match="does not compute what LSTM computes"):
        build(cell.with_body(body)).load_torch(nn.LSTM(3, 5))


LAYERS = """
cell lstm(I, H) {
  input  x: [I]
  param  W: [4*H, I], R: [4*H, H], b: [4*H]  ~ uniform(-1, 1)
  state  h: [H] = 0, c: [H] = 0
  i, f, g, o = split(W @ x[t] + R @ h[t-1] + b, 4)
  c[t] = sigmoid(f) * c[t-1] + sigmoid(i) * tanh(g)
  h[t] = sigmoid(o) * tanh(c[t])
  output h
}

cell both(I, H) {
  input  x: [I]
  use    f = lstm(I, H), b = reverse lstm(I, H)
  output y: [2*H] = concat(f(x[t]), b(x[t]))
}

cell deep(I, H) {
  input  x: [I]
  use    one = both(I, H), two = both(2*H, H)
  output y: [2*H] = two(one(x[t]))
}
"""


@pytest.mark.parametrize("cell, layers", [("both", 1), ("deep", 2)])
def test_layers_and_directions(cell, layers):
    module = nn.LSTM(3, 5, layers, bidirectional=True, batch_first=True, dtype=torch.float64)
    layer = compile(LAYERS, cell, backend="interpreter", dtype=torch.float64, I=3, H=5).load_torch(module)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], module(x)[0])
    with pytest.raises(OstinatoError, match="3 layers in two directions, `.*` . sets of weights"):
        layer.load_torch(nn.LSTM(3, 5, 3, bidirectional=True))
