"""Oracles of layers of two directions: the oracle of one direction over the sequence, and over the sequence turned
around."""

from __future__ import annotations

import torch
from oracles import over_time, whole
from torch import Tensor
from torch.nn import functional as F

Values = dict[str, Tensor]


def ways(name: str, xs: tuple[Values, Values], p: Values, s: Values, parts: tuple[str, str] = ("f", "b")):
    """The steps of `name` on the inputs of each direction: outputs of both in place, and final states by full name."""
    finals: Values = {}
    outputs = []
    for part, x, turn in zip(parts, xs, (False, True)):
        def own(values: Values, part=part) -> Values:
            return {k.removeprefix(f"{part}."): v for k, v in values.items() if k.startswith(f"{part}.")}

        y, end = over_time(name, {k: v.flip(1) if turn else v for k, v in x.items()}, own(p), own(s))
        outputs.append({k: v.flip(1) if turn else v for k, v in y.items()})
        finals |= {f"{part}.{k}": v for k, v in end.items()}
    return *outputs, finals


@whole
def bilstm(x, p, s):
    f, b, end = ways("lstm", (x, x), p, s)
    return {"y": torch.cat([f["h"], b["h"]], -1)}, end


@whole
def vim(x, p, s):
    own = tuple({"x": x["x"], "dt": x[f"d{w}"], "B": x[f"B{w}"], "C": x[f"C{w}"]} for w in "fb")
    f, b, end = ways("mamba", own, p, s)
    return {"y": F.silu(x["z"]) * (f["y"] + b["y"])}, end


@whole
def lion(x, p, s):
    """As the paper has it: each direction counts half of the present step."""
    q, k = F.elu(x["q"]) + 1, F.elu(x["k"]) + 1
    own = {"q": q, "k": k, "v": x["v"], "g": x["g"]}
    f, b, end = ways("simple_gla", (own, own), p, s)
    ones = own | {"v": torch.ones_like(x["v"][..., :1])}
    zf, zb, zend = ways("simple_gla", (ones, ones), p, s, ("zf", "zb"))
    half = (q * k).sum(-1, keepdim=True) / (2 * q.shape[-1] ** 0.5)
    num = (f["o"] - half * x["v"]) + (b["o"] - half * x["v"])
    return {"y": num / ((zf["o"] - half) + (zb["o"] - half))}, end | zend


@whole
def jrt_rnn(x, p, s):
    """As the paper has it: sums over the steps so far, and over the whole prefix. States that are passed count for all
    steps, the encoder's too; the final states of both are sums."""
    q, k, e = (F.elu(x[name]) + 1 for name in ("q", "k", "ke"))
    e = torch.where(x["prefix"][..., None, None], e, 0.0)
    kv, encoded = k[..., None] * x["v"][..., None, :], (e[..., None] * x["ve"][..., None, :]).sum(1)
    S = s["S"][:, None] + s["rest.S"][:, None] + kv.cumsum(1) + encoded[:, None]
    z = s["z"][:, None] + s["rest.z"][:, None] + k.cumsum(1) + e.sum(1)[:, None]
    o = torch.einsum("btnk,btnkv->btnv", q, S) / (q * z).sum(-1, keepdim=True)
    return {"o": o}, {"S": S[:, -1] - s["rest.S"], "z": z[:, -1] - s["rest.z"], "rest.S": s["rest.S"] + encoded,
                      "rest.z": s["rest.z"] + e.sum(1)}
