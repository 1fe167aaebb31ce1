"""Asking for memory ahead of the steps that use it.

A step of a matrix state reads and writes a few hundred bytes of each port, far
from the step's before, and keeps the core busy for long enough that nothing of
the next step is asked for in time. A result's lines matter as much as an
operand's: stores are done in order, so one that waits for its line holds up
those of the state behind it.
"""

from __future__ import annotations

from llvmlite import ir

from ...compiler.schedules.kernel import Part, Run
from .frame import Frame
from .loops import Nest, i64
from .memory import I8, Index, memory_type, size_of
from .vector import I32

STEPS = 2              # ahead: a step takes longer than half a memory access
LINE = 64              # bytes


def fetch_ahead(run: Run, frame: Frame, nest: Nest, step: ir.Value) -> None:
    """Prefetches for a later step than `step`, if the steps sweep over a matrix."""
    if not any(p.sweep for p in run.steps.phases):
        return
    wanted = [(name, write) for name, write in ports(run, run.steps).items()
              if (port := frame.buffers[name]).space in ("input", "output") and len(port.axes) < 2]
    later = nest.b.add(step, i64(-STEPS if run.reverse else STEPS))

    def row(i, _):
        b = nest.b
        for name, write in wanted:
            port = frame.buffers[name]
            start = frame.row(b, port, {"b": Index("row", 0, i)}, later)
            first = b.bitcast(b.gep(frame.pointer(b, name), [start]), I8.as_pointer())
            for at in range(0, port.numel * size_of(memory_type(port.kind, frame.real)), LINE):
                prefetch(b, b.gep(first, [i64(at)]), write)
        return []

    nest.loop("row", i64(0), frame.count, 1, [], row)


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


def prefetch(b: ir.IRBuilder, pointer: ir.Value, write: bool) -> None:
    """Ask for a cache line."""
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    fn = b.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
    b.call(fn, [pointer, I32(int(write)), I32(3), I32(1)])
