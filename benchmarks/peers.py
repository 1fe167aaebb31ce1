"""Peers in torch: its modules, the loop (eager, as TorchScript, compiled), its scan, chunks of linear attention.

Each maker takes a `Case` and gives a `Variant` on the same numbers; what cannot run raises.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as NS

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Case, Variant, torch_variant
from .cells import PEERS
from .chunkwise import FORMS
from .floors import floor_bytes
from .script import scripted

Run = Callable[[dict[str, Tensor]], tuple[Tensor, ...]]
MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}
OURS = {"weight_ih_l0": "W", "weight_hh_l0": "R", "bias_ih_l0": "b", "bias_hh_l0": "br"}
TORCH = NS(tanh=torch.tanh, sigmoid=torch.sigmoid, cos=torch.cos, sin=torch.sin, relu=torch.relu, exp=torch.exp,
           maximum=torch.maximum, sqrt=torch.sqrt, expm1=torch.expm1, log_sigmoid=F.logsigmoid,
           split=lambda x, n: x.chunk(n, -1), layer_norm=lambda x: F.layer_norm(x, x.shape[-1:]))


def torch_nn(case: Case) -> Variant:
    """torch.nn.LSTM, GRU or RNN with our weights."""
    H, I = case.params["R"].shape[1], case.params["W"].shape[1]
    module = MODULES[case.name](I, H, batch_first=True)
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(case.params.get(OURS[name], torch.zeros(())))
    return torch_variant("torch.nn", case, lambda xs: (module(xs["x"])[0],),
                         {OURS[name]: p for name, p in module.named_parameters()})


def start(case: Case) -> tuple[Tensor, ...]:
    """The peer's states before the first step."""
    states = case.layer.initial_state(case.shape[0])
    return tuple(states[k].detach() for k in PEERS[case.name].states)


def loop(case: Case) -> Run:
    peer, params, first = PEERS[case.name], NS(**case.params), start(case)

    def run(xs):
        rows = zip(*(a.unbind(1) for a in peer.before(TORCH, NS(**xs), params)))
        state, ys = first, []
        for row in rows:
            state, y = peer.step(TORCH, row, params, state)
            ys.append(y)
        return (torch.stack(ys, 1),)

    return run


def eager(case: Case, longest: int = 64) -> Variant:
    return torch_variant("eager loop", case, loop(case), case.params, longest)


def torchscript(case: Case, longest: int = 64) -> Variant:
    """The loop as torch.jit.script compiles it, around the traced step."""
    peer, params, first = PEERS[case.name], case.params, start(case)
    rows = peer.before(TORCH, NS(**case.inputs), NS(**params))
    run_all = scripted(lambda row, ps, state: peer.step(TORCH, row, NS(**dict(zip(params, ps))), tuple(state)),
                       [a[:, 0] for a in rows], list(params.values()), list(first))

    def run(xs):
        return (run_all(list(peer.before(TORCH, NS(**xs), NS(**params))), list(params.values()), list(first)),)

    return torch_variant("TorchScript", case, run, params, longest)


def torch_compile(case: Case, longest: int = 64) -> Variant:
    """The loop unrolled by torch.compile, which takes about half a second per step to compile."""
    return torch_variant("torch.compile", case, torch.compile(loop(case)), case.params, longest)


def torch_associative(case: Case) -> Variant:
    """torch's higher-order associative_scan, of cells h = a h' + b that start from 0."""
    from torch._higher_order_ops import associative_scan

    peer, params = PEERS[case.name], NS(**case.params)

    def combine(left, right):
        return right[0] * left[0], right[0] * left[1] + right[1]

    def run(xs):
        rows = peer.before(TORCH, NS(**xs), params)
        return (associative_scan(combine, rows, 1, combine_mode="generic")[1],)     # "pointwise" is for GPUs

    return torch_variant("torch associative_scan", case, run, case.params)


def chunkwise(case: Case, longest: int | None = None) -> Variant:
    return torch_variant("torch chunkwise", case, lambda xs: (FORMS[case.name](NS(**xs)),), case.params, longest)


def chunkwise_short(case: Case) -> Variant:
    """Where the whole takes seconds; its time is linear in T."""
    return chunkwise(case, longest=128)


def torch_add(case: Case) -> Variant:
    """Adding two tensors that move as many bytes as the workload must: the floor as a call."""
    def adder(bytes_: int):
        a, b = torch.randn(bytes_ // 12), torch.randn(bytes_ // 12)
        out = torch.empty_like(a)
        return lambda: torch.add(a, b, out=out)

    return Variant("torch.add", *map(adder, floor_bytes(case.layer.cell, *case.shape)), case.shape[1])
