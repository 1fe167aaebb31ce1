"""Calling a kernel: tiles, scratch memory, room for packs, the argument block."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from ...collection import paused
from ...compiler.schedules.kernel import PER_STEP, Buffer, Kernel, Pack
from ...compiler.schedules.tune import tune
from ..pages import workspace
from . import jit, threads
from .block import ALIGN, MOVING, moving

TILE_BYTES = 384 * 1024        # scratch that should stay in the second-level cache
BIG_SUMS, SUM_ROWS = 1 << 20, 256   # sums of that many elements want that many rows at a time
MOST_BLOCKS = 16               # batch blocks with sums of their own
LEAD = {"input": 2, "output": 2, "check": 2, "param": 0, "sum": 1, "first": 1, "final": 1}    # axes before the shape
RESULTS = ("output", "final", "check", "sum")
SIZES = 64                     # of calls, whose layout is remembered
STREAM_BYTES = 32 << 20        # of inputs and outputs: of more than that no cache keeps what a call wrote first
LANES = 12                     # a stretch of lanes is a multiple of so many registers: of 1, 2, 3 and 4


class Launch:
    """A compiled kernel. `tile`: fixed number of steps per tile, or None: chosen per call."""

    @paused()
    def __init__(self, kernel: Kernel, dtype: torch.dtype, tile: int | None = None):
        self.dtype, self.tile = dtype, tile
        width = self.width = jit.vector_width(dtype)
        self.kernel = tuned(kernel, dtype)
        self.code = jit.compile_described(f"{self.kernel} {dtype} {width}", self.llvm, "run")
        self.function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.code.address("run"))
        size = self.size = torch.finfo(dtype).bits // 8
        nbytes = {"real": size, "int": 8, "bool": 1}
        self.bytes = [(b.numel * nbytes[b.kind], b.space) for b in self.kernel.scratch]
        phases = [p for r in self.kernel.runs for part in (r.before, r.steps, r.after) for p in part.phases]
        self.shares = any(p.weights for p in phases)                # rows share weights
        self.rows = max((p.unroll for p in phases if p.block == "rows" and p.domain == "tile"), default=1)
        self.sums = sum(p.numel for p in self.kernel.ports if p.space == "sum")
        self.laid = lru_cache(maxsize=SIZES)(self._laid)
        self.packs, self.pack_bytes = [], 0     # where each is, and its stride per head
        for pack in self.kernel.packs:
            numel, per_head = _pack_size(pack, self.kernel)
            self.packs.append((self.pack_bytes, per_head))
            self.pack_bytes += up(numel * size)
        ports, packs = len(self.kernel.ports), len(self.kernel.packs)
        self.block_type = ctypes.c_int64 * (moving(ports, packs) + len(MOVING) + ports + packs)

    def llvm(self) -> str:
        """The kernel as LLVM IR."""
        from .kernel import emit_kernel  # not needed where the cache has the code
        from .vector import F32, F64

        return str(emit_kernel(self.kernel, F32 if self.dtype == torch.float32 else F64, jit.vector_width(self.dtype)))

    def geometry(self, B: int, T: int) -> tuple[int, int, int]:
        """(sequences per block, blocks, steps per tile)."""
        n = threads.num_threads()
        heads = self.kernel.heads.size if self.kernel.heads else 1
        block = 1
        if self.shares:                         # enough rows to reuse weights, enough blocks for the threads
            per_thread = -(-B * heads // n) if heads < n else B
            block = min(32, max(1, per_thread))
            block = min(B, -(-block // 4) * 4) if block > 2 else block
        if self.sums:
            block = max(block, -(-B // MOST_BLOCKS))
        tile = self.tile
        if tile is None:
            per_step = max(1, sum(n for n, space in self.bytes if space in PER_STEP)) * block
            least = -(-SUM_ROWS // block) if self.sums >= BIG_SUMS else 8 if self.shares else 1
            tile = max(least, min(256, TILE_BYTES // per_step))
            if tile > self.rows:
                tile -= tile % self.rows
        return block, -(-B // block), max(1, min(tile, T) if self.tile is None else tile)

    def chunks(self, items: int, n: int) -> tuple[int, int]:
        """(stretches of lanes per item, lanes in each): several where there are fewer items than threads."""
        lanes = self.kernel.lanes
        if lanes is None or items >= n:
            return 1, lanes.size if lanes else 0
        least = LANES * self.width              # a multiple of every block of registers
        chunk = max(least, -(-lanes.size * items // n // least) * least)
        return max(1, -(-lanes.size // chunk)), chunk

    def _laid(self, B: int, T: int, n: int) -> tuple[list[int], int, list[list[int]], bool]:
        """For n threads: `block.WORDS` of the argument block, the bytes of scratch memory, the strides of every
        port's tensor where it is contiguous, and whether outputs should go past the caches."""
        block, blocks, tile = self.geometry(B, T)
        heads = self.kernel.heads.size if self.kernel.heads else 1
        chunks, chunk = self.chunks(blocks * heads, n)
        slots = min(blocks * heads * chunks, 2 * n if n > 1 else 1)
        times = {"tile": tile, "trail": tile + 1}
        stride = sum(up(size * block * times.get(space, 1)) for size, space in self.bytes)
        tiles = -(-T // tile)
        words = [B, T, tile, block, blocks, heads, n, slots, stride, tiles, chunks, chunk]
        moved = sum(_row(p) for p in self.kernel.ports if p.space in ("input", "output")) * B * T * self.size
        return (words, stride * slots + ALIGN, [_contiguous(p, T, tiles) for p in self.kernel.ports],
                self.kernel.elementwise and moved > STREAM_BYTES)

    def __call__(self, B: int, T: int, tensors: dict[str, Tensor], *, seed: int = 0, training: bool = False) -> None:
        """Run. `tensors`: one per port by name; sums as [blocks, *shape], zeroed."""
        words, nbytes, contiguous, streaming = self.laid(B, T, threads.num_threads())
        memory = workspace(nbytes + self.pack_bytes)
        words, packs = list(words), up(memory.data_ptr())
        addresses, keep, late = [], [], []
        for port, strides in zip(self.kernel.ports, contiguous):
            x = given = tensors[port.name]
            if x.is_neg() or not x.is_contiguous():
                x = _dense(port, x)
                strides = _strides(port, x)
                if x is not given:
                    keep.append(x)
                    if port.space in RESULTS:
                        late.append((given, x))
            words += strides
            addresses.append(x.data_ptr())
            if streaming and port.space == "output":        # every row must begin where a register may
                places = addresses[-1], *(n * self.size for n in strides)
                streaming = not any(at % (self.width * self.size) for at in places)
        for at, per_head in self.packs:
            words.append(per_head)
            addresses.append(packs + at)
        self.function(self.block_type(*words, seed, training, streaming, packs + self.pack_bytes, *addresses))
        for wanted, x in late:
            wanted.copy_(x)
        del keep, memory


def tuned(kernel: Kernel, dtype: torch.dtype) -> Kernel:
    """The kernel in blocks for the host's registers."""
    return tune(kernel, jit.vector_width(dtype), 32 if jit.host()["vector_bits"] == 512 else 16)


def up(n: int) -> int:
    """The next multiple of `ALIGN`."""
    return -(-n // ALIGN) * ALIGN


def _contiguous(port: Buffer, T: int, tiles: int) -> list[int]:
    """`_strides` of a contiguous tensor."""
    inner, row = port.numel, _row(port)
    steps = {"input": T, "output": T, "check": tiles}.get(port.space, 0)
    return [0 if port.space == "param" else row * max(1, steps), row if steps else 0, inner if port.heads else 0,
            inner // port.axes[0].size if port.rows and inner else 0]


def _row(port: Buffer) -> int:
    """Elements of all heads."""
    return port.numel * (port.heads.size // port.groups if port.heads else 1)


def _strides(port: Buffer, x: Tensor) -> list[int]:
    """Batch, time, heads and first axis: strides in elements."""
    s = x.stride()
    lead = LEAD[port.space]
    batch = s[0] if lead and x.shape[0] > 1 else 0
    if lead and x.shape[0] == 1 and port.space in ("output", "final", "check"):
        batch = s[0]
    time = s[1] if lead == 2 else 0
    heads = int(port.heads is not None)
    return [batch, time, s[lead] if heads else 0, s[lead + heads] if port.rows else 0]


def _dense(port: Buffer, x: Tensor) -> Tensor:
    """With contiguous axes after those whose strides are free; a copy where they are not, or where memory holds the
    negative of the values (torch's views of conjugates)."""
    if x.is_neg():
        return x.resolve_neg().contiguous()
    free = LEAD[port.space] + int(port.heads is not None) + int(port.rows)
    want = 1
    for size, stride in zip(reversed(x.shape[free:]), reversed(x.stride()[free:])):
        if size > 1 and stride != want:
            return x.contiguous()
        want *= size
    return x


def _pack_size(pack: Pack, kernel: Kernel) -> tuple[int, int]:
    """Elements of a pack, and its stride per head (0: heads share it)."""
    one = prod(n for _, n in pack.letters) * -(-pack.lane[1] // pack.lanes) * pack.lanes * pack.reduced[1]
    one *= len(pack.members)
    split = any(p.heads for p in kernel.ports if p.name == f"par.{pack.members[0][0]}")
    return (one * kernel.heads.size, one) if split else (one, 0)
