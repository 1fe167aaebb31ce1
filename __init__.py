"""Ostinato: write the recurrence, get the kernels.

    layer = ostinato.compile("lstm.ost", I=64, H=128)
    y, state = layer(x)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .collection import paused

if TYPE_CHECKING:
    from .backends.pages import free_memory as free_memory
    from .frontend.diagnostics import OstinatoError as OstinatoError
    from .runtime.api import compile as compile
    from .runtime.api import compile_count as compile_count
    from .runtime.layer import Layer as Layer
    from .runtime.sources import load as load

__version__ = "0.1.0"
__all__ = ["Layer", "OstinatoError", "compile", "compile_count", "free_memory", "load"]

_HOMES = {"Layer": "runtime.layer", "OstinatoError": "frontend.diagnostics",
          "compile": "runtime.api", "compile_count": "runtime.api", "load": "runtime.sources",
          "free_memory": "backends.pages"}


def __getattr__(name: str):
    # Imported when first used: formatting and checking need no torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with paused():
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
