"""Verification finds what is wrong, and only that."""

import pytest
import torch
from agreement import ZOO
from ostinato import compile
from ostinato.backends.interpreter import Interpreter
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.ir.cell import Input
from ostinato.ir.types import INT, Dim, Type
from ostinato.runtime.bench import bench_layer
from ostinato.runtime.eager import PLAIN, EagerLoop
from ostinato.runtime.files import declared_sizes
from ostinato.runtime.layer import Layer
from ostinato.runtime.ports import fail
from ostinato.runtime.sample import bounds, sample, sample_inputs
from ostinato.runtime.sources import elaborate
from ostinato.runtime.verify import check_backends, verify_cell


def verified(cell, **options):
    rows, _ = verify_cell(cell, names=["interpreter"], shapes=((2, 4), (1, 3)), schedules=("sequential",), **options)
    return rows


def test_the_interpreter_agrees_with_itself(make_cell):
    rows = verified(make_cell["lstm"]()) + verified(make_cell["noise"]())
    rows += verified(make_cell["counter"](), values={"scale": torch.ones(3)})
    assert [r.dtype for r in rows] == ["float32", "float64"] * 3 and all(r.ok for r in rows)
    assert all(0 < r.backward < 1e-5 for r in rows if r.dtype == "float32" and r.cell != "noise")


@pytest.mark.parametrize("part", ["outputs", "finals", "d_inputs", "d_params", "d_states", "d_lost"])
def test_a_wrong_back_end_is_found(monkeypatch, lstm_cell, part):
    forward, backward = Interpreter.forward, Interpreter.backward

    def wrong_forward(self, *args, **kw):
        outputs, finals, tape = forward(self, *args, **kw)
        broken = {"outputs": outputs[0], "finals": finals[1]}.get(part)
        if broken is not None:
            broken.view(-1)[-1] += 0.01
        return outputs, finals, tape

    def wrong_backward(self, *args, **kw):
        dx, dp, ds = backward(self, *args, **kw)
        broken = {"d_inputs": dx[0], "d_params": dp[1], "d_states": ds[0], "d_lost": dp[2]}.get(part)
        if broken is not None:
            broken.mul_(0 if part == "d_lost" else 1.01)
        return dx, dp, ds

    monkeypatch.setattr(Interpreter, "forward", wrong_forward)
    monkeypatch.setattr(Interpreter, "backward", wrong_backward)
    assert not any(r.ok for r in verified(lstm_cell))


def test_a_refusal_is_no_failure(monkeypatch, lstm_cell):
    def refuse(*_, **__):
        check_backends(["triton"])

    monkeypatch.setattr(Interpreter, "forward", refuse)
    rows = verified(lstm_cell)
    assert [r.ok for r in rows] == [None, None] and "triton" in rows[0].note


@pytest.mark.parametrize("error, ok", [("too_long", None), ("option_value", False)])
def test_only_refusals_make_a_schedule_unsuitable(monkeypatch, lstm_cell, error, ok):
    def refuse(*_, **__):
        if error == "too_long":
            fail(error, name="lstm", schedule="chunk", B=1, T=1, size="3 GiB", limit="2 GiB")
        fail(error, option="x", expected="1", actual="2")

    monkeypatch.setattr(Layer, "from_cell", refuse)
    rows, unsuitable = verify_cell(lstm_cell, schedules=("chunk(16)",), dtypes=(torch.float64,))
    assert [r.ok for r in rows] == ([] if ok is None else [False])
    assert len(unsuitable) == (ok is None)


AMPLIFIER = """cell amplifier(H) {
  input  x: [H]
  state  h: [H] = 0.3
  h[t] = 3.99 * h[t-1] * (1 - h[t-1]) + 0 * x[t]
  output h
}"""


def test_what_a_cell_amplifies_is_no_fault_of_its_kernels():
    """Errors of the logistic map double at every step; the interpreter in float32 has them, too."""
    cell = elaborate(AMPLIFIER, None, {"H": 3}).cell
    row, = verify_cell(cell, schedules=("sequential",), dtypes=(torch.float32,), shapes=((1, 18),))[0]
    assert row.forward > 2e-4 and row.ok and row.rounding[0] > 2e-4
    assert not verify_cell(cell, schedules=("sequential",), dtypes=(torch.float32,), shapes=((1, 18),),
                           tolerance=2e-4)[0][0].ok
    row, = verify_cell(cell, schedules=("sequential",), dtypes=(torch.float64,))[0]
    assert row.ok and row.rounding == (0.0, 0.0)


