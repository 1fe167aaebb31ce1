"""A loop over time as TorchScript: the step is traced, the loop around it scripted, for a cell of any arity.

No `from __future__ import annotations` here: TorchScript reads the annotations of the loop.
"""

import warnings
from collections.abc import Callable
from typing import List  # noqa: UP035 (TorchScript's own list type)

import torch
from torch import Tensor


def scripted(step: Callable, row: list[Tensor], params: list[Tensor], state: list[Tensor]) -> Callable:
    """A function (rows [B, T, ...], params, state) -> y [B, T, ...] from `step(row, params, state) -> (state, y)`;
    `row`, `params` and `state` are examples for tracing."""
    def one(row, params, state):
        new, y = step(row, params, state)
        return list(new), y

    examples = tuple([x.detach() for x in group] for group in (row, params, state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")               # torch discourages TorchScript; it is here as a peer
        traced = torch.jit.trace(one, examples, check_trace=False, strict=False)

        def loop(rows: List[Tensor], params: List[Tensor], state: List[Tensor]) -> Tensor:  # noqa: UP006
            ys: List[Tensor] = []  # noqa: UP006
            for t in range(rows[0].size(1)):
                state, y = traced([r.select(1, t) for r in rows], params, state)
                ys.append(y)
            return torch.stack(ys, 1)

        return torch.jit.script(loop)
