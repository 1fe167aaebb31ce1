"""What the runtime asks of a back end, and nothing else.

Tensors travel as lists in the order of the cell's ports: inputs and outputs
`[B, T, *shape]`, params `[*shape]`, states `[B, *shape]`. real values have the
module's dtype, int is int64, bool is torch.bool.
"""

from __future__ import annotations

from typing import Protocol, Sequence

from torch import Tensor


class Executable(Protocol):
    """A cell (static part hoisted) compiled for one dtype; B and T are free."""

    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """-> (outputs, final states, tape); the tape is empty unless `keep`."""
        ...

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor], d_finals: Sequence[Tensor], *,
                 seed: int, training: bool) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """-> gradients of inputs, params and initial states; None where there is none
        (not real, or not trainable)."""
        ...
