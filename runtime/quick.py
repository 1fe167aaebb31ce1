"""The usual step, checked at one glance.

A step in a decoding loop is asked for with the same sizes over and over: plain
tensors, no gradients, the state of the step before. What a full check has found
right once is recognised here; everything else returns None and takes the full
path, with its messages.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import direct
from .ports import Port


class Quick:
    """Shapes seen and found right, by batch size. `names`: the states, in order."""

    def __init__(self, inputs: tuple[Port, ...], states: tuple[Port, ...]):
        self.ports, self.n = (*inputs, *states), len(inputs)
        self.names = tuple(p.name for p in states)
        self.known: dict[int, tuple[tuple[torch.dtype, torch.Size], ...]] = {}

    def learn(self, B: int) -> None:
        """A step for B sequences has passed the full check."""
        if len(self.known) < 64:
            self.known[B] = tuple((p.dtype, torch.Size((B, *p.sizes))) for p in self.ports)

    def tensors(self, args: tuple) -> list[Tensor] | None:
        """Inputs and states in order if `args` are the inputs and then the state,
        all of them as seen before; None: look closely."""
        if len(args) != self.n + 1 or torch.is_grad_enabled() or not direct.possible():
            return None
        state = args[-1]
        if type(state) is not dict or tuple(state) != self.names or type(args[0]) is not Tensor or not args[0].dim():
            return None
        found = [*args[:-1], *state.values()]
        want = self.known.get(args[0].shape[0])
        if want is None:
            return None
        for x, (dtype, shape) in zip(found, want):
            if type(x) is not Tensor or x.dtype is not dtype or x.shape != shape or not x.is_cpu:
                return None
        return found
