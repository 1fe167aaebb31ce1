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

from llvmlite import ir

from ...compiler.schedules.kernel import Buffer, Kernel, Part, Run
from .frame import Frame
from .loops import Nest, i64
from .memory import I8, Index, memory_type, size_of
from .vector import I32

STEPS = 2              # ahead: a step takes longer than half a memory access
LINE = 64              # bytes


def fetch_ahead(kernel: Kernel, run: Run, frame: Frame, nest: Nest, tile: ir.Value, step: ir.Value) -> None:
    """Prefetches for a later step than `step`, if the steps sweep over a matrix: of what the steps themselves use,
    and in the last run of what is used a tile at a time, operands for the next tile and results for this one."""
    if not any(p.sweep for p in run.steps.phases):
        return
    b, back = nest.b, run.reverse
    own = ports(run, run.steps)
    wanted = [(name, write, b.add(step, i64(-STEPS if back else STEPS)), 3) for name, write in own.items()]
    if run is kernel.runs[-1]:
        later = b.sub(step, frame.words["tile"]) if back else b.add(step, frame.words["tile"])
        early = {name: write for r in kernel.runs for name, write in ports(r, r.before).items()}
        wanted += [(name, write, later, 2) for name, write in early.items()]
        wanted += [(name, write, step, 2) for name, write in ports(run, run.after).items() if name not in own]

    def row(i, _):
        b = nest.b
        for name, write, at, level in wanted:
            port = frame.buffers[name]
            if not fetched(run, port):
                continue
            start = frame.row(b, port, {"b": Index("row", 0, i)}, at)
            first = b.bitcast(b.gep(frame.pointer(b, name), [start]), I8.as_pointer())
            for line in range(0, port.numel * size_of(memory_type(port.kind, frame.real)), LINE):
                prefetch(b, b.gep(first, [i64(line)]), write, level)
        return []

    nest.loop("row", i64(0), frame.count, 1, [], row)
    if run is kernel.runs[-1] and kernel.checkpoint:
        _states(kernel, frame, nest, tile, step)


def _states(kernel: Kernel, frame: Frame, nest: Nest, tile: ir.Value, step: ir.Value) -> None:
    """Asks for the states kept at the start of the tile that comes next, a part of each at every step."""
    b, save = nest.b, kernel.checkpoint == "save"
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
                prefetch(nest.b, nest.b.gep(base, [nest.b.mul(k, i64(LINE))]), save, 2)
                return []

            nest.loop("line", first, frame.least(b, b.add(first, count), i64(lines)), 1, [], line)
            return []

        nest.loop("row", i64(0), frame.count, 1, [], row)


def fetched(run: Run, port: Buffer) -> bool:
    """Whether the steps ask for a port ahead."""
    return port.space in ("input", "output") and len(port.axes) < 2 and any(p.sweep for p in run.steps.phases)


def ports(run: Run, part: Part) -> dict[str, bool]:
    """Buffers that the phases of a part use: whether they are written."""
    out: dict[str, bool] = {}
    for p in part.phases:
        own = {n for g in p.groups for n in g.nodes} | {s.node for s in p.stores if s.node}
        todo, seen = list(own), set()
        while todo:
            n = todo.pop()
            if n in seen:
                continue
            seen.add(n)
            if n in part.reads and (n not in own or not run.nodes[n].args):
                out.setdefault(part.reads[n], False)
            else:
                todo += run.nodes[n].args
        out |= {s.buffer: True for s in p.stores}
    return out


def prefetch(b: ir.IRBuilder, pointer: ir.Value, write: bool, level: int) -> None:
    """Ask for a cache line; `level` 3 is the nearest cache."""
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    fn = b.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
    b.call(fn, [pointer, I32(int(write)), I32(level), I32(1)])
