"""Products with the decays between rows, for the interpreter: slow and obvious.

D(i, j) is the product of the rows of d strictly between j < i, made by multiplying up, never as a quotient: zeros are
exact, and so are derivatives there. It is 0 for j >= i. All operands may have leading axes; rows are [..., n, k].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .meaning import contract, cumprod, cumprod_back, multiply


def _between(d: Tensor, x: Tensor) -> Tensor:
    """D(i, j) x[j] as [..., i, j, k], 0 for j >= i; x and d [..., n, k]."""
    n = d.shape[-2]
    below = torch.ones(n, n, dtype=torch.bool, device=d.device).tril(-1).unsqueeze(-1)
    at, rows = torch.arange(n, device=d.device).unsqueeze(-1), []
    for i in range(n):
        old = multiply(d[..., i - 1, None, :], rows[-1]) if i else torch.zeros_like(x * d)
        rows.append(torch.where(at == i - 1, x, old))
    return torch.where(below, torch.stack(rows, -3), 0) if n else x.unsqueeze(-2).narrow(-2, 0, 0)


def decayed(rows: Sequence[Tensor], readers: int) -> Tensor:
    """G[i, j] = a[i] . D(i, j) x[j] for each reader a with each x, of `rows` (readers, d, others): [..., n, n], or of
    several pairs [..., pairs, n, n]."""
    far = [_between(rows[readers], x) for x in rows[readers + 1:]]
    made = [contract(a, x, "ik,ijk->ij", "sum") for a in rows[:readers] for x in far]
    return made[0] if len(made) == 1 else torch.stack(made, -3)


def decayed_sum(g: Tensor, d: Tensor, x: Tensor, transposed: bool) -> Tensor:
    """sum of G[i, j] D(i, j) x[j] over j, or of G[i, j] D(i, j) x[i] over i"""
    below = torch.ones(g.shape[-2:], dtype=torch.bool, device=g.device).tril(-1)
    g = torch.where(below, g, 0)
    if transposed:      # the same from the last row to the first
        g, d, x = g.mT.flip(-1, -2), d.flip(-2), x.flip(-2)
    y = contract(g, _between(d, x), "ij,ijk->ik", "sum")
    return y.flip(-2) if transposed else y


def ends(rows: Sequence[Tensor], readers: int) -> Tensor:
    """Readers times the decays before each row, the others times those after it, of `rows` (readers, d, others)."""
    d = rows[readers]
    before, after = cumprod(d, d.dim() - 2, False), cumprod(d, d.dim() - 2, True)
    return torch.stack([*(multiply(a, before) for a in rows[:readers]),
                        *(multiply(x, after) for x in rows[readers + 1:])], -3)


def ends_back(operands: Sequence[Tensor], readers: int) -> Tensor:
    """The derivatives of the sum of factors times `ends` by every one of its rows, side by side; the factors first,
    and behind them there may be one [..., k] of the product of all decays."""
    factors, rows = operands[:len(operands) // 2], operands[len(operands) // 2:]
    d = rows[readers]
    axis, out = d.dim() - 2, [torch.zeros_like(d)] * len(rows)
    if len(factors) == len(rows):
        others = multiply(cumprod(d, axis, False), cumprod(d, axis, True))
        out[readers] = multiply(others, factors[-1].unsqueeze(axis).expand_as(d))
    for i, c in enumerate(factors[:len(rows) - 1]):
        late = i >= readers
        out[i + late] = multiply(c, cumprod(d, axis, late))
        out[readers] = out[readers] + cumprod_back(d, multiply(c, rows[i + late]), axis, late)
    return torch.stack(out, -3)


def decayed_back(g: Tensor, rows: Sequence[Tensor], readers: int, with_ends: bool) -> Tensor:
    """The derivatives of the sum over pairs of sum G[i, j] a[i] D(i, j) x[j] by every one of `rows`, side by side
    [..., rows, n, k]; g as `decayed` gives it. `with_ends`: behind factors of these, as in `ends_back`."""
    if with_ends:
        return ends_back(rows, readers) + decayed_back(g, rows[len(rows) // 2:], readers, False)
    many, d = g.unsqueeze(-3) if len(rows) == 3 else g, rows[readers]
    out = [torch.zeros_like(d)] * len(rows)
    for p in range(many.shape[-3]):
        r, w = divmod(p, len(rows) - 1 - readers)
        places = (r, readers, readers + 1 + w)
        for place, part in zip(places, _back(many.select(-3, p), rows[r], d, rows[places[2]])):
            out[place] = out[place] + part
    return torch.stack(out, -3)


def _back(g: Tensor, a: Tensor, d: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of one pair, by a, d and x. That by d[m] is the sum over j < m < i of G[i, j] a[i] D(i, m) D(m, j) x[j]."""
    below = torch.ones(g.shape[-2:], dtype=torch.bool, device=g.device).tril(-1)
    n, rows = d.shape[-2], []
    left, right = _between(d.flip(-2), a.flip(-2)).flip(-2, -3), _between(d, x)     # [m, i, k], [m, j, k]
    for m in range(n):
        inner = contract(torch.where(below, g, 0), right[..., m, :, :], "ij,jk->ik", "sum")
        rows.append((left[..., m, :, :] * inner).sum(-2))
    slope = torch.stack(rows, -2) if n else d
    return decayed_sum(g, d, x, False), slope, decayed_sum(g, d, a, True)
