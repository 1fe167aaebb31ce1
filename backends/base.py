"""What the runtime asks of a back end, and nothing else.

Tensors travel as lists in the order of the cell's ports: inputs and outputs
`[B, T, *shape]`, params `[*shape]`, states `[B, *shape]`. real values have the
module's dtype, int is int64, bool is torch.bool. Operands have any strides
(0 too, where values repeat); results are contiguous and alias neither an
operand nor each other.
"""

from __future__ import annotations

from typing import Protocol, Sequence

import torch
from torch import Tensor


class Executable(Protocol):
    """A cell (static part hoisted) compiled for one dtype; B and T are free. Made with a `fold.Fold`, it takes and
    gives tensors of steps [B, T, *shape], of which several are one step of the cell."""

    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """-> (outputs, final states, tape); the tape is empty unless `keep`."""
        ...

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """-> gradients of inputs, params and initial states; None where there is none
        (not real, or not trainable). Cotangents of values that are not real are None.
        Without `of_inputs` nobody asks for gradients of inputs: None, or whatever there is."""
        ...

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape. B and T may be symbolic
        (torch.SymInt), so use arithmetic only, no comparison."""
        ...

    # Optional:
    # ready(call): compile what a call will need, whatever B and T; call: "infer" and "keep" (`forward` without and with
    # `keep`), "back" and "lean" (`backward` with and without `of_inputs`)
    # step(given, B, seed, training) -> results: one lean step; given: inputs [B, *shape], params, states in one
    #     list, results: outputs [B, *shape] and final states. With it comes
    # stepper(B) -> Stepper, or None where there is none for so many sequences
    # recorded(inputs, params, states, seed, training) -> results: outputs and final states made of torch's operations,
    #     for second derivatives and torch.func
    # explain(B | None, T | None) -> str: lines for people
    # ir(stage) -> str | None: text of the stages "schedule", "llvm", "asm"


class Stepper(Protocol):
    """Steps of a fixed number of sequences, for operands that are as usual."""

    def takes(self, given: Sequence[Tensor]) -> bool:
        """Whether inputs [B, *shape], params and states can be taken as they are."""
        ...

    def __call__(self, given: Sequence[Tensor], seed: int, training: bool) -> list[Tensor]:
        """What it takes -> outputs [B, *shape], final states."""
        ...
