"""Products with the decays between rows, for the interpreter: slow and obvious.

D(i, j) is the product of the rows of d strictly between j < i, made by multiplying up, never as a quotient: zeros are
exact, and so are derivatives there. It is 0 for j >= i. All operands may have leading axes; rows are [..., n, k].
"""

from __future__ import annotations

import torch
from torch import Tensor

from .meaning import contract, multiply


def _between(d: Tensor, x: Tensor) -> Tensor:
    """D(i, j) x[j] as [..., i, j, k], 0 for j >= i; x and d [..., n, k]."""
    n = d.shape[-2]
    below = torch.ones(n, n, dtype=torch.bool, device=d.device).tril(-1).unsqueeze(-1)
    at, rows = torch.arange(n, device=d.device).unsqueeze(-1), []
    for i in range(n):
        old = multiply(d[..., i - 1, None, :], rows[-1]) if i else torch.zeros_like(x * d)
        rows.append(torch.where(at == i - 1, x, old))
    return torch.where(below, torch.stack(rows, -3), 0) if n else x.unsqueeze(-2).narrow(-2, 0, 0)


def decayed(a: Tensor, d: Tensor, x: Tensor) -> Tensor:
    """G[i, j] = a[i] . D(i, j) x[j]"""
    return contract(a, _between(d, x), "ik,ijk->ij", "sum")


def decayed_sum(g: Tensor, d: Tensor, x: Tensor, transposed: bool) -> Tensor:
    """sum of G[i, j] D(i, j) x[j] over j, or of G[i, j] D(i, j) x[i] over i"""
    below = torch.ones(g.shape[-2:], dtype=torch.bool, device=g.device).tril(-1)
    g = torch.where(below, g, 0)
    if transposed:      # the same from the last row to the first
        g, d, x = g.mT.flip(-1, -2), d.flip(-2), x.flip(-2)
    y = contract(g, _between(d, x), "ij,ijk->ik", "sum")
    return y.flip(-2) if transposed else y


def decayed_back(g: Tensor, a: Tensor, d: Tensor, x: Tensor) -> Tensor:
    """The derivatives of sum G[i, j] a[i] D(i, j) x[j] by a, d and x: [..., 3, n, k]. That by d[m] is the sum over
    j < m < i of G[i, j] a[i] D(i, m) D(m, j) x[j]."""
    below = torch.ones(g.shape[-2:], dtype=torch.bool, device=g.device).tril(-1)
    n, rows = d.shape[-2], []
    left, right = _between(d.flip(-2), a.flip(-2)).flip(-2, -3), _between(d, x)     # [m, i, k], [m, j, k]
    for m in range(n):
        inner = contract(torch.where(below, g, 0), right[..., m, :, :], "ij,jk->ik", "sum")
        rows.append((left[..., m, :, :] * inner).sum(-2))
    slope = torch.stack(rows, -2) if n else d
    return torch.stack((decayed_sum(g, d, x, False), slope, decayed_sum(g, d, a, True)), -3)
