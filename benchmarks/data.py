"""Random inputs for timing and for the zoo's tests."""

from __future__ import annotations

import torch
from ostinato.runtime.sample import sample_inputs
from torch import Tensor
from torch.nn import functional as F


def inputs(cell, B: int, T: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Inputs [B, T, ...] of a cell that keep its declared facts. What is written to or read from
    a matrix state as a key (k, p, a, b) is shorter than 1, as the models that use them see to."""
    xs = sample_inputs(cell, B, T, seed, dtype)
    return {k: 0.9 * F.normalize(v, dim=-1) if k in ("k", "p", "a", "b") and v.dim() > 2 else v
            for k, v in xs.items()}