def kalman():
    path = ZOO / "kalman.ost"
    return elaborate(path, None, declared_sizes(path.read_text())).cell


@pytest.mark.parametrize("seed", [5, 34])
def test_a_lucky_run_is_no_measure(seed):
    """The interpreter's own float32 run of these filters is ten times better than those at inputs a rounding away."""
    row, = verify_cell(kalman(), schedules=("sequential",), dtypes=(torch.float32,), seed=seed)[0]
    assert row.ok and row.backward > 2e-4


def test_runs_nearby_excuse_no_wrong_kernel(monkeypatch):
    right = Layer.forward

    def wrong(*arguments, **named):
        y, state = right(*arguments, **named)
        return y._replace(x=1.01 * y.x), state

    monkeypatch.setattr(Layer, "forward", wrong)
    row, = verify_cell(kalman(), schedules=("sequential",), dtypes=(torch.float32,), seed=24)[0]
    assert not row.ok


def test_unknown_back_ends_are_explained():
    with pytest.raises(OstinatoError, match="did you mean `llvm`"):
        check_backends(["lllvm"])


@pytest.mark.parametrize("facts,expected", [
    ((), (-torch.inf, torch.inf)), (("in (0, 1)",), (0, 1)), (("in [-2.5, 3)",), (-2.5, 3)), (("<= 0",), (-torch.inf, 0)),
    (("> -1", "< 1"), (-1, 1)), (("nonneg",), (0, torch.inf))])
def test_facts_are_bounds(facts, expected):
    assert bounds(facts) == expected


def test_samples_keep_their_facts():
    g = torch.Generator().manual_seed(0)
    square = Type("real", (Dim("N", 4), Dim("N", 4)))
    assert (sample(Input("x", square, facts=("<= 0",)), 3, 5, g) < 0).all()
    ints = sample(Input("k", INT, facts=("in [2, 3]",)), 30, 5, g)
    assert ints.dtype == torch.int64 and set(ints.flatten().tolist()) == {2, 3}
    x = sample(Input("P", square, facts=("symmetric",)), 3, 5, g)
    assert torch.allclose(x, x.mT)
    q = sample(Input("Q", square, facts=("orthonormal",)), 3, 5, g)
    assert torch.allclose(q.mT @ q, torch.eye(4, dtype=q.dtype).expand(3, 5, 4, 4), atol=1e-12)


def test_the_eager_loop_computes_the_cell(make_cell):
    layer = Layer.from_cell(make_cell["counter"](), backend="interpreter", dtype=torch.float64,
                            values={"scale": torch.ones(3)})
    inputs = sample_inputs(layer.cell, 2, 5)
    params = dict(zip((p.name for p in layer.cell.params), layer._params()))
    outputs, state = EagerLoop(layer.cell, torch.float64)(inputs, params, layer.initial_state(2))
    y, end = layer(**inputs)
    torch.testing.assert_close(outputs, y._asdict())
    torch.testing.assert_close(state, end)
    assert len(PLAIN) > 40


BOTH = """
cell ema(H) {
  input  x: [H]
  state  s: [H] = 0
  s[t] = 0.5 * s[t-1] + tanh(x[t])
  output s
}

cell both(H) {
  input  x: [H]
  use    f = ema(H), b = reverse ema(H)
  output y: [H] = b(f(x[t]))
}
"""


def test_the_eager_loop_runs_both_directions():
    layer = compile(BOTH, "both", backend="interpreter", dtype=torch.float64, H=3)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    outputs, state = EagerLoop(layer.cell, torch.float64)({"x": x}, {}, layer.initial_state(2))
    y, end = layer(x)
    torch.testing.assert_close((outputs["y"], state), (y, end))
    assert [t.what for t in bench_layer(layer, 2, 3, seconds=0.0)] == ["forward", "forward+backward"]


def test_bench_reports_all_three(lstm_cell):
    layer = Layer.from_cell(lstm_cell, backend="interpreter")
    timings = bench_layer(layer, 2, 3, seconds=0.0)
    assert [t.what for t in timings] == ["step", "forward", "forward+backward"]
    assert all(t.ours > 0 and t.eager > 0 and t.as_dict()["ratio"] > 0 for t in timings)
