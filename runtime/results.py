"""Several outputs of a cell travel as a named tuple."""

from __future__ import annotations

from collections import namedtuple
from functools import cache
from keyword import iskeyword


@cache
def result_type(cell: str, outputs: tuple[str, ...]) -> type:
    """The named tuple of a cell's outputs (a name that Python reserves becomes `_0`, `_1`, ...)."""
    kind = namedtuple("Outputs" if iskeyword(cell) else cell, outputs, rename=True)
    kind.__reduce__ = lambda self: (_rebuild, (cell, outputs, tuple(self)))
    return kind


def _rebuild(cell: str, outputs: tuple[str, ...], values: tuple):
    return result_type(cell, outputs)(*values)
