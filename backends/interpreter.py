"""The interpreter as a back end: the definition itself, in float64, cast to the module's dtype.

Slow. Its gradients are torch autograd's through the interpreted steps, so it
shares nothing with the compiler's adjoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ir import interp
from ..ir.cell import Cell, Node
from .fold import Fold
from .recording import recording

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Definition:
    """A cell as it was written, with nothing hoisted."""

    cell: Cell
    static: tuple[Node, ...] = ()


def prepare(cell: Cell, save: str = "auto") -> Definition:
    """No pass is run, and nothing kept: this back end is what the passes are measured against."""
    return Definition(cell)


def build(definition: Definition, dtype: torch.dtype, fold: Fold | None = None) -> Interpreter:
    """The executable of a cell."""
    return Interpreter(definition.cell, dtype, fold)


class Interpreter:
    """`base.Executable` by interpretation; keeps no tape, the backward pass runs the steps again."""

    def __init__(self, cell: Cell, dtype: torch.dtype, fold: Fold | None = None):
        self.cell, self.dtype, self.fold = cell, dtype, fold

    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        with torch.no_grad():
            outputs, finals = self._run(inputs, params, states, seed, training)
        return [self._own(y) for y in outputs], [self._own(s) for s in finals], []

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        groups, asked = (inputs, params, states), (of_inputs, True, True)

        def gradients() -> list[Tensor | None]:
            leaves = [[_leaf(x) for x in group] if wanted else list(group) for group, wanted in zip(groups, asked)]
            outputs, finals = self._run(*leaves, seed, training)
            ends = [(y, d.to(y.dtype)) for y, d in zip((*outputs, *finals), (*d_outputs, *d_finals))
                    if d is not None and y.requires_grad]
            wanted = [x for group in leaves for x in group if x.requires_grad]
            if not ends or not wanted:
                return [torch.zeros_like(x) for x in wanted]
            found = torch.autograd.grad([y for y, _ in ends], wanted, [d for _, d in ends], allow_unused=True)
            return [torch.zeros_like(x) if d is None else d for x, d in zip(wanted, found)]

        found = iter(recording(gradients))
        dx, dp, ds = ([self._own(next(found)) if wanted and x.is_floating_point() else None for x in group]
                      for group, wanted in zip(groups, asked))
        dp = [d if p.trainable else None for d, p in zip(dp, self.cell.params)]
        return dx, dp, ds

    def recorded(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *, seed: int,
                 training: bool) -> list[Tensor]:
        """Outputs, then final states, recorded step by step: to be differentiated as often as wanted."""
        with torch.enable_grad():
            outputs, finals = self._run(inputs, params, states, seed, training)
        return [y.to(self.dtype) if y.is_floating_point() else y for y in (*outputs, *finals)]

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape."""
        return []

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """One line on what this is."""
        return "interpreter: every operation of every step in torch, float64; nothing kept for the backward pass"

    def _run(self, inputs, params, states, seed, training) -> tuple[list[Tensor], list[Tensor]]:
        c, fold = self.cell, self.fold
        if fold is not None:
            T = inputs[0].shape[1]
            inputs = [fold.view(x, axis) for x, axis in zip(inputs, fold.inputs)]
        r = interp.run(c, {p.name: x for p, x in zip(c.inputs, inputs)}, {p.name: x for p, x in zip(c.params, params)},
                       {s.name: x for s, x in zip(c.states, states)}, seed=seed, training=training)
        outputs = [r.outputs[o.name] for o in c.outputs]
        if fold is not None:
            outputs = [fold.steps(y, axis, T) for y, axis in zip(outputs, fold.outputs)]
        return outputs, [r.state[s.name] for s in c.states]

    def _own(self, x: Tensor) -> Tensor:
        """In the module's dtype, contiguous, and nobody else's memory."""
        dtype = self.dtype if x.is_floating_point() else x.dtype
        return x.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)


def _leaf(x: Tensor) -> Tensor:
    return x.detach().to(torch.float64).requires_grad_() if x.is_floating_point() else x
