"""Memory for large results: pages that are used again.

A tensor of many megabytes from torch.empty is new memory at every call: the system zeroes it page by page, which takes
longer than an element-wise recurrence takes to fill it. Here a large result's memory goes to a pool when the last
tensor on it is gone, and the next result of about that size takes it from there, as torch does on GPUs. Idle memory
stays below `limit()`; `free_memory()` returns all of it to the system. Small results are torch's own.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections import OrderedDict
from functools import cache
from math import prod

import torch
from torch import Tensor

LARGE = 1 << 20                # bytes from which a result comes from the pool
STEPS = 8                      # block sizes between a power of two and the next
HUGE, HUGEPAGE = 1 << 21, 14   # bytes of a huge page; MADV_HUGEPAGE
BROAD = 1 << 18                # bytes from which a workspace is worth a huge page
KEPT = 1 << 23                 # bytes that a thread keeps as its workspace, at most

_own = threading.local()
_idle: OrderedDict[int, Tensor] = OrderedDict()     # blocks nobody uses, by address, the longest unused first


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.empty on the CPU; a large one's storage is the pool's, and so cannot be resized."""
    count = prod(shape)
    nbytes = count * dtype.itemsize
    if nbytes < LARGE:
        return torch.empty(*shape, dtype=dtype)
    block = _take(_rounded(nbytes))
    lease = (ctypes.c_char * block.nbytes).from_address(block.data_ptr())
    weakref.finalize(lease, _give, block).atexit = False
    # Not a view, which autograd would not let anyone change in place.
    memory = torch.frombuffer(lease, dtype=dtype, count=count).untyped_storage()
    return torch.empty(0, dtype=dtype).set_(memory, 0, shape)


def workspace(nbytes: int) -> Tensor:
    """At least that many bytes for the time of one call into generated code: up to KEPT always the same ones of this
    thread, which need no new pages."""
    if nbytes > KEPT:
        return empty(nbytes, dtype=torch.uint8)
    held = getattr(_own, "memory", None)
    if held is None or held.nbytes < nbytes:
        size = 1 << (nbytes - 1).bit_length()
        held = _own.memory = torch.empty(size, dtype=torch.uint8) if size < BROAD else _aligned(size, -(-size // HUGE))
    return held


def _aligned(size: int, pages: int) -> Tensor:
    """New memory, the first `pages` of it huge ones where the system has them: then it is not chance which lines of a
    tile share a set of a cache, and few addresses have to be looked up."""
    block = torch.empty(max(size, pages * HUGE) + HUGE, dtype=torch.uint8)
    start = -block.data_ptr() % HUGE
    if (advise := _madvise()) is not None:
        advise(block.data_ptr() + start, pages * HUGE, HUGEPAGE)
    return block[start:start + size]


def free_memory() -> int:
    """Return the memory of results that are gone to the system. Gives the number of bytes."""
    freed = 0
    while _idle:
        freed += _idle.popitem()[1].nbytes
    return freed


@cache
def limit() -> int:
    """Bytes that may be idle: OSTINATO_IDLE_BYTES, or an eighth of the machine's memory."""
    if (wanted := os.environ.get("OSTINATO_IDLE_BYTES")) is not None:
        return int(wanted)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
    return 1 << 30


def _rounded(nbytes: int) -> int:
    step = (1 << (nbytes.bit_length() - 1)) // STEPS
    return -(-nbytes // step) * step


def _take(size: int) -> Tensor:
    """A block of `size` bytes: the one used last, whose bytes may still be in a cache, or a new one."""
    for address in reversed(list(_idle)):
        block = _idle.get(address)
        if block is not None and block.nbytes == size and _idle.pop(address, None) is not None:
            return block
    return torch.empty(size, dtype=torch.uint8) if size < HUGE else _aligned(size, size // HUGE)


def _give(block: Tensor) -> None:
    """The last tensor on `block` is gone. May run in any thread, and within any of these functions: every change
    of the pool is one operation of a dictionary."""
    _idle[block.data_ptr()] = block
    while sum(x.nbytes for x in list(_idle.values())) > limit():
        try:
            _idle.popitem(last=False)
        except KeyError:
            return


@cache
def _madvise():
    if not sys.platform.startswith("linux"):
        return None
    fn = ctypes.CDLL(None).madvise
    fn.argtypes, fn.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return fn
