"""torch.library's own checks, and torch.compile without graph breaks."""

import os
import subprocess
import sys

import ostinato
import pytest
import torch
import torch._dynamo.testing
from ostinato import OstinatoError
from ostinato.runtime import sequences

ops = torch.ops.ostinato


@pytest.fixture(params=["lstm", "counter"])
def layer(build, request, make_cell):
    values = {"scale": torch.tensor([1.0, 2.0, 3.0])} if request.param == "counter" else None
    return build(make_cell[request.param](), values=values)


def arguments(layer, B=2, T=3):
    """Inputs, executable's params, states, all with gradients where there are any."""
    xs = [torch.randn(B, T, *p.sizes, dtype=p.dtype, requires_grad=True) if p.dtype.is_floating_point
          else torch.randint(0, 4, (B, T, *p.sizes)) for p in layer._inputs]
    params, start = layer._derive()
    states = [x.detach().expand(B, *x.shape).clone().requires_grad_(x.is_floating_point()) for x in start]
    return xs, params, states


@pytest.mark.parametrize("keep", [True, False])
def test_opcheck_recur(layer, keep):
    torch.library.opcheck(ops.recur, (layer._plan.key, *arguments(layer), None, True, keep))


def test_opcheck_backward(layer):
    key = layer._plan.key
    xs, params, states = ([x.detach() for x in group] for group in arguments(layer))
    flat = ops.recur(key, xs, params, states, None, True, True)
    n_out, n_state = len(layer._plan.output_meta), len(states)
    real = [torch.randn_like(y) if y.is_floating_point() else None for y in flat]
    d_out = [d for d in real[:n_out] if d is not None]
    d_end = [d for d in real[n_out:n_out + n_state] if d is not None]
    torch.library.opcheck(ops.recur_backward, (key, xs, params, states, flat[n_out + n_state:], d_out, d_end, None, True))


def test_opcheck_derive(build, counter_cell):
    layer = build(counter_cell, values={"scale": torch.ones(3)})
    assert not layer._plan.static.idle  # the initial state is a parameter
    torch.library.opcheck(ops.derive, (layer._plan.key, layer._params()))


def test_refusals_in_a_graph(build, lstm_cell):
    """The message itself where graphs may break; where not, torch names the exception and the line."""
    layer, wrong = build(lstm_cell), torch.randn(2, 3, 77)
    for full, error, said in ((False, OstinatoError, "must have shape"), (True, RuntimeError, "OstinatoError")):
        torch._dynamo.reset()
        with pytest.raises(error, match=said):
            torch.compile(layer, backend="aot_eager", fullgraph=full)(wrong)


def test_constants_of_a_cell_without_parameters():
    """What no parameter goes into is computed by the same operator, from nothing."""
    text = """cell c(H) {
      input  x: [H]
      const  A[i, j]: [H, H] = 1 / (1 + i + j)
      state  h: [H] = 0
      h[t] = solve(eye(H) + A, h[t-1] + x[t])
      output h
    }"""
    layer = ostinato.compile(text, H=3)
    assert not layer._params() and layer._plan.static.nodes
    torch.library.opcheck(ops.derive, (layer._plan.key, []))
    torch._dynamo.reset()
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_no_graph_break_forward_and_backward(layer, compiler):
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=compiler, fullgraph=True)

    def gradients(run, xs):
        y, state = run(*xs)
        outputs = [y] if isinstance(y, torch.Tensor) else list(y)
        ends = [v for v in (*outputs, *state.values()) if v.requires_grad]
        leaves = [v for v in (*xs, *layer.parameters()) if v.requires_grad]
        return outputs, torch.autograd.grad(sum((v ** 2).sum() for v in ends), leaves)

    xs, _, _ = arguments(layer)
    torch.testing.assert_close(gradients(compiled, xs), gradients(layer, xs))
    with torch.no_grad():
        torch.testing.assert_close(compiled(*xs), layer(*xs))


