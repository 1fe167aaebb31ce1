"""A layer on each back end: names, calls, states, gradients, errors, copies."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from ostinato import compile
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.ir import interp
from ostinato.runtime import direct
from ostinato.runtime.files import declared_sizes
from ostinato.runtime.layer import Layer
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint


@pytest.fixture
def lstm(build, lstm_cell):
    return build(lstm_cell)


@pytest.fixture
def counter(build, counter_cell):
    return build(counter_cell, values={"scale": torch.tensor([1.0, 2.0, 3.0])})


def param(layer, name):
    return dict(layer.named_parameters())[name]


def randn(*sizes, **options):
    return torch.randn(*sizes, dtype=torch.float64, **options)


# -- parameters ------------------------------------------------------------
def test_names_are_the_programs(counter):
    assert list(dict(counter.named_parameters())) == ["s0", "step"]
    assert list(counter.state_dict()) == ["s0", "step", "scale"]
    assert callable(counter.step)  # although a parameter has the same name
    assert (counter.input_names, counter.output_names, counter.state_names) == (
        ("x", "k"), ("s", "count", "total"), ("s", "t"))


def test_parameters_of_sub_cells_are_nested(build, make_cell):
    layer = build(make_cell["lstm"](prefix="section.0."))
    assert list(layer.state_dict()) == ["section.0.W", "section.0.R", "section.0.b"]
    other = build(make_cell["lstm"](prefix="section.0."), seed=1)
    other.load_state_dict(layer.state_dict())
    x = randn(2, 4, 3)
    assert torch.equal(layer(x)[0], other(x)[0])


def test_initial_values_follow_the_seed(build, lstm_cell):
    a, b, c = (build(lstm_cell, seed=s) for s in (1, 1, 2))
    assert torch.equal(a.W, b.W) and not torch.equal(a.W, c.W)
    assert torch.equal(a.W, interp.initial_params(lstm_cell, 1)["W"])
    c.reset_parameters(1)
    assert torch.equal(a.W, c.W)
    with torch.no_grad():
        a.W.zero_()
    a.reset_parameters()
    assert torch.equal(a.W, b.W)


def test_a_const_must_be_given(build, counter_cell):
    with pytest.raises(OstinatoError, match="scale"):
        build(counter_cell)
    with pytest.raises(OstinatoError, match=r"scale.*\[D=3\].*\[4\]"):
        build(counter_cell, values={"scale": torch.ones(4)})


def test_dtype_follows_the_module(lstm):
    x = randn(2, 4, 3)
    y64, _ = lstm(x)
    lstm.float()
    y32, state = lstm(x.float())
    assert y32.dtype == state["c"].dtype == torch.float32
    torch.testing.assert_close(y32.double(), y64, rtol=1e-5, atol=1e-6)
    with pytest.raises(OstinatoError, match="float16"):
        lstm.half()
    assert lstm.W.dtype == torch.float32


# -- calls -------------------------------------------------------------------
def test_forward_is_the_interpreter(lstm, lstm_cell):
    x = randn(2, 4, 3)
    y, state = lstm(x)
    expected = interp.run(lstm_cell, {"x": x}, dict(lstm.named_parameters()))
    torch.testing.assert_close((y, state["c"]), (expected.outputs["h"], expected.state["c"]))


def test_several_outputs_are_a_named_tuple(counter):
    x, k = randn(2, 4, 3), torch.ones(2, 4, dtype=torch.int64)
    y, state = counter(x, k)
    assert type(y).__name__ == "counter" and y._fields == ("s", "count", "total")
    assert y.count.tolist() == [[1, 2, 3, 4]] * 2 and state["t"].tolist() == [4, 4]
    assert torch.equal(pickle.loads(pickle.dumps(y)).count, y.count)
    named, _ = counter(k=k, x=x)
    assert torch.equal(named.total, y.total)


def test_fields_of_outputs_are_what_python_reads():
    layer = compile("""cell a() {
  input  x: []
  output \ufb01: [] = x[t], fi: [] = 2 * x[t], \u210e: [] = 3 * x[t]
}""")
    y, _ = layer(torch.ones(1, 1))
    assert y._fields == ("fi", "_1", "h") and [v.item() for v in y] == [1.0, 2.0, 3.0]


def test_state_continues_a_sequence(counter):
    x, k = randn(2, 6, 3), torch.randint(0, 5, (2, 6))
    whole, end = counter(x, k)
    first, state = counter(x[:, :2], k[:, :2])
    rest, state = counter(x[:, 2:], k[:, 2:], state=state)
    torch.testing.assert_close(torch.cat((first.total, rest.total), 1), whole.total)
    torch.testing.assert_close(state, end)


def test_missing_states_start_as_declared(counter):
    x, k = randn(2, 3, 3), torch.zeros(2, 3, dtype=torch.int64)
    start = counter.initial_state(2)
    assert torch.equal(start["s"], param(counter, "s0").expand(2, 3)) and start["t"].dtype == torch.int64
    y, _ = counter(x, k, state={"t": torch.tensor([5, 7])})
    assert y.count.tolist() == [[5, 6, 7], [7, 8, 9]]
    assert torch.equal(y.s, counter(x, k, state=start)[0].s)


@pytest.mark.parametrize("grad", [False, True])
def test_steps_give_the_numbers_of_forward(counter, grad):
    x, k = randn(2, 5, 3), torch.randint(0, 5, (2, 5))
    with torch.set_grad_enabled(grad):
        whole, end = counter(x, k)
        state, totals = None, []
        for t in range(5):
            y, state = counter.step(x[:, t], k[:, t], state)
            totals.append(y.total)
    torch.testing.assert_close(torch.stack(totals, 1), whole.total)
    torch.testing.assert_close(state, end)
    if grad:
        a = torch.autograd.grad(torch.stack(totals).sum(), list(counter.parameters()))
        b = torch.autograd.grad(whole.total.sum(), list(counter.parameters()))
        torch.testing.assert_close(a, b)


def test_step_sees_changed_parameters(counter):
    x, k = randn(1, 3), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        counter.step(x, k)
        for p in counter.parameters():
            p.mul_(0.5)
        y, _ = counter.step(x, k)
        assert torch.equal(y.total, counter(x[:, None], k[:, None])[0].total[:, 0])


def test_inference_mode(build, counter_cell):
    with torch.inference_mode():
        counter = build(counter_cell, values={"scale": torch.ones(3)})
        x, k = randn(2, 1, 3), torch.ones(2, 1, dtype=torch.int64)
        y, _ = counter.step(x[:, 0], k[:, 0])
        torch.testing.assert_close(y.total, counter(x, k)[0].total[:, 0])


def test_calls_without_a_state_of_any_number_of_sequences(lstm):
    """By turns, from several threads, in inference mode and then with gradients: what a call keeps of its start serves
    the next, and what it gives is the caller's to change."""
    xs = {B: randn(B, 4, 3) for B in (2, 1, 3)}
    with torch.inference_mode():
        wanted = {B: lstm(x)[0].clone() for B, x in xs.items()}
    for B, x in xs.items():
        y, state = lstm(x.requires_grad_())
        y.sum().backward()
        torch.testing.assert_close(y, wanted[B])
        with torch.no_grad():
            for v in (y, *state.values(), x.grad, *lstm(x[:, :0])[1].values()):
                v.fill_(7.0)

    def same(B: int) -> bool:
        return torch.allclose(lstm(xs[B])[0], wanted[B])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, 40 * [*xs]))


