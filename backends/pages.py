"""Memory for large results: pages that are used again.

A tensor of many megabytes from torch.empty is new memory at every call: the system zeroes it page by page, which takes
longer than an element-wise recurrence takes to fill it. Here a large result lies in a block of a pool, as on torch's
GPUs: once the last tensor on it is gone, the next result of about that size takes the block. The pool asks for that
when it needs one, by the reference counts of the storage it made: nothing runs when a result goes, since every line of
Python that a kernel has driven out of the caches costs a microsecond. The pool's blocks are at most `limit()` bytes, in
use or not; `free_memory()` returns the idle ones to the system. Small results are torch's own.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from functools import cache
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch._C import _storage_Use_Count

LARGE = 1 << 17                # bytes from which a result comes from the pool, and malloc's memory from the system
STEPS = 8                      # block sizes between a power of two and the next
HUGE, HUGEPAGE = 1 << 21, 14   # bytes of a huge page; MADV_HUGEPAGE
BROAD = 1 << 18                # bytes from which a workspace is worth a huge page
KEPT = 1 << 23                 # bytes that a thread keeps as its workspace, at most

MOST = 256                     # blocks in the pool: each may be looked at when a result wants one
RECENT = 16                    # blocks lent last, of which the last idle one is taken: it may still be in a cache

_own = threading.local()


class Block:
    """Memory of the pool, and on it a tensor of some shape and dtype, of which results are aliases."""

    __slots__ = ("memory", "size", "kind", "tensor", "address", "storage", "handle", "tensors", "holders")

    def __init__(self, memory: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype):
        self.memory, self.size, self.kind = memory, memory.nbytes, (shape, dtype)
        with torch.inference_mode(False):       # as results, for which autograd may have a use later
            self.tensor = torch.frombuffer(memory, dtype=dtype, count=prod(shape)).view(shape)
        self.address, self.storage = self.tensor.data_ptr(), self.tensor.untyped_storage()
        self.handle = self.storage._cdata
        self.tensors, self.holders = _storage_Use_Count(self.handle), sys.getrefcount(self.storage)

    def idle(self) -> bool:
        """Whether it is as when it was made: torch counts tensors on the storage, Python those who hold the storage
        itself, and torch moves it to share it with a process."""
        return (_storage_Use_Count(self.handle) == self.tensors and sys.getrefcount(self.storage) == self.holders
                and self.tensor.data_ptr() == self.address)

    def claimed(self) -> bool:
        """Take it out of the pool if it is idle. Every change of the pool is one operation of a dictionary: what
        another thread has lent in between is not idle any more, and has left the pool for good."""
        return self.idle() and _pool.pop(self.address, None) is self and self.idle()


_pool: dict[int, Block] = {}      # by address, the one lent last at the end


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.empty on the CPU; a large one's storage is the pool's, and so cannot be resized."""
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < LARGE:
        return torch.empty(shape, dtype=dtype)
    kind, blocks = (shape, dtype), [*_pool.values()]
    blocks = [*reversed(blocks[-RECENT:]), *blocks[:-RECENT]]
    block = next((b for b in blocks if b.kind == kind and b.claimed()), None)
    if block is None:
        size = _rounded(nbytes)
        old = next((b for b in blocks if b.size == size and b.claimed()), None)
        block = Block(_new(size) if old is None else old.memory, shape, dtype)
    result = block.tensor.data                  # no view: those may not be changed in place
    _pool[block.address] = block                # not idle now, while the result lives
    return result


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
    return sum(block.size for block in list(_pool.values()) if block.claimed())


@cache
def limit() -> int:
    """Bytes that the pool may have: OSTINATO_IDLE_BYTES, or an eighth of the machine's memory."""
    if (wanted := os.environ.get("OSTINATO_IDLE_BYTES")) is not None:
        return int(wanted)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
    return 1 << 30


def _rounded(nbytes: int) -> int:
    step = (1 << (nbytes.bit_length() - 1)) // STEPS
    return -(-nbytes // step) * step


def _new(size: int) -> np.ndarray:
    """A block's memory. Those lent longest ago leave the pool for it: memory in use goes when its tensors do."""
    for address in list(_pool):
        if len(_pool) < MOST and sum(block.size for block in list(_pool.values())) + size <= limit():
            break
        _pool.pop(address, None)
    return (torch.empty(size, dtype=torch.uint8) if size < HUGE else _aligned(size, size // HUGE)).numpy()


@cache
def _madvise():
    if not sys.platform.startswith("linux"):
        return None
    fn = ctypes.CDLL(None).madvise
    fn.argtypes, fn.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return fn
