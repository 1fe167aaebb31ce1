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
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
import torch
from torch import Tensor, UntypedStorage
from torch._C import _storage_Use_Count

LARGE = 1 << 20                # bytes from which a result comes from the pool
STEPS = 8                      # block sizes between a power of two and the next
HUGE, HUGEPAGE = 1 << 21, 14   # bytes of a huge page; MADV_HUGEPAGE
BROAD = 1 << 18                # bytes from which a workspace is worth a huge page
KEPT = 1 << 23                 # bytes that a thread keeps as its workspace, at most

RECENT = 16                    # blocks lent last, of which the last idle one is taken: it may still be in a cache

_own = threading.local()


@dataclass(slots=True)
class Block:
    """Memory of the pool, and the storage of the last result on it."""

    memory: np.ndarray
    storage: UntypedStorage
    handle: int

    @property
    def idle(self) -> bool:
        """Whether nobody else has the storage: torch counts tensors, Python those who hold the storage itself."""
        return _storage_Use_Count(self.handle) == 1 and sys.getrefcount(self.storage) == 2


_pool: OrderedDict[int, Block] = OrderedDict()      # by address, the one lent last at the end


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.empty on the CPU; a large one's storage is the pool's, and so cannot be resized."""
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < LARGE:
        return torch.empty(shape, dtype=dtype)
    return torch.empty(0, dtype=dtype).set_(_lend(nbytes), 0, shape)    # no view: those may not be changed in place


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
    for address, block in list(_pool.items()):
        if _claim(address, block):
            freed += block.memory.nbytes
    return freed


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


def _lend(nbytes: int) -> UntypedStorage:
    """A storage of so many bytes that nobody has: on an idle block, or on a new one."""
    size, addresses = _rounded(nbytes), list(_pool)
    for address in (*reversed(addresses[-RECENT:]), *addresses[:-RECENT]):
        block = _pool.get(address)
        if block is not None and block.memory.nbytes == size and _claim(address, block):
            if block.storage.nbytes() != nbytes:
                block = _block(block.memory, nbytes)
            storage = block.storage             # held from here on: back in the pool, the block is not idle
            _pool[address] = block
            return storage
    memory = torch.empty(size, dtype=torch.uint8) if size < HUGE else _aligned(size, size // HUGE)
    block = _block(memory.numpy(), nbytes)
    storage = block.storage
    _pool[memory.data_ptr()] = block
    for address in list(_pool):
        if sum(b.memory.nbytes for b in list(_pool.values())) <= limit():
            break
        _pool.pop(address, None)
    return storage


def _claim(address: int, block: Block) -> bool:
    """Take a block out of the pool, if it is idle: then it is the caller's alone, whatever other threads do. One whose
    storage torch has moved elsewhere (to share it with a process, say) is gone: others may have its memory."""
    if not block.idle or _pool.pop(address, None) is not block:
        return False
    if not block.idle:                          # lent by another thread in between
        _pool[address] = block
        return False
    return block.storage.data_ptr() == address


def _block(memory: np.ndarray, nbytes: int) -> Block:
    storage = torch.frombuffer(memory, dtype=torch.uint8, count=nbytes).untyped_storage()
    return Block(memory, storage, storage._cdata)


@cache
def _madvise():
    if not sys.platform.startswith("linux"):
        return None
    fn = ctypes.CDLL(None).madvise
    fn.argtypes, fn.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return fn