def test_gradients_of_absent_results_are_nobodys_to_change(lstm):
    """A gradient that is zero since nothing flows back is new memory at every call."""
    for _ in range(2):
        state = {k: torch.zeros(1, 5, dtype=torch.float64, requires_grad=True) for k in "hc"}
        _, end = lstm(randn(1, 0, 3, requires_grad=True), state=state)
        d = torch.autograd.grad(end["h"].sum(), state["c"], allow_unused=True)[0]
        assert d is None or not d.any()
        if d is not None:
            d.fill_(1.0)


@pytest.mark.parametrize("state,pattern", [([1], "must be a dict"), ({"s": [1.0]}, "`s` must be a tensor"),
                                           ({"u": 1}, "no state `u`"), ({"t": torch.zeros(2)}, "int64"),
                                           ({"s": torch.zeros(3, dtype=torch.float64)}, "1 axes instead of 2")])
@pytest.mark.parametrize("grad", [False, True])
def test_wrong_states_of_a_step_are_explained(counter, state, pattern, grad):
    with torch.set_grad_enabled(grad), pytest.raises(OstinatoError, match=pattern):
        counter.step(X[:, 0], K[:, 0], state=state)


@pytest.mark.parametrize("B,T", [(0, 4), (2, 0), (0, 0), (1, 1)])
def test_empty_sequences_and_batches(lstm, B, T):
    x = randn(B, T, 3, requires_grad=True)
    state = {"h": randn(B, 5), "c": randn(B, 5)}
    y, end = lstm(x, state=state)
    assert y.shape == (B, T, 5) and end["c"].shape == (B, 5)
    if T == 0:
        assert torch.equal(end["c"], state["c"]) and end["c"].data_ptr() != state["c"].data_ptr() or B == 0
    (y.sum() + end["c"].sum()).backward()
    assert x.grad.shape == x.shape and lstm.W.grad.shape == lstm.W.shape


