"""What forward keeps for backward: the parts lie one after the other in one memory.

Autograd saves one tensor for all of them. That is less to allocate, to save and to free, each of which takes a
microsecond or more after a kernel, when none of it is in a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..pages import Kind
from .block import up

NAME = "tape"


@dataclass(frozen=True)
class Tape:
    """`ports`: the kernel's port of each part; `parts`: their shapes, time first, for B sequences and steps of the cell
    (which may be symbolic), and dtypes."""

    ports: tuple[str, ...]
    parts: Callable[[int, int], list[Kind]]

    @property
    def names(self) -> list[str]:
        """Of the memory among the tensors of a call, if there are parts."""
        return [NAME] if self.ports else []

    def starts(self, B: int, T: int) -> list[int]:
        """Where each part begins, in bytes, and where the last one ends; each has lines of a cache of its own."""
        found = [0]
        for shape, dtype in self.parts(B, T):
            found.append(found[-1] + up(prod(shape) * dtype.itemsize))
        return found

    def gaps(self, B: int, T: int) -> list[tuple[int, int]]:
        """Bytes between the parts, and how many."""
        starts = self.starts(B, T)
        ends = [start + prod(shape) * dtype.itemsize for start, (shape, dtype) in zip(starts, self.parts(B, T))]
        return [(end, start - end) for end, start in zip(ends, starts[1:]) if start > end]

    def kinds(self, B: int, T: int) -> list[Kind]:
        """The memory, if there are parts."""
        return [((self.starts(B, T)[-1],), torch.uint8)] if self.ports else []

    def views(self, memory: Tensor, B: int, T: int) -> dict[str, Tensor]:
        """The parts, by their ports."""
        return {name: memory[start:start + prod(shape) * dtype.itemsize].view(dtype).view(shape)
                for name, start, (shape, dtype) in zip(self.ports, self.starts(B, T), self.parts(B, T))}
