"""Sub-cells that run backwards in time: layers of two directions, compiled and by the reference."""

import io
import pickle

import pytest
import torch
from alone import cotangent, gradients, leaf
from batches import Batch, by_layer, check, marks, own
from hypothesis import given, settings
from hypothesis import strategies as st
from ostinato import OstinatoError, compile
from ostinato.compiler.passes.divide import divide
from ostinato.ir.parser import parse_cell
from ostinato.ir.printer import print_cell
from ostinato.ir.verify import verify
from ostinato.runtime.layer import Layer
from strategies import both_ways

DIMS = dict(I=3, H=5)
CELLS = """
cell elman(I, H) {
  input  x: [I]
  param  W: [H, I], R: [H, H], b: [H]  ~ uniform(-1/sqrt(H), 1/sqrt(H))
  state  h: [H] = 0
  h[t] = tanh(W @ x[t] + R @ h[t-1] + b)
  output h
}

cell lstm(I, H) {
  input  x: [I]
  param  W: [4*H, I], R: [4*H, H], b: [4*H]  ~ uniform(-1/sqrt(H), 1/sqrt(H))
  state  h: [H] = 0, c: [H] = 0
  i, f, g, o = split(W @ x[t] + R @ h[t-1] + b, 4)
  c[t] = sigmoid(f) * c[t-1] + sigmoid(i) * tanh(g)
  h[t] = sigmoid(o) * tanh(c[t])
  output h
}

cell gru(I, H) {
  input  x: [I]
  param  W: [3*H, I], R: [3*H, H], b: [3*H], br: [3*H]  ~ uniform(-1/sqrt(H), 1/sqrt(H))
  state  h: [H] = 0
  r, z, n    = split(W @ x[t] + b, 3)
  rr, zr, nr = split(R @ h[t-1] + br, 3)
  zz = sigmoid(z + zr)
  h[t] = (1 - zz) * tanh(n + sigmoid(r + rr) * nr) + zz * h[t-1]
  output h
}

cell affine(I, H) {
  input  x: [I]
  param  W: [H, I]  ~ normal(0, 1)
  param  a: [H] = 0.3, h0: [H]  ~ normal(0, 1)
  state  h: [H] = h0
  h[t] = sigmoid(a) * h[t-1] + W @ x[t]
  output h
}

cell window(I, H) {
  input  x: [I] = 1
  param  W: [H, I]  ~ normal(0, 1)
  output y: [H] = W @ (x[t] - 0.5 * x[t-2]) * cos(t)
}

cell attention(I, H) {
  input  x: [I]
  param  Q: [4, I], K: [4, I], V: [H, I]  ~ normal(0, 1/sqrt(I))
  state  S: [4, H] = 0
  S[t] = 0.9 * S[t-1] + outer(K @ x[t], V @ x[t])
  output y: [H] = (Q @ x[t]) @ S[t]
}
"""


def both(kind, name="both"):
    return (f"cell {name}(I, H) {{\n  input  x: [I]\n  use    f = {kind}(I, H), b = reverse {kind}(I, H)\n"
            "  output y: [2*H] = concat(f(x[t]), b(x[t]))\n}\n")


STACK = """
cell deep(I, H) {
  input  x: [I]
  use    one = layer(I, H), two = layer(2*H, H)
  output y: [2*H] = two(one(x[t]))
}
"""
MODULES = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def bound(layer, module):
    """The module's weights in the layer; the layer's scopes in the module's order of layers and directions."""
    scopes = [getattr(part, way) for part in ([layer.one, layer.two] if hasattr(layer, "one") else [layer])
              for way in ("f", "b")]
    names = [f"l{k}{way}" for k in range(module.num_layers) for way in ("", "_reverse")]
    with torch.no_grad():
        for scope, end in zip(scopes, names):
            scope.W.copy_(getattr(module, f"weight_ih_{end}"))
            scope.R.copy_(getattr(module, f"weight_hh_{end}"))
            b, br = (getattr(module, f"bias_{x}_{end}") for x in ("ih", "hh"))
            if hasattr(scope, "br"):
                scope.br.copy_(br)
            else:
                br.zero_()
            scope.b.copy_(b)
    return [(scope, end) for scope, end in zip(scopes, names)]


