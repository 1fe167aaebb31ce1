"""The functions of the package: compile, load (of `sources`), compile_count."""

from __future__ import annotations

import torch

from ..collection import paused
from .layer import Layer
from .sources import Source, elaborate


@paused()
def compile(source: Source, cell: str | None = None, *, backend: str = "auto", schedule: str = "auto",
            dtype: torch.dtype = torch.float32, seed: int = 0, save: str = "auto",
            device: torch.device | str | None = None, **dims_and_options) -> Layer:
    """A cell as a torch.nn.Module.

    `source`: path or text. `cell`: its name, if the text holds several. By
    keyword: dimensions (`H=128`), the header's options (`dt=0.5`), and tensors
    for consts (or for parameters, in place of their initial values). `seed`:
    of the initial parameters. `save`: what the forward pass keeps for the
    backward pass: "auto" decides for every value by cost, "all" keeps whatever
    is needed, "none" keeps states only and computes the rest again. Raises OstinatoError for errors in the program
    and for unknown or missing keywords, back ends and schedules.
    """
    made = elaborate(source, cell, dims_and_options)
    layer = Layer.from_cell(made.cell, backend=backend, schedule=schedule, dtype=dtype, seed=seed, save=save,
                            values=made.values, source=made.text)
    return layer if device is None else layer.to(device)


def compile_count() -> int:
    """Kernels compiled in this process (those found in the cache on disk do not count)."""
    from ..backends.llvm import jit

    return jit.compile_count()
