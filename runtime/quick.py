"""The usual call, with as little around it as possible.

A step in a decoding loop is asked for with the same sizes over and over: plain
tensors, no gradients, the state of the step before. Where that is so, the
executable's stepper for that number of sequences takes it; everything else
gives None and takes the full path, with its messages.

So are calls over whole sequences in training. One that has passed the full
check lets others through that look the same in all that was checked. That is
worth more than it seems: what a call touches is out of the caches when the
kernel before has gone through tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, is_grad_enabled
from torch._C._dynamo.guards import TensorGuards

from ..backends.base import Stepper
from .direct import Call, followed, possible, recorded, unrecorded, watched

if TYPE_CHECKING:
    from .layer import Layer

MOST = 64       # numbers of sequences to remember


@dataclass(frozen=True, slots=True)
class Seen:
    """A call over sequences that has passed the full check: `as_before` says whether the classes, dtypes, devices,
    shapes, strides and `requires_grad` of inputs, parameters and states are the same; without `state` the call starts
    from `first`. `wants`: some of them require a gradient."""

    as_before: Callable[..., bool]
    many: int
    state: bool
    first: tuple[Tensor, ...]
    calls: Mapping[bool, Call]              # by `training`
    wants: bool


class Quick:
    """Steps of a layer, for numbers of sequences that have been on the full path once; and calls over sequences that
    look like the last one there."""

    def __init__(self, layer: Layer):
        self.layer, self.inputs, self.states = layer, layer.input_names, layer.state_names
        static = layer._plan.static
        self.plain = static.idle and static.params == static.wanted     # the kernel takes the parameters as they are
        self.steppers: dict[int, Stepper] = {}
        self.last: Stepper | None = None
        self.seen: Seen | None = None
        self.whole = (self.plain and not layer._draws                   # nothing to do before and after the operator
                      and not layer._input_parts.any and not layer._state_parts.any and not layer._result_parts.any)

    def run(self, inputs: tuple, state: Mapping[str, Tensor] | None, named: Mapping[str, Tensor]):
        """(y, state) of a call asked for as by `Layer.forward`, if it looks like the one seen; None: look closely.
        Not for calls that a compiler follows."""
        seen = self.seen
        if seen is None:
            return None
        if named:
            if inputs or tuple(named) != self.inputs:
                return None
            inputs = named.values()
        elif state is None and inputs and type(inputs[-1]) is dict:
            *inputs, state = inputs
        if state is None:
            if seen.state:
                return None
            states = seen.first
        elif type(state) is dict and seen.state and tuple(state) == self.states:
            states = state.values()
        else:
            return None
        layer = self.layer
        given = [*inputs, *layer._here(), *states]
        if len(given) != seen.many or followed() or not seen.as_before(*given):
            return None
        record = recorded if seen.wants and is_grad_enabled() else unrecorded
        return layer._unpack(record(seen.calls[layer.training], given))

    def see(self, inputs: Sequence[Tensor], state: Mapping[str, Tensor], params: Sequence[Tensor],
            states: Sequence[Tensor]) -> None:
        """A call over sequences has passed the full check."""
        if not self.whole or state and tuple(state) != self.states or not possible(inputs, params, states):
            return
        given, counts = (*inputs, *params, *states), (len(inputs), len(params), len(states))
        self.seen = Seen(TensorGuards(*given, dynamic_dims_sizes=None, dynamic_dims_strides=None).check, len(given),
                         bool(state), () if state else tuple(states),
                         {training: Call(self.layer._plan, counts, 0, training) for training in (False, True)},
                         any([x.requires_grad for x in given]))

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
