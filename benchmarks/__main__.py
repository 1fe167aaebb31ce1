"""`python -m benchmarks`: the tables of the README, as JSON and a plot."""

from __future__ import annotations

import os
from pathlib import Path

import click

RESULTS = Path(__file__).parent / "results"
GROUPS = ("lstm", "gru", "elman", "unshipped", "elementwise", "filters", "matrix", "step", "memory", "latency")


@click.command()
@click.option("--only", help="groups or cells, separated by commas: " + ", ".join(GROUPS))
@click.option("--quick", is_flag=True, help="One shape per kind, less time for each.")
@click.option("--threads", default=1, show_default=True, help="Threads for everyone; also pins the process.")
@click.option("--budget", default=2.0, show_default=True, help="Seconds of measurement per workload and kind.")
@click.option("--torch-compile", is_flag=True, help="Also the loop unrolled by torch.compile (slow to compile).")
@click.option("--no-jax", is_flag=True, help="Leave JAX out.")
@click.option("--device", type=click.Choice(["cpu"]), default="cpu", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default="benchmarks/results")
def main(only, quick, threads, budget, torch_compile, no_jax, device, out) -> None:
    """Measure ostinato beside its peers; results go to JSON files and a plot in --out."""
    _pin(threads)                          # before torch and JAX start their threads
    from .report import run

    out.mkdir(parents=True, exist_ok=True)
    chosen = set(only.split(",")) if only else set(GROUPS)
    run(chosen, quick=quick, threads=threads, budget=budget / 2 if quick else budget, torch_compile=torch_compile,
        jax=not no_jax, out=out)


def _pin(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


if __name__ == "__main__":
    main()
