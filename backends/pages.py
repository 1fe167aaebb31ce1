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
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import chain, count
from math import prod
from operator import attrgetter

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

Kind = tuple[tuple[int, ...], torch.dtype]      # shape and dtype

_own = threading.local()


class Block:
    """Memory of the pool, and on it a tensor of some shape and dtype, of which results are aliases."""

    __slots__ = ("memory", "size", "tensor", "address", "storage", "handle", "tensors", "holders", "home",
                 "lent")

    def __init__(self, memory: np.ndarray, kind: Kind):
        self.memory, self.size = memory, memory.nbytes
        self.home = _pool.setdefault(kind, {})
        shape, dtype = kind
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
        """Take it out of the pool if it is idle. Every change of the pool is one operation of a dictionary: one thread
        alone has what it took from there, and what another one has lent in between is not idle any more."""
        if _storage_Use_Count(self.handle) != self.tensors or self.home.pop(self.address, None) is not self:
            return False
        if not (idle := self.idle()):
            self.home[self.address] = self
        return idle

    def lend(self) -> Tensor:
        """A result on it; not idle now, while the result lives."""
        result = self.tensor.data               # no view: those may not be changed in place
        self.lent = next(_clock)
        self.home[self.address] = self
        return result


_pool: dict[Kind, dict[int, Block]] = {}      # of a kind by address, the one lent last at the end
_clock = count()


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """torch.empty on the CPU; a large one's storage is the pool's, and so cannot be resized."""
    return each([(shape, dtype)])[0]


def each(kinds: Sequence[Kind]) -> list[Tensor]:
    """`empty` of each: what a call needs, at once."""
    found, last, idle = [], None, None
    for kind in kinds:
        if kind != last:
            last, idle = kind, _idle(kind)      # goes on where it was: what is in use is looked at once
        if (block := next(idle, None)) is None:
            if (nbytes := _nbytes(kind)) < LARGE:
                found.append(torch.empty(kind[0], dtype=kind[1]))
                continue
            block = _made(kind, nbytes)
        found.append(block.lend())
    return found


def _idle(kind: Kind) -> Iterator[Block]:
    """Blocks of a kind, taken out of the pool."""
    if (held := _pool.get(kind)) is not None:
        blocks = [*held.values()]
        for block in chain(reversed(blocks[-RECENT:]), blocks[:-RECENT]):
            if block.claimed():
                yield block


def _made(kind: Kind, nbytes: int) -> Block:
    """A block of a kind that has no idle one, on the memory of another of that size, if one is idle."""
    size = _rounded(nbytes)
    old = next((block for block in reversed(_blocks()) if block.size == size and block.claimed()), None)
    return Block(_new(size) if old is None else old.memory, kind)


def _blocks() -> list[Block]:
    """All of the pool, the one lent last at the end. Kinds without any are forgotten."""
    for kind in [kind for kind, held in [*_pool.items()] if not held]:
        _pool.pop(kind, None)
    return sorted((block for held in [*_pool.values()] for block in [*held.values()]), key=attrgetter("lent"))


@lru_cache(maxsize=1024)
def _nbytes(kind: Kind) -> int:
    shape, dtype = kind
    return prod(shape) * dtype.itemsize


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
    return sum(block.size for block in _blocks() if block.claimed())


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
    blocks = _blocks()
    held = sum(block.size for block in blocks)
    for many, block in zip(range(len(blocks), 0, -1), blocks):
        if many < MOST and held + size <= limit():
            break
        block.home.pop(block.address, None)
        held -= block.size
    return (torch.empty(size, dtype=torch.uint8) if size < HUGE else _aligned(size, size // HUGE)).numpy()


@cache
def _madvise():
    if not sys.platform.startswith("linux"):
        return None
    fn = ctypes.CDLL(None).madvise
    fn.argtypes, fn.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return fn
