"""Before anything is timed: outputs and gradients against float64 at the timed shape."""

from __future__ import annotations

import torch
from torch import Tensor

from .data import inputs
from .workloads import Workload

TOLERANCE = {"outputs": 1e-4, "gradients": 1e-3}       # RMS of the error over RMS of the reference, float32
INTERPRETER_STEPS = 1100                               # beyond, the interpreter would take minutes or too much memory
SHORT = 96


class Disagreement(Exception):
    """A result that is not the reference's; it has no time."""


def check(w: Workload) -> dict[str, object]:
    """Errors of the float32 layer relative to float64; raises Disagreement beyond TOLERANCE.

    The reference is the interpreter where it can run the timed length, otherwise
    our own float64 kernel, itself first compared with the interpreter on the
    first SHORT steps; the answer says which.
    """
    layer = w.layer()
    cts = _cotangents(layer, w)
    got = _run(layer, layer, inputs(layer.cell, w.B, w.T), cts)
    if w.T <= INTERPRETER_STEPS:
        want, by = _run(layer.reference, layer, inputs(layer.cell, w.B, w.T), cts), "interpreter"
    else:
        double = w.layer(torch.float64)
        double.load_state_dict(layer.state_dict())
        few, short = inputs(layer.cell, w.B, SHORT, torch.float64), [c[:, :SHORT] for c in cts]
        worst = _worst(_run(double, double, few, short), _run(double.reference, double, few, short))
        if max(worst.values()) > 1e-9:
            raise Disagreement(f"{w.name}: float64 kernel against interpreter at T={SHORT}: {worst}")
        xs = {k: v.double() for k, v in inputs(layer.cell, w.B, w.T).items()}
        want, by = _run(double, double, xs, cts), f"float64 kernel, itself checked by the interpreter at T={SHORT}"
    worst = _worst(got, want)
    if any(worst[k] > TOLERANCE[k] for k in worst):
        raise Disagreement(f"{w.name}: {worst}")
    return {"reference": by, **{f"error_{k}": v for k, v in worst.items()}}


def _cotangents(layer, w: Workload) -> list[Tensor]:
    g, nodes = torch.Generator().manual_seed(1), layer.cell.nodes()
    return [torch.randn(w.B, w.T, *nodes[o.value].type.sizes, generator=g) for o in layer.cell.outputs]


def _run(call, layer, xs: dict[str, Tensor], cts: list[Tensor]) -> dict[str, Tensor]:
    xs = {k: v.detach().requires_grad_() for k, v in xs.items()}
    y, _ = call(**xs)
    ys = (y,) if isinstance(y, Tensor) else tuple(y)
    leaves = xs | dict(layer.named_parameters())
    grads = torch.autograd.grad(ys, list(leaves.values()), [c.to(v.dtype) for c, v in zip(cts, ys)])
    return {f"y{i}": v.detach() for i, v in enumerate(ys)} | dict(zip((f"d.{k}" for k in leaves), grads))


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _worst(got: dict[str, Tensor], want: dict[str, Tensor]) -> dict[str, float]:
    worst = {"outputs": 0.0, "gradients": 0.0}
    for k, b in want.items():
        error = _rms(got[k].double() - b.double()) / _rms(b.double()).clamp_min(1e-12)
        kind = "gradients" if k.startswith("d.") else "outputs"
        worst[kind] = max(worst[kind], float("inf") if error.isnan() else error.item())
    return worst
