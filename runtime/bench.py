"""Timing one cell: compiled against an eager PyTorch loop. For a first look; `make bench` measures with peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..ir.sweeps import mixed
from .eager import EagerLoop
from .layer import Layer
from .sample import sample_inputs


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds, medians. `eager` is None where it was not timed."""

    what: str
    ours: float
    eager: float | None

    @property
    def ratio(self) -> float | None:
        return None if self.eager is None else self.eager / self.ours

    def as_dict(self) -> dict:
        return asdict(self) | {"ratio": self.ratio}


def median_ms(work: Callable[[], object], seconds: float = 1.0, most: int = 200) -> float:
    """Median time of `work()` in milliseconds, after one call to warm up."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (len(times) < most and time.perf_counter() < end):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def bench_layer(layer: Layer, B: int, T: int, eager: bool = True, seconds: float = 1.0) -> list[Timing]:
    """One step (of cells that have any), forward, and forward + backward, on random inputs."""
    inputs = sample_inputs(layer.cell, B, T, dtype=layer._dtype)
    loop = EagerLoop(layer.cell, layer._dtype)
    params = dict(zip((p.name for p in layer.cell.params), layer._params()))
    leaves = {k: x.requires_grad_() if x.is_floating_point() or x.is_complex() else x for k, x in inputs.items()}
    first = {k: x.detach()[:, 0] for k, x in inputs.items()}
    start = layer.initial_state(B)

    def step() -> object:
        with torch.no_grad():
            return layer.step(*first.values(), state=start)

    def eager_step() -> object:
        with torch.no_grad():
            return loop({k: x[:, None] for k, x in first.items()}, params, start)

    def forward() -> object:
        with torch.no_grad():
            return layer(*leaves.values())

    def eager_forward() -> object:
        with torch.no_grad():
            return loop(leaves, params, start)

    def backward(outputs: list[Tensor]) -> None:
        sum((y.sum() for y in outputs if y.requires_grad), torch.zeros(())).backward()

    def both() -> None:
        y, _ = layer(*leaves.values())
        backward([y] if isinstance(y, Tensor) else list(y))

    def eager_both() -> None:
        backward(list(loop(leaves, params, start)[0].values()))

    pairs = {"forward": (forward, eager_forward), "forward+backward": (both, eager_both)}
    if not mixed(layer.cell):
        pairs = {"step": (step, eager_step)} | pairs
    return [Timing(name, median_ms(a, seconds), median_ms(b, seconds, 20) if eager else None)
            for name, (a, b) in pairs.items()]
