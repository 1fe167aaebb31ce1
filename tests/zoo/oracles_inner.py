"""Oracles of cells that learn inside the step: their gradients by torch.func.grad, differentiable again."""

from __future__ import annotations

import torch
from oracles import per_head, read, step
from torch import einsum
from torch.func import grad
from torch.nn import functional as F


@step
def titans(x, p, s):
    def memory(A, B, k):
        return einsum("bnvm,bnm->bnv", B, F.silu(einsum("bnmk,bnk->bnm", A, k)))

    dA, dB = grad(lambda A, B: (memory(A, B, x.k) - x.v).square().sum(), (0, 1))(s.A, s.B)
    alpha, eta, theta = per_head(x.alpha), per_head(x.eta), per_head(x.theta)
    P, Q = eta * s.P - theta * dA, eta * s.Q - theta * dB
    A, B = (1 - alpha) * s.A + P, (1 - alpha) * s.B + Q
    return {"o": memory(A, B, x.q)}, {"A": A, "B": B, "P": P, "Q": Q}


@step
def titans_linear(x, p, s):
    P = per_head(x.eta) * s.P - per_head(x.theta) * grad(lambda S: (read(x.k, S) - x.v).square().sum())(s.S)
    S = (1 - per_head(x.alpha)) * s.S + P
    return {"o": read(x.q, S)}, {"S": S, "P": P}


@step
def ttt_linear(x, p, s):
    def model(W, b, x):
        y = einsum("bnij,bnj->bni", W, x) + b
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + 1e-3).sqrt()
        return x + p.gain * y + p.bias

    dW, db = grad(lambda W, b: (model(W, b, x.k) - x.v).square().sum(), (0, 1))(s.W, s.b)
    W, b = s.W - per_head(x.eta) * dW, s.b - x.eta[..., None] * db
    return {"o": model(W, b, x.q)}, {"W": W, "b": b}


@step
def yaad(x, p, s):
    def loss(S):
        e, d = (read(x.k, S) - x.v).abs(), x.delta[..., None]
        return torch.where(e <= d, 0.5 * e ** 2, d * (e - 0.5 * d)).sum()

    S = per_head(x.alpha) * s.S - per_head(x.eta) * grad(loss)(s.S)
    return {"o": read(x.q, S)}, {"S": S}


@step
def moneta(x, p, s):
    """p = 3, r = 4"""
    def normalised(A):
        return A / (A.pow(4).sum((-2, -1), keepdim=True) + 1e-3).sqrt()

    d = grad(lambda W: (read(x.k, W) - x.v).abs().pow(3).sum())(normalised(s.A))
    A = per_head(x.alpha) * s.A - per_head(x.eta) * d
    return {"o": read(x.q, normalised(A))}, {"A": A}


@step
def mesa(x, p, s):
    g, beta = per_head(x.g.exp()), x.beta[..., None]
    H = g * s.H + einsum("bni,bnj->bnij", beta * x.k, x.k)
    G = g * s.G + einsum("bni,bnj->bnij", beta * x.k, x.v)
    q = torch.linalg.solve(H + torch.diag_embed(p.ridge), x.q[..., None])[..., 0]
    return {"o": read(q, G)}, {"H": H, "G": G}
