"""The usual step, with as little around it as possible.

A step in a decoding loop is asked for with the same sizes over and over: plain
tensors, no gradients, the state of the step before. Where that is so, the
executable's stepper for that number of sequences takes it; everything else
gives None and takes the full path, with its messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, is_grad_enabled

from ..backends.base import Stepper
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
        self.steppers: dict[int, Stepper] = {}
        self.last: Stepper | None = None

    def learn(self, B: int) -> None:
        """A step for B sequences has passed the full check."""
        stepper = self.layer._plan.executable.stepper(B)
        if stepper is not None and len(self.steppers) < MOST:
            self.steppers[B] = stepper

    def step(self, inputs: tuple, state: Mapping[str, Tensor] | None, named: Mapping[str, Tensor]):
        """(y, state) of a step asked for as by `Layer.step`; None: look closely."""
        if named:
            if inputs or tuple(named) != self.inputs:
                return None
            inputs = named.values()
        elif state is None and inputs:
            *inputs, state = inputs
        if (type(state) is not dict or tuple(state) != self.states or len(inputs) != len(self.inputs)
                or is_grad_enabled() or watched()):
            return None
        layer, stepper = self.layer, self.last
        given = [*inputs, *(layer._here() if self.plain else layer._static()[0]), *state.values()]
        if stepper is None or not stepper.takes(given):
            x = given[0]                        # another number of sequences?
            if (type(x) is not Tensor or not x.dim() or (stepper := self.steppers.get(x.shape[0])) is None
                    or not stepper.takes(given)):
                return None
            self.last = stepper
        return layer._unpack(stepper(given, layer._draw() if layer._draws else 0, layer.training))
