"""A workload's numbers, and what is timed on them: calls whose results can be read, so that they can be checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """One workload: the compiled layer, inputs [B, T, ...] and a cotangent per output."""

    name: str
    layer: nn.Module
    inputs: dict[str, Tensor]
    cotangents: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(next(iter(self.inputs.values())).shape[:2])

    @property
    def params(self) -> dict[str, Tensor]:
        return dict(self.layer.named_parameters())


@dataclass(frozen=True)
class Variant:
    """Forward alone (`forward`) and forward with gradients by inputs and parameters (`both`).

    `steps`: the calls do so many of the workload's T steps and their time is scaled up to all of them.
    `output` and `gradients` read results: [B, steps, ...] of the first output; a tensor per input and parameter
    that it has, by our names. Without them there is nothing to check: a floor.
    """

    name: str
    forward: Callable[[], Any]
    both: Callable[[], Any] | None
    steps: int
    output: Callable[[Any], Tensor] | None = None
    gradients: Callable[[Any], dict[str, Tensor]] | None = None


def torch_variant(name: str, case: Case, run: Callable[[dict[str, Tensor]], tuple[Tensor, ...]],
                  params: dict[str, Tensor], steps: int | None = None) -> Variant:
    """The variant of a torch function of the inputs by name, [B, steps, ...], to the outputs."""
    steps = min(steps or case.shape[1], case.shape[1])
    xs = {k: v[:, :steps].clone().requires_grad_() for k, v in case.inputs.items()}
    cts = [c[:, :steps] for c in case.cotangents]
    leaves = xs | params

    def forward():
        with torch.no_grad():
            return run(xs)

    return Variant(name, forward, lambda: torch.autograd.grad(run(xs), list(leaves.values()), cts), steps,
                   lambda ys: ys[0], lambda grads: dict(zip(leaves, grads)))


def ours(case: Case) -> Variant:
    def run(xs):
        y, _ = case.layer(**xs)
        return (y,) if isinstance(y, Tensor) else tuple(y)

    return torch_variant("ostinato", case, run, case.params)
