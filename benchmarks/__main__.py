"""`python -m benchmarks`: every row checked and timed; JSON, tables in Markdown, plots."""

from __future__ import annotations

import os
from pathlib import Path

import click

RESULTS = Path(__file__).parent / "results"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@click.command()
@click.option("--only", help="Groups (the names of the files in results, step, memory, latency, segments) or cells, "
              "separated by commas; a group's file then holds those rows only.")
@click.option("--quick", is_flag=True, help="One shape per cell or kind, less time for each.")
@click.option("--full", is_flag=True, help="Every shape (ten minutes and more); otherwise about half of them.")
@click.option("--threads", type=click.IntRange(1, CORES), default=1, show_default=True,
              help="Threads for everyone; also pins the process. Other than 1: files called NAME.threadsN.json.")
@click.option("--budget", default=0.4, show_default=True, help="Seconds of measurement per workload and kind.")
@click.option("--torch-compile", is_flag=True,
              help="Also 64 steps of the loop unrolled by torch.compile, at one shape per cell (a minute each).")
@click.option("--no-jax", is_flag=True, help="Leave JAX out.")
@click.option("--device", type=click.Choice(["cpu"]), default="cpu", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default="benchmarks/results")
def main(only, quick, full, threads, budget, torch_compile, no_jax, device, out) -> None:
    """Measure ostinato beside its peers; JSON files, tables (cpu.md) and plots go to --out."""
    _pin(threads)                          # before torch and JAX start their threads
    from .report import run

    out.mkdir(parents=True, exist_ok=True)
    run(set(only.split(",")) if only else set(), quick=quick, full=full, threads=threads,
        budget=budget / 2 if quick else budget, torch_compile=torch_compile, jax=not no_jax, out=out)


def _pin(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


if __name__ == "__main__":
    main()
