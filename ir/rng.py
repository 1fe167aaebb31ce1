"""Counter-based random numbers: Threefry-2x32 with 20 rounds.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011). A draw is a pure function of (seed, site, t, batch element,
position), so every schedule and every back end gives the same numbers.

Exactly, with all words unsigned 32 bit:

    key      k0 = (seed mod 2^32) xor site,   k1 = (seed div 2^32) mod 2^32
    counter  c0 = t,                          c1 = b * numel(shape) + row-major position
    x0, x1 = threefry2x32_20(k0, k1, c0, c1)
    uniform  (x0 >> 8) * 2^-24                              in [0, 1)
    normal   sqrt(-2 ln u) * cos(2 pi v)   with u = ((x0 >> 8) + 1) * 2^-24 in (0, 1],
                                                v =  (x1 >> 8)      * 2^-24 in [0, 1)

The uniform is exact, hence the same bits, in float32 and float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
PARITY = 0x1BD11BDA
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
DISTS = ("uniform", "normal")


def threefry(k0: int, k1: int, c0: Tensor, c1: Tensor) -> tuple[Tensor, Tensor]:
    """Encrypt the counters `c0`, `c1` (int64, each holding 32 bits; broadcast)
    under the key. Two int64 tensors of 32-bit words."""
    keys = (k0 & MASK, k1 & MASK, (k0 ^ k1 ^ PARITY) & MASK)
    x0, x1 = (c0 + keys[0]) & MASK, (c1 + keys[1]) & MASK
    for r in range(20):
        turn = ROTATIONS[r % 8]
        x0 = (x0 + x1) & MASK
        x1 = (((x1 << turn) & MASK) | (x1 >> (32 - turn))) ^ x0
        if r % 4 == 3:  # after every fourth round a rotated key goes in
            j = r // 4 + 1
            x0 = (x0 + keys[j % 3]) & MASK
            x1 = (x1 + keys[(j + 1) % 3] + j) & MASK
    return x0, x1


def words(seed: int, site: int, t: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The two words for each element. `t`: int64 of shape [B] or [];
    result [B, *sizes] (or [*sizes], which counts as batch element 0)."""
    n = math.prod(sizes)
    element = torch.arange(t.numel() * n, device=t.device).reshape(*t.shape, *sizes)
    c0 = t.reshape(*t.shape, *(1,) * len(sizes)) & MASK
    return threefry((seed & MASK) ^ (site & MASK), (seed >> 32) & MASK, c0, element & MASK)


def draw(dist: str, seed: int, site: int, t: Tensor, sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """One draw per element; see `words` for the shapes."""
    x0, x1 = words(seed, site, t, sizes)
    if dist == "uniform":
        return (x0 >> 8).to(dtype) * 2.0**-24
    u = ((x0 >> 8) + 1).to(torch.float64) * 2.0**-24
    v = (x1 >> 8).to(torch.float64) * 2.0**-24
    return (torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)).to(dtype)
