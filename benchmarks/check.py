"""Before anything is timed: outputs and gradients of every variant against float64, at the timed shape."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .case import Case, Variant
from .floors import product_flops
from .workloads import Workload

TOLERANCE = {"output": 1e-4, "gradients": 1e-3}        # RMS of the error over RMS of the reference, float32
INTERPRETER_STEPS, INTERPRETER_FLOPS = 1100, 4e9       # beyond, the interpreter takes too long or too much memory
SHORT = 64


class Disagreement(Exception):
    """A result that is not the reference's; it has no time."""


class Reference:
    """The first output and all gradients of a workload in float64, for the timed length or its first steps.

    The interpreter where it can run that many steps, otherwise our own float64 kernel, itself first compared with
    the interpreter on the first SHORT steps; `by` says which.
    """

    def __init__(self, w: Workload, case: Case):
        self.workload, self.case = w, case
        self.flops = product_flops(case.layer.cell) * case.shape[0]
        self.by = "interpreter" if self._short(case.shape[1]) else (
            f"float64 kernel, itself checked by the interpreter at T={SHORT}")
        self.at = cache(self._at)

    def _short(self, T: int) -> bool:
        return T <= SHORT or T <= INTERPRETER_STEPS and T * self.flops <= INTERPRETER_FLOPS

    def _at(self, T: int) -> dict[str, Tensor]:
        if self._short(T):
            return self._run(self.case.layer.reference, self.case.layer, T)
        double = self.workload.layer(torch.float64)
        double.load_state_dict(self.case.layer.state_dict())
        worst = _worst(self._run(double, double, SHORT), self.at(SHORT))
        if not max(worst.values()) <= 1e-6:             # the interpreter's gradients were rounded to float32 once
            raise Disagreement(f"float64 kernel against interpreter at T={SHORT}: {worst}")
        return self._run(double, double, T)

    def _run(self, call, layer, T: int) -> dict[str, Tensor]:
        xs = {k: v[:, :T].double().requires_grad_() for k, v in self.case.inputs.items()}
        y, _ = call(**xs)
        ys = (y,) if isinstance(y, Tensor) else tuple(y)
        leaves = xs | dict(layer.named_parameters())
        cts = [c[:, :T].double() for c in self.case.cotangents]
        grads = torch.autograd.grad(ys, list(leaves.values()), cts)
        return {"": ys[0].detach(), **dict(zip(leaves, grads))}

    def compare(self, v: Variant) -> dict[str, float]:
        """Errors of the variant's output and (worst of its) gradients; raises Disagreement beyond TOLERANCE."""
        want, got = self.at(v.steps), {"": v.output(v.forward())} if v.output else {}
        if v.gradients and v.both:
            got |= v.gradients(v.both())
        errors = _worst({k: x.detach() for k, x in got.items() if k in want}, want)
        if any(not errors[kind] <= TOLERANCE[kind] for kind in errors):
            raise Disagreement(f"{v.name} and the {self.by} disagree: {errors}")
        return errors


def _worst(got: dict[str, Tensor], want: dict[str, Tensor]) -> dict[str, float]:
    worst: dict[str, float] = {}
    for k, a in got.items():
        kind, error = "gradients" if k else "output", relative_error(a, want[k])
        worst[kind] = max(worst.get(kind, 0.0), error)
    return worst


def relative_error(got: Tensor, want: Tensor) -> float:
    """RMS of the difference over RMS of the reference, infinite for NaN. Raises Disagreement for other shapes."""
    if got.shape != want.shape:
        raise Disagreement(f"shape {list(got.shape)}, the reference has {list(want.shape)}")
    rms = (got.double() - want).square().mean().sqrt() / want.double().square().mean().sqrt().clamp_min(1e-12)
    return float("inf") if rms.isnan() else rms.item()
