"""How long each schedule takes as T grows, on the same numbers, and which one `auto` takes."""

from __future__ import annotations

from pathlib import Path

import ostinato
import torch

from .data import inputs
from .measure import side_by_side, summary
from .workloads import ZOO

CELLS = (("simple_gla", {"K": 64, "V": 64, "N": 2}, ("chunk(8)", "chunk(16)", "chunk(64)", "quadratic")),
         ("gated_deltanet", {"K": 64, "V": 64, "N": 2}, ("chunk(8)", "chunk(16)", "chunk(64)", "quadratic")),
         ("gla", {"K": 64, "V": 64, "N": 2}, ("chunk(8)", "chunk(16)", "quadratic")),
         ("gateloop", {"K": 64, "V": 64, "N": 2}, ("chunk(8)", "chunk(16)", "quadratic")),
         ("mingru_gates", {"D": 64}, ("scan(8)", "chunk(64)")))
LENGTHS = (64, 256, 1024, 4096, 16384, 65536)
LONGEST = {"quadratic": 1024, "scan(8)": 65536}          # pairs of steps take memory with the square of T


def schedule_rows(quick: bool, budget: float) -> list[dict[str, object]]:
    """Per cell and T: ms of forward and backward per schedule, auto's choice, and its time over the best."""
    rows = []
    for cell, dims, others in CELLS[:1] if quick else CELLS:
        path = str(ZOO / f"{cell}.ost")
        chosen = ostinato.compile(path, **dims)._plan.schedule
        layers = {s: ostinato.compile(path, schedule=s, **dims) for s in ("sequential", *others)}
        for T in LENGTHS[:3] if quick else LENGTHS:
            xs = inputs(next(iter(layers.values())).cell, 1, T)
            names = [s for s in layers if T <= LONGEST.get(s, LENGTHS[-1])]
            calls = [(_both(layers[s], xs), 1.0) for s in names]
            # Quadratic leaves so much memory to be freed that the calls after it, in the next round, are slower.
            uncounted = calls[:1] * 3 if "quadratic" in names else []
            found = side_by_side([*uncounted, *calls], budget)[len(uncounted):]
            times = {s: summary(t) for s, t in zip(names, found)}
            best = min(t["median"] for t in times.values())
            rows.append({"cell": cell, "dims": dims, "T": T, "times": times, "chosen": chosen,
                         "over_best": times[chosen]["median"] / best})
    return rows


def _both(layer, xs: dict[str, torch.Tensor]):
    leaves = {k: x.clone().requires_grad_() for k, x in xs.items()}
    y, _ = layer(**leaves)
    d = torch.randn_like(y)

    def call():
        y, _ = layer(**leaves)
        return torch.autograd.grad(y, [*leaves.values(), *layer.parameters()], d)

    return call


def plot_schedules(rows: list[dict], path: Path) -> None:
    """A panel per cell: ms over T, both logarithmic; rings mark what auto takes."""
    if not rows:
        return
    from .plot import plt, save

    cells = list(dict.fromkeys(r["cell"] for r in rows))
    figure, panels = plt.subplots(1, len(cells), figsize=(5 * len(cells), 4.5), squeeze=False)
    for panel, cell in zip(panels[0], cells):
        own = [r for r in rows if r["cell"] == cell]
        for name in dict.fromkeys(s for r in own for s in r["times"]):
            at = [(r["T"], r["times"][name]["median"]) for r in own if name in r["times"]]
            panel.plot([t for t, _ in at], [ms for _, ms in at], marker=".", label=name)
        panel.scatter([r["T"] for r in own], [r["times"][r["chosen"]]["median"] for r in own], s=90,
                      facecolors="none", edgecolors="black", label="auto takes")
        panel.set(xscale="log", yscale="log", xlabel="T", ylabel="ms, forward and backward", title=cell)
        panel.legend(fontsize=8)
    save(figure, path)
