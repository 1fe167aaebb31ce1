"""What is timed: our layer, torch.nn, the eager loop, torch.compile, JAX's scans, scipy.

Each maker takes a `Case` and gives a `Variant`: two calls, forward alone and
forward with gradients by inputs and parameters, on the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace as NS

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor, nn
from torch.nn import functional as F

from .cells import PEERS
from .floors import floor_bytes


@dataclass(frozen=True)
class Case:
    """One workload: the compiled layer, inputs [B, T, ...] and a cotangent per output."""

    name: str
    layer: nn.Module
    inputs: dict[str, Tensor]
    cotangents: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(next(iter(self.inputs.values())).shape[:2])


@dataclass(frozen=True)
class Variant:
    """`scale`: the calls do 1/scale of the workload's steps, their time is multiplied by it."""

    name: str
    forward: Callable[[], object]
    both: Callable[[], object] | None
    scale: float = 1.0


def with_gradients(run: Callable[[dict], tuple[Tensor, ...]], case: Case, params: list[Tensor], T: int | None = None):
    """(forward, forward and backward) of a torch function of the inputs."""
    xs = {k: v[:, :T].clone().requires_grad_() for k, v in case.inputs.items()}
    cts = [c[:, :T] for c in case.cotangents]
    leaves = [*xs.values(), *params]

    def forward():
        with torch.no_grad():
            return run(xs)

    def both():
        return torch.autograd.grad(run(xs), leaves, cts, allow_unused=True)

    return forward, both


def ours(case: Case) -> Variant:
    def run(xs):
        y, _ = case.layer(**xs)
        return (y,) if isinstance(y, Tensor) else tuple(y)

    return Variant("ostinato", *with_gradients(run, case, list(case.layer.parameters())))


MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}


def torch_nn(case: Case) -> Variant:
    H, I = case.layer.get_parameter("W").shape
    module = MODULES[case.name](I, H // {"lstm": 4, "gru": 3, "elman": 1}[case.name], batch_first=True)
    return Variant("torch.nn", *with_gradients(lambda xs: (module(xs["x"])[0],), case, list(module.parameters())))


TORCH = NS(tanh=torch.tanh, sigmoid=torch.sigmoid, relu=torch.relu, exp=torch.exp, maximum=torch.maximum,
           sqrt=torch.sqrt, expm1=torch.expm1, log_sigmoid=F.logsigmoid, split=lambda x, n: x.chunk(n, -1),
           layer_norm=lambda x: F.layer_norm(x, x.shape[-1:]))


def torch_loop(case: Case) -> Callable[[dict], tuple[Tensor, ...]]:
    peer, params = PEERS[case.name], NS(**dict(case.layer.named_parameters()))
    start = case.layer.initial_state(case.shape[0])

    def run(xs):
        rows = zip(*(a.unbind(1) for a in peer.before(TORCH, NS(**xs), params)))
        state, ys = tuple(start[k].detach() for k in peer.states), []
        for row in rows:
            state, y = peer.step(TORCH, row, params, state)
            ys.append(y)
        return (torch.stack(ys, 1),)

    return run


def eager(case: Case, longest: int = 256) -> Variant:
    """The loop over at most `longest` steps, its time scaled up to all of them."""
    T = case.shape[1]
    calls = with_gradients(torch_loop(case), case, list(case.layer.parameters()), min(T, longest))
    return Variant("eager loop", *calls, scale=T / min(T, longest))


def torch_compile(case: Case, longest: int = 64) -> Variant:
    """The same loop unrolled by torch.compile (it takes about half a second per step to compile)."""
    T = case.shape[1]
    run = torch.compile(torch_loop(case))
    calls = with_gradients(run, case, list(case.layer.parameters()), min(T, longest))
    return Variant("torch.compile", *calls, scale=T / min(T, longest))


def jax_scan(case: Case, associative: bool = False, longest: int | None = None) -> Variant:
    """lax.scan (or associative_scan) under jit; JAX gets its arrays time first, the layout it likes best.
    `longest`: scan at most so many steps and scale the time up to all of them."""
    import jax
    import jax.numpy as jnp

    ops = NS(tanh=jnp.tanh, sigmoid=jax.nn.sigmoid, relu=jax.nn.relu, exp=jnp.exp, maximum=jnp.maximum, sqrt=jnp.sqrt,
             expm1=jnp.expm1, log_sigmoid=jax.nn.log_sigmoid, split=lambda x, n: jnp.split(x, n, -1),
             layer_norm=lambda x: jax.nn.standardize(x, epsilon=1e-5))
    peer = PEERS[case.name]
    T = min(case.shape[1], longest or case.shape[1])

    def time_first(x: Tensor):
        return jnp.asarray(np.ascontiguousarray(x[:, :T].transpose(0, 1).numpy()))

    first = {k: time_first(v) for k, v in case.inputs.items()}
    params = {k: jnp.asarray(v.detach().numpy()) for k, v in case.layer.named_parameters()}
    start = case.layer.initial_state(case.shape[0])
    start = tuple(jnp.asarray(start[k].detach().numpy()) for k in peer.states)
    cotangent = time_first(case.cotangents[0])

    def combine(left, right):
        return right[0] * left[0], right[0] * left[1] + right[1]

    def run(xs, params):
        p = NS(**params)
        rows = peer.before(ops, NS(**xs), p)
        if associative:
            return jax.lax.associative_scan(combine, rows)[1]
        return jax.lax.scan(lambda s, a: peer.step(ops, a, p, s), start, rows)[1]

    forward = jax.jit(run)
    both = jax.jit(jax.grad(lambda xs, params: (run(xs, params) * cotangent).sum(), argnums=(0, 1)))
    return Variant("JAX associative_scan" if associative else "JAX lax.scan",
                   lambda: jax.block_until_ready(forward(first, params)),
                   lambda: jax.block_until_ready(both(first, params)), scale=case.shape[1] / T)


def jax_short(case: Case) -> Variant:
    """The scan where its gradient takes seconds."""
    return jax_scan(case, longest=1024)


def jax_associative(case: Case) -> Variant:
    return jax_scan(case, associative=True)


def torch_add(case: Case) -> Variant:
    """Adding two tensors that move as many bytes as the workload must: the floor as a call."""
    def adder(bytes_: int):
        a, b = torch.randn(bytes_ // 12), torch.randn(bytes_ // 12)
        out = torch.empty_like(a)
        return lambda: torch.add(a, b, out=out)

    return Variant("torch.add", *map(adder, floor_bytes(case.layer.cell, *case.shape)))


def scipy_lfilter(case: Case) -> Variant:
    """Forward only; scipy gets each channel contiguous in time, the layout it likes best."""
    p = {k: v.detach().double().numpy() for k, v in case.layer.named_parameters()}
    x = case.inputs["x"]
    rows = np.ascontiguousarray(x.permute(0, 2, 1).reshape(-1, x.shape[1]).numpy())
    if case.name == "ema":
        a0 = float(p["alpha"][0])
        b, a = np.array([a0]), np.array([1.0, a0 - 1.0])
    else:
        b, a = p["b"], np.concatenate([[1.0], p["a"]])
    b, a = b.astype(rows.dtype), a.astype(rows.dtype)
    return Variant("scipy.signal.lfilter", lambda: lfilter(b, a, rows, axis=1), None)
