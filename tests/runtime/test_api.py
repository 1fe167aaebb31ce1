"""ostinato.compile, load, compile_count; the zoo's cells with weights of torch modules."""

import copy
import pickle
from pathlib import Path

import numpy as np
import ostinato
import pytest
import torch
from ostinato import OstinatoError
from ostinato.backends.interpreter import Interpreter
from ostinato.backends.llvm import jit
from torch import nn

ZOO = Path(__file__).parents[2] / "examples" / "zoo"
TWO = """
fn twice(x) = 2 * x

cell leaky(D, a=0.5, act=tanh) {
  input  x: [D]
  const  scale: [D]
  param  w: [D] = 1
  state  h: [D] = 0
  h[t] = a * h[t-1] + act(w * scale * x[t])
  output h
}

cell total() {
  input  x: []
  state  s: [] = 0
  s[t] = s[t-1] + twice(x[t])
  output s
}

cell stacked(D) {
  input  x: [D]
  use    first = leak(D), rest[2] = leak(D)
  output y: [D] = rest[1](rest[0](first(x[t])))
}

cell leak(D) {
  input  x: [D]
  param  w: [D] ~ uniform(0, 1)
  state  h: [D] = 0
  h[t] = w * h[t-1] + x[t]
  output h
}
"""


def test_the_example_of_the_readme():
    layer = ostinato.compile(str(ZOO / "lstm.ost"), I=6, H=8)
    assert isinstance(layer, ostinato.Layer) and isinstance(layer, nn.Module)
    x = torch.randn(2, 5, 6)
    y, state = layer(x)
    assert y.shape == (2, 5, 8) and set(state) == {"h", "c"}
    y.sum().backward()
    assert layer.W.grad.shape == (32, 6)
    with torch.no_grad():
        torch.testing.assert_close(layer.step(x[:, 0])[0], y[:, 0])
    torch.testing.assert_close(y.double(), layer.reference(x)[0], rtol=1e-4, atol=1e-5)
    assert ostinato.compile(ZOO / "lstm.ost", I=6, H=8).ir("source") == (ZOO / "lstm.ost").read_text()


def test_load():
    program = ostinato.load(TWO)
    assert set(program.cells) == {"leaky", "total", "stacked", "leak"} and set(program.functions) == {"twice"}
    with pytest.raises(OstinatoError, match="is not defined"):
        ostinato.load(TWO.replace("a * h", "b * h"))
    with pytest.raises(OstinatoError, match="nowhere.ost"):
        ostinato.load("nowhere.ost")


def test_which_cell():
    with pytest.raises(OstinatoError, match="several cells: leaky, total"):
        ostinato.compile(TWO)
    with pytest.raises(OstinatoError, match="did you mean `total`"):
        ostinato.compile(TWO, "totl")
    y, _ = ostinato.compile(TWO, "total")(torch.ones(1, 3))
    assert y.tolist() == [[2, 4, 6]]
    whole = TWO + """
    cell all_of_it(D) {
      input  x: [D]
      use    a = leaky(D), b = stacked(D), c = total()
      output y: [D] = a(x[t]) + b(x[t]) + c(sum(x[t]))
    }"""    # the only one that is no part of another
    assert ostinato.compile(whole, D=2, **{"a.scale": torch.ones(2)}).cell.name == "all_of_it"


def test_options_and_consts():
    scale, x = torch.tensor([1.0, 2.0]), torch.randn(1, 1, 2)
    layer = ostinato.compile(TWO, cell="leaky", D=2, scale=scale, act="sigmoid", w=[3, 4])
    torch.testing.assert_close(layer(x)[0], torch.sigmoid(torch.tensor([3.0, 4.0]) * scale * x))
    assert list(dict(layer.named_buffers())) == ["scale"] and list(dict(layer.named_parameters())) == ["w"]
    again = ostinato.compile(TWO, cell="leaky", D=2, scale=np.array([1, 2]), dtype=torch.float64, device="cpu")
    assert again.scale.dtype == torch.float64


