"""Runs the chosen workloads; JSON files, plots and a page of tables go to a folder, the tables to the terminal."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import torch
from ostinato.frontend.diagnostics import OstinatoError
from rich.console import Console
from rich.table import Table

from . import libraries, peers
from .check import Disagreement
from .chunks import chunk_rows
from .latency import latency_rows
from .markdown import page
from .measure import geometric_mean, machine
from .memory import memory_rows
from .plot import plot_growth, plot_ratios
from .row import KINDS, measure
from .schedules import plot_schedules, schedule_rows
from .segments import segment_rows
from .step_mode import step_row
from .workloads import WORKLOADS, ZOO, Workload

console = Console()
LABELS = {"forward": "forward", "both": "fwd+bwd"}
OTHERS = ("step", "memory", "latency", "segments", "schedules", "chunks")     # groups whose rows have their own form
GROUPS = (*dict.fromkeys(w.group for w in WORKLOADS), *OTHERS)
LATENCY = [("lstm", {"I": 128, "H": 128}), ("gru", {"I": 128, "H": 128}), ("slstm", {"I": 128, "H": 32, "N": 4}),
           ("lem", {"I": 128, "H": 128}), ("lstm_layernorm", {"I": 128, "H": 128}), ("ltc", {"I": 64, "H": 64}),
           ("rglru", {"D": 128}), ("gla", {"K": 64, "V": 64, "N": 4}), ("gated_deltanet", {"K": 64, "V": 64, "N": 4}),
           ("rwkv7", {"K": 64, "V": 64, "N": 4})]


def run(chosen: set[str], *, quick: bool, full: bool, threads: int, budget: float, torch_compile: bool, jax: bool,
        out: Path) -> None:
    """Everything in `chosen` (groups or cells, all if empty). A group's file is lstm.json for one thread and
    lstm.threads2.json for two."""
    torch.set_num_threads(threads)
    here = machine(threads)
    console.print(f"{here['cpu']}, {threads} thread(s): products {here['gemm_gflops']:.0f} GFLOP/s, "
                  f"copies {here['copy_gbytes_per_s']:.1f} GB/s")
    suffix = "" if threads == 1 else f".threads{threads}"

    def write(name: str, rows: list[dict]) -> None:
        (out / f"{name}{suffix}.json").write_text(json.dumps({"machine": here, "rows": rows}, indent=1) + "\n")

    rows: dict[str, list[dict]] = {}
    for w in WORKLOADS:
        if chosen and w.group not in chosen and w.cell not in chosen - {*GROUPS}:
            continue
        if quick and not w.quick or w.extra and not full:
            continue
        try:
            row = measure(w, makers(w, torch_compile, jax), here, budget)
        except Disagreement as e:
            console.print(f"[bold red]not timed[/] {w.name}: {e}", highlight=False)
            continue
        rows.setdefault(w.group, []).append(row)
        show(row)
        write(w.group, rows[w.group])
    if rows:
        console.print(summary(rows))
    if not chosen or "step" in chosen:
        names = ["lstm", "gru", "lem"] if quick else sorted(p.stem for p in ZOO.glob("*.ost"))
        steps = []
        for name, B in itertools.product(names, (1, 16)):
            try:
                steps.append(step_row(name, B, budget / 4))
            except (Disagreement, OstinatoError) as e:
                console.print(f"[bold red]not timed[/] {name}: {e}", highlight=False)
        write("step", steps)
        console.print(step_table(steps))
    if not chosen or "memory" in chosen:
        memory = memory_rows(quick)
        write("memory", memory)
        for r in memory:
            console.print(r["workload"], ", ".join(f"{k} {v:.0f} MiB" for k, v in r.items() if k != "workload"))
    if not chosen or "latency" in chosen:
        latency = latency_rows([(n, d) for n, d in LATENCY if not quick or n == "lstm"])
        write("latency", latency)
        console.print(latency_table(latency))
    if not chosen or "segments" in chosen:
        segments = segment_rows(quick, budget)
        write("segments", segments)
        for r in segments:
            console.print(r["cell"], f"{r['ms']['median']:.1f} ms;", ", ".join(
                f"{k} {v['median']:.2f}x" for k, v in r["ratio"].items()), highlight=False)
    if full and not chosen or "schedules" in chosen:
        schedules = schedule_rows(quick, budget)
        write("schedules", schedules)
        plot_schedules(schedules, out / f"schedules{suffix}.png")
        for r in schedules:
            console.print(r["cell"], f"T={r['T']}", ", ".join(f"{k} {v['median']:.2f}" for k, v in r["times"].items()),
                          f"ms; auto takes {r['chosen']}, {r['over_best']:.2f} of the best", highlight=False)
    if full and not chosen or "chunks" in chosen:
        chunks = chunk_rows(quick, budget)
        write("chunks", chunks)
        for r in chunks:
            console.print(r["cell"], f"K={r['dims']['K']}, chunk({r['C']})", ", ".join(
                f"{LABELS[k]} {t['median']:.1f} ms, {r['share'][k]:.0%} of the GEMM rate"
                for k, t in r["times"].items()), highlight=False)
    files = {name: out / f"{name}{suffix}.json" for name in GROUPS}
    found = {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}
    timed = {name: f["rows"] for name, f in found.items() if name not in OTHERS}
    plot_ratios([r for name, some in timed.items() if name != "growth" for r in some], out / f"cpu{suffix}.png")
    plot_growth(timed.get("growth", []), out / f"growth{suffix}.png")
    (out / f"cpu{suffix}.md").write_text(page(found))


def makers(w: Workload, torch_compile: bool, jax: bool) -> list:
    """The workload's peers, without JAX where it is not wanted or not there."""
    left_out = set() if jax and importlib.util.find_spec("jax") else {
        libraries.jax_scan, libraries.jax_short, libraries.jax_associative}
    compiled = [peers.torch_compile] if torch_compile and w.quick and peers.eager in w.peers else []
    return [p for p in (*w.peers, *compiled) if p not in left_out]


