"""How a cell runs over time. A form is an executable (`backends.base.Executable`) made of a back end's executables
of cells: of the cell itself, of the cell over chunks, of summaries of segments.

A form is a module with `build(source: Source) -> Executable`, which raises `Unsuitable` with the reason where the cell
has no such form. The text never names one; `schedule=` and the cost model do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType

import torch

from ...backends.base import Executable
from ...compiler.pipeline import Divided, Lowered

MODULES: dict[str, str] = {     # name of a schedule -> module here
    "sequential": "sequential", "chunk": "chunk", "scan": "scan", "diagonalize": "diagonalize",
    "quadratic": "quadratic", "conv": "conv", "step": "step"}
# schedules with a number, and its default (None: the form's choice)
ARGUMENTS: dict[str, int | None] = {"chunk": None, "scan": None}
BACKWARDS = ("sequential", "scan", "step")      # those that run a cell from the last step to the first themselves


class Unsuitable(Exception):
    """The cell has no such form: says why, in words for `explain`."""


@dataclass(frozen=True)
class Source:
    """What a form is built from: the back end's module, the lowered cell, the dtype, the number in `chunk(64)`."""

    backend: ModuleType
    lowered: Lowered | Divided
    dtype: torch.dtype
    argument: int | None = None


def parse(schedule: str) -> tuple[str, int | None]:
    """`"chunk(64)"` -> ("chunk", 64). Raises ValueError for what is not a schedule."""
    name, bracket, rest = schedule.partition("(")
    wrong = name not in ARGUMENTS or not rest.endswith(")") or not rest[:-1].isdecimal()
    if name not in MODULES or bracket and wrong:
        raise ValueError(schedule)
    if rest and int(rest[:-1]) < 1:
        raise ValueError(schedule)
    return name, int(rest[:-1]) if rest else ARGUMENTS.get(name)


def each(schedule: str) -> list[str]:
    """`"sequential, chunk(64)"` -> the schedules of a cell's parts. Raises ValueError if one is none."""
    found = schedule.split(", ")
    for one in found:
        parse(one)
    return found


def build(schedule: str, source: Source) -> Executable:
    """The executable of a cell; of one in parts, by one schedule or by one for each. Raises `Unsuitable`."""
    schedules = each(schedule)
    if isinstance(source.lowered, Divided):
        return import_module(f"{__name__}.chain").build(schedules, source)
    if len(schedules) > 1:
        raise Unsuitable("it has one part, which takes one schedule")
    return build_one(schedule, source)


def build_one(schedule: str, source: Source) -> Executable:
    """The executable of a cell of one direction."""
    name, argument = parse(schedule)
    return import_module(f"{__name__}.{MODULES[name]}").build(replace(source, argument=argument))