@pytest.mark.parametrize("given,pattern", [
    ({"D": 2}, "scale"),
    ({"D": 2, "scale": torch.ones(3)}, r"scale.*\[D=2\].*\[3\]"),
    ({"scale": torch.ones(2)}, "`D` of `leaky` has no value"),
    ({"D": 2, "scale": torch.ones(2), "at": 0.1}, "no dimension or argument `at`(.|\n)*did you mean"),
    ({"D": 2, "scale": torch.ones(2), "scales": torch.ones(2)}, "no dimension or argument `scales`(.|\n)*did you mean `scale`"),
    ({"D": 2.5, "scale": torch.ones(2)}, "D"),
    ({"D": 2, "scale": torch.ones(2), "backend": "cuda"}, "no back end"),
])
def test_wrong_keywords_are_explained(given, pattern):
    with pytest.raises(OstinatoError, match=pattern):
        ostinato.compile(TWO, "leaky", **given)


def test_names_of_sub_cells():
    layer = ostinato.compile(TWO, "stacked", D=3)
    assert list(layer.state_dict()) == ["first.w", "rest.0.w", "rest.1.w"]
    assert set(layer.state_names) == {"first.h", "rest.0.h", "rest.1.h"}
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(layer(x)[0].double(), layer.reference(x)[0], rtol=1e-4, atol=1e-5)
    _, state = layer(x[:, :2])
    torch.testing.assert_close(layer(x[:, 2:], state=state)[0], layer(x)[0][:, 2:])


@pytest.mark.parametrize("cell,module", [("lstm", nn.LSTM(3, 5)), ("gru", nn.GRU(3, 5)), ("elman", nn.RNN(3, 5)),
                                         ("elman_relu", nn.RNN(3, 5, nonlinearity="relu")),
                                         ("gru", nn.GRU(3, 5, bias=False))])
def test_weights_of_torch(cell, module):
    layer = ostinato.compile(ZOO / f"{cell}.ost", I=3, H=5).load_torch(module)
    x = torch.randn(2, 7, 3)
    torch.testing.assert_close(layer(x)[0], module(x.transpose(0, 1))[0].transpose(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell,module", [("elman", nn.RNN(3, 5, nonlinearity="relu")), ("slstm", nn.LSTM(3, 5)),
                                         ("lstm_layernorm", nn.LSTM(3, 5)), ("ligru", nn.GRU(3, 5))])
def test_other_mathematics_is_refused(cell, module):
    sizes = {"I": 3, "H": 5} | ({"N": 1} if cell == "slstm" else {})
    with pytest.raises(OstinatoError, match="cannot be imported"):
        ostinato.compile(ZOO / f"{cell}.ost", **sizes).load_torch(module)


def test_other_lengths_compile_nothing():
    layer = ostinato.compile(ZOO / "gru.ost", I=3, H=4)
    for p in (layer(torch.randn(2, 3, 3))[0], layer(torch.randn(16, 40, 3))[0]):
        p.sum().backward()
    before = ostinato.compile_count()
    for B, T in ((1, 1), (3, 100), (17, 5)):
        layer(torch.randn(B, T, 3))[0].sum().backward()
        with torch.no_grad():
            layer(torch.randn(B, T, 3))
    layer_again = ostinato.compile(ZOO / "gru.ost", I=3, H=4, seed=5)
    layer_again(torch.randn(2, 3, 3))
    assert ostinato.compile_count() - before <= 3      # forward, forward with one step, step: not one per length


def test_an_operation_without_code_is_refused(monkeypatch):
    def missing(*_, **__):
        raise NotImplementedError("dance")

    monkeypatch.setattr(Interpreter, "forward", missing)
    layer = ostinato.compile(ZOO / "ema.ost", backend="interpreter", D=2)
    with pytest.raises(OstinatoError, match="no code for dance"):
        layer(torch.randn(1, 2, 2))


