"""Several outputs of a cell travel as a named tuple."""

from __future__ import annotations

from collections import namedtuple
from functools import cache
from keyword import iskeyword
from unicodedata import normalize


@cache
def result_type(cell: str, outputs: tuple[str, ...]) -> type:
    """The named tuple of a cell's outputs: its fields are read as Python reads names, in the normal form NFKC (a name
    that Python reserves, and the second of two that it does not tell apart, becomes `_0`, `_1`, ...)."""
    fields = [normalize("NFKC", name) for name in outputs]
    kind = namedtuple("Outputs" if iskeyword(cell) else cell, fields, rename=True)
    kind.__reduce__ = lambda self: (_rebuild, (cell, outputs, tuple(self)))
    return kind


def _rebuild(cell: str, outputs: tuple[str, ...], values: tuple):
    return result_type(cell, outputs)(*values)
