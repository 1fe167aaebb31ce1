"""Oracles of the cells that are element-wise in the state, and of the small filters."""

from __future__ import annotations

from types import SimpleNamespace as NS

import torch
from oracles import lin, outer, step
from torch import einsum
from torch.nn import functional as F


@step
def paragru(x, p, s):
    xz, xr, xh = (lin(p.W, x.x) + p.b).chunk(3, -1)
    z, r = (p.az * s.h + xz).sigmoid(), (p.ar * s.h + xr).sigmoid()
    h = (1 - z) * s.h + z * (p.ah * s.h * r + xh).tanh()
    return {"h": h}, {"h": h}


@step
def paralstm(x, p, s):
    xf, xc, xo = (lin(p.W, x.x) + p.b).chunk(3, -1)
    f = (p.af * s.h + p.cf * s.c + xf).sigmoid()
    c = f * s.c + (1 - f) * (p.ac * s.h + xc).tanh()
    h = (p.ao * s.h + p.co * c + xo).sigmoid() * c.tanh()
    return {"h": h}, {"h": h, "c": c}


@step
def indrnn(x, p, s):
    h = (lin(p.W, x.x) + p.u * s.h + p.b).relu()
    return {"h": h}, {"h": h}


class Spike(torch.autograd.Function):
    """Heaviside step with the fast sigmoid's derivative, slope 25."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, g):
        (v,) = ctx.saved_tensors
        return g / (1 + 25 * v.abs()) ** 2


@step
def lif(x, p, s):
    v = 0.9 * s.v + x.x - s.s.detach()
    spike = Spike.apply(v - 1.0)
    return {"s": spike, "v": v}, {"v": v, "s": spike}


@step
def ema(x, p, s):
    y = s.y + p.alpha * (x.x - s.y)
    return {"y": y}, {"y": y}


@step
def iir(x, p, s):
    x1, x2, y1, y2 = (getattr(s, k) for k in ("x@1", "x@2", "y", "y@1"))
    y = p.b[0] * x.x + p.b[1] * x1 + p.b[2] * x2 - p.a[0] * y1 - p.a[1] * y2
    return {"y": y}, {"y": y, "y@1": y1, "x@1": x.x, "x@2": x1}


@step
def rglru(x, p, s):
    r, i = (lin(p.W, x.x) + p.b).sigmoid().chunk(2, -1)
    return rglru_gates(NS(x=x.x, r=r, i=i), p, s)


@step
def rglru_gates(x, p, s):
    a = getattr(p, "lambda").sigmoid() ** (8 * x.r)
    h = a * s.h + (1 - a**2).sqrt() * (x.i * x.x)
    return {"h": h}, {"h": h}


def positive(x):
    return torch.where(x >= 0, x + 0.5, x.sigmoid())


@step
def mingru(x, p, s):
    z, n = (lin(p.W, x.x) + p.b).chunk(2, -1)
    return mingru_gates(NS(z=z, n=positive(n)), p, s)


@step
def mingru_gates(x, p, s):
    h = torch.lerp(s.h, x.n, x.z.sigmoid())
    return {"h": h}, {"h": h}


@step
def minlstm(x, p, s):
    f, i, n = (lin(p.W, x.x) + p.b).chunk(3, -1)
    f, i = f.sigmoid(), i.sigmoid()
    h = (f * s.h + i * positive(n)) / (f + i)
    return {"h": h}, {"h": h}


@step
def hgrn(x, p, s):
    f, i = (lin(p.W, x.x) + p.b).chunk(2, -1)
    return hgrn_gates(NS(f=0.1 + 0.9 * f.sigmoid(), i=F.silu(i)), p, s)


@step
def hgrn_gates(x, p, s):
    h = torch.lerp(x.i, s.h, x.f)
    return {"h": h}, {"h": h}


@step
def qrnn(x, p, s):
    x1 = getattr(s, "x@1")
    z, f, o = (lin(p.W, x.x) + lin(p.W1, x1) + p.b).chunk(3, -1)
    c = f.sigmoid() * s.c + (1 - f.sigmoid()) * z.tanh()
    return {"h": o.sigmoid() * c}, {"c": c, "x@1": x.x}


@step
def sru(x, p, s):
    u, f, r = lin(p.W, x.x).chunk(3, -1)
    f, r = (f + p.vf * s.c + p.bf).sigmoid(), (r + p.vr * s.c + p.br).sigmoid()
    c = f * s.c + (1 - f) * u
    return {"h": r * c + (1 - r) * x.x}, {"c": c}


@step
def rwkv4(x, p, s):
    q = torch.maximum(s.m, p.u + x.k)
    e1, e2 = (s.m - q).exp(), (p.u + x.k - q).exp()
    o = (e1 * s.a + e2 * x.v) / (e1 * s.b + e2)
    m = torch.maximum(s.m - p.w, x.k)
    e1, e2 = (s.m - p.w - m).exp(), (x.k - m).exp()
    return {"o": o}, {"a": e1 * s.a + e2 * x.v, "b": e1 * s.b + e2, "m": m}


@step
def mega_ema(x, p, s):
    h = p.alpha * p.b * x.x[..., None] + (1 - p.alpha * p.delta) * s.h
    return {"y": (p.eta * h).sum(-1)}, {"h": h}


@step
def garch(x, p, s):
    x1, first = getattr(s, "x@1"), s.t == 0
    v = torch.where(first, s.v, p.omega + p.alpha * x1**2 + p.beta * s.v)
    loglik = torch.distributions.Normal(torch.zeros_like(v), v.sqrt()).log_prob(x.x)
    return {"v": v, "loglik": loglik}, {"v": v, "x@1": x.x, "t": s.t + 1}


@step
def legs(x, p, s):
    D = s.c.shape[-1]
    n = torch.arange(D, dtype=s.c.dtype)
    root = (2 * n + 1).sqrt()
    A = torch.tril(outer(root, root), -1) + torch.diag(n + 1)
    d = (1 / (s.t + 1).to(s.c.dtype))[:, None, None]
    eye = torch.eye(D, dtype=s.c.dtype)
    right = einsum("bij,bj->bi", eye - d / 2 * A, s.c) + d[:, 0] * x.u[:, None] * root
    c = torch.linalg.solve(eye + d / 2 * A, right)
    return {"c": c}, {"c": c, "t": s.t + 1}
