"""Random inputs that respect the declared facts (gates in (0, 1), log decays below 0)."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.nn import functional as F


def inputs(cell, B: int, T: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Inputs [B, T, ...] of a cell. Keys (k, p, a, b) have about unit length, as the models that use them see to."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    for p in cell.inputs:
        x = torch.randn(B, T, *p.type.sizes, generator=g)
        for fact in p.facts:
            if m := re.fullmatch(r"in [\[(](.+),(.+)[\])]", fact):
                x = float(m[1]) + (float(m[2]) - float(m[1])) * (0.02 + 0.96 * torch.sigmoid(x))
            elif fact.startswith("<"):
                x = F.logsigmoid(x + 3)
        if p.name in ("k", "p", "a", "b") and p.type.rank:
            x = 0.9 * F.normalize(x, dim=-1)
        out[p.name] = x.to(dtype)
    return out
