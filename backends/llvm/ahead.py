"""Asking for memory ahead of the steps that use it.

A step of a matrix state reads and writes a few hundred bytes of each port, far
from the step's before, and keeps the core busy for long enough that nothing of
the next step is asked for in time. A result's lines matter as much as an
operand's: stores are done in order, so one that waits for its line holds up
those of the state behind it. What is read or written a tile at a time (before
the steps, after them, the states kept at the starts of tiles) would have the
core wait for every line: steps ask for it, an equal part each.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from ...compiler.schedules.kernel import Buffer, Kernel, Part, Run
from .frame import Frame
from .loops import Nest, i64
from .memory import I8, Index, memory_type, size_of
from .vector import I32

STEPS = 2              # ahead: a step takes longer than half a memory access
LINE = 64              # bytes


@dataclass(frozen=True)
class Ahead:
    """What the steps of a run ask for, if they sweep over a matrix: operands and results of a later step, and in the
    last run of a tile what is used a tile at a time: operands for the next tile, results for this one. Where steps are
    made strip by strip, everything is used a tile at a time."""

    kernel: Kernel
    run: Run
    frame: Frame
    step: ir.Value

    def lines(self, b: ir.IRBuilder, row: Index) -> list[ir.Value]:
        """Addresses of the lines that one step asks for, for one sequence."""
        out: list[ir.Value] = []
        for name, at in self._wanted(b):
            port = self.frame.buffers[name]
            if fetched(self.run, port):
                start = self.frame.row(b, port, {"b": row}, at)
                first = b.bitcast(b.gep(self.frame.pointer(b, name), [start]), I8.as_pointer())
                size = port.numel * size_of(memory_type(port.kind, self.frame.real))
                out += [b.gep(first, [i64(k)]) for k in range(0, size, LINE)]
        return out

    def _wanted(self, b: ir.IRBuilder) -> list[tuple[str, ir.Value]]:
        """Ports, and the step of which a row is asked for."""
        run, tile, here = self.run, self.frame.words["tile"], self.step
        early = [name for r in self.kernel.runs for name in ports(r, r.before)]
        steps = [name for name in ports(run, run.steps) if name not in early]
        soon, later = (b.sub if run.reverse else b.add)(here, i64(STEPS)), (b.sub if run.reverse else b.add)(here, tile)
        if self.kernel.strip:
            names = dict.fromkeys((*early, *(name for r in self.kernel.runs for name in ports(r, r.steps))))
            late = (name for r in self.kernel.runs for name in ports(r, r.after) if name not in names)
            return [*((name, later) for name in names), *((name, here) for name in late)]
        if run is not self.kernel.runs[-1]:
            return [(name, soon) for name in steps]
        late = [name for name in ports(run, run.after) if name not in (*early, *steps)]
        return [*((name, soon) for name in steps), *((name, later) for name in dict.fromkeys(early)),
                *((name, here) for name in late)]


class Spread:
    """Prefetches of many lines, a few in each turn of a loop: only so many can be under way at a time."""

    def __init__(self, b: ir.IRBuilder, lines: list[ir.Value], turns: int):
        self.each = -(-len(lines) // turns)
        entry = ir.IRBuilder(b.function.entry_basic_block)
        entry.position_at_start(b.function.entry_basic_block)
        self.table = entry.alloca(I8.as_pointer(), max(1, self.each * turns))
        for k in range(self.each * turns):
            b.store(lines[min(k, len(lines) - 1)], b.gep(self.table, [i64(k)]))

    def ask(self, b: ir.IRBuilder, turn: ir.Value) -> None:
        """The lines of one turn."""
        first = b.mul(turn, i64(self.each))
        for k in range(self.each):
            prefetch(b, b.load(b.gep(self.table, [b.add(first, i64(k))])))


def fetch_states(kernel: Kernel, run: Run, frame: Frame, nest: Nest, tile: ir.Value, step: ir.Value) -> None:
    """Asks for the states kept at the start of the tile that comes next, a part of each at every step of the last
    run, if it sweeps over a matrix."""
    if run is not kernel.runs[-1] or not kernel.checkpoint or not any(p.sweep for p in run.steps.phases):
        return
    b = nest.b
    later = b.add(tile, i64(-1 if kernel.reverse else 1))
    for s in kernel.runs[0].states:
        port = frame.buffers[f"check.{s}"]
        lines = port.numel * size_of(memory_type(port.kind, frame.real)) // LINE
        count = b.add(b.sdiv(i64(lines), frame.words["tile"]), i64(1))
        first = b.mul(step, count)
        sb, st = frame.strides[port.name]

        def row(i, _):
            b = nest.b
            start = b.add(b.mul(i, sb), b.mul(later, st))
            base = b.bitcast(b.gep(frame.pointer(b, port.name), [start]), I8.as_pointer())

            def line(k, _):
                prefetch(nest.b, nest.b.gep(base, [nest.b.mul(k, i64(LINE))]))
                return []

            nest.loop("line", first, frame.least(b, b.add(first, count), i64(lines)), 1, [], line)
            return []

        nest.loop("row", i64(0), frame.count, 1, [], row)


def fetched(run: Run, port: Buffer) -> bool:
    """Whether the steps ask for a port ahead."""
    return port.space in ("input", "output") and len(port.axes) < 2 and any(p.sweep for p in run.steps.phases)


def ports(run: Run, part: Part) -> list[str]:
    """Buffers that the phases of a part use."""
    out: dict[str, None] = {}
    for p in part.phases:
        own = {n for g in p.groups for n in g.nodes} | p.written(part.reads)
        todo, seen = sorted(own), set()
        while todo:
            n = todo.pop()
            if n in seen:
                continue
            seen.add(n)
            if n in part.reads and (n not in own or not run.nodes[n].args):
                out[part.reads[n]] = None
            else:
                todo += run.nodes[n].args
        out |= {s.buffer: None for s in p.stores}
    return list(out)


def prefetch(b: ir.IRBuilder, pointer: ir.Value) -> None:
    """Ask for a cache line, into the second level: the first one is full of the state."""
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    fn = b.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
    b.call(fn, [pointer, I32(0), I32(2), I32(1)])
