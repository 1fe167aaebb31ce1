"""Oracles of state spaces and of cells with complex states, in torch's complex arithmetic."""

from __future__ import annotations

import torch
from oracles import lin, outer, step
from torch import einsum


@step
def lru(x, p, s):
    lam = torch.polar(torch.exp(-p.nu.exp()), p.theta.exp())
    h = lam * s.h + p.gamma.exp() * einsum("hi,bi->bh", p.B, x.x.to(p.B.dtype))
    return {"y": einsum("ih,bh->bi", p.C, h).real + p.skip * x.x}, {"h": h}


@step
def gateloop(x, p, s):
    S = torch.polar(x.r.sigmoid(), x.phi)[..., None] * s.S + outer(x.k, x.v)
    return {"o": einsum("bnk,bnkv->bnv", x.q, S.real)}, {"S": S}


@step
def s4d(x, p, s):
    A = torch.complex(-p.log_decay.exp(), p.frequency)
    dA = p.log_dt.exp()[:, None] * A
    h = dA.exp() * s.h + (dA.exp() - 1) / A * x.x[..., None]
    return {"y": 2 * (p.C * h).sum(-1).real + p.skip * x.x}, {"h": h}


@step
def lssl(x, p, s):
    """Per channel: (I - dt/2 A) h = (I + dt/2 A) h' + dt B x."""
    eye, half = torch.eye(p.A.shape[-1], dtype=p.A.dtype), p.log_dt.exp()[:, None, None] / 2
    right = einsum("dij,bdj->bdi", eye + half * p.A, s.h) + 2 * half[..., 0] * p.B * x.x[..., None]
    h = torch.linalg.solve(eye - half * p.A, right[..., None])[..., 0]
    return {"y": einsum("dmn,bdn->bdm", p.C, h) + p.skip * x.x[..., None]}, {"h": h}


@step
def s4(x, p, s):
    """Per channel, with the whole matrix: (I - dt/2 A) h = (I + dt/2 A) h' + dt B x, A = diag(Lambda) - P P^*."""
    A = torch.diag_embed(p.A) - outer(p.P, p.P.conj())
    eye, half = torch.eye(A.shape[-1], dtype=A.dtype), p.log_dt.exp()[:, None, None] / 2
    right = einsum("dij,bdj->bdi", eye + half * A, s.h) + 2 * half[..., 0] * p.B * x.x[..., None]
    h = torch.linalg.solve(eye - half * A, right[..., None])[..., 0]
    return {"y": einsum("dn,bdn->bd", p.C, h).real + p.skip * x.x}, {"h": h}


def legendre_window(N, window, dtype):
    """Zero-order hold of the window's state space, by the exponential of the matrix with the input as a state."""
    A = torch.zeros(N + 1, N + 1, dtype=dtype)
    for i in range(N):
        for j in range(N):
            A[i, j] = (2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1))
        A[i, N] = (2 * i + 1) * (-1) ** i
    E = torch.linalg.matrix_exp(A / window)
    return E[:N, :N], E[:N, N]


@step
def hippo_legt(x, p, s):
    a, b = legendre_window(s.c.shape[-1], 30, s.c.dtype)
    c = einsum("ij,bj->bi", a, s.c) + x.u[:, None] * b
    return {"c": c}, {"c": c}


@step
def lmu(x, p, s):
    a, b = legendre_window(s.m.shape[-1], 30, s.m.dtype)
    u = (x.x * p.ex).sum(-1) + (s.h * p.eh).sum(-1) + (s.m * p.em).sum(-1)
    m = einsum("ij,bj->bi", a, s.m) + u[:, None] * b
    h = (lin(p.Wx, x.x) + lin(p.Wh, s.h) + lin(p.Wm, m)).tanh()
    return {"h": h}, {"h": h, "m": m}


@step
def mamba_complex(x, p, s):
    A = torch.complex(-p.A_log.exp(), p.A_imag)
    h = (x.dt[..., None] * A).exp() * s.h + outer((x.dt * x.x).to(x.B.dtype), x.B)
    return {"y": 2 * einsum("bdn,bn->bd", h, x.C).real + p.skip * x.x}, {"h": h}


@step
def linear_rnn(x, p, s):
    h = s.h @ p.A.T + x.x @ p.B.T
    return {"y": h @ p.C.T}, {"h": h}
