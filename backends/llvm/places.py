"""States kept at the starts of tiles, read and written where they are kept.

Such a state is as large as all that a few steps read. Copied to and from memory of the steps' own at every tile, it
would be waited for; products that read and write it do not wait, as they ask for memory long before (`between.py`). So
the first step of a tile reads the state where it is kept, the last one writes the next tile's where that will be kept,
and only those in between use the steps' own memory. This is for kernels whose tiles are a few large steps; where tiles
are long, a copy is nothing beside them, and a state that always lies at one place lets the compiler see more.
"""

from __future__ import annotations

from dataclasses import replace

from llvmlite import ir

from ...compiler.schedules.kernel import Kernel
from ...compiler.schedules.leaves import uses
from .between import asking
from .frame import Frame
from .loops import I64, i64
from .memory import memory_type


def placed(kernel: Kernel, width: int) -> tuple[str, ...]:
    """States of the first run that are used where they are kept."""
    run = kernel.runs[0]
    if not kernel.checkpoint or kernel.strip or not asking(kernel, width):
        return ()
    tiles = [(r, part) for r in kernel.runs for part in (r.before, r.after) if not part.stepwise]
    whole = {b for r, part in tiles for p in part.phases for b in uses(p, r.nodes, part.reads)}
    return tuple(s for s in run.states if s not in run.doubled and run.trails.get(s) not in whole)


class Places:
    """Where the states are at a step: pointers to the first sequence's, and how far apart the sequences' are."""

    def __init__(self, kernel: Kernel, frame: Frame, fn: ir.Function, states: tuple[str, ...]):
        self.kernel, self.frame, self.states, self.run = kernel, frame, states, kernel.runs[0]
        b = ir.IRBuilder(fn.entry_basic_block)
        b.position_at_start(fn.entry_basic_block)
        for s in states:
            for name in self._names(s):
                buffer = frame.buffers[name]
                frame.buffers[name] = replace(buffer, name=name, space="placed")
                frame.slots[name] = b.alloca(memory_type(buffer.kind, frame.real).as_pointer())
                frame.apart[name] = b.alloca(I64)

    def _names(self, s: str) -> list[str]:
        """Of the old state, the new one and the trail."""
        trail = self.run.trails.get(s)
        return [f"{self.run.prefix}{role}.{s}" for role in ("state", "next")] + ([trail] if trail else [])

    def enter(self, b: ir.IRBuilder, t: ir.Value, steps: ir.Value) -> None:
        """Before a step, of so many in this tile."""
        frame = self.frame
        first = b.icmp_signed("==", t, self._end(b, steps, self.run.reverse))
        last = b.icmp_signed("==", t, self._end(b, steps, not self.run.reverse))
        for s in self.states:
            old, new, *trail = self._names(s)
            start, own, apart = self._own(b, s, t)
            sb, st = frame.strides[f"check.{s}"]
            kept = b.gep(frame.pointers[f"check.{s}"], [b.mul(frame.tile, st)])
            for name in (old, *trail):
                self._set(b, name, b.select(first, kept, start), b.select(first, sb, apart))
            if self.kernel.checkpoint == "save":
                later = b.add(frame.tile, i64(-1 if self.run.reverse else 1))
                there = b.and_(last, b.icmp_unsigned("<", later, frame.words["tiles"]))
                kept = b.gep(frame.pointers[f"check.{s}"], [b.mul(later, st)])
                self._set(b, new, b.select(there, kept, own), b.select(there, sb, apart))
            else:
                self._set(b, new, own, apart)

    def leave(self, b: ir.IRBuilder) -> None:
        """After the last tile: the state is in the steps' own memory."""
        for s in self.states:
            start, _, apart = self._own(b, s, i64(0))
            self._set(b, self._names(s)[0], start, apart)

    def _own(self, b: ir.IRBuilder, s: str, t: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """The steps' own memory: of the state, of the next one, and how far the sequences are apart."""
        frame, old = self.frame, self._names(s)[0]
        numel = i64(frame.buffers[old].numel)
        if s not in self.run.trails:
            return frame.pointers[old], frame.pointers[old], numel
        start = b.gep(frame.pointers[old], [b.mul(t, numel)])
        return start, b.gep(start, [numel]), b.mul(b.add(frame.words["tile"], i64(1)), numel)

    @staticmethod
    def _end(b: ir.IRBuilder, steps: ir.Value, late: bool) -> ir.Value:
        return b.sub(steps, i64(1)) if late else i64(0)

    def _set(self, b: ir.IRBuilder, name: str, pointer: ir.Value, apart: ir.Value) -> None:
        b.store(pointer, self.frame.slots[name])
        b.store(apart, self.frame.apart[name])
