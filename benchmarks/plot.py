"""Bars: how many times as long as ours each peer takes."""

from __future__ import annotations

from pathlib import Path


def plot(rows: list[dict], path: Path) -> None:
    """One panel for forward, one for forward and backward; a logarithmic axis, 1 = our time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [r["workload"] for r in rows]
    who = sorted({peer for r in rows for peer in r["times"] if peer != "ostinato"})
    figure, panels = plt.subplots(1, 2, figsize=(14, 1.5 + 0.32 * len(rows)), sharey=True)
    for panel, kind in zip(panels, ("forward", "both")):
        for i, peer in enumerate(who):
            at = [(y + 0.8 * (i + 0.5) / len(who) - 0.4, r["ratio"][kind][peer]) for y, r in enumerate(rows)
                  if peer in r["ratio"][kind]]
            panel.barh([y for y, _ in at], [v for _, v in at], 0.8 / len(who), label=peer, color=f"C{i}")
        panel.axvline(1, color="black", linewidth=1)
        panel.set(xscale="log", xlabel="time relative to ostinato",
                  title="forward" if kind == "forward" else "forward and backward")
    panels[0].set_yticks(range(len(names)), names, fontsize=7)
    panels[0].invert_yaxis()
    panels[1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
