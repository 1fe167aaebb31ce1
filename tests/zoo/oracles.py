"""One plain PyTorch step per zoo cell, written from its paper, not from its `.ost` file.

A step takes three namespaces: the inputs at one time (`[B, ...]`, heads as `[B, N, ...]`), the
parameters, and the old states; it gives (outputs, new states) as dicts. `run` loops over time.
Products are written with `einsum` over the batch so that nothing is shared with the compiler's
notation. Everything is meant for float64 and autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace as NS

import torch
from torch import Tensor, einsum

Step = Callable[[NS, NS, NS], tuple[dict[str, Tensor], dict[str, Tensor]]]
Values = dict[str, Tensor]
Whole = Callable[[Values, Values, Values], tuple[Values, Values]]
STEPS: dict[str, Step] = {}
WHOLE: dict[str, Whole] = {}        # of cells that no loop computes


def step(f: Step) -> Step:
    STEPS[f.__name__] = f
    return f


def whole(f: Whole) -> Whole:
    WHOLE[f.__name__] = f
    return f


def run(name: str, inputs: Values, params: Values, states: Values) -> tuple[Values, Values]:
    """Inputs `[B, T, ...]`, states `[B, ...]` -> (outputs `[B, T, ...]`, final states); T >= 1."""
    return (WHOLE[name] if name in WHOLE else partial(over_time, name))(inputs, params, states)


def over_time(name: str, inputs: Values, params: Values, states: Values) -> tuple[Values, Values]:
    """The step of an oracle in a loop."""
    T = next(iter(inputs.values())).shape[1]
    p, ys = NS(**params), []
    for t in range(T):
        y, states = STEPS[name](NS(**{k: v[:, t] for k, v in inputs.items()}), p, NS(**states))
        ys.append(y)
    return {k: torch.stack([y[k] for y in ys], 1) for k in ys[0]}, states


def lin(W: Tensor, x: Tensor) -> Tensor:
    """W x for each sequence; W [N, O, I] works per head, on x [B, N, I] or on an x [B, I] that heads share."""
    if W.dim() == 2:
        return einsum("oi,bi->bo", W, x)
    return einsum("noi,bni->bno", W, x) if x.dim() == 3 else einsum("noi,bi->bno", W, x)


def outer(a: Tensor, b: Tensor) -> Tensor:
    return a[..., :, None] * b[..., None, :]


def read(q: Tensor, S: Tensor) -> Tensor:
    return einsum("bnk,bnkv->bnv", q, S)


def per_head(a: Tensor) -> Tensor:
    """[B, N] -> [B, N, 1, 1], to scale a matrix state."""
    return a[..., None, None]


import oracles_affine  # noqa: F401 (each fills STEPS or WHOLE)
import oracles_dense  # noqa: F401
import oracles_directions  # noqa: F401
import oracles_inner  # noqa: F401
import oracles_lanes  # noqa: F401
import oracles_matrix  # noqa: F401
import oracles_paths  # noqa: F401
import oracles_spaces  # noqa: F401