@pytest.mark.parametrize("view", [lambda x: x.transpose(0, 1), lambda x: x[:1].expand(4, 2, 3).transpose(0, 1),
                                  lambda x: x.flip(0).transpose(0, 1), lambda x: x[:, :1].expand(4, 2, 3).transpose(0, 1)])
def test_any_strides(lstm, view):
    x = view(randn(4, 2, 3))
    assert torch.equal(lstm(x)[0], lstm(x.contiguous())[0])


# -- gradients -------------------------------------------------------------
def test_gradients_are_the_definitions(counter, counter_cell):
    x, k, s = randn(2, 4, 3, requires_grad=True), torch.randint(0, 5, (2, 4)), randn(2, 3, requires_grad=True)
    leaves = [x, s, param(counter, "step")]

    def loss(y, state):
        return (y.total ** 2).sum() + (state["s"] ** 3).sum()

    ours = torch.autograd.grad(loss(*counter(x, k, state={"s": s})), leaves)
    theirs = torch.autograd.grad(loss(*counter.reference(x, k, state={"s": s})), leaves)
    torch.testing.assert_close(ours, theirs)
    # the learned initial state has a gradient where it is used
    loss(*counter(x, k)).backward()
    assert param(counter, "s0").grad.abs().sum() > 0


def test_a_loss_of_the_final_state_alone(lstm):
    x = randn(2, 4, 3)
    _, state = lstm(x)
    (ours,) = torch.autograd.grad(state["c"].sum(), [lstm.W])
    (theirs,) = torch.autograd.grad(lstm.reference(x)[1]["c"].sum(), [lstm.W])
    torch.testing.assert_close(ours, theirs)


def test_gradcheck(build, make_cell):
    layer = build(make_cell["lstm"](2, 2))

    def run(x, h):
        y, state = layer(x, state={"h": h})
        return y, state["c"]

    x, h = randn(2, 3, 2, requires_grad=True), randn(2, 2, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, h))


def test_int_outputs_are_not_differentiable(counter):
    y, state = counter(randn(1, 2, 3), torch.ones(1, 2, dtype=torch.int64))
    assert y.total.requires_grad and not y.count.requires_grad and not state["t"].requires_grad


def test_no_grad_records_nothing(lstm):
    with torch.no_grad():
        assert not lstm(randn(1, 2, 3))[0].requires_grad
    lstm.requires_grad_(False)
    assert not lstm(randn(1, 2, 3))[0].requires_grad
    assert lstm(randn(1, 2, 3, requires_grad=True))[0].requires_grad


@pytest.mark.parametrize("schedule, T", [("sequential", 600), ("scan(3)", 6), ("chunk(4)", 600), ("sequential", 3)])
def test_results_may_be_changed_in_place(schedule, T):
    """Large ones too, whose memory is the pool's, and those that a form cuts out of others."""
    layer = compile("""cell ema(H) {
  input  x: [H], a: [H]
  state  h: [H] = 0
  h[t] = sigmoid(a[t]) * h[t-1] + x[t]
  output h
}""", H=256, schedule=schedule)

    def gradient(change):
        x, a = (torch.randn(2, T, 256, generator=torch.Generator().manual_seed(k)).requires_grad_() for k in (0, 1))
        y, state = layer(x, a)
        y, h = change(y), change(state["h"])
        (y.square().sum() + h.square().sum()).backward()
        return x.grad, a.grad

    for found, wanted in zip(gradient(lambda y: y.mul_(2).add_(1)), gradient(lambda y: y * 2 + 1)):
        assert torch.equal(found, wanted)


