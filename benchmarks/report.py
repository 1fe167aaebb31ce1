"""Runs the chosen workloads, writes their JSON and the plot, prints the tables."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from . import peers
from .check import Disagreement, check
from .floors import floor_bytes, product_flops
from .latency import latency_rows
from .measure import geometric_mean, machine, product, side_by_side
from .memory import memory_rows
from .plot import plot
from .step_mode import step_rows
from .workloads import WORKLOADS, ZOO, Workload

console = Console()
KINDS = ("forward", "both")
LABELS = {"forward": "forward", "both": "fwd+bwd"}


def run(chosen: set[str], *, quick: bool, threads: int, budget: float, torch_compile: bool, jax: bool,
        out: Path) -> None:
    """Everything in `chosen` (groups or cells); JSON per group in `out`."""
    torch.set_num_threads(threads)
    here = machine(threads)
    console.print(f"{here['cpu']}, {threads} thread(s): products {here['gemm_gflops']:.0f} GFLOP/s, "
                  f"copies {here['copy_gbytes_per_s']:.1f} GB/s")
    has_jax = jax and importlib.util.find_spec("jax")
    left_out = set() if has_jax else {peers.jax_scan, peers.jax_short, peers.jax_associative}
    if left_out and jax:
        console.print("jax is not installed: its rows are left out (make bench installs it)")
    rows: dict[str, list[dict]] = {}
    for w in WORKLOADS:
        if not {w.group, w.cell} & chosen or quick and not w.quick:
            continue
        makers = [p for p in w.peers if p not in left_out]
        if torch_compile and peers.eager in makers:
            makers.append(peers.torch_compile)
        try:
            row = measure(w, makers, here, budget)
        except Disagreement as e:
            console.print(f"[bold red]not timed[/] {e}")
            continue
        rows.setdefault(w.group, []).append(row)
        show(row)
        write(out, w.group, here, rows[w.group])
    if rows:
        groups = [out / f"{name}.json" for name in dict.fromkeys(w.group for w in WORKLOADS)]
        plot([r for f in groups if f.exists() for r in json.loads(f.read_text())["rows"]], out / "cpu.png")
        summarise(rows)
    if "step" in chosen:
        names = ["lstm", "gru", "lem"] if quick else sorted(p.stem for p in ZOO.glob("*.ost"))
        steps = step_rows(names, budget / 4)
        write(out, "step", here, steps)
        show_steps(steps)
    if "memory" in chosen:
        memory = memory_rows(quick)
        write(out, "memory", here, memory)
        for r in memory:
            console.print(r["workload"], ", ".join(f"{k} {v:.0f} MiB" for k, v in r.items() if k != "workload"))
    if "latency" in chosen:
        cells = [(n, d) for n, d in LATENCY if not quick or n == "lstm"]
        latency = latency_rows(cells)
        write(out, "latency", here, latency)
        show_latency(latency)


LATENCY = [("lstm", {"I": 128, "H": 128}), ("gru", {"I": 128, "H": 128}), ("slstm", {"I": 128, "H": 32, "N": 4}),
           ("lem", {"I": 128, "H": 128}), ("lstm_layernorm", {"I": 128, "H": 128}), ("ltc", {"I": 64, "H": 64}),
           ("rglru", {"D": 128}), ("gla", {"K": 64, "V": 64, "N": 4}), ("gated_deltanet", {"K": 64, "V": 64, "N": 4}),
           ("rwkv7", {"K": 64, "V": 64, "N": 4})]


def measure(w: Workload, makers: list, here: dict, budget: float) -> dict:
    """Check, then time: medians in ms, ratios to each peer, and the floor."""
    checked = check(w)
    case = w.case()
    variants = [peers.ours(case), *(make(case) for make in makers)]
    times: dict[str, dict] = {v.name: {"scaled_by": v.scale} for v in variants}
    probe, probe_flops = product()
    rate = {}                                        # floating-point operations per ms
    for kind in KINDS:
        able = [v for v in variants if getattr(v, kind)]
        *found, by_probe = side_by_side([*((getattr(v, kind), v.scale) for v in able), (probe, 1.0)], budget)
        rate[kind] = probe_flops / by_probe["best"]
        for v, t in zip(able, found):
            times[v.name][kind] = t
    mine = times["ostinato"]
    ratio = {kind: {name: t[kind]["median"] / mine[kind]["median"] for name, t in times.items()
                    if name != "ostinato" and kind in t} for kind in KINDS}
    flops, moved = product_flops(case.layer.cell) * w.B * w.T, floor_bytes(case.layer.cell, w.B, w.T)
    floor = {}
    for kind, factor, bytes_ in zip(KINDS, (1, 3), moved):
        products = factor * flops / rate[kind]
        floor[kind] = {"products_ms": products, "bytes_ms": bytes_ / (here["copy_gbytes_per_s"] * 1e6),
                       "gemm_gflops": rate[kind] / 1e6, "share_of_gemm_rate": products / mine[kind]["median"]}
    return {"workload": w.name, "cell": w.cell, "B": w.B, "T": w.T, "dims": w.dims, "check": checked,
            "times": times, "ratio": ratio, "floor": floor}


def show(row: dict) -> None:
    parts = []
    for kind in KINDS:
        f, t = row["floor"][kind], row["times"]["ostinato"][kind]
        share = f"products at {f['share_of_gemm_rate']:.0%} of the GEMM rate  " if f["products_ms"] else ""
        others = ", ".join(f"{name} {r:.2f}x" for name, r in row["ratio"][kind].items())
        parts.append(f"  {LABELS[kind]} {t['median']:8.2f} ms [{t['p10']:.2f}, {t['p90']:.2f}]  "
                     f"floor {max(f['products_ms'], f['bytes_ms']):7.2f} ms  "
                     f"{share}{others}")
    console.print(f"[bold]{row['workload']}[/]", *parts, sep="\n", highlight=False, soft_wrap=True)


def summarise(rows: dict[str, list[dict]]) -> None:
    """Geometric mean and worst ratio per group and peer."""
    table = Table("group", "kind", "peer", "geometric mean", "worst")
    for group, items in rows.items():
        for kind in KINDS:
            for peer in dict.fromkeys(name for r in items for name in r["ratio"][kind]):
                values = [r["ratio"][kind][peer] for r in items if peer in r["ratio"][kind]]
                table.add_row(group, kind, peer, f"{geometric_mean(values):.2f}x", f"{min(values):.2f}x")
    console.print(table)


def show_steps(rows: list[dict]) -> None:
    table = Table("cell", "B", "µs per step", "torch's cell, µs")
    for r in rows:
        theirs = [v["median"] for k, v in r.items() if k.startswith("torch")]
        table.add_row(r["cell"], str(r["B"]), f"{r['ostinato']['median']:.1f}", f"{theirs[0]:.1f}" if theirs else "")
    console.print(table)


def show_latency(rows: list[dict]) -> None:
    table = Table("cell", "cache", "T", "seconds to the first gradient", "kernels compiled by other B and T")
    for r in rows:
        table.add_row(r["cell"], r["run"], str(r["T"]), f"{r['seconds']:.2f}", str(r["compiled_by_other_shapes"]))
    console.print(table)


def write(out: Path, name: str, here: dict, rows: list[dict]) -> None:
    (out / f"{name}.json").write_text(json.dumps({"machine": here, "rows": rows}, indent=1) + "\n")
