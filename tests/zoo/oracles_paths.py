"""Oracles of filters over discrete and Gaussian states."""

from __future__ import annotations

import math

import torch
from oracles import step
from torch import einsum


def first(s, start, later):
    """The first step of each sequence, and the others."""
    return torch.where((s.t == 0)[:, None], start, later)


@step
def hmm(x, p, s):
    paths = s.a[:, :, None] + p.A.log_softmax(-1)
    a = first(s, p.p.log_softmax(-1), paths.logsumexp(1)) + x.e
    return {"a": a, "loglik": a.logsumexp(-1)}, {"a": a, "t": s.t + 1}


@step
def crf(x, p, s):
    a = first(s, p.first, (s.a[:, :, None] + p.A).logsumexp(1)) + x.e
    return {"logz": (a + p.last).logsumexp(-1)}, {"a": a, "t": s.t + 1}


@step
def viterbi(x, p, s):
    best, back = (s.d[:, :, None] + p.A.log_softmax(-1)).max(1)
    d = first(s, p.p.log_softmax(-1), best) + x.e
    return {"d": d, "back": back}, {"d": d, "t": s.t + 1}


@step
def kalman(x, p, s):
    mean, F, H = einsum("bij,bj->bi", x.F, s.x), x.F, x.H
    P = F @ s.P @ F.mT + x.Q
    S = H @ P @ H.mT + x.R
    e = x.z - einsum("bij,bj->bi", H, mean)
    gain = (torch.linalg.inv(S) @ H @ P).mT         # for symmetric P and S; their gradients tell the forms apart
    new = mean + einsum("bij,bj->bi", gain, e)
    normal = -0.5 * (einsum("bi,bij,bj->b", e, torch.linalg.inv(S), e) + torch.linalg.slogdet(S)[1]
                     + e.shape[-1] * math.log(2 * math.pi))
    return {"x": new, "loglik": normal}, {"x": new, "P": P - gain @ H @ P}