def test_reference_is_float64(lstm_cell):
    layer = Layer.from_cell(lstm_cell, backend="interpreter")
    y, state = layer.reference(torch.randn(2, 4, 3))
    assert y.dtype == state["h"].dtype == torch.float64


# -- randomness --------------------------------------------------------------
def test_draws_follow_the_seed_or_torchs_generator(build, noise_cell):
    layer = build(noise_cell)
    x = randn(2, 4, 4)
    assert torch.equal(layer(x, seed=3)[0], layer(x, seed=3)[0])
    assert not torch.equal(layer(x, seed=3)[0], layer(x, seed=4)[0])
    assert not torch.equal(layer(x)[0], layer(x)[0])
    torch.manual_seed(0)
    a = layer(x)[0]
    torch.manual_seed(0)
    assert torch.equal(a, layer(x)[0])
    state, ys = None, []
    for t in range(4):
        y, state = layer.step(x[:, t], state, seed=3)
        ys.append(y)
    torch.testing.assert_close(torch.stack(ys, 1), layer(x, seed=3)[0])


# -- errors ------------------------------------------------------------------
X, K = torch.zeros(2, 4, 3, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.int64)


@pytest.mark.parametrize("args,kwargs,pattern", [
    ((X,), {}, r"input `k` is missing"),
    ((X, K, K), {}, r"takes 2 inputs \(x, k\)"),
    ((X, K), {"x": X}, r"`x` of `counter` is given twice"),
    ((X,), {"kk": K}, r"no input `kk`(.|\n)*did you mean `k`"),
    ((X[..., :2], K), {}, r"input `x`(.|\n)*\[B, T, D=3\](.|\n)*\[2, 4, 2\](.|\n)*axis D is 2 instead of 3"),
    ((X[0], K), {}, r"input `x`(.|\n)*2 axes instead of 3"),
    ((X.float(), K), {}, r"input `x` must be torch.float64, got torch.float32(.|\n)*cast"),
    ((X, K.int()), {}, r"input `k` must be torch.int64, got torch.int32"),
    ((X.to("meta"), K), {}, r"input `x` is on meta"),
    ((X, K[:, :3]), {}, r"disagree about \[B, T\]: x \[2, 4\], k \[2, 3\]"),
    (([1.0], K), {}, r"input `x` must be a tensor, got list"),
    ((X, K), {"state": {"ss": X}}, r"no state `ss`(.|\n)*did you mean `s`"),
    ((X, K), {"state": {"s": torch.zeros(3, 3, dtype=torch.float64)}}, r"state `s`(.|\n)*axis B is 3 instead of 2"),
    ((X, K), {"state": {"t": torch.zeros(2)}}, r"state `t` must be torch.int64"),
    ((X, K), {"state": [1]}, r"state must be a dict"),
])
def test_wrong_calls_are_explained(counter, args, kwargs, pattern):
    with pytest.raises(OstinatoError, match=pattern):
        counter(*args, **kwargs)


def test_a_device_that_the_back_end_lacks(lstm):
    lstm.to("meta")
    with pytest.raises(OstinatoError, match="does not run on meta"):
        lstm(torch.zeros(1, 2, 3, dtype=torch.float64, device="meta"))


