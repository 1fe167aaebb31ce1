"""Sums over the rows of old states that the step before makes: which steps have them, and their numbers where steps,
lanes, rows or sequences do not come out even."""

from __future__ import annotations

import ostinato
import pytest
import torch
from ostinato.backends.llvm.executable import build
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.printer import print_kernel
from ostinato.frontend.load import load
from ostinato.runtime.sample import sample_inputs

ZOO = ostinato.__path__[0] + "/examples/zoo/"
HEAD = "  input a: [K], b: [K], r: [K] in (0, 1), v: [V]\n  state S: [K, V] = 0\n"
OLD = {                                         # of one step, and how many sweeps it takes
    "delta": ("  S[t] = r[t] * S[t-1] + outer(b[t], v[t] - a[t] @ S[t-1])\n  output o: [V] = r[t] @ S[t]\n", 1),
    "kept": ("  d = tanh(v[t] + a[t] @ S[t-1])\n  S[t] = r[t] * S[t-1] + outer(b[t], d)\n"
             "  output o: [V] = r[t] @ S[t], d\n", 1),
    "turned": ("  d = a[t] @ S[t-1]\n  S[t] = r[t] * S[t-1] + outer(b[t], v[t] - concat(d[1:], d[:1]))\n"
               "  output o: [V] = b[t] @ S[t], d\n", 1),
    "largest": ("  d = max[K](r[t] * S[t-1])\n  S[t] = r[t] * S[t-1] + outer(b[t], v[t] - d)\n"
                "  output o: [V] = (a[t] + b[t]) @ S[t]\n", 1),
    "late": ("  state h: [K] = 0\n  h[t] = 0.5 * h[t-1] + a[t]\n"
             "  S[t] = r[t] * S[t-1] + outer(b[t], v[t] - h[t] @ S[t-1])\n  output o: [V] = r[t] @ S[t]\n", 2),
    "two": ("  state Q: [K, V] = 0\n  d = a[t] @ (S[t-1] + Q[t-1])\n"
            "  S[t] = r[t] * S[t-1] + outer(b[t], v[t] - d)\n  Q[t] = 0.5 * S[t-1] + outer(r[t], v[t])\n"
            "  output o: [V] = b[t] @ (S[t] - Q[t])\n", 1)}


def program(name: str) -> str:
    return f"cell c(K, V) {{\n{HEAD}{OLD[name][0]}}}\n"


@pytest.mark.parametrize("name", OLD)
def test_sums_of_old_states_are_made_where_these_are_written(name):
    kernel = build(lower(load(program(name)).cells["c"].elaborate(K=8, V=16)), torch.float32).infer.kernel
    run, = kernel.runs
    assert sum(p.sweep for p in run.steps.phases) == OLD[name][1]
    assert len(run.first.phases) == 2 - OLD[name][1]
    text = print_kernel(kernel)
    assert ("first step:" in text) is (OLD[name][1] == 1) is ("@next" in text)


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("K, V, B, T", [(5, 19, 2, 37), (60, 100, 1, 70), (3, 40, 3, 1), (4, 16, 40, 2)])
def test_their_numbers(name, K, V, B, T):
    agrees(ostinato.compile(program(name), K=K, V=V, dtype=torch.float64, schedule="sequential"), B, T)


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "rwkv7", "kda", "deltaproduct", "comba"])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_the_ends_of_tiles(name, beyond):
    """Tiles of the backward pass that come out even, and a step more and less."""
    sizes = dict(K=16, V=24, N=2) | ({"n": 2} if name == "deltaproduct" else {})
    layer = ostinato.compile(f"{ZOO}{name}.ost", **sizes, dtype=torch.float64, schedule="sequential")
    agrees(layer, 2, 2 * layer._plan.executable.tile + beyond)


def test_items_of_some_lanes_each():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        layer = ostinato.compile(program("kept"), K=6, V=300, dtype=torch.float64, schedule="sequential")
        agrees(layer, 1, 35)
    finally:
        torch.set_num_threads(threads)


def test_no_steps():
    layer = ostinato.compile(program("delta"), K=4, V=16, dtype=torch.float64, schedule="sequential")
    xs = {k: x.double() for k, x in sample_inputs(layer.cell, 2, 0, 0).items()}
    state = torch.randn(2, 4, 16, dtype=torch.float64)
    y, end = layer(**xs, state={"S": state})
    assert y.shape == (2, 0, 16) and torch.equal(end["S"], state)


def agrees(layer, B: int, T: int) -> None:
    """Values, final states and gradients are the interpreter's; so is what the kernel that keeps nothing gives."""
    g = torch.Generator().manual_seed(0)
    xs = {k: x.double().requires_grad_() for k, x in sample_inputs(layer.cell, B, T, 0).items()}
    both = []
    for ys, end in (layer(**xs), layer.reference(**xs)):
        both.append([*(ys if isinstance(ys, tuple) else (ys,)), *end.values()])
    with torch.no_grad():
        ys, end = layer(**xs)
    both.append([*(ys if isinstance(ys, tuple) else (ys,)), *end.values()])
    cts = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in both[1]]
    grads = [torch.autograd.grad(some, list(xs.values()), cts) for some in both[:2]]
    for found, wanted in ((both[0], both[1]), (both[2], both[1]), grads):
        for x, y in zip(found, wanted, strict=True):
            assert (x - y).abs().max() <= 1e-10 * y.abs().max() + 1e-12
