"""Oracles of the cells with a matrix state per head."""

from __future__ import annotations

from types import SimpleNamespace as NS

import torch
from oracles import outer, per_head, read, step
from torch import einsum
from torch.nn import functional as F


@step
def linear_attention(x, p, s):
    q, k = F.elu(x.q) + 1, F.elu(x.k) + 1
    S, z = s.S + outer(k, x.v), s.z + k
    return {"o": read(q, S) / (q * z).sum(-1, keepdim=True)}, {"S": S, "z": z}


def decayed(x, s, decay, scale=True):
    S = decay * s.S + outer(x.k, x.v)
    return {"o": read(x.q, S) / (x.q.shape[-1] ** 0.5 if scale else 1)}, {"S": S}


@step
def retnet(x, p, s):
    return decayed(x, s, p.g.exp()[:, None, None])


@step
def simple_gla(x, p, s):
    return decayed(x, s, per_head(x.g.exp()))


@step
def gla(x, p, s):
    return decayed(x, s, x.g.exp()[..., None])


@step
def hgrn2(x, p, s):
    return decayed(NS(q=x.q, k=1 - x.f, v=x.v), s, x.f[..., None], scale=False)


def delta(M, k, v, beta):
    """(I - beta k k') M + beta k v'."""
    K = k.shape[-1]
    hh = torch.eye(K, dtype=k.dtype) - per_head(beta) * outer(k, k)
    return einsum("bnij,bnjv->bniv", hh, M) + per_head(beta) * outer(k, v)


@step
def deltanet(x, p, s):
    S = delta(s.S, x.k, x.v, x.beta)
    return {"o": read(x.q, S) / x.q.shape[-1] ** 0.5}, {"S": S}


@step
def gated_deltanet(x, p, s):
    S = delta(per_head(x.g.exp()) * s.S, x.k, x.v, x.beta)
    return {"o": read(x.q, S) / x.q.shape[-1] ** 0.5}, {"S": S}


@step
def kda(x, p, s):
    S = delta(x.g.exp()[..., None] * s.S, x.k, x.v, x.beta)
    return {"o": read(x.q, S) / x.q.shape[-1] ** 0.5}, {"S": S}


@step
def deltaproduct(x, p, s):
    S = per_head(x.g.exp()) * s.S
    for j in range(x.k.shape[-2]):
        S = delta(S, x.k[..., j, :], x.v[..., j, :], x.beta[..., j])
    return {"o": read(x.q, S) / x.q.shape[-1] ** 0.5}, {"S": S}


@step
def rwkv7(x, p, s):
    transition = torch.diag_embed(x.w.exp()) + outer(x.b, x.a)
    S = einsum("bnij,bnjv->bniv", transition, s.S) + outer(x.k, x.v)
    return {"o": read(x.r, S)}, {"S": S}


@step
def rwkv6(x, p, s):
    kv = outer(x.k, x.v)
    return {"o": read(x.r, s.S + p.u[..., None] * kv)}, {"S": x.w.exp()[..., None] * s.S + kv}


@step
def comba(x, p, s):
    eye = torch.eye(x.k.shape[-1], dtype=x.k.dtype)
    transition = per_head(x.g.exp()) * eye - per_head(x.beta) * outer(x.k, x.p)
    S = einsum("bnij,bnjv->bniv", transition, s.S) + per_head(x.beta) * outer(x.k, x.v)
    return {"o": read(x.q - 0.02 * x.k, S) / x.k.shape[-1] ** 0.5}, {"S": S}


@step
def gsa(x, p, s):
    g = x.g.exp()
    A = g[..., None, :] * s.A + outer(x.k, x.s)
    B = g[..., :, None] * s.B + outer(x.s, x.v)
    return {"o": read((read(x.q, A) / x.q.shape[-1] ** 0.5).softmax(-1), B)}, {"A": A, "B": B}


@step
def mlstm(x, p, s):
    keep = F.logsigmoid(x.f) + s.m
    m = torch.maximum(x.i, keep)
    f, i = (keep - m).exp(), (x.i - m).exp()
    C = per_head(f) * s.C + per_head(i) * outer(x.k, x.v)
    n = f[..., None] * s.n + i[..., None] * x.k
    q = x.q / x.q.shape[-1] ** 0.5
    h = read(q, C) / torch.maximum((q * n).sum(-1).abs(), (-m).exp())[..., None]
    return {"h": h}, {"C": C, "n": n, "m": m}


@step
def srwm(x, p, s):
    I = x.x.shape[-1]
    V = s.W.shape[-2] - 2 * I - 1
    y, k, q, b = einsum("bnoi,bni->bno", s.W, x.x.softmax(-1)).split([V, I, I, 1], -1)
    k, q = k.softmax(-1), q.softmax(-1)
    error = einsum("bnoi,bni->bno", s.W, q - k)
    return {"y": y}, {"W": s.W + per_head(b[..., 0].sigmoid()) * outer(error, k)}


@step
def aaren(x, p, s):
    score = (p.q * x.k).sum(-1) / x.k.shape[-1] ** 0.5
    m = torch.maximum(s.m, score)
    old, new = (s.m - m).exp(), (score - m).exp()
    u, w = old * s.u + new, old[..., None] * s.w + new[..., None] * x.v
    return {"o": w / u[..., None]}, {"m": m, "u": u, "w": w}