def test_step_and_draws_compile(build, noise_cell):
    torch._dynamo.reset()
    layer = build(noise_cell)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, seed=torch.tensor(5)), layer(x, seed=torch.tensor(5)))
    assert not torch.equal(compiled(x)[0], compiled(x)[0])
    step = torch.compile(layer.step, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(step(x[:, 0], seed=torch.tensor(5)), layer.step(x[:, 0], seed=torch.tensor(5)))


def test_lengths_share_one_graph(build, lstm_cell):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    layer = build(lstm_cell)
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    for B, T in ((2, 7), (4, 9), (6, 11)):
        compiled(torch.randn(B, T, 3, dtype=torch.float64))
    assert counter.frame_count == 1


def test_unpickling_in_another_process(build, lstm_cell, tmp_path):
    layer = build(lstm_cell)
    x = torch.randn(2, 3, 3, dtype=torch.float64)
    torch.save((layer, x, layer(x)[0].detach()), tmp_path / "layer.pt")
    program = ("import sys, torch\nlayer, x, y = torch.load(sys.argv[1], weights_only=False)\n"
               "assert torch.equal(layer(x)[0], y)\nlayer(x)[0].sum().backward()\nassert layer.W.grad is not None")
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "layer.pt")], check=True, timeout=120,
                   env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_export(build, lstm_cell):
    layer = build(lstm_cell)
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), layer(x))


def test_training_does_not_import_the_compiler(build, lstm_cell, tmp_path):
    """torch._dynamo takes longer to import than everything of ours together."""
    torch.save(build(lstm_cell), tmp_path / "layer.pt")
    program = ("import sys, torch\nlayer = torch.load(sys.argv[1], weights_only=False)\n"
               "layer(torch.randn(2, 3, 3, dtype=torch.float64))[0].sum().backward()\n"
               "assert layer.W.grad is not None and 'torch._dynamo' not in sys.modules")
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "layer.pt")], check=True, timeout=120)


ARGUMENTS = {
    "reset": lambda: dict(reset=torch.rand(2, 5) < 0.4),
    "lengths": lambda: dict(lengths=torch.tensor([2, 5]), padding="left", reverse=True),
    "packed": lambda: dict(cu_seqlens=torch.tensor([0, 2, 2, 5]), reset=torch.rand(1, 5) < 0.4),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_sequences_compile(layer, name):
    """No graph break, values and gradients, from the first call on."""
    torch._dynamo.reset()
    arguments_ = ARGUMENTS[name]()
    xs, _, _ = arguments(layer, 1 if name == "packed" else 2, 5)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)

    def gradients(run):
        y, state = run(*xs, **arguments_)
        outputs = [y] if isinstance(y, torch.Tensor) else list(y)
        ends = [v for v in (*outputs, *state.values()) if v.requires_grad]
        leaves = [v for v in (*xs, *layer.parameters()) if v.requires_grad]
        return outputs, torch.autograd.grad(sum((v ** 2).sum() for v in ends), leaves)

    torch.testing.assert_close(gradients(compiled), gradients(layer))
    with torch.no_grad():
        torch.testing.assert_close(compiled(*xs, **arguments_), layer(*xs, **arguments_))


def test_lengths_are_checked_in_a_graph(build, lstm_cell):
    torch._dynamo.reset()
    compiled = torch.compile(build(lstm_cell), backend="aot_eager", fullgraph=True)
    with pytest.raises(OstinatoError, match="between 0 and T=3"):
        compiled(torch.zeros(2, 3, 3, dtype=torch.float64), lengths=torch.tensor([1, 4]))


def test_opcheck_sequences(layer):
    torch.library.opcheck(ops.valid, (torch.tensor([0, 3, 2]), 3, True))
    xs, params, states = arguments(layer, 1, 5)
    spec = sequences.Sequences(cu_seqlens=torch.tensor([0, 2, 2, 5]))
    plan = spec.plan(layer._plan)
    params, _ = layer._derive(plan)
    states = [x.detach().expand(3, *x.shape[1:]).clone().requires_grad_(x.is_floating_point()) for x in states]
    given = (plan.key, xs, params, states, spec.cu_seqlens, None, True, True)
    torch.library.opcheck(ops.packed, given)
    d = [torch.randn_like(y) for y in ops.packed(*given) if y.is_floating_point()]
    plain = [[x.detach() for x in group] for group in (xs, params, states)]
    torch.library.opcheck(ops.packed_backward, (plan.key, *plain, spec.cu_seqlens, d, None, True, True))
