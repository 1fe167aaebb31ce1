"""`reset`, `lengths`, `cu_seqlens` and `reverse`: the same as running the sequences alone."""

import random

import pytest
import torch
from alone import cotangent, leaf
from batches import NAN, Batch, by_layer, check, marks, own
from hypothesis import given, settings
from hypothesis import strategies as st
from ostinato import OstinatoError, compile
from ostinato.compiler.passes.masked import Masked
from ostinato.ir import interp
from ostinato.ir.verify import verify
from ostinato.runtime import packed, sequences
from ostinato.runtime.layer import Layer
from strategies import cells, values

FORMS = ["right", "left", "packed"]
GATED = """cell gated(D) {
  input  x: [D], a: [D]
  state  h: [D] = 0
  h[t] = sigmoid(a[t]) * h[t-1] + tanh(x[t])
  output h
}"""
LENGTHS = [[4, 0, 7, 1], [0], [3, 3], [0, 0, 2, 0], [1, 1, 1]]


@pytest.fixture(params=["lstm", "counter"])
def layer(build, request, make_cell):
    values = {"scale": torch.tensor([1.0, 2.0, 3.0])} if request.param == "counter" else None
    return build(make_cell[request.param](), values=values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("density", [None, 0.3])
def test_as_alone(layer, form, reverse, density):
    for i, lengths in enumerate(LENGTHS):
        batch = Batch(form, lengths, 7)
        resets = None if density is None else marks(batch, density, i)
        check(by_layer(layer), layer.cell, own(layer), batch, resets=resets, reverse=reverse, starts=i % 2 == 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reverse", [False, True])
def test_reference_as_alone(layer, form, reverse):
    batch = Batch(form, [4, 0, 7, 1], 7)
    check(by_layer(layer, "reference"), layer.cell, own(layer), batch, resets=marks(batch, 0.3), reverse=reverse)


def test_restarts_without_slack(layer):
    for T in (0, 1, 9):
        batch = Batch("right", [T] * 3, T)
        batch.arguments = dict
        for density in (0.0, 0.3, 1.0):
            for reverse in (False, True):
                check(by_layer(layer), layer.cell, own(layer), batch, resets=marks(batch, density), reverse=reverse)


def test_infinite_slack(layer):
    for form in ("right", "left"):
        batch = Batch(form, [2, 5, 0], 6)
        check(by_layer(layer), layer.cell, own(layer), batch, junk=float("inf"))


@pytest.mark.parametrize("lengths", [[900, 3, 2, 800, 1, 0, 400, 390, 5, 5, 700], [300] * 3, [700, 1], [0, 0], [2, 1],
                                     [3, 3, 2], [1, 0], [0, 1], [1, 1, 0]])
@pytest.mark.parametrize("reverse", [False, True])
def test_uneven_packed_lengths(lstm_cell, lengths, reverse):
    """Several buckets: against the same sequences as a padded batch."""
    layer = Layer.from_cell(lstm_cell, dtype=torch.float64)
    total, n, T = sum(lengths), len(lengths), max(lengths)
    x = torch.randn(1, total, 3, dtype=torch.float64, requires_grad=True)
    start = {"h": torch.randn(n, 5, dtype=torch.float64, requires_grad=True)}
    padded = torch.nn.utils.rnn.pad_sequence(x[0].split(lengths), batch_first=True) if total else x.expand(n, 0, 3)
    y, end = layer(x, start, cu_seqlens=torch.tensor([0, *torch.tensor(lengths).cumsum(0)]), reverse=reverse)
    y2, end2 = layer(padded, start, lengths=torch.tensor(lengths), reverse=reverse)
    y2 = torch.cat([y2[i, :s] for i, s in enumerate(lengths)])[None]
    torch.testing.assert_close((y, end), (y2, end2))
    assert T == y.shape[1] or n > 1

    def grads(y, end):
        ends = [y.square().sum(), (end["c"] * cotangent("c", end["c"].shape)).sum()]
        return torch.autograd.grad(sum(ends), [x, start["h"], *layer.parameters()])

    torch.testing.assert_close(grads(y, end), grads(y2, end2))


@pytest.mark.parametrize("backend", ["llvm", "interpreter"])
@pytest.mark.parametrize("lengths", [[5, 0, 33, 1, 7, 7, 0], [200, 3, 3, 90, 0, 1]])
def test_stretches_are_moved_as_rows_are(monkeypatch, lengths, backend):
    """In memory that held anything, and by torch one by one: the same numbers, second derivatives too if there are."""
    layer = compile(GATED, D=5, backend=backend)
    second = backend == "interpreter"
    g = torch.Generator().manual_seed(3)
    total, cuts = sum(lengths), torch.tensor([0, *lengths]).cumsum(0)
    xs = [torch.randn(1, total, 5, generator=g).requires_grad_() for _ in "xa"]
    h = torch.randn(len(lengths), 5, generator=g).requires_grad_()
    d, e = torch.randn(1, total, 5, generator=g), torch.randn(len(lengths), 5, generator=g)
    moved = []

    def results() -> list[torch.Tensor]:
        y, state = layer(x=xs[0], a=xs[1], state={"h": h}, cu_seqlens=cuts)
        first = torch.autograd.grad((y, state["h"]), (*xs, h), (d, e), create_graph=second)
        more = torch.autograd.grad(sum(x.square().sum() for x in first), (*xs, h)) if second else ()
        return [y, state["h"], *first, *more]

    def full_of_nan(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        moved.append(shape)
        return torch.full(shape, torch.nan, dtype=dtype)

    monkeypatch.setattr(packed, "empty", full_of_nan)
    fast = results()
    assert len({shape[0] for shape in moved}) > 2
    monkeypatch.setattr(packed.Moves, "possible", lambda *_: False)
    moved.clear()
    for x, y in zip(fast, results(), strict=True):
        assert torch.equal(x, y)
    assert not moved


def test_what_is_no_plain_memory_is_moved_by_torch():
    moves = packed.Moves([[(0, 0, 4)]])
    x = torch.arange(12.0).view(4, 3)
    assert moves.possible(x) and moves.possible(x, x)
    for other in (x.T, x.expand(2, 4, 3), x.int(), torch.complex(x, x).conj().imag, x.to("meta")):
        assert not moves.possible(x, other)


@pytest.mark.parametrize("count", [30, 300])
def test_slack_is_little(count):
    """Of uneven lengths: an eighth, and 64 steps a bucket."""
    lengths = sorted(random.Random(count).choices(range(80), k=count), reverse=True)
    sizes = packed._buckets(lengths)
    assert sum(n for n, _ in sizes) == count
    assert sum(n * longest for n, longest in sizes) <= sum(lengths) * 1.125 + 64 * len(sizes)
    assert len(sizes) <= 10


def test_no_sequences(lstm_cell):
    layer = Layer.from_cell(lstm_cell)
    y, end = layer(torch.zeros(1, 0, 3), cu_seqlens=torch.tensor([0]))
    assert y.shape == (1, 0, 5) and end["h"].shape == (0, 5)
    y, end = layer(torch.zeros(0, 4, 3), lengths=torch.zeros(0, dtype=torch.int64))
    assert y.shape == (0, 4, 5) and end["h"].shape == (0, 5)


# -- cells that are not finite at zero ---------------------------------------------
ODD = {
    "log": "S[t] = log(x[t]) + W @ log(x[t])\n  output y: [D] = W @ S[t] / sum(S[t])",
    "norm": "S[t] = W @ (x[t] / norm(x[t])) + 0.5 * S[t-1]\n  output y: [D] = sqrt(abs(S[t]))",
    "solve": "S[t] = 0.1 * S[t-1] + solve(diag(x[t]), W @ x[t])\n  output y: [D] = S[t] * logdet(diag(x[t]))",
    "power": "S[t] = W @ x[t]^(-0.5) + tanh(S[t-1])\n  output y: [D] = S[t]",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("form", ["right", "left"])
def test_slack_where_zero_is_no_input(backend, name, form):
    layer = compile(f"cell odd(D) {{\n  input  x: [D]\n  param  W: [D, D] ~ uniform(0.1, 1)\n  param s: [D] = 0.7\n"
                    f"  state  S: [D] = s\n  {ODD[name]}\n}}", D=3, dtype=torch.float64, backend=backend)
    x = torch.rand(2, 5, 3, dtype=torch.float64) + 0.5
    time = slice(2, 5) if form == "left" else slice(0, 3)
    dirty = x.clone()
    dirty[1, (slice(0, 2) if form == "left" else slice(3, 5))] = NAN
    a, b = x.requires_grad_(), dirty.requires_grad_()
    y, end = layer(b, lengths=torch.tensor([5, 3]), padding=form)
    first, last = layer(a[:1]), layer(a[1:, time])
    torch.testing.assert_close(y[:1], first[0])
    torch.testing.assert_close(y[1:, time], last[0])
    got = torch.autograd.grad(y.sum() + end["S"].square().sum(), [b, *layer.parameters()])
    want = torch.autograd.grad(sum(y.sum() + s["S"].square().sum() for y, s in (first, last)), [a, *layer.parameters()])
    for g, w in zip(got, want):
        assert g.isfinite().all()
        torch.testing.assert_close(g, w)


# -- random cells --------------------------------------------------------------------
def random_batch(seed, form=None):
    rng = random.Random(seed)
    T = rng.randint(1, 6)
    return Batch(form or rng.choice(FORMS), [rng.choice((0, 1, T, rng.randint(0, T))) for _ in range(rng.randint(1, 4))], T)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(cells(noise=False, linalg=True, semirings=True), st.integers(0, 2**20), st.booleans())
def test_masked_cells_in_the_interpreter(cell, seed, resets):
    batch = random_batch(seed, random.Random(seed).choice(["right", "left"]))
    masked = verify(Masked(resets, True)(cell))
    params = interp.initial_params(cell, seed)
    leaves = {k: leaf(v) for k, v in params.items()}

    def run(inputs, state, **given):
        masks = {"valid@": batch.valid} | ({"reset@": given["reset"]} if resets else {})
        r = interp.run(masked, inputs | masks, leaves, state)
        return r.outputs, r.state, {k: x for k, x in leaves.items() if x.requires_grad}

    check(run, cell, params, batch, resets=marks(batch, 0.3, seed) if resets else None, seed=seed)


def compiled_cells(cell, seed, resets, reverse, starts):
    layer, batch = Layer.from_cell(cell, dtype=torch.float64), random_batch(seed)
    check(by_layer(layer), cell, own(layer), batch, resets=marks(batch, 0.3, seed) if resets else None, seed=seed,
          reverse=reverse, starts=starts)


EVERYTHING = dict(cell=cells(noise=False, linalg=True), seed=st.integers(0, 2**20), resets=st.booleans(),
                  reverse=st.booleans(), starts=st.booleans())


@settings(max_examples=3, deadline=None, derandomize=True)
@given(**EVERYTHING)
def test_compiled_cells(cell, seed, resets, reverse, starts):
    compiled_cells(cell, seed, resets, reverse, starts)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(**EVERYTHING)
def test_many_compiled_cells(cell, seed, resets, reverse, starts):
    compiled_cells(cell, seed, resets, reverse, starts)


# -- draws, steps, names ---------------------------------------------------------------
def test_packed_draws_are_those_of_a_batch(build, noise_cell):
    layer = build(noise_cell)
    x = torch.randn(1, 5, 4, dtype=torch.float64)
    y, _ = layer(x, cu_seqlens=torch.tensor([0, 2, 5]), seed=7)
    padded = torch.nn.utils.rnn.pad_sequence(x[0].split([2, 3]), batch_first=True)
    y2, _ = layer(padded, lengths=torch.tensor([2, 3]), seed=7)
    torch.testing.assert_close(y[0], torch.cat([y2[0, :2], y2[1]]))


def test_steps_restart(layer):
    x = {p.name: values(p.type, (3, 4), torch.Generator().manual_seed(0)) for p in layer.cell.inputs}
    resets = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    want, last = layer(**x, reset=resets)
    _, state = layer(**{k: v[:, :0] for k, v in x.items()})
    rows = []
    for t in range(4):
        y, state = layer.step(**{k: v[:, t] for k, v in x.items()}, state=state, reset=resets[:, t])
        rows.append(y if isinstance(y, torch.Tensor) else y[0])
    torch.testing.assert_close(torch.stack(rows, 1), want if isinstance(want, torch.Tensor) else want[0])
    torch.testing.assert_close(state, last)


def test_an_input_keeps_its_name():
    layer = compile("cell c() {\n  input x: [], reset: []\n  state s: [] = 0\n  s[t] = s[t-1] + x[t] * reset[t]\n  output s\n}")
    x = torch.ones(1, 3)
    assert layer(x, reset=2 * x)[0].tolist() == [[2.0, 4.0, 6.0]]
    assert layer(x=x, reset=2 * x, lengths=torch.tensor([2]))[0].tolist() == [[2.0, 4.0, 0.0]]


def test_one_plan_for_all_sizes(lstm_cell):
    layer = Layer.from_cell(lstm_cell)
    plans = set()
    for B, T in ((2, 3), (4, 9)):
        spec = sequences.take({"lengths": torch.tensor([T] * B)}, layer.input_names)
        plans.add(spec.plan(layer._plan).key)
    assert len(plans) == 1 and layer._plan.key not in plans


# -- errors ------------------------------------------------------------------------------
INT = torch.int64
WRONG = {
    "reset dtype": (dict(reset=torch.zeros(2, 4)), "`reset`"),
    "reset shape": (dict(reset=torch.zeros(2, 3, dtype=torch.bool)), "`reset`"),
    "reset type": (dict(reset=[True]), "`reset`"),
    "lengths dtype": (dict(lengths=torch.ones(2)), "`lengths`"),
    "lengths shape": (dict(lengths=torch.ones(3, dtype=INT)), "`lengths`"),
    "too long": (dict(lengths=torch.tensor([1, 5])), "`lengths` must be between 0 and T=4, got 5"),
    "negative": (dict(lengths=torch.tensor([-1, 2])), "`lengths` must be between 0 and T=4, got -1"),
    "padding": (dict(lengths=torch.tensor([1, 2]), padding="centre"), "`padding`"),
    "padding alone": (dict(padding="left"), "`padding`"),
    "batch": (dict(cu_seqlens=torch.tensor([0, 4])), "`cu_seqlens`"),
    "both": (dict(cu_seqlens=torch.tensor([0, 4]), lengths=torch.tensor([1, 2])), "`lengths`"),
    "reverse": (dict(reverse=1), "`reverse`"),
}
CUTS = {"no start": ([1, 4], "begin with 0"), "down": ([0, 3, 2, 4], "never decrease"), "end": ([0, 3], "end with the 4"),
        "empty": ([], "cu_seqlens"), "real": ([0.0, 4.0], "int tensor"), "matrix": ([[0, 4]], "int tensor")}


@pytest.mark.parametrize("method", ["forward", "reference"])
@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_argument(lstm_cell, name, method):
    arguments, message = WRONG[name]
    with pytest.raises(OstinatoError, match=message):
        getattr(Layer.from_cell(lstm_cell), method)(torch.zeros(2, 4, 3), **arguments)


@pytest.mark.parametrize("name", CUTS)
def test_cuts_that_do_not_fit(lstm_cell, name):
    cuts, message = CUTS[name]
    with pytest.raises(OstinatoError, match=message):
        Layer.from_cell(lstm_cell)(torch.zeros(1, 4, 3), cu_seqlens=torch.tensor(cuts))


def test_states_are_those_of_the_sequences(lstm_cell):
    with pytest.raises(OstinatoError, match="state `h`"):
        Layer.from_cell(lstm_cell)(torch.zeros(1, 4, 3), {"h": torch.zeros(1, 5)}, cu_seqlens=torch.tensor([0, 1, 4]))


def test_a_step_takes_reset_only(lstm_cell):
    with pytest.raises(OstinatoError, match="`lengths`"):
        Layer.from_cell(lstm_cell).step(torch.zeros(2, 3), lengths=torch.tensor([1, 1]))
