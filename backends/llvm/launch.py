"""Calling a kernel: tiles, scratch memory, room for packs, the argument block."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor
from torch._C._dynamo.guards import TensorGuards

from ...collection import paused
from ...compiler.schedules.kernel import PER_STEP, Buffer, Kernel, Pack
from ...compiler.schedules.stepwise import stepwise
from ...compiler.schedules.tune import tune
from ..fold import Fold, of_a_step
from ..pages import workspace
from . import jit, threads
from .block import ALIGN, MOVING, up
from .tape import NAME, Tape

TILE_BYTES = 384 * 1024        # scratch that should stay in the second-level cache
BIG_SUMS, SUM_ROWS = 1 << 20, 256   # sums of that many elements want that many rows at a time
MOST_BLOCKS = 16               # batch blocks with sums of their own
RESULTS = ("output", "final", "check", "sum")
SIZES = 64                     # of calls, whose layout is remembered
STREAM_BYTES = 32 << 20        # of inputs and outputs: of more than that no cache keeps what a call wrote first
LANES = 12                     # a stretch of lanes is a multiple of so many registers: of 1, 2, 3 and 4


@dataclass(frozen=True, slots=True)
class Layout:
    """What is the same for all calls of one size with tensors of the same strides."""

    words: bytes            # of the argument block, up to what moves
    nbytes: int             # of scratch memory and packs
    starts: tuple[int, ...]     # of each port within its tensor, in bytes
    gaps: tuple[tuple[int, int], ...]       # of a tape that is made, in bytes
    dense: bool             # the kernel can read and write the tensors where they are
    streaming: bool         # outputs should go past the caches, if they begin where a register may


@dataclass(frozen=True)
class Folded:
    """Ports whose tensors hold single steps, of which several are one of the kernel: which axis counts those."""

    fold: Fold
    axes: Mapping[str, int]


class Launch:
    """A compiled kernel. `operands`, `results`: names of the tensors that a call gives, among them all ports, in the
    order of the call; results are contiguous. `tape`: ports that lie in one of them, called `tape.NAME`. `tile`: fixed
    number of steps per tile, or None: chosen per call."""

    @paused()
    def __init__(self, kernel: Kernel, dtype: torch.dtype, operands: Sequence[str], results: Sequence[str],
                 tape: Tape | None = None, tile: int | None = None, folded: Folded | None = None):
        self.dtype, self.tile, self.tape = dtype, tile, tape
        width = self.width = jit.vector_width(dtype)
        self.kernel = tuned(kernel, dtype)
        self.code = jit.compile_described(f"{self.kernel} {dtype} {width}", self.llvm, "run")
        self.function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.code.address("run"))
        size = self.size = torch.finfo(dtype).bits // 8
        nbytes = {"real": size, "int": 8, "bool": 1}
        self.bytes = [(b.numel * nbytes[b.kind], b.space) for b in self.kernel.scratch]
        phases = [p for r in self.kernel.runs for part in r.parts for p in part.phases]
        self.shares = any(p.weights for p in phases)                # rows share weights
        self.rows = max((p.unroll for p in phases if p.block == "rows" and p.domain == "tile"), default=1)
        self.sums = sum(p.numel for p in self.kernel.ports if p.space == "sum")
        self.laid, self.usual = (lru_cache(maxsize=SIZES)(f) for f in (self._laid, self._usual))
        self.packs, self.pack_bytes = [], 0     # where each is, and its stride per head
        for pack in self.kernel.packs:
            numel, per_head = _pack_size(pack, self.kernel)
            self.packs.append((self.pack_bytes, per_head))
            self.pack_bytes += up(numel * size)
        ports, packs = len(self.kernel.ports), len(self.kernel.packs)
        self.moving = struct.Struct(f"{len(MOVING) + ports + packs}q").pack
        places = {name: i for i, name in enumerate((*operands, *results))}
        self.kept = [tape is not None and p.name in tape.ports for p in self.kernel.ports]
        self.order = [places[NAME if kept else p.name] for p, kept in zip(self.kernel.ports, self.kept)]
        self.used = list(dict.fromkeys(self.order))
        self.at = [self.used.index(i) for i in self.order]          # of each port among those used
        self.makes = self.used.index(places[NAME]) if NAME in results else None      # the tape, among those used
        self.read = [i for i in self.used if i < len(operands)]
        self.last: tuple[tuple[int, int, int], Callable[..., bool], Layout] | None = None
        self.fold = folded.fold if folded else None
        self.axes = [folded.axes.get(p.name) if folded else None for p in self.kernel.ports]
        self.outputs = [i for i, p in enumerate(self.kernel.ports) if p.space == "output"]

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

    def contiguous(self, B: int, T: int) -> tuple[tuple[int, ...], ...]:
        """The strides of every port's tensor where it is contiguous."""
        _, blocks, tile = self.geometry(B, T)
        rows = {"check": (B, -(-T // tile)), "sum": (blocks,), "param": (), "first": (B,), "final": (B,)}
        return tuple(_contiguous(p, rows.get(p.space, (B, T)), kept)
                     for p, kept in zip(self.kernel.ports, self.kept))

    def _usual(self, B: int, T: int, n: int, strides: tuple[tuple[int, ...], ...]) -> Layout:
        """For T steps of the tensors, and for operands of these strides, those of `read`."""
        steps, given = T if self.fold is None else T // self.fold.size, dict(zip(self.read, strides))
        every = []
        for port, i, kept, axis, usual in zip(self.kernel.ports, self.order, self.kept, self.axes,
                                              self.contiguous(B, steps)):
            if axis is not None:
                usual = _packed((B, T, *of_a_step(_shape(port), axis)))
            if kept and given.get(i, (1,)) != (1,):
                raise ValueError("what was kept for the backward pass has come back with other strides")
            found = usual if kept else given.get(i, usual)
            every.append(found if axis is None else self.fold.strides(found, axis))
        return self.laid(B, steps, n, tuple(every))

    def _laid(self, B: int, T: int, n: int, strides: tuple[tuple[int, ...], ...]) -> Layout:
        """For T steps of the kernel, n threads, and for tensors of these strides as the kernel sees them, one by one in
        the order of the ports."""
        block, blocks, tile = self.geometry(B, T)
        ports, heads = self.kernel.ports, self.kernel.heads.size if self.kernel.heads else 1
        chunks, chunk = self.chunks(blocks * heads, n)
        slots = min(blocks * heads * chunks, 2 * n if n > 1 else 1)
        times = {"tile": tile, "trail": tile + 1}
        stride = sum(up(size * block * times.get(space, 1)) for size, space in self.bytes)
        steps = [_steps(p, s, B, kept) for p, s, kept in zip(ports, strides, self.kept)]
        starts = dict(zip(self.tape.ports, self.tape.starts(B, T))) if self.tape else {}
        gaps = tuple(self.tape.gaps(B, T)) if self.makes is not None else ()
        moved = sum(_row(p) for p in ports if p.space in ("input", "output")) * B * T * self.size
        words = [B, T, tile, block, blocks, heads, n, slots, stride, -(-T // tile), chunks, chunk,
                 *(word for some in steps for word in some), *(per_head for _, per_head in self.packs)]
        return Layout(
            struct.pack(f"{len(words)}q", *words), stride * slots + ALIGN + self.pack_bytes,
            tuple(starts.get(p.name, 0) for p in ports), gaps, all(_dense(p, s) for p, s in zip(ports, strides)),
            self.kernel.elementwise and moved > STREAM_BYTES and not any(
                word * self.size % (self.width * self.size) for i in self.outputs for word in steps[i]))

    def __call__(self, B: int, T: int, tensors: Sequence[Tensor], *, seed: int = 0, training: bool = False) -> None:
        """Run T steps of the tensors. `tensors`: operands, results; sums as [blocks, *shape], zeroed."""
        size, operands = (B, T, threads.num_threads()), [tensors[i] for i in self.read]
        if (last := self.last) is not None and last[0] == size and last[1](*operands):
            laid = last[2]
        else:
            laid = self.usual(*size, tuple([x.stride() for x in operands]))
            if not laid.dense or any([x.is_neg() for x in operands]):
                return self._copied(*size, tensors, seed, training)
            # One look at all operands lets those through that are alike.
            look = TensorGuards(*operands, dynamic_dims_sizes=None, dynamic_dims_strides=None).check
            self.last = size, look, laid
        at = [tensors[i].data_ptr() for i in self.used]
        for start, nbytes in laid.gaps:         # the same call gives the same bytes
            ctypes.memset(at[self.makes] + start, 0, nbytes)
        self._run(laid, [at[i] + start for i, start in zip(self.at, laid.starts)], seed, training)

    def _run(self, laid: Layout, at: list[int], seed: int, training: bool) -> None:
        """`at`: the ports' addresses."""
        memory = workspace(laid.nbytes)
        packs = up(memory.data_ptr())
        streaming = laid.streaming and not any(at[i] % (self.width * self.size) for i in self.outputs)
        self.function(laid.words + self.moving(seed, training, streaming, packs + self.pack_bytes, *at,
                                               *[packs + offset for offset, _ in self.packs]))

    def _copied(self, B: int, T: int, n: int, tensors: Sequence[Tensor], seed: int, training: bool) -> None:
        """The same where a tensor has other strides than the kernel can follow, or where its memory holds the
        negative of its values (torch's views of conjugates)."""
        ports, steps = self.kernel.ports, T if self.fold is None else T // self.fold.size
        kept = self.tape.views(tensors[self.order[self.kept.index(True)]], B, steps) if any(self.kept) else {}
        views = [kept[port.name] if port.name in kept else tensors[i] if axis is None else
                 self.fold.view(tensors[i], axis) for port, i, axis in zip(ports, self.order, self.axes)]
        used = [x if not x.is_neg() and _dense(port, x.stride()) else x.resolve_neg().contiguous()
                for x, port in zip(views, ports)]
        laid = self.laid(B, steps, n, tuple([x.stride() for x in used]))
        for start, nbytes in laid.gaps:
            tensors[self.used[self.makes]][start:start + nbytes] = 0
        self._run(laid, [x.data_ptr() for x in used], seed, training)
        for port, x, here in zip(ports, views, used):
            if port.space in RESULTS and here is not x:
                x.copy_(here)


def tuned(kernel: Kernel, dtype: torch.dtype) -> Kernel:
    """The kernel in blocks for the host's registers, and its large parts step by step."""
    return stepwise(tune(kernel, *registers(dtype)))


def registers(dtype: torch.dtype) -> tuple[int, int]:
    """Lanes of a vector register of the host, and how many of them it has."""
    return jit.vector_width(dtype), 32 if jit.host()["vector_bits"] == 512 else 16


def _shape(port: Buffer) -> tuple[int, ...]:
    """Of one row of a port's tensor, all heads."""
    return ((port.heads.size // port.groups,) if port.heads else ()) + tuple(d.size for d in port.axes)


def _row(port: Buffer) -> int:
    """Elements of all heads."""
    return prod(_shape(port))


def _contiguous(port: Buffer, rows: tuple[int, ...], tape: bool) -> tuple[int, ...]:
    """Strides of a contiguous tensor with so many rows [B, T], [B] or none."""
    return _packed((*(reversed(rows) if tape else rows), *_shape(port)))


def _packed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous tensor."""
    return tuple(prod(max(1, n) for n in shape[i + 1:]) for i in range(len(shape)))


def _steps(port: Buffer, strides: tuple[int, ...], B: int, tape: bool) -> tuple[int, int, int, int]:
    """Elements from one to the next along the batch, time, heads and the first axis."""
    lead, heads = len(strides) - len(_shape(port)), int(port.heads is not None)
    batch, time = (*strides[:lead][::-1 if tape else 1], 0, 0)[:2]
    return (batch if B > 1 or port.space in RESULTS else 0, time, strides[lead] if heads else 0,
            strides[lead + heads] if port.rows else 0)


def _dense(port: Buffer, strides: tuple[int, ...]) -> bool:
    """Whether the axes after those whose strides are free are contiguous; a parameter has no free ones."""
    shape = _shape(port)
    free, want = 0 if port.space == "param" else int(port.heads is not None) + int(port.rows), 1
    for size, stride in zip(reversed(shape[free:]), reversed(strides)):
        if size > 1 and stride != want:
            return False
        want *= max(1, size)
    return True


def _pack_size(pack: Pack, kernel: Kernel) -> tuple[int, int]:
    """Elements of a pack, and its stride per head (0: heads share it)."""
    one = prod(n for _, n in pack.letters) * -(-pack.lane[1] // pack.lanes) * pack.lanes * pack.reduced[1]
    one *= len(pack.members)
    split = any(p.heads for p in kernel.ports if p.name == f"par.{pack.members[0][0]}")
    return (one * kernel.heads.size, one) if split else (one, 0)
