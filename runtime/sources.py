"""From a path or text to a cell of the IR. Imports no torch of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..frontend import load as front
from ..ir.cell import Cell

Source = str | os.PathLike
NUMBERS = (bool, int, float, str)       # what the header of a cell takes; all else is an array


def load(source: Source) -> front.Program:
    """A program from a path or from source text: `.cells`, `.functions`; checked
    but not compiled. Raises OstinatoError with all errors found."""
    return front.load(source)


def elaborate(source: Source, cell: str | None, given: Mapping[str, object]) -> tuple[Cell, dict[str, object]]:
    """The cell of the IR, and those of `given` that are arrays: values of consts and parameters."""
    numbers = {k: v for k, v in given.items() if isinstance(v, NUMBERS)}
    return front.elaborate(load(source), cell, **numbers), {k: v for k, v in given.items() if k not in numbers}


def check(source: Source, cell: str | None, given: Mapping[str, object]) -> None:
    """Raise OstinatoError if the program has errors; with sizes, also those that only sizes show."""
    program = load(source)
    if given or cell is not None:
        front.elaborate(program, cell, **{k: v for k, v in given.items() if isinstance(v, NUMBERS)})


def text_of(source: Source) -> str:
    """The text itself, if `source` is a path."""
    text = str(source)
    return text if "\n" in text or "{" in text else Path(text).read_text(encoding="utf-8")
