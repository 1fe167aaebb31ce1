"""Forms that torch evaluates: one function from inputs, parameters and first states to outputs and final states. The
backward pass runs it again, recorded by autograd; nothing but operands is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...backends.recording import recording
from ...ir.cell import Cell
from ...ir.interp import evaluate
from ...ir.types import Type

Values = Mapping[str, Tensor]
Reads = Mapping[tuple[str, str], Tensor]


class Torched(ABC):
    """`cell`: whose ports these are, in its dtype."""

    def __init__(self, cell: Cell, dtype: torch.dtype):
        self.cell, self.dtype, self.types = cell, dtype, cell.nodes()
        self.dtypes = {"real": dtype, "int": torch.int64, "bool": torch.bool}

    @abstractmethod
    def run(self, inputs: Values, params: Values, states: Values, T: int,
            training: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs [B, T, *shape] and final states [B, *shape], for T >= 2; sizes B and T of 1 may stand for any."""

    @abstractmethod
    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs."""

    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool,
                into: Sequence[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """See `backends.base.Executable`."""
        with torch.no_grad():
            outputs, finals = self._results(inputs, params, states, training)
        if into is not None:
            for x, to in zip(outputs, into):
                to.copy_(x)
        own = [x.clone(memory_format=torch.contiguous_format) for x in finals]
        return list(into) if into is not None else [_own(x) for x in outputs], own, []

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True, into: Sequence[Tensor | None] | None = None,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """See `backends.base.Executable`."""
        groups = inputs, params, states
        asked = of_inputs, True, True
        wanted = [ask and x.is_floating_point() and getattr(p, "trainable", True)
                  for xs, ports, ask in zip(groups, self._ports(), asked) for x, p in zip(xs, ports)]
        found = iter(recording(lambda: self._gradients(groups, wanted, [*d_outputs, *d_finals], training)))
        flags = iter(wanted)
        dx, dp, ds = ([next(found) if next(flags) else None for _ in xs] for xs in groups)
        for i, to in enumerate(into or ()):
            if to is not None and dx[i] is not None:
                dx[i] = to.copy_(dx[i])
        return dx, dp, ds

    def _ports(self) -> tuple[Sequence, Sequence, Sequence]:
        return self.cell.inputs, self.cell.params, self.cell.states

    def _gradients(self, groups, wanted: list[bool], cotangents: list[Tensor | None], training: bool) -> list[Tensor]:
        flags = iter(wanted)
        leaves = [[x.detach().requires_grad_(next(flags)) for x in xs] for xs in groups]
        outputs, finals = self._results(*leaves, training)
        ends = [(y, d) for y, d in zip([*outputs, *finals], cotangents) if d is not None and y.requires_grad]
        by = [x for xs in leaves for x in xs if x.requires_grad]
        if not ends or not by:
            return [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in by]
        found = torch.autograd.grad([y for y, _ in ends], by, [d for _, d in ends], allow_unused=True)
        return [torch.zeros_like(x, memory_format=torch.contiguous_format) if d is None else _own(d)
                for x, d in zip(by, found)]

    def _results(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 training: bool) -> tuple[list[Tensor], list[Tensor]]:
        B, T = inputs[0].shape[:2] if inputs else (states[0].shape[0], 1)
        named = [{p.name: x for p, x in zip(ports, xs)} for ports, xs in zip(self._ports(), (inputs, params, states))]
        match T:
            case 0:
                outputs, finals = [self._none(o.value, B) for o in self.cell.outputs], list(states)
            case 1:
                outputs, finals = self._step(*named, training)
            case _:
                outputs, finals = self.run(*named, T, training)
        return ([x.expand(B, T, *self.types[o.value].type.sizes) for x, o in zip(outputs, self.cell.outputs)],
                [x.expand(B, *s.type.sizes) for x, s in zip(finals, self.cell.states)])

    def _none(self, value: str, B: int) -> Tensor:
        t: Type = self.types[value].type
        return torch.zeros(B, 0, *t.sizes, dtype=self.dtypes[t.kind])

    def _step(self, inputs: Values, params: Values, states: Values,
              training: bool) -> tuple[list[Tensor], list[Tensor]]:
        reads = reading({k: x[:, 0] for k, x in inputs.items()}, params, states)
        values = self.values(self.cell, reads, training)
        outputs = [lead(values[o.value], self.types[o.value].type.rank, 1).unsqueeze(1) for o in self.cell.outputs]
        return outputs, [values[s.next] for s in self.cell.states]

    def values(self, cell: Cell, reads: Reads, training: bool,
               dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """All values of a cell's body, in its dtype or another."""
        some = next(iter(reads.values()), None)
        return evaluate(cell.body, reads=reads, types={n.name: n.type for n in cell.body}, dtype=dtype or self.dtype,
                        training=training, device=None if some is None else some.device)

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Nothing is kept."""
        return []


def reading(inputs: Values, params: Values, states: Values) -> Reads:
    """Values by the operation that reads them."""
    return {(op, name): x for op, xs in (("input", inputs), ("param", params), ("state", states))
            for name, x in xs.items()}


def lead(x: Tensor, rank: int, n: int) -> Tensor:
    """A value of `rank` axes with n axes before them, of size 1 where it has none."""
    return x.reshape(*(1,) * (n + rank - x.dim()), *x.shape)


def _own(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)
