"""The oracle of sequences: each run by itself, in pieces from restart to restart, by the interpreter on the plain cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ostinato.ir import interp
from ostinato.ir.cell import Cell

Values = dict[str, torch.Tensor]


@dataclass
class Found:
    """Outputs and final states of every sequence, and gradients by name."""

    outputs: list[Values]       # [1, length, *shape] each
    finals: list[Values]        # [1, *shape] each
    gradients: Values


def one(cell: Cell, inputs: Values, params: Values, state: Values, resets: torch.Tensor,
        reverse: bool) -> tuple[Values, Values]:
    """Inputs [1, T, *shape], resets [T]: time is cut where it restarts."""
    T = len(resets)
    if reverse:
        inputs, resets = {k: x.flip(1) for k, x in inputs.items()}, resets.flip(0)
    cuts = [0, *(t for t in range(T) if resets[t]), T]
    against = {s.name for s in cell.states if s.reverse}        # they begin in the last piece and end in the first
    rows, finals = [], {}
    for i, (start, end) in enumerate(zip(cuts, cuts[1:])):
        some = {k: x[:, start:end] for k, x in inputs.items()}
        first = {k: x for k, x in state.items() if (end == T if k in against else i == 0)}
        found = interp.run(cell, some, params, first, batch=1, steps=end - start)
        rows.append(found.outputs)
        ends = {k: x for k, x in found.state.items() if k not in against or k not in finals and (end or not T)}
        finals |= ends
    outputs = {k: torch.cat([r[k] for r in rows], 1) for k in rows[0]}
    return {k: y.flip(1) for k, y in outputs.items()} if reverse else outputs, finals


def leaf(x: torch.Tensor) -> torch.Tensor:
    return x.detach().double().requires_grad_() if x.is_floating_point() else x


def cotangent(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Random numbers that depend on the name only."""
    g = torch.Generator().manual_seed(sum(map(ord, name)))
    return torch.randn(shape, generator=g, dtype=torch.float64)


def gradients(ends: list[tuple[torch.Tensor, torch.Tensor]], leaves: Values) -> Values:
    """By every real leaf; zeros where nothing flows."""
    wanted = {k: x for k, x in leaves.items() if x.requires_grad}
    ends = [(y, d.to(y.dtype)) for y, d in ends if y.requires_grad]
    found = torch.autograd.grad([y for y, _ in ends], list(wanted.values()), [d for _, d in ends],
                                allow_unused=True) if ends and wanted else [None] * len(wanted)
    return {k: torch.zeros_like(x) if d is None else d for (k, x), d in zip(wanted.items(), found)}
