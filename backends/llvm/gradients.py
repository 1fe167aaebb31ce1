"""What the backward kernel of a cell makes, and where it belongs among the cell's ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...ir.cell import Cell, Input, Param, State
from ...ir.types import Type
from ..fold import Fold, of_a_step
from ..pages import Kind

Meta = tuple[tuple[int, ...], torch.dtype]              # sizes (without B and T) and dtype
Gradient = tuple[int, tuple[int, ...], torch.dtype]     # the same of a gradient, after its port's place in the cell


@dataclass(frozen=True)
class Gradients:
    """Of inputs, states and params, in the kernel's order; `ports`: how many inputs, states and params there are."""

    inputs: tuple[Gradient, ...]
    states: tuple[Gradient, ...]
    params: tuple[Gradient, ...]
    ports: tuple[int, int, int]

    @classmethod
    def of(cls, cell: Cell, backward: Cell, meta: Callable[[Type], Meta], fold: Fold | None) -> Gradients:
        """Those that the adjoint `backward` of a cell gives."""
        types = backward.nodes()

        def each(ports: Sequence[Input | Param | State], made: Iterable[tuple[str, Type]]) -> tuple[Gradient, ...]:
            places = {f"d.{p.name}": at for at, p in enumerate(ports)}
            return tuple((places[name], *meta(t)) for name, t in made)

        inputs = each(cell.inputs, ((o.name, types[o.value].type) for o in backward.outputs))
        if fold is not None:
            inputs = tuple((at, of_a_step(sizes, fold.inputs[at]), dtype) for at, sizes, dtype in inputs)
        return cls(inputs, each(cell.states, ((s.name, s.type) for s in backward.states)),
                   each(cell.params, ((o.name, types[o.value].type) for o in backward.sums)),
                   (len(cell.inputs), len(cell.states), len(cell.params)))

    def kinds(self, B: int, T: int, of_inputs: bool, blocks: int) -> list[Kind]:
        """All of them: of inputs [B, T, *shape] if wanted, of states [B, *shape], of params a sum for each block."""
        lead = (blocks,) if blocks > 1 else ()
        return [*(((B, T, *sizes), dtype) for _, sizes, dtype in self.inputs if of_inputs),
                *(((B, *sizes), dtype) for _, sizes, dtype in self.states),
                *((lead + sizes, dtype) for _, sizes, dtype in self.params)]

    def placed(self, made: Sequence[Tensor], of_inputs: bool) -> tuple[list[Tensor | None], ...]:
        """What was made -> gradients of the cell's inputs, params and states; None where there is none."""
        xs, ss, ps = self._places[of_inputs]
        return ([None if i is None else made[i] for i in xs], [None if i is None else made[i] for i in ps],
                [None if i is None else made[i] for i in ss])

    @cached_property
    def _places(self) -> list[list[list[int | None]]]:
        """Of each port among what is made, without gradients of inputs and with them."""
        found = []
        for inputs in ((), self.inputs):
            start, places = 0, []
            for some, ports in zip((inputs, self.states, self.params), self.ports):
                at = {port: start + i for i, (port, *_) in enumerate(some)}
                places.append([at.get(port) for port in range(ports)])
                start += len(some)
            found.append(places)
        return found
