"""The threads that generated loops run on: torch's own.

Torch's CPU library is linked to an OpenMP runtime; looking a symbol up through
that library finds the very runtime (and thread pool) torch uses, whichever file
it came from. GCC's, Intel's and LLVM's runtimes on Linux all offer
`GOMP_parallel`; where there is none (macOS) generated loops are serial.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache as once
from pathlib import Path

import torch

ENTRY = "GOMP_parallel"  # void (void (*fn)(void *), void *data, unsigned threads, unsigned flags)
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


# The pool's threads do not survive a fork, and the runtime in the child would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@once
def _runtime() -> tuple[int, str]:
    """(address of GOMP_parallel, file it is in), or (0, why there is none)."""
    libraries = sorted((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))
    if not libraries:
        return 0, "torch's CPU library was not found"
    try:
        entry = getattr(ctypes.CDLL(str(libraries[0])), ENTRY)
    except (OSError, AttributeError):
        return 0, f"torch's OpenMP runtime has no {ENTRY}"
    address = ctypes.cast(entry, ctypes.c_void_p).value
    return address, _file_of(address)


def _file_of(address: int) -> str:
    """The mapped file that holds an address."""
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.exists() else ():
        fields = line.split(maxsplit=5)
        low, high = (int(x, 16) for x in fields[0].split("-"))
        if low <= address < high and len(fields) == 6:
            return fields[5]
    return "unknown file"


def symbols() -> dict[str, int]:
    """What generated code may call: name -> address."""
    address, _ = _runtime()
    return {ENTRY: address} if address else {}


def describe() -> str:
    """One line: the OpenMP library in use, or why execution is serial."""
    address, where = _runtime()
    if not address:
        return f"serial: {where}"
    if _forked:
        return f"serial: forked process, the threads of {Path(where).name} stayed with the parent"
    return f"{num_threads()} threads of {Path(where).name}, torch's own"


def num_threads() -> int:
    """Threads to pass as `n_threads` to generated code now: torch.get_num_threads(), 1 if serial
    (no usable runtime, or a forked process, where torch's own parallel loops would hang too)."""
    return torch.get_num_threads() if _runtime()[0] and not _forked else 1
