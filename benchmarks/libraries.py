"""Peers outside torch: JAX's scans, scipy's filter, pandas' moving average. Each gets the layout it likes best."""

from __future__ import annotations

from types import SimpleNamespace as NS

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from .case import Case, Variant
from .cells import PEERS
from .peers import start


def jax_scan(case: Case, associative: bool = False, longest: int | None = None) -> Variant:
    """lax.scan (or associative_scan) under jit; arrays time first, at most `longest` steps."""
    import jax
    import jax.numpy as jnp

    ops = NS(tanh=jnp.tanh, sigmoid=jax.nn.sigmoid, cos=jnp.cos, sin=jnp.sin, relu=jax.nn.relu, exp=jnp.exp,
             maximum=jnp.maximum, sqrt=jnp.sqrt, expm1=jnp.expm1, log_sigmoid=jax.nn.log_sigmoid,
             split=lambda x, n: jnp.split(x, n, -1), layer_norm=lambda x: jax.nn.standardize(x, epsilon=1e-5))
    peer = PEERS[case.name]
    T = min(case.shape[1], longest or case.shape[1])

    def time_first(x: Tensor):
        return jnp.asarray(np.ascontiguousarray(x[:, :T].transpose(0, 1).numpy()))

    def back(x) -> Tensor:
        return torch.from_numpy(np.array(x)).transpose(0, 1)

    first = {k: time_first(v) for k, v in case.inputs.items()}
    params = {k: jnp.asarray(v.detach().numpy()) for k, v in case.params.items()}
    states = tuple(jnp.asarray(s.numpy()) for s in start(case))
    cotangent = time_first(case.cotangents[0])

    def combine(left, right):
        return right[0] * left[0], right[0] * left[1] + right[1]

    def run(xs, params):
        p = NS(**params)
        rows = peer.before(ops, NS(**xs), p)
        if associative:
            return jax.lax.associative_scan(combine, rows)[1]
        return jax.lax.scan(lambda s, a: peer.step(ops, a, p, s), states, rows)[1]

    forward = jax.jit(run)
    both = jax.jit(jax.grad(lambda xs, params: (run(xs, params) * cotangent).sum(), argnums=(0, 1)))

    def gradients(grads) -> dict[str, Tensor]:
        by_input, by_param = grads
        return {k: back(g) for k, g in by_input.items()} | {
            k: torch.from_numpy(np.array(g)) for k, g in by_param.items()}

    return Variant("JAX associative_scan" if associative else "JAX lax.scan",
                   lambda: jax.block_until_ready(forward(first, params)),
                   lambda: jax.block_until_ready(both(first, params)), T, back, gradients)


def jax_short(case: Case) -> Variant:
    """Where the whole scan takes seconds."""
    return jax_scan(case, longest=128)


def jax_associative(case: Case) -> Variant:
    return jax_scan(case, associative=True)


def scipy_lfilter(case: Case) -> Variant:
    """Forward only; each channel contiguous in time."""
    p = {k: v.detach().double().numpy() for k, v in case.params.items()}
    x = case.inputs["x"]
    B, T, D = x.shape
    rows = np.ascontiguousarray(x.permute(0, 2, 1).reshape(-1, T).numpy())
    if case.name == "ema":
        a0 = float(p["alpha"][0])
        b, a = np.array([a0]), np.array([1.0, a0 - 1.0])
    else:
        b, a = p["b"], np.concatenate([[1.0], p["a"]])
    b, a = b.astype(rows.dtype), a.astype(rows.dtype)
    return Variant("scipy.signal.lfilter", lambda: lfilter(b, a, rows, axis=1), None, T,
                   lambda y: torch.from_numpy(y).view(B, D, T).mT)


def pandas_ewm(case: Case) -> Variant:
    """Forward only, one sequence. pandas starts from the first sample and we from 0: a row of zeros comes first."""
    import pandas

    (x,) = case.inputs["x"]
    frame = pandas.DataFrame(torch.nn.functional.pad(x, (0, 0, 1, 0)).numpy())
    alpha = case.params["alpha"][0].item()
    return Variant("pandas ewm", lambda: frame.ewm(alpha=alpha, adjust=False).mean(), None, x.shape[0],
                   lambda y: torch.from_numpy(y.to_numpy()[None, 1:].copy()))
