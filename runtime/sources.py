"""From a path or text to a cell of the IR. Imports no torch of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..frontend import tree
from ..frontend.load import CellDef, Program
from ..frontend.load import load as load_program
from ..ir.cell import Cell

Source = str | os.PathLike


@dataclass(frozen=True, slots=True)
class Elaborated:
    """A cell, values of its consts and parameters by name, the text they are from."""

    cell: Cell
    values: dict[str, object]
    text: str


def load(source: Source) -> Program:
    """A program from a path or from source text: `.cells`, `.functions`; checked
    but not compiled. Raises OstinatoError with all errors found."""
    return load_program(source)


def elaborate(source: Source, cell: str | None, given: Mapping[str, object]) -> Elaborated:
    """A cell for the sizes, options and values in `given`. Raises OstinatoError."""
    program = load_program(source, check=False)
    chosen = program.cell(cell)
    values = {k: v for k, v in given.items() if k not in chosen.header
              and (k in _declared(chosen) or not isinstance(v, (bool, int, float, str)))}
    made = chosen.elaborate(**{k: v for k, v in given.items() if k not in values})
    return Elaborated(made, values, program.sources[program.name])


def check(source: Source, cell: str | None, given: Mapping[str, object]) -> None:
    """Raise OstinatoError if the program has errors; with sizes, also those that only sizes show."""
    program = load_program(source)
    if given or cell is not None:
        elaborate(source, cell or program.cell().name, given)


def _declared(cell: CellDef) -> set[str]:
    """Names of the consts and parameters in the text of a cell."""
    return {d.name for s in cell.syntax.body if isinstance(s, tree.Declare) and s.role in ("const", "param")
            for d in s.decls}
