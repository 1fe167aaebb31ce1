"""The functions of the package: compile, load, compile_count."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from ..frontend import load as front
from ..ir.cell import Cell
from .layer import Layer

Source = str | os.PathLike


def load(source: Source) -> front.Program:
    """A program from a path or from source text: `.cells`, `.functions`; checked
    but not compiled. Raises OstinatoError with all errors found."""
    return front.load(source)


def compile(source: Source, cell: str | None = None, *, backend: str = "auto", schedule: str = "auto",
            dtype: torch.dtype = torch.float32, seed: int = 0, device: torch.device | str | None = None,
            **dims_and_options) -> Layer:
    """A cell as a torch.nn.Module.

    `source`: path or text. `cell`: its name, if the text holds several. By
    keyword: dimensions (`H=128`), the header's options (`dt=0.5`), and tensors
    for consts (or for parameters, in place of their initial values). `seed`:
    of the initial parameters. Raises OstinatoError for errors in the program
    and for unknown or missing keywords, back ends and schedules.
    """
    elaborated, values = elaborate(source, cell, dims_and_options)
    layer = Layer.from_cell(elaborated, backend=backend, schedule=schedule, dtype=dtype, seed=seed, values=values,
                            source=text_of(source))
    return layer if device is None else layer.to(device)


def elaborate(source: Source, cell: str | None, given: Mapping[str, object]) -> tuple[Cell, dict[str, object]]:
    """The cell of the IR, and those of `given` that are arrays: values of consts and parameters."""
    values = {k: v for k, v in given.items() if not isinstance(v, (bool, int, float, str))}
    numbers = {k: v for k, v in given.items() if k not in values}
    return front.elaborate(load(source), cell, **numbers), values


def check_source(source: Source, cell: str | None, given: Mapping[str, object]) -> None:
    """Raise OstinatoError if the program has errors; with sizes, also those that only sizes show."""
    program = load(source)
    if given or cell is not None:
        front.elaborate(program, cell, **{k: v for k, v in given.items() if isinstance(v, (bool, int, float, str))})


def text_of(source: Source) -> str:
    """The text itself, if `source` is a path."""
    text = str(source)
    return text if "\n" in text or "{" in text else Path(text).read_text(encoding="utf-8")


def compile_count() -> int:
    """Kernels compiled in this process (those found in the cache on disk do not count)."""
    from ..backends.llvm import jit

    return jit.compile_count()
