"""The back ends by name; each is imported when it is first asked for.

A back end is a module with `DEVICES`, the types of torch devices it runs on; `prepare(cell, save) -> lowered`,
the passes that it wants (`.cell`: what is left to run, `.static`: the nodes hoisted from it); and
`build(lowered, dtype, fold=None) -> Executable` (see `base`, `fold.Fold`).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

MODULES = {"llvm": "llvm.executable", "interpreter": "interpreter"}
NAMES = ("llvm", "triton", "interpreter")     # triton: the name is taken, the back end is to come


def available() -> tuple[str, ...]:
    """Names of the back ends that exist here, the preferred one first."""
    return tuple(n for n in NAMES if n in MODULES and find_spec(f"{__name__}.{MODULES[n]}"))


def module(name: str) -> ModuleType:
    """The back end's module. Raises KeyError for a name that `available` does not list."""
    if name not in available():
        raise KeyError(name)
    return import_module(f"{__name__}.{MODULES[name]}")
