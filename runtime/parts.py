"""Complex tensors at the boundary: a plan knows pairs of reals (`compiler.passes.realify`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ir.types import Type


@dataclass(frozen=True, slots=True)
class Parts:
    """Which ports of a list are complex."""

    complex: tuple[bool, ...]

    @property
    def any(self) -> bool:
        return True in self.complex

    @classmethod
    def of(cls, types: Iterable[Type]) -> Parts:
        return cls(tuple(t.kind == "complex" for t in types))

    def split(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """Each complex tensor becomes two real ones, views of its memory."""
        if not self.any:
            return list(xs)
        out = []
        for x, pair in zip(xs, self.complex, strict=True):
            out += (x.real, x.imag) if pair else (x,)
        return out

    def join(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """The inverse, in memory of its own."""
        if not self.any:
            return list(xs)
        rest = iter(xs)
        return [torch.complex(next(rest), next(rest)) if pair else next(rest) for pair in self.complex]


def on_parts(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`fn`, which moves tensors or changes the precision of reals, for complex tensors too: torch's own
    `.double()` leaves them as they are, and `.to(torch.float64)` drops their imaginary parts."""
    def apply(x: Tensor) -> Tensor:
        return torch.view_as_complex(fn(torch.view_as_real(x)).contiguous()) if x.is_complex() else fn(x)
    return apply
