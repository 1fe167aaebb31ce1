"""The plots: bars of ratios, and how times grow with T and B."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 (the back end is chosen first)

KINDS = {"forward": "forward", "both": "forward and backward"}


def plot_ratios(rows: list[dict], path: Path) -> None:
    """One panel for forward, one for forward and backward; a logarithmic axis, 1 = our time."""
    if not rows:
        return
    who = sorted({peer for r in rows for kind in KINDS for peer in r["ratio"][kind]})
    figure, panels = plt.subplots(1, 2, figsize=(14, 1.5 + 0.32 * len(rows)), sharey=True)
    for panel, (kind, title) in zip(panels, KINDS.items()):
        for i, peer in enumerate(who):
            at = [(y + 0.8 * (i + 0.5) / len(who) - 0.4, r["ratio"][kind][peer]) for y, r in enumerate(rows)
                  if peer in r["ratio"][kind]]
            ends = [[v["median"] - v["p10"] for _, v in at], [v["p90"] - v["median"] for _, v in at]]
            panel.barh([y for y, _ in at], [v["median"] for _, v in at], 0.8 / len(who), label=peer, color=f"C{i}",
                       xerr=ends, error_kw={"elinewidth": 0.6})
        panel.axvline(1, color="black", linewidth=1)
        panel.set(xscale="log", xlabel="time relative to ostinato", title=title)
    panels[0].set_yticks(range(len(rows)), [r["workload"] for r in rows], fontsize=7)
    panels[0].invert_yaxis()
    panels[0].legend(*panels[0].get_legend_handles_labels(), fontsize=8)
    save(figure, path)


def plot_growth(rows: list[dict], path: Path) -> None:
    """Per cell and axis (T at the smallest B, B at one T): time over T or B, relative to ours at the left end."""
    if not rows:
        return
    cells = list(dict.fromkeys(r["cell"] for r in rows))
    figure, panels = plt.subplots(len(cells), 4, figsize=(18, 4 * len(cells)), squeeze=False)
    for line, cell in zip(panels, cells):
        own = [r for r in rows if r["cell"] == cell]
        least = min(r["B"] for r in own)
        widest = [r["T"] for r in own if r["B"] != least]
        series = {"T": [r for r in own if r["B"] == least], "B": [r for r in own if r["T"] in widest]}
        for panel, (axis, kind) in zip(line, [(a, k) for a in series for k in KINDS]):
            some = sorted(series[axis], key=lambda r: r[axis])
            if not some:
                continue
            unit = some[0]["times"]["ostinato"][kind]["median"]
            for who in dict.fromkeys(name for r in some for name in r["times"]):
                at = [(r[axis], r["times"][who][kind]["median"] / unit) for r in some
                      if kind in r["times"].get(who, {})]
                panel.plot([x for x, _ in at], [y for _, y in at], marker="o", label=who)
            floor = [max(r["floor"][kind]["products_ms"], r["floor"][kind]["bytes_ms"]) / unit for r in some]
            panel.plot([r[axis] for r in some], floor, "k--", label="floor")
            fixed = f"B = {least}" if axis == "T" else f"T = {some[0]['T']}"
            panel.set(xscale="log", yscale="log", xlabel=axis, title=f"{cell}, {KINDS[kind]}, {fixed}",
                      ylabel=f"time, ours at {axis} = {some[0][axis]} is 1")
    for line in panels:
        line[0].legend(fontsize=8)
    save(figure, path)


def save(figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
