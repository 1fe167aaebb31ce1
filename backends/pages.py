"""Memory for results: fresh pages cost more than the kernels that fill them.

A tensor of many megabytes is new memory at every call, and touching it page by
page (4 KiB, about a microsecond each) can take longer than an element-wise
recurrence. Large results ask the kernel for large pages (madvise, Linux only);
it is advice: nothing changes but the time.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch
from torch import Tensor

LARGE = 1 << 20                # bytes from which it is worth a system call
PAGE, HUGEPAGE = 4096, 14      # MADV_HUGEPAGE


@cache
def _madvise():
    if not sys.platform.startswith("linux"):
        return None
    fn = ctypes.CDLL(None).madvise
    fn.argtypes, fn.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return fn


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.empty on the CPU, on large pages where that pays."""
    x = torch.empty(*shape, dtype=dtype)
    if x.nbytes >= LARGE and (advise := _madvise()) is not None:
        start = -(-x.data_ptr() // PAGE) * PAGE
        advise(start, (x.data_ptr() + x.nbytes - start) // PAGE * PAGE, HUGEPAGE)
    return x
