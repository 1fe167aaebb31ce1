"""What generated code knows at run time: the words of the argument block (see `block.py`), pointers, rows."""

from __future__ import annotations

from llvmlite import ir

from ...compiler.schedules.kernel import PER_STEP, Buffer, Kernel
from .block import ALIGN, MOVING, PER_PORT, WORDS, moving
from .loops import I64, i64
from .memory import memory_type, size_of


class Frame:
    """Pointers of one work item (a block of sequences of one head)."""

    def __init__(self, kernel: Kernel, real: ir.Type, b: ir.IRBuilder, args: ir.Value):
        self.kernel, self.real, self.args = kernel, real, args
        self.buffers = {x.name: x for x in (*kernel.ports, *kernel.scratch)}
        self.same = {f"{r.prefix}next.{n}": f"{r.prefix}state.{n}" for r in kernel.runs for n in r.states
                     if n not in r.doubled and n not in r.trails}     # updated in place: one memory, two names
        self.same |= {f"{r.prefix}{role}.{n}": trail for r in kernel.runs for n, trail in r.trails.items()
                      for role in ("state", "next")}
        self.buffers |= {new: self.buffers[old] for new, old in self.same.items()}
        self.pointers: dict[str, ir.Value] = {}
        self.strides: dict[str, tuple[ir.Value, ir.Value]] = {}
        self.rows: dict[str, ir.Value] = {}        # distance of elements of the first axis, where it is free
        self.packs: dict[str, ir.Value] = {}
        self.slots: dict[str, ir.Value] = {}       # buffers whose pointer changes from step to step
        self.apart: dict[str, ir.Value] = {}       # of these, where the sequences of a state are not in order: `Places`
        self.moving = moving(len(kernel.ports), len(kernel.packs))
        self.words = {w: self._word(b, i) for i, w in enumerate(WORDS)}
        self.words |= {w: self._word(b, self.moving + i) for i, w in enumerate(MOVING)}
        self.seed, self.training = self.words["seed"], self.words["training"]
        self.streaming = False                     # whether the code being made keeps results out of the caches
        self.tile: ir.Value | None = None          # number of the tile
        self.tile_start: ir.Value | None = None    # t of its first step
        self.strip: ir.Value | None = None         # first row of the strip, of which alone a trail has the rows

    def _word(self, b: ir.IRBuilder, i: int) -> ir.Value:
        return b.load(b.gep(self.args, [i64(i)]), align=8)

    def enter(self, b: ir.IRBuilder, head: ir.Value, block: ir.Value, chunk: ir.Value, scratch: ir.Value) -> None:
        """Pointers for this item: its head, its first sequence, its stretch of lanes, its scratch memory."""
        if self.kernel.lanes is not None:
            size = i64(self.kernel.lanes.size)
            self.low = b.mul(chunk, self.words["chunk"])
            self.high = self.least(b, b.add(self.low, self.words["chunk"]), size)
            self.last = b.zext(b.icmp_signed("==", self.high, size), I64)
        self.first = b.mul(block, self.words["block"])
        self.count = self.least(b, self.words["block"], b.sub(self.words["B"], self.first))
        addresses = self.moving + len(MOVING)
        for i, port in enumerate(self.kernel.ports):
            address = self._word(b, addresses + i)
            sb, st, sn, sr = (self._word(b, len(WORDS) + PER_PORT * i + k) for k in range(PER_PORT))
            lead = b.mul(block if port.space == "sum" else self.first, sb)
            if port.heads:
                n = b.sdiv(head, i64(port.groups)) if port.groups > 1 else head
                lead = b.add(lead, b.mul(n, sn))
            self.pointers[port.name] = b.gep(b.inttoptr(address, self._pointer_type(port)), [lead])
            self.strides[port.name] = (sb, st)
            if port.rows:
                self.rows[port.name] = sr
        ports, packs = len(self.kernel.ports), len(self.kernel.packs)
        for i, pack in enumerate(self.kernel.packs):
            address, sn = self._word(b, addresses + ports + i), self._word(b, self.moving - packs + i)
            self.packs[pack.name] = b.gep(b.inttoptr(address, self.real.as_pointer()), [b.mul(head, sn)])
        offset = scratch
        for buffer in self.kernel.scratch:
            self.pointers[buffer.name] = b.inttoptr(offset, self._pointer_type(buffer))
            rows = self.words["block"]
            if buffer.space in PER_STEP:
                rows = b.mul(rows, self.slots_of(b, buffer))
            size = b.mul(rows, i64(buffer.numel * size_of(memory_type(buffer.kind, self.real))))
            size = b.and_(b.add(size, i64(ALIGN - 1)), i64(-ALIGN))
            offset = b.add(offset, size)
        self.pointers |= {new: self.pointers[old] for new, old in self.same.items()}
        for run in self.kernel.runs:            # after a step the state lies behind the one before it
            for n, trail in run.trails.items():
                after = i64(self.buffers[trail].numel)
                self.pointers[f"{run.prefix}next.{n}"] = b.gep(self.pointers[trail], [after])

    def slots_of(self, b: ir.IRBuilder, buffer: Buffer) -> ir.Value:
        """Elements (of the buffer's axes) per row, of what is kept per step."""
        tile = self.words["tile"]
        return b.add(tile, i64(1)) if buffer.space == "trail" else tile

    def _pointer_type(self, buffer: Buffer) -> ir.Type:
        return memory_type(buffer.kind, self.real).as_pointer()

    def least(self, b: ir.IRBuilder, x, y) -> ir.Value:
        return b.select(b.icmp_signed("<", x, y), x, y)

    def pointer(self, b: ir.IRBuilder, name: str) -> ir.Value:
        if name in self.slots:
            return b.load(self.slots[name])
        return self.pointers[name]

    def sequence(self, b: ir.IRBuilder, c) -> ir.Value:
        """Number of the row's sequence in the batch."""
        return b.add(self.first, c["b"].value(b))

    def row(self, b: ir.IRBuilder, buffer: Buffer, c, step: ir.Value | None) -> ir.Value:
        """Element offset at which the row's part of a buffer starts; `step` is
        the step within the tile where the row has no `t` of its own."""
        if buffer.space in ("param", "sum"):
            return i64(0)
        row = c["b"].value(b)
        if buffer.space == "placed":
            return b.mul(row, b.load(self.apart[buffer.name]))
        if buffer.space in ("state", "step"):
            return b.mul(row, i64(buffer.numel))
        if buffer.space in ("first", "final"):
            return b.mul(row, self.strides[buffer.name][0])
        t = c["t"].value(b) if "t" in c else step
        if buffer.space in PER_STEP:
            at = b.mul(b.add(b.mul(row, self.slots_of(b, buffer)), t), i64(buffer.numel))
            narrow = buffer.space == "trail" and self.strip is not None
            return b.sub(at, b.mul(self.strip, i64(buffer.axes[-1].size))) if narrow else at
        sb, st = self.strides[buffer.name]
        return b.add(b.mul(row, sb), b.mul(b.add(self.tile_start, t), st))
