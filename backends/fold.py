"""Several steps at once, without moving any: how tensors of steps [B, T, ...] are read by a cell whose step is `size`
steps of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fold:
    """An executable of such a cell takes and gives steps; T // size steps of the cell's own cover the first of them, of
    the others nothing is read or written. `inputs`, `outputs`: which axis of a port's tensor [B, T // size, ...] counts
    the steps within one of the cell's, 2 or later."""

    size: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def ports(self, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, int]:
        """The axes by the names of ports: of the inputs and of the outputs."""
        return dict(zip((*inputs, *outputs), (*self.inputs, *self.outputs), strict=True))

    def strides(self, strides: Sequence[int], axis: int) -> tuple[int, ...]:
        """Of a tensor of steps -> as the cell reads it."""
        batch, time, *rest = strides
        return (batch, self.size * time, *rest[:axis - 2], time, *rest[axis - 2:])

    def view(self, x: Tensor, axis: int) -> Tensor:
        """A tensor of steps -> as the cell reads it."""
        n = x.shape[1] // self.size
        return x[:, :n * self.size].unflatten(1, (n, self.size)).movedim(2, axis)

    def steps(self, x: Tensor, axis: int, T: int) -> Tensor:
        """The inverse, for T steps: 0 at those that no step of the cell has."""
        x = x.movedim(axis, 2).flatten(1, 2)
        return torch.cat((x, x.new_zeros(x.shape[0], T - x.shape[1], *x.shape[2:])), 1)


def of_a_step(sizes: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Sizes of a port of the cell (without B and T) -> of one step of a tensor."""
    return sizes[:axis - 2] + sizes[axis - 1:]
