"""One step after the other, fused: the back end's own executable of the cell."""

from __future__ import annotations

from ...backends.base import Executable
from . import Source


def build(source: Source) -> Executable:
    return source.backend.build(source.lowered, source.dtype)
