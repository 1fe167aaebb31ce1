"""One call of the back end for each step, as when decoding: what `layer.step` computes, of sequences, with gradients.

Slow, and the same operations in the same order as a loop over `layer.step`: to compare sequences with single steps, or
where nearly every sequence has one. What is kept for backward are the states before every step; the step is run again
from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...backends.base import Executable
from . import Source


def build(source: Source) -> Executable:
    """See the module."""
    return Stepwise(source)


class Stepwise:
    """The executable. The tape: each state before every step, [B, T, *shape]."""

    def __init__(self, source: Source):
        self.cell, self.dtype = source.lowered.cell, source.dtype
        self.one = source.backend.build(source.lowered, source.dtype)
        for name in ("step", "stepper", "ready", "ir"):
            if hasattr(self.one, name):
                setattr(self, name, getattr(self.one, name))

    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """See `backends.base.Executable`."""
        T, now = self._length(inputs), list(states)
        ys: list[list[Tensor]] = [[] for _ in self.cell.outputs]
        before: list[list[Tensor]] = [[] for _ in states]
        for t in self._order(T):
            for some, x in zip(before, now) if keep else ():
                some.append(x)
            outputs, now, _ = self.one.forward(_at(t, inputs), params, now, seed=seed, training=training, keep=False)
            for some, y in zip(ys, outputs):
                some.append(y)
        if not T:
            return self.one.forward(inputs, params, now, seed=seed, training=training, keep=False)[:2] + (
                [x.new_empty(x.shape[0], 0, *x.shape[1:]) for x in now] if keep else [],)
        kept = [self._joined([x.unsqueeze(1) for x in some]) for some in before] if keep else []
        return [self._joined(some) for some in ys], now, kept

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """See `backends.base.Executable`."""
        T, ds, options = self._length(inputs), list(d_finals), dict(seed=seed, training=training)
        if not T:
            *_, empty = self.one.forward(inputs, params, states, keep=True, **options)
            return self.one.backward(inputs, params, states, empty, d_outputs, ds, of_inputs=of_inputs, **options)
        dx: list[list[Tensor | None]] = [[] for _ in inputs]
        dp: list[Tensor | None] = [None] * len(params)
        for t in reversed(self._order(T)):
            xs, before = _at(t, inputs), [x[:, t] for x in tape]
            *_, kept = self.one.forward(xs, params, before, keep=True, **options)
            d, sums, ds = self.one.backward(xs, params, before, kept, _at(t, d_outputs), ds, of_inputs=of_inputs,
                                            **options)
            for some, x in zip(dx, d):
                some.append(x)
            dp = [x if y is None else y if x is None else x + y for x, y in zip(sums, dp)]
        return [None if some[0] is None else self._joined(some[::-1]) for some in dx], dp, ds

    def _length(self, inputs: Sequence[Tensor]) -> int:
        return inputs[0].shape[1] if inputs else 1

    def _order(self, T: int) -> range:
        return range(T)[::-1] if self.cell.reverse else range(T)

    def _joined(self, xs: list[Tensor]) -> Tensor:
        """Steps in the order in which they ran."""
        return torch.cat(xs[::-1] if self.cell.reverse else xs, 1)

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape."""
        kinds = {"real": self.dtype, "int": torch.int64, "bool": torch.bool}
        return [((B, T, *s.type.sizes), kinds[s.type.kind]) for s in self.cell.states]

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs."""
        return ("schedule step: one call for each step, as when decoding; backward runs each step again from the state "
                "before it, which is kept")


def _at(t: int, xs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """[B, T, ...] -> one step of it."""
    return [x if x is None else x[:, t:t + 1] for x in xs]