@pytest.mark.parametrize("save", ["auto", "all", "none"])
def test_what_is_kept_changes_memory_not_gradients(save):
    text = (Path(__file__).parents[2] / "examples/zoo/gru.ost").read_text()
    layer = ostinato.compile(text, I=3, H=5, dtype=torch.float64, save=save)
    x = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(layer(x)[0].square().sum(), (x, *layer.parameters()))
    wanted = torch.autograd.grad(layer.reference(x)[0].square().sum(), (x, *layer.parameters()))
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_save_is_checked():
    with pytest.raises(ostinato.OstinatoError, match="save"):
        ostinato.compile("cell c() {\n  input x: []\n  output y: [] = x[t]\n}\n", save="some")


@pytest.mark.parametrize("cell, schedule", [("lstm", "auto"), ("gla", "chunk(16)"), ("ema", "scan")])
def test_looking_at_a_layer_compiles_nothing(monkeypatch, cell, schedule):
    monkeypatch.setattr(jit, "_compile", None)
    sizes = {"lstm": {"I": 7, "H": 11}, "gla": {"K": 5, "V": 9, "N": 2}, "ema": {"D": 13}}[cell]
    layer = ostinato.compile(ZOO / f"{cell}.ost", schedule=schedule, **sizes)
    assert "kept" in layer.explain(B=2, T=64)
    assert cell == "gla" or "for tile" in layer.ir("schedule")


@pytest.mark.parametrize("text", ["cell a(", "fn f(x) = x +", "# nothing"])
def test_one_line_of_text_is_not_taken_for_a_file(text):
    try:
        assert not ostinato.load(text).cells
    except ostinato.OstinatoError as error:
        assert "there is no file" not in str(error)


def test_a_missing_file_is_named():
    with pytest.raises(ostinato.OstinatoError, match="no file"):
        ostinato.load("somewhere (else).ost")


PRIVATE = [*vars(ostinato.compile("cell c(H) {\n  input x: [H]\n  output y: [H] = x[t]\n}\n", H=1)), "forward", "__dict__"]


@pytest.mark.parametrize("name", [n for n in PRIVATE if n not in ("training", "cell")])
def test_a_parameter_may_be_called_as_an_attribute(name):
    """Of nn.Module or of our own: a program's names are its author's."""
    layer = ostinato.compile(f"""cell c(H) {{
      input x: [H]
      param {name}: [H] = 2
      state h: [H] = {name}
      h[t] = {name} * x[t] + h[t-1]
      output h
    }}""", H=2)
    x = torch.ones(1, 3, 2)
    for made in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer).double()):
        y, _ = made(x.to(made._dtype))
        y[:, -1].sum().backward()
        assert y[0, -1].tolist() == [8, 8] and [p.grad.tolist() for p in made.parameters()] == [[4, 4]]
        with torch.no_grad():
            made.step(x[:, 0].to(made._dtype))
        assert list(made.state_dict()) == [name]


def test_an_input_may_be_called_seed():
    layer = ostinato.compile("cell c() {\n  input x: [], seed: []\n  output y: [] = x[t] - seed[t]\n}\n")
    x, s = torch.ones(1, 2), torch.full((1, 2), 3.0)
    for y, _ in (layer(x=x, seed=s), layer(x, seed=s), layer(x, s), layer(x, s, seed=4), layer.reference(x, seed=s)):
        assert y.tolist() == [[-2, -2]]
    assert layer.step(x=x[:, 0], seed=s[:, 0])[0].tolist() == [-2]


@pytest.mark.parametrize("options", [{"backend": None}, {"schedule": 5}])
def test_options_of_another_type(options):
    with pytest.raises(OstinatoError, match="there is no"):
        ostinato.compile(TWO, "total", **options)


@pytest.mark.parametrize("options, said", [
    ({"schedule": "quadratic"}, "schedule `quadratic` has no stage `llvm`(.|\n)*sequential"),
    ({"backend": "interpreter"}, "back end `interpreter` has no stage `llvm`(.|\n)*llvm")])
def test_a_missing_stage_says_what_has_it(options, said):
    layer = ostinato.compile(ZOO / "ema.ost", D=3, **options)
    with pytest.raises(OstinatoError, match=said):
        layer.ir("llvm")
