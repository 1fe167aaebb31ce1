"""Random inputs that keep the facts declared for them, for verifying and timing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ..ir.cell import Cell, Input
from .ports import torch_dtype

_INTERVAL = re.compile(r"in\s*[(\[]\s*(\S+)\s*,\s*(\S+?)\s*[)\]]")
_BOUND = re.compile(r"(<=|<|>=|>)\s*(\S+)")


def bounds(facts: Sequence[str]) -> tuple[float, float]:
    """The interval that facts such as "in (0, 1)", "<= 0" or "nonneg" leave."""
    lo, hi = -torch.inf, torch.inf
    for fact in facts:
        if m := _INTERVAL.fullmatch(fact):
            lo, hi = max(lo, float(m[1])), min(hi, float(m[2]))
        elif m := _BOUND.fullmatch(fact):
            if m[1].startswith("<"):
                hi = min(hi, float(m[2]))
            else:
                lo = max(lo, float(m[2]))
        elif fact == "nonneg":
            lo = max(lo, 0.0)
    return lo, hi


def sample(p: Input, B: int, T: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """Values [B, T, *shape] for an input: standard normal where nothing is
    declared, a little inside of open bounds, small whole numbers for int."""
    shape, (lo, hi) = (B, T, *p.type.sizes), bounds(p.facts)
    if p.type.kind == "complex":
        return torch.randn(shape, generator=generator, dtype=torch.complex128).to(torch_dtype("complex", dtype))
    if p.type.kind == "bool":
        return torch.rand(shape, generator=generator) < 0.5
    if p.type.kind == "int":
        low = 0 if lo == -torch.inf else int(lo)
        return torch.randint(low, low + 4 if hi == torch.inf else int(hi) + 1, shape, generator=generator)
    if lo > -torch.inf and hi < torch.inf:
        x = lo + (hi - lo) * (0.05 + 0.9 * torch.rand(shape, generator=generator, dtype=torch.float64))
    else:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        if lo > -torch.inf:
            x = lo + 0.05 + x.abs()
        elif hi < torch.inf:
            x = hi - 0.05 - x.abs()
    if "symmetric" in p.facts:
        x = x @ x.mT / x.shape[-1] + torch.eye(x.shape[-1], dtype=x.dtype)   # positive definite too
    if "orthonormal" in p.facts:
        x = torch.linalg.qr(x).Q
    return x.to(torch_dtype(p.type.kind, dtype))


def sample_inputs(cell: Cell, B: int, T: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """One value per input of the cell, by name."""
    generator = torch.Generator().manual_seed(seed)
    return {p.name: sample(p, B, T, generator, dtype) for p in cell.inputs}