def show(row: dict) -> None:
    parts = []
    for kind in KINDS:
        f, t = row["floor"][kind], row["times"]["ostinato"][kind]
        products = f", products at {f['share_of_gemm_rate']:.0%} of the GEMM rate" if f["products_ms"] else ""
        others = ", ".join(f"{name} {r['median']:.2f}x [{r['p10']:.2f}, {r['p90']:.2f}]"
                           for name, r in row["ratio"][kind].items())
        parts.append(f"  {LABELS[kind]} {t['median']:.3g} ms [{t['p10']:.3g}, {t['p90']:.3g}]  "
                     f"floor {max(f['products_ms'], f['bytes_ms']):.3g} ms{products}  {others}")
    parts += [f"  no figure for {name}: {why}" for name, why in row["fails"].items()]
    console.print(f"[bold]{row['workload']}[/] ({row['took_s']:.1f} s)", *parts, sep="\n", highlight=False,
                  soft_wrap=True)


def summary(rows: dict[str, list[dict]]) -> Table:
    """Geometric mean and worst ratio per group and peer, and how near the floor is."""
    table = Table("group", "kind", "peer", "geometric mean", "worst")
    for group, items in rows.items():
        for kind in KINDS:
            shares = [r["floor"][kind]["share"] for r in items]
            table.add_row(group, LABELS[kind], "floor", f"{geometric_mean(shares):.2f}x", f"{min(shares):.2f}x")
            for peer in dict.fromkeys(name for r in items for name in r["ratio"][kind]):
                values = [r["ratio"][kind][peer]["median"] for r in items if peer in r["ratio"][kind]]
                table.add_row(group, LABELS[kind], peer, f"{geometric_mean(values):.2f}x", f"{min(values):.2f}x")
    return table


def step_table(rows: list[dict]) -> Table:
    table = Table("cell", "B", "µs per step", "peers, µs")
    for r in rows:
        others = ", ".join(f"{k} {v['median']:.1f}" for k, v in r["times"].items() if k != "ostinato")
        table.add_row(r["cell"], str(r["B"]), f"{r['times']['ostinato']['median']:.1f}", others)
    return table


def latency_table(rows: list[dict]) -> Table:
    table = Table("cell", "cache", "T", "seconds to the first gradient", "kernels compiled by other B and T")
    for r in rows:
        table.add_row(r["cell"], r["run"], str(r["T"]), f"{r['seconds']:.2f}", str(r["compiled_by_other_shapes"]))
    return table
