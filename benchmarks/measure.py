"""Timing side by side, and the machine's two floors: the rate of matrix products and of copies."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


TURN = 3e-3                # seconds: a shorter call is repeated, or it would time the caches that the others emptied
SETTLE = 30e-3             # seconds: what another one left behind is gone then; after JAX's, memory is slow for so long


def side_by_side(calls: Sequence[tuple[Callable[[], object], float]], budget: float) -> list[list[float]]:
    """Times of several calls in turns, in ms, so that a busy moment hits all of them.

    calls: (call, scale of its time). After a warm-up of each, 3 to 50 rounds, as many as `budget` seconds allow.
    The n-th times of all calls are neighbours. A call is made for SETTLE, uncounted, before it is timed: what another
    one left behind (threads still running, a graph to be freed, code and data out of the caches) is not its time.
    """
    turns = []
    for call, scale in calls:
        if (once := seconds(call)) < TURN:
            once = seconds(call)
        repeats, settle = (max(1, math.ceil(some / max(once, 1e-6))) for some in (TURN, SETTLE))
        turns.append((call, repeats, settle, scale))
    times: list[list[float]] = [[] for _ in calls]
    end, rounds = time.perf_counter() + budget, 0
    while rounds < 3 or rounds < 50 and time.perf_counter() < end:
        for kept, (call, repeats, settle, scale) in zip(times, turns):
            seconds(call, settle)
            kept.append(1e3 * scale * seconds(call, repeats))
        rounds += 1
    return times


def summary(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=10, method="inclusive")
    return {"median": statistics.median(values), "p10": cuts[0], "p90": cuts[-1]}


def ratios(theirs: Sequence[float], mine: Sequence[float]) -> dict[str, float]:
    """How many times as long as ours, round by round."""
    return summary([a / b for a, b in zip(theirs, mine)])


def product() -> tuple[Callable[[], object], int]:
    """A float32 product that runs at the machine's rate, and its floating-point operations. It is timed in
    turns with the peers, so that the floor is of the same minute as the figure beside it."""
    m, k, n = 512, 1024, 512
    a, b, c = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    return lambda: torch.mm(a, b, out=c), 2 * m * k * n


def gemm_rate() -> float:
    """Floating-point operations per second of the best of several products."""
    call, flops = product()
    call()
    return flops / min(seconds(call) for _ in range(40))


def copy_rate() -> float:
    """Bytes read and written per second when copying 256 MB."""
    a = torch.randn(64 * 2**20)
    b = torch.empty_like(a).copy_(a)
    return 2 * 4 * a.numel() / min(seconds(lambda: b.copy_(a)) for _ in range(7))


def machine(threads: int) -> dict[str, object]:
    """What the figures were measured on, with its floors."""
    return {"cpu": _cpu(), "capability": torch.backends.cpu.get_cpu_capability(), "threads": threads,
            "torch": torch.__version__, "python": platform.python_version(),
            "gemm_gflops": gemm_rate() / 1e9, "copy_gbytes_per_s": copy_rate() / 1e9}


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))