@pytest.mark.parametrize("method", ["forward", "reference"])
@pytest.mark.parametrize("layers, kind", [(n, kind) for n in (1, 2) for kind in ("elman", "lstm", "gru")])
def test_as_torch(kind, layers, method):
    """Values, final states and all gradients of torch.nn's own bidirectional layers, those of initial states too."""
    text, name = (CELLS + both(kind), "both") if layers == 1 else (CELLS + both(kind, "layer") + STACK, "deep")
    layer = compile(text, name, dtype=torch.float64, **DIMS)
    module = MODULES[kind](3, 5, num_layers=layers, bidirectional=True, batch_first=True, dtype=torch.float64)
    pairs = bound(layer, module)
    x = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    kinds = ("h", "c") if kind == "lstm" else ("h",)
    first = {k: torch.randn(2 * layers, 2, 5, dtype=torch.float64, requires_grad=True) for k in kinds}
    prefixes = [f"{part}{way}" for part in (("one.", "two.") if layers == 2 else ("",)) for way in ("f.", "b.")]
    y, end = getattr(layer, method)(x, state={f"{p}{k}": first[k][i] for k in kinds for i, p in enumerate(prefixes)})
    want, finals = module(x, tuple(first.values()) if kind == "lstm" else first["h"])
    finals = dict(zip(kinds, finals if kind == "lstm" else (finals,)))
    leaves = {"x": x, **{f"first {k}": v for k, v in first.items()}}

    def found(y, ends, params):
        values = [(y, cotangent("y", y.shape)), *((ends[k], cotangent(k, ends[k].shape)) for k in kinds)]
        return [v.detach() for v, _ in values], gradients(values, leaves | params)

    ours = found(y, {k: torch.stack([end[f"{p}{k}"] for p in prefixes]) for k in kinds},
                 {f"{end}{p}": getattr(scope, p) for scope, end in pairs for p in ("W", "R", "b")})
    theirs = found(want, finals, {f"{end}{p}": getattr(module, f"{q}_{end}") for _, end in pairs
                                  for p, q in (("W", "weight_ih"), ("R", "weight_hh"), ("b", "bias_ih"))})
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


# -- against the reference -----------------------------------------------------------------
KINDS = ["elman", "gru", "affine", "window", "attention"]
SHAPES = {
    "apart": "use a = {0}(I, H), b = {1}(I, H)\n  output y: [H] = a(x[t]) * b(x[t])",
    "serial": "use a = {0}(I, H), b = {1}(H, H)\n  u = a(x[t])\n  output y: [H] = b(u), u",
    "between": "use a = {0}(I, H), b = {1}(H, H)\n  state s: [H] = 0.1\n  s[t] = tanh(s[t-1] + a(x[t]))\n"
               "  v = b(s[t])\n  output y: [H] = v - s[t-1]",
    "after": "use a = {0}(I, H), b = {1}(H, H)\n  state s: [H] = 0.1\n  u = a(x[t])\n  v = b(u)\n"
             "  s[t] = 0.5 * s[t-1] + v * u\n  output s, n: int [] = t",
}


def program(shape, first, second):
    return f"{CELLS}cell made(I, H) {{\n  input  x: [I]\n  {SHAPES[shape].format(first, second)}\n}}\n"