def test_fake_tensors(lstm):
    """Shape propagation reaches no kernel."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(randn(2, 4, 3))
        with torch.no_grad():
            assert lstm(x)[0].shape == (2, 4, 5) and lstm.step(x[:, 0])[0].shape == (2, 5)


@pytest.mark.parametrize("options,pattern", [
    ({"backend": "llvmm"}, "no back end `llvmm`(.|\n)*did you mean `llvm`"),
    ({"backend": "triton"}, "triton"),
    ({"backend": "interpreter", "schedule": "chunk"}, "no schedule `chunk`: h, c: `sigmoid`(.|\n)*auto"),
    ({"backend": "interpreter", "dtype": torch.float16}, "float32 or torch.float64"),
])
def test_wrong_options_are_explained(lstm_cell, options, pattern):
    with pytest.raises(OstinatoError, match=pattern):
        Layer.from_cell(lstm_cell, **options)


def test_stages(lstm):
    with pytest.raises(OstinatoError, match="no stage `cel`(.|\n)*did you mean `cell`"):
        lstm.ir("cel")
    assert "sigmoid" in lstm.ir("cell")
    text = lstm.explain(B=2, T=4)
    assert "interpreter" in text and "sequential" in text and "0 bytes" in text


# -- copies --------------------------------------------------------------------
def through_torch_save(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_torch_save])
def test_copies_are_equal_and_independent(counter, copied):
    x, k = randn(2, 4, 3), torch.ones(2, 4, dtype=torch.int64)
    counter(x, k)
    other = copied(counter)
    assert torch.equal(other(x, k)[0].total, counter(x, k)[0].total)
    with torch.no_grad():
        param(other, "step").add_(1)
    assert not torch.equal(other(x, k)[0].total, counter(x, k)[0].total)
    other(x, k)[0].total.sum().backward()
    assert param(counter, "step").grad is None


def test_functional_call_and_parametrisation(lstm):
    x = randn(2, 4, 3)
    zeros = {name: torch.zeros_like(p) for name, p in lstm.named_parameters()}
    assert torch.func.functional_call(lstm, zeros, (x,))[0].abs().max() == 0
    torch.nn.utils.parametrizations.weight_norm(lstm, "R")
    y, _ = lstm(x)
    y.sum().backward()
    assert lstm.parametrizations.R.original1.grad is not None


def test_checkpointing(lstm):
    x = randn(2, 4, 3, requires_grad=True)
    y = checkpoint(lambda x: lstm(x)[0], x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x), torch.autograd.grad(lstm(x)[0].sum(), x))


def test_the_operator_and_the_direct_call_agree(counter, monkeypatch):
    x, k = randn(2, 4, 3, requires_grad=True), torch.randint(0, 5, (2, 4))

    def results():
        y, state = counter(x, k)
        return (*y, *state.values(), *torch.autograd.grad(y.total.sum() + state["s"].sum(), [x, param(counter, "s0")]))

    direct_call = results()
    monkeypatch.setattr(direct, "possible", lambda *_: False)
    torch.testing.assert_close(direct_call, results())


def test_parameters_may_not_change_before_the_backward_pass(lstm):
    y = lstm(randn(2, 4, 3))[0].sum()
    with torch.no_grad():
        lstm.W.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_autocast_gives_the_layer_its_dtype(lstm):
    lstm.float()
    linear = torch.nn.Linear(3, 3)
    x = randn(2, 4, 3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = linear(x)
        y, state = lstm(half)
        y_t, _ = lstm.step(half[:, 0], {k: s.bfloat16() for k, s in state.items()})
    assert half.dtype == torch.bfloat16 and y.dtype == y_t.dtype == state["c"].dtype == torch.float32
    torch.testing.assert_close(y, lstm(half.float())[0])
    y.sum().backward()
    assert linear.weight.grad is not None
    with pytest.raises(OstinatoError, match="bfloat16"):
        lstm(half)



@pytest.mark.parametrize("name, schedule", [("linear_rnn", "scan"), ("linear_rnn", "conv"), ("retnet", "quadratic"),
                                            ("s4", "scan"), ("lssl", "auto"), ("legs", "scan"), ("gla", "quadratic")])
def test_autocast_rounds_no_factors_of_ours(name, schedule):
    file = Path(__file__).parents[2] / "examples" / "zoo" / f"{name}.ost"
    layer = compile(file, **declared_sizes(file.read_text()), schedule=schedule)
    xs = [randn(2, 24, *p.type.sizes).float().requires_grad_() for p in layer.cell.inputs]
    leaves = [*xs, *layer.parameters()]

    def gradients(ys):
        return torch.autograd.grad(sum(y.abs().square().sum() for y in ys), leaves, allow_unused=True)

    def results():
        y, state = layer(*xs)
        return [*(y if isinstance(y, tuple) else (y,)), *state.values()]

    want = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = results()
    want, got = ([*ys, *gradients(ys)] for ys in (want, got))
    for x, y in zip(got, want, strict=True):
        assert x is None and y is None or torch.equal(x, y)
