"""Linear attention a chunk of time at a time in plain torch: what one writes today without a kernel of one's own.

Every cell here is S_t = e^g_t S_{t-1} + k_t^T u_t, o_t = q_t S_t. With G the sum of g since the chunk's start, S_0 the
state there and A[i, j] = sum_d q_id k_jd e^(G_id - G_jd) for j <= i,

    o = (q e^G) S_0 + A u          S_C = e^(G_C) S_0 + (k e^(G_C - G))^T u.

What is written, u, is v or depends on the state: u = U + W S_0, where U and W solve a unit triangular system (the delta
rule writes its prediction's error; RWKV-7 writes what `a` reads). Derived from the recurrences in the zoo's files. All
exponents are <= 0, so that no decay overflows in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as NS

import torch
from torch import Tensor

CHUNK, BLOCK = 32, 8           # steps per chunk; steps per block within which decays are taken pair by pair


def cut(x: Tensor) -> Tensor:
    """[B, T, N, ...] -> [B, N, chunks, CHUNK, width]; one number per head and step gets width 1."""
    B, T, N = x.shape[:3]
    if T % CHUNK:
        raise ValueError(f"the chunkwise form wants T in multiples of {CHUNK}, not {T}")
    return x.reshape(B, T // CHUNK, CHUNK, N, -1).permute(0, 3, 1, 2, 4).contiguous()


def scores(q: Tensor, k: Tensor, G: Tensor, at: Tensor | None = None, strict: bool = False) -> Tensor:
    """A[i, j] = sum_d q_id k_jd e^(at_id - G_jd) for j <= i (j < i if strict), 0 elsewhere; `at` is G unless given.

    G [..., CHUNK, 1 or K]. A decay per channel cannot leave the sum: rows of a block meet earlier columns at the
    block's start, which splits the exponent into two that are <= 0.
    """
    lower, at = -1 if strict else 0, G if at is None else at
    if G.shape[-1] == 1:
        return ((q @ k.mT) * (at - G.mT).clamp(max=0).exp()).tril(lower)
    qb, kb, Gb, atb = (x.unflatten(-2, (-1, BLOCK)) for x in (q, k, G, at))
    pairs = (atb.unsqueeze(-2) - Gb.unsqueeze(-3)).clamp(max=0).exp()            # [..., i, j, K] within a block
    own = (qb.unsqueeze(-2) * kb.unsqueeze(-3) * pairs).sum(-1).tril(lower)
    rows = []
    for n, s in enumerate(range(0, CHUNK, BLOCK)):
        start = G[..., max(s - 1, 0):max(s, 1), :]
        left = q[..., s:s + BLOCK, :] * (at[..., s:s + BLOCK, :] - start).exp() if s else q[..., :BLOCK, :]
        earlier = left @ (k[..., :s, :] * (start - G[..., :s, :]).exp()).mT      # no columns in the first block
        rows.append(torch.cat((earlier, own[..., n, :, :], own.new_zeros(*own.shape[:-3], BLOCK, CHUNK - s - BLOCK)),
                              -1))
    return torch.cat(rows, -2)


def passed(reads: Tensor, A: Tensor, keys: Tensor, G: Tensor, U: Tensor, W: Tensor | None = None,
           own: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The state from chunk to chunk, then all outputs [B, T, N, V] at once.

    reads: q e^G. own: outputs and state updates that do not depend on the state (of keys with values of their own).
    """
    end = G[..., -1:, :]
    keep, written = end.exp().mT, (keys * (end - G).exp()).mT
    S = keys.new_zeros(*keys.shape[:2], keys.shape[-1], U.shape[-1])
    starts = []
    for n in range(keys.shape[2]):
        starts.append(S)
        u = U[:, :, n] if W is None else U[:, :, n] + W[:, :, n] @ S
        S = keep[:, :, n] * S + written[:, :, n] @ u
        if own:
            S = S + own[1][:, :, n]
    at = torch.stack(starts, 2)
    o = reads @ at + A @ (U if W is None else U + W @ at)
    return (o + own[0] if own else o).permute(0, 2, 3, 1, 4).flatten(1, 2)


def solve(L: Tensor, right: Tensor) -> Tensor:
    """(1 - L)^-1 right, L strictly lower triangular."""
    return torch.linalg.solve_triangular(-L, right, upper=False, unitriangular=True)


def additive(x: NS) -> Tensor:
    """GLA (a decay per channel) and Mamba-2's recurrence (one per head)."""
    q, k, v, G = cut(x.q) / x.q.shape[-1] ** 0.5, cut(x.k), cut(x.v), cut(x.g).cumsum(-2)
    return passed(q * G.exp(), scores(q, k, G), k, G, v)


def delta(x: NS) -> Tensor:
    """DeltaNet, gated per head or per channel or not: u_i = beta_i (v_i - k_i e^g_i S_{i-1})."""
    q, k, v, beta = cut(x.q) / x.q.shape[-1] ** 0.5, cut(x.k), cut(x.v), cut(x.beta)
    G = cut(x.g).cumsum(-2) if hasattr(x, "g") else torch.zeros_like(beta)
    solved = solve(-beta * scores(k, k, G, strict=True), beta * torch.cat((v, -k * G.exp()), -1))
    U, W = solved.split((v.shape[-1], k.shape[-1]), -1)
    return passed(q * G.exp(), scores(q, k, G), k, G, U, W)


def rwkv7(x: NS) -> Tensor:
    """u_i = a_i S_{i-1} is written at b_i, and v_i at k_i."""
    r, k, v, a, b, w = (cut(t) for t in (x.r, x.k, x.v, x.a, x.b, x.w))
    G = w.cumsum(-2)
    before = G - w
    known = scores(a, k, G, before, strict=True) @ v
    solved = solve(scores(a, b, G, before, strict=True), torch.cat((known, a * before.exp()), -1))
    U, W = solved.split((v.shape[-1], a.shape[-1]), -1)
    own = scores(r, k, G) @ v, (k * (G[..., -1:, :] - G).exp()).mT @ v
    return passed(r * G.exp(), scores(r, b, G), b, G, U, W, own)


FORMS: dict[str, Callable[[NS], Tensor]] = {
    "gla": additive, "simple_gla": additive, "deltanet": delta, "gated_deltanet": delta, "kda": delta, "rwkv7": rwkv7}
