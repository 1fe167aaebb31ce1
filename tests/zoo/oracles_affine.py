"""Oracles of further cells that are affine in their state."""

from __future__ import annotations

import torch
from oracles import lin, outer, per_head, read, step
from torch import einsum
from torch.nn import functional as F


@step
def fast_weights(x, p, s):
    q, k = ((F.elu(a) + 1) / (F.elu(a) + 1).sum(-1, keepdim=True) for a in (x.q, x.k))
    W = s.W + per_head(x.beta) * outer(k, x.v - read(k, s.W))
    return {"y": read(q, W)}, {"W": W}


@step
def rwkv5(x, p, s):
    kv = outer(x.k, x.v)
    return {"o": read(x.r, s.S + p.u[..., None] * kv)}, {"S": (-p.w.exp()).exp()[..., None] * s.S + kv}


@step
def mamba(x, p, s):
    h = (-x.dt[..., None] * p.A_log.exp()).exp() * s.h + outer(x.dt * x.x, x.B)
    return {"y": einsum("bdn,bn->bd", h, x.C) + p.skip * x.x}, {"h": h}


@step
def mamba2(x, p, s):
    dt = F.softplus(x.dt + p.dt_bias)
    S = per_head((-p.A_log.exp() * dt).exp()) * s.S + einsum("bk,bn,bnv->bnkv", x.B, dt, x.x)
    return {"y": einsum("bk,bnkv->bnv", x.C, S) + p.skip[:, None] * x.x}, {"S": S}


@step
def lightnet(x, p, s):
    z = torch.logaddexp(s.z, x.k)
    S = (s.z - z).exp()[..., None] * s.S + outer((x.k - z).exp(), x.v)
    return {"o": read(x.q, S)}, {"z": z, "S": S}


@step
def block_lrnn(x, p, s):
    L = einsum("nijd,bd->bnij", p.A, x.x)
    L = L / L.abs().sum(-2, keepdim=True).clamp(min=1)
    h = einsum("bnij,bnj->bni", L, s.h) + lin(p.B, x.x)
    return {"h": h}, {"h": h}


@step
def linear_cde(x, p, s):
    h = einsum("bd,dij,bj->bi", x.x, p.A, s.h) + lin(p.B, x.x)
    return {"h": h}, {"h": h}


@step
def abc(x, p, s):
    z = torch.logaddexp(s.z, x.s)
    keep, new = (s.z - z).exp(), (x.s - z).exp()
    A = keep[..., None, :] * s.A + outer(x.k, new)
    B = keep[..., :, None] * s.B + outer(new, x.v)
    return {"o": read((read(x.q, A) / x.q.shape[-1] ** 0.5).softmax(-1), B)}, {"z": z, "A": A, "B": B}
