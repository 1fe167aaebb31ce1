"""The usual step, with as little around it as possible.

A step in a decoding loop is asked for with the same sizes over and over: plain
tensors, no gradients, the state of the step before. Where that is so, the
executable's stepper for that number of sequences takes it; everything else
gives None and takes the full path, with its messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, is_grad_enabled

from .direct import watched

if TYPE_CHECKING:
    from .layer import Layer

MOST = 64       # numbers of sequences to remember


class Quick:
    """Steps of a layer, for numbers of sequences that have been on the full path once."""

    def __init__(self, layer: Layer):
        self.layer, self.inputs, self.states = layer, layer.input_names, layer.state_names
        static = layer._plan.static
        self.plain = static.idle and static.params == static.wanted     # the kernel takes the parameters as they are
        self.steppers: dict[int, Callable[[list[Tensor], int, bool], list[Tensor] | None]] = {}

    def learn(self, B: int) -> None:
        """A step for B sequences has passed the full check."""
        stepper = self.layer._plan.executable.stepper(B)
        if stepper is not None and len(self.steppers) < MOST:
            self.steppers[B] = stepper

    def step(self, inputs: tuple, state: Mapping[str, Tensor] | None, named: Mapping[str, Tensor]):
        """(y, state) of a step asked for as by `Layer.step`; None: look closely."""
        if state is None and inputs:
            *inputs, state = inputs
        if named:
            if inputs or tuple(named) != self.inputs:
                return None
            inputs = list(named.values())
        if (len(inputs) != len(self.inputs) or type(state) is not dict or tuple(state) != self.states
                or is_grad_enabled() or watched()):
            return None
        x, layer = inputs[0], self.layer
        if type(x) is not Tensor or not x.dim() or (stepper := self.steppers.get(x.shape[0])) is None:
            return None
        params = layer._here() if self.plain else layer._static()[0]
        results = stepper([*inputs, *params, *state.values()], layer._draw() if layer._draws else 0, layer.training)
        return None if results is None else layer._unpack(results)
