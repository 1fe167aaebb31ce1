"""What sequences of uneven lengths cost: forward and backward with `reset`, `lengths` and `cu_seqlens`, over the same
steps in one piece."""

from __future__ import annotations

import ostinato
import torch

from .data import inputs
from .measure import ratios, side_by_side, summary
from .workloads import ZOO

SHAPES = (("lstm", 16, 512, {"I": 256, "H": 256}), ("mingru_gates", 8, 1024, {"D": 512}),
          ("gla", 2, 1024, {"K": 64, "V": 64, "N": 4}), ("gated_deltanet", 2, 1024, {"K": 64, "V": 64, "N": 4}))
DENSITY = 0.03              # of restarts


def segment_rows(quick: bool, budget: float) -> list[dict[str, object]]:
    """Per cell: ms in one piece, and how many times as long with 3 % restarts, with lengths from T/2 to T (of all T
    steps), packed in sequences of one length, and packed in sequences of random lengths, 1 / DENSITY on average."""
    rows = []
    for cell, B, T, dims in SHAPES[:1] if quick else SHAPES:
        layer = ostinato.compile(str(ZOO / f"{cell}.ost"), **dims)
        xs = {k: x.requires_grad_(x.is_floating_point()) for k, x in inputs(layer.cell, B, T).items()}
        packed = {k: x.detach().reshape(1, B * T, *x.shape[2:]).requires_grad_(x.requires_grad) for k, x in xs.items()}
        g = torch.Generator().manual_seed(0)
        reset = torch.rand(B, T, generator=g) < DENSITY
        cuts = torch.rand(B * T + 1, generator=g) < DENSITY
        cuts[0] = cuts[-1] = True
        calls = {
            "one piece": _both(layer, xs), "reset": _both(layer, xs, reset=reset),
            "lengths": _both(layer, xs, lengths=torch.randint(T // 2, T + 1, (B,), generator=g)),
            "packed, one length": _both(layer, packed, cu_seqlens=torch.arange(0, B * T + 1, T)),
            "packed, random": _both(layer, packed, cu_seqlens=cuts.nonzero()[:, 0])}
        whole, *found = side_by_side([(call, 1.0) for call in calls.values()], budget)
        rows.append({"cell": cell, "B": B, "T": T, "dims": dims, "schedule": layer._plan.schedule, "ms": summary(whole),
                     "ratio": {k: ratios(t, whole) for k, t in zip(list(calls)[1:], found)}})
    return rows


def _both(layer, xs: dict[str, torch.Tensor], **how: torch.Tensor):
    wanted = [*(x for x in xs.values() if x.requires_grad), *layer.parameters()]
    d = torch.randn_like(layer(**xs, **how)[0])

    def call():
        y, _ = layer(**xs, **how)
        return torch.autograd.grad(y, wanted, d)

    return call