def against_reference(layer, B, T, seed=0, **options):
    """Outputs, final states and gradients; states given."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(B, T, 3, generator=g, dtype=torch.float64)
    state = {k: v if not v.is_floating_point() else torch.randn(v.shape, generator=g, dtype=torch.float64)
             for k, v in layer.initial_state(B).items()}
    found = []
    for method in ("forward", "reference"):
        leaves = {"x": leaf(x), **{f"first {k}": leaf(v) for k, v in state.items()}}
        run = by_layer(layer, method)
        y, end, params = run({"x": leaves["x"]}, {k: leaves[f"first {k}"] for k in state}, **options)
        values = {**y, **{f"final {k}": v for k, v in end.items()}}
        ends = [(v, cotangent(k, v.shape)) for k, v in values.items() if v.is_floating_point()]
        found.append(({k: v.detach() for k, v in values.items()}, gradients(ends, leaves | params)))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def one_of_all():
    way = st.sampled_from(["", "reverse "])
    kind = st.builds(lambda way, kind: way + kind, way, st.sampled_from(KINDS))
    return st.builds(program, st.sampled_from(list(SHAPES)), kind, kind)


@settings(max_examples=3, deadline=None, derandomize=True)
@given(text=one_of_all(), seed=st.integers(0, 2**20))
def test_random_programs(text, seed):
    random_program(text, seed)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(text=one_of_all(), seed=st.integers(0, 2**20))
def test_many_random_programs(text, seed):
    random_program(text, seed)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(cell=both_ways(noise=False, linalg=True), seed=st.integers(0, 2**20))
def test_random_cells(cell, seed):
    layer, batch = Layer.from_cell(cell, dtype=torch.float64), Batch(["right", "left", "packed"][seed % 3], [4, 0, 6, 1], 6)
    check(by_layer(layer), cell, own(layer), batch, resets=marks(batch, 0.3, seed) if seed % 2 else None, seed=seed,
          reverse=seed % 5 < 2, starts=seed % 7 < 4)


def random_program(text, seed):
    layer = compile(text, "made", dtype=torch.float64, **DIMS)
    for B, T in ((2, 6), (0, 3), (2, 0), (3, 1)):
        against_reference(layer, B, T, seed)
    batch = Batch(["right", "left", "packed"][seed % 3], [4, 0, 6, 1], 6)
    check(by_layer(layer), layer.cell, own(layer), batch, resets=marks(batch, 0.3, seed) if seed % 2 else None,
          reverse=seed % 5 < 2, starts=seed % 7 < 4)


# -- sequences, schedules ----------------------------------------------------------------------
@pytest.fixture(scope="module")
def layer():
    return compile(program("after", "reverse affine", "gru"), "made", dtype=torch.float64, **DIMS)


@pytest.mark.parametrize("form", ["right", "left", "packed"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("density", [None, 0.3, 1.0])
def test_as_alone(layer, form, reverse, density):
    """Restarts cut a sequence into pieces, and each direction runs each piece by itself."""
    for i, lengths in enumerate([[4, 0, 7, 1], [0], [1, 1, 1]]):
        batch = Batch(form, lengths, 7)
        resets = None if density is None else marks(batch, density, i)
        for method in ("forward", "reference"):
            check(by_layer(layer, method), layer.cell, own(layer), batch, resets=resets, reverse=reverse,
                  starts=i % 2 == 0)


def test_restarts_without_slack(layer):
    for T in (0, 1, 9):
        batch = Batch("right", [T] * 3, T)
        batch.arguments = dict
        for density in (0.3, 1.0):
            check(by_layer(layer), layer.cell, own(layer), batch, resets=marks(batch, density))


@pytest.mark.parametrize("schedule", ["auto", "scan(2)", "chunk(4), scan(3)", "quadratic"])
def test_schedules(schedule):
    text = program("apart", "attention", "reverse attention")
    layer = compile(text, "made", schedule=schedule, dtype=torch.float64, **DIMS)
    for T in (1, 11):
        against_reference(layer, 2, T)
    batch = Batch("packed", [4, 0, 9], 9)
    check(by_layer(layer), layer.cell, own(layer), batch, resets=marks(batch, 0.3), reverse=True)
    assert "in 2 parts" in layer.explain(B=2, T=8)


def test_a_schedule_that_a_part_lacks():
    text = program("serial", "attention", "reverse gru")
    with pytest.raises(OstinatoError, match="part 2 of 2, with the states `b.h`"):
        compile(text, "made", schedule="chunk(4)", **DIMS)
    with pytest.raises(OstinatoError, match="2 parts, which take one schedule or 2"):
        compile(text, "made", schedule="chunk(4), sequential, sequential", **DIMS)
    with pytest.raises(OstinatoError, match="one part"):
        compile(CELLS, "attention", schedule="chunk(4), sequential", **DIMS)
    with pytest.raises(OstinatoError, match="there is no schedule `chunk, sequentiel`"):
        compile(text, "made", schedule="chunk, sequentiel", **DIMS)
    against_reference(compile(text, "made", schedule="chunk(4), sequential", dtype=torch.float64, **DIMS), 2, 9)


# -- as a module ---------------------------------------------------------------------------------
def test_no_single_steps(layer):
    with pytest.raises(OstinatoError, match="its sub-cell `a` runs backwards in time"):
        layer.step(torch.zeros(2, 3, dtype=torch.float64))


def test_pickle_and_state_dict(layer):
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    twin = pickle.loads(pickle.dumps(layer))
    torch.testing.assert_close(twin(x), layer(x), rtol=0, atol=0)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = compile(program("after", "reverse affine", "gru"), "made", seed=5, dtype=torch.float64, **DIMS)
    other.load_state_dict(torch.load(file))
    torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)


def test_torch_compile(layer):
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    for options in ({}, {"reset": torch.rand(2, 5) < 0.4, "lengths": torch.tensor([2, 5])}):
        results = []
        for run in (layer, compiled):
            y, state = run(x, **options)
            ends = [y.s, *(v for v in state.values() if v.requires_grad)]
            results.append((y.s, torch.autograd.grad(sum((v ** 2).sum() for v in ends), [x, *layer.parameters()])))
        torch.testing.assert_close(*results)


def test_the_interpreter_back_end():
    text = program("after", "reverse affine", "gru")
    layer = compile(text, "made", backend="interpreter", dtype=torch.float64, **DIMS)
    against_reference(layer, 2, 4)


def test_draws_do_not_depend_on_the_back_end():
    text = ("cell noisy(I) {\n  input  x: [I]\n  state  s: [I] = 0\n  m: [I] ~ bernoulli(0.5)\n  z: [I] ~ normal(0, 1)\n"
            "  s[t] = s[t-1] * m + x[t] + z\n  output s\n}\ncell c(I) {\n  input  x: [I]\n"
            "  use    f = noisy(I), b = reverse noisy(I)\n  output y: [I] = b(f(x[t]))\n}\n")
    layer = compile(text, "c", I=3, dtype=torch.float64)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x, seed=3), layer.reference(x, seed=3))
    padded, _ = layer(x, lengths=torch.tensor([4, 6]), seed=3)
    torch.testing.assert_close(padded[0, :4], layer(x[:1, :4], seed=3)[0][0])


def test_complex_and_int_values_between_parts():
    text = ("cell turn(H) {\n  input  z: complex [H]\n  state  h: complex [H] = 0, n: int [] = 0\n"
            "  h[t] = polar(0.9, 1.5) * h[t-1] + z[t]\n  n[t] = n[t-1] + (1 if re(z[t][0]) > 0 else 0)\n  output h, n\n}\n"
            "cell c(H) {\n  input  x: [H]\n  use    f = turn(H), b = reverse turn(H)\n"
            "  p, n = f(x[t] + 0.1i)\n  q, m = b(p * n)\n  output y: [H] = re(q) + m, q\n}\n")
    layer = compile(text, "c", H=3, dtype=torch.float64)
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for run in (layer, layer.reference):
        y, end = run(x)
        ends = [y.y, torch.view_as_real(y.q), torch.view_as_real(end["b.h"]), torch.view_as_real(end["f.h"])]
        found.append(([v.detach() for v in ends], end["b.n"], torch.autograd.grad(sum((v ** 2).sum() for v in ends), x)))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_a_choice_in_a_later_part():
    """What is not chosen contributes nothing, even if it is infinite and another part has computed it."""
    text = ("cell sums(H) {\n  input  x: [H]\n  state  s: [H] = 0\n  s[t] = s[t-1] + x[t]\n  output s\n}\n"
            "cell c(H) {\n  input  x: [H]\n  use    f = sums(H), b = reverse sums(H)\n"
            "  u = f(x[t])\n  r = log(u) * sqrt(u)\n  v = b(x[t])\n"
            "  output y: [H] = r * v if v * u > 0 else 0, z: [H] = 1 / r if u > 1 and v > 0 else v\n}\n")
    layer = compile(text, "c", H=3, dtype=torch.float64)
    x = torch.tensor([[0.0, 0.0, 0.5, 0.0, 1.5, 0.0]], dtype=torch.float64).unsqueeze(-1).repeat(2, 1, 3).requires_grad_()
    for options in ({}, {"lengths": torch.tensor([4, 6])}):
        found = [torch.autograd.grad(sum(v.square().sum() for v in run(x, **options)[0]), x)
                 for run in (layer, layer.reference)]
        assert found[0][0].isfinite().all()
        torch.testing.assert_close(*found)


def test_parts_are_cells():
    """Every part verifies, prints and parses; a value that two parts want is computed once and handed on."""
    cell = compile(program("between", "reverse elman", "reverse gru"), "made", **DIMS).cell
    parts = divide(cell)
    assert [p.reverse for p in parts] == [True, False, True]
    for part in parts:
        assert parse_cell(print_cell(verify(part))) == part
    names = [n.name for part in parts for n in part.body if n.op == "contract"]
    assert len(names) == len(set(names)) == len([n for n in cell.body if n.op == "contract"])
    assert sorted(s.name for p in parts for s in p.states) == sorted(s.name for s in cell.states)


def test_a_cell_of_one_direction_is_one_part():
    text = CELLS + "cell c(I, H) {\n  input  x: [I]\n  use    b = reverse gru(I, H)\n  output y: [H] = b(x[t])\n}\n"
    layer = compile(text, "c", dtype=torch.float64, **DIMS)
    plain = compile(CELLS, "gru", dtype=torch.float64, **DIMS)
    plain.load_state_dict({k.removeprefix("b."): v for k, v in layer.state_dict().items()})
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    y, end = layer(x)
    want, last = plain(x, reverse=True)
    torch.testing.assert_close((y, end["b.h"]), (want, last["h"]))
    backwards, _ = layer(x, reverse=True)
    torch.testing.assert_close(backwards, plain(x)[0])
