"""Oracles of the cells with a dense (or block-diagonal) nonlinear recurrence."""

from __future__ import annotations

import torch
from oracles import STEPS, lin, step
from torch.nn import functional as F


@step
def elman(x, p, s):
    h = torch.tanh(lin(p.W, x.x) + lin(p.R, s.h) + p.b)
    return {"h": h}, {"h": h}


@step
def elman_relu(x, p, s):
    h = torch.relu(lin(p.W, x.x) + lin(p.R, s.h) + p.b)
    return {"h": h}, {"h": h}


STEPS["elman_heads"] = elman


@step
def lstm(x, p, s):
    i, f, g, o = (lin(p.W, x.x) + lin(p.R, s.h) + p.b).chunk(4, -1)
    c = f.sigmoid() * s.c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return {"h": h}, {"h": h, "c": c}


STEPS["lstm_heads"] = lstm


@step
def lstm_peephole(x, p, s):
    i, f, g, o = (lin(p.W, x.x) + lin(p.R, s.h) + p.b).chunk(4, -1)
    i, f = (i + p.wi * s.c).sigmoid(), (f + p.wf * s.c).sigmoid()
    c = f * s.c + i * g.tanh()
    h = (o + p.wo * c).sigmoid() * c.tanh()
    return {"h": h}, {"h": h, "c": c}


@step
def lstm_projection(x, p, s):
    y, new = lstm_peephole(x, p, s)
    h = lin(p.Wp, y["h"])
    return {"h": h}, {"h": h, "c": new["c"]}


@step
def lstm_cifg(x, p, s):
    f, g, o = (lin(p.W, x.x) + lin(p.R, s.h) + p.b).chunk(3, -1)
    c = f.sigmoid() * s.c + (-f).sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return {"h": h}, {"h": h, "c": c}


@step
def lstm_cifg_peephole(x, p, s):
    f, g, o = (lin(p.W, x.x) + lin(p.R, s.h) + p.b).chunk(3, -1)
    f = (f + p.wf * s.c).sigmoid()
    c = f * s.c + (1 - f) * g.tanh()
    h = (o + p.wo * c).sigmoid() * c.tanh()
    return {"h": h}, {"h": h, "c": c}


@step
def lstm_layernorm(x, p, s):
    a = F.layer_norm(lin(p.W, x.x), p.wx.shape, p.wx) + F.layer_norm(lin(p.R, s.h), p.wh.shape, p.wh) + p.b
    i, f, g, o = a.chunk(4, -1)
    c = f.sigmoid() * s.c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * F.layer_norm(c, p.wc.shape, p.wc, p.bc).tanh()
    return {"h": h}, {"h": h, "c": c}


@step
def gru(x, p, s):
    xr, xz, xn = (lin(p.W, x.x) + p.b).chunk(3, -1)
    hr, hz, hn = (lin(p.R, s.h) + p.br).chunk(3, -1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    h = torch.lerp((xn + r * hn).tanh(), s.h, z)
    return {"h": h}, {"h": h}


STEPS["gru_heads"] = gru


@step
def ligru(x, p, s):
    z, n = (lin(p.W, x.x) + lin(p.R, s.h) + p.b).chunk(2, -1)
    h = torch.lerp(n.relu(), s.h, z.sigmoid())
    return {"h": h}, {"h": h}


@step
def slstm(x, p, s):
    i, f, z, o = (lin(p.W, x.x) + lin(p.R, s.h) + p.b).chunk(4, -1)
    keep = F.logsigmoid(f) + s.m
    m = torch.maximum(i, keep)
    c = (keep - m).exp() * s.c + (i - m).exp() * z.tanh()
    n = (keep - m).exp() * s.n + (i - m).exp()
    h = o.sigmoid() * (c / n)
    return {"h": h}, {"h": h, "c": c, "n": n, "m": m}


@step
def lem(x, p, s):
    H = s.y.shape[-1]
    V1, V2, Vz, Vy = p.V.split(H)
    b1, b2, bz, by = p.b.split(H)
    W1, W2, Wz = p.W.split(H)
    d = (lin(W1, s.y) + lin(V1, x.x) + b1).sigmoid()
    d_bar = (lin(W2, s.y) + lin(V2, x.x) + b2).sigmoid()
    z = s.z + d * ((lin(Wz, s.y) + lin(Vz, x.x) + bz).tanh() - s.z)
    y = s.y + d_bar * ((lin(p.Wy, z) + lin(Vy, x.x) + by).tanh() - s.y)
    return {"y": y}, {"y": y, "z": z}


@step
def ltc(x, p, s):
    h, dt = s.h, 1 / 6
    for _ in range(6):
        f = (lin(p.W, x.x) + lin(p.R, h) + p.b).sigmoid()
        h = (h + dt * f * p.A) / (1 + dt * (1 / p.log_tau.exp() + f))
    return {"h": h}, {"h": h}
