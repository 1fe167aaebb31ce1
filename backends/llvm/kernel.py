"""A whole kernel: work items over slots, tiles of time, steps, phases.

`emit_kernel(kernel, real, width)` gives an LLVM module with one external
function `run(args: i64*)`, which makes the packs, then deals out items. An item
is a block of sequences of one head; slot s works on items s, s + slots, ...
with scratch memory of its own, so that what is computed does not depend on
which thread does it.
"""

from __future__ import annotations

from llvmlite import ir

from ...compiler.schedules.kernel import Kernel, Part, Phase, Run
from ...compiler.schedules.leaves import for_later
from . import between, parallel
from .ahead import Ahead, fetch_states
from .block import WORDS
from .frame import Frame
from .loops import I64, Nest, i64
from .memory import Index, copy, memory_type, size_of
from .nests import PhaseEmitter
from .packing import emit_packs
from .places import Places, placed
from .strips import Strips
from .sweeps import SweepEmitter

PTR = ir.PointerType()


def emit_kernel(kernel: Kernel, real: ir.Type, width: int) -> ir.Module:
    """real: float or double; width: lanes of a register of it."""
    module = ir.Module(name=kernel.name)
    worker = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, I64]), "worker")
    worker.linkage = "internal"
    _emit_worker(worker, kernel, real, width)
    run = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64.as_pointer()]), "run")
    b = ir.IRBuilder(run.append_basic_block("entry"))
    args = run.args[0]
    emit_packs(module, b, kernel, real, width, args)
    slots, n = (b.load(b.gep(args, [i64(WORDS.index(w))]), align=8) for w in ("slots", "threads"))
    parallel.emit_parallel_for(
        module, b, worker, b.inttoptr(b.ptrtoint(args, I64), PTR), slots, b.trunc(n, ir.IntType(32))
    )
    b.ret_void()
    return module


def _emit_worker(fn: ir.Function, kernel: Kernel, real: ir.Type, width: int) -> None:
    nest = Nest(ir.IRBuilder(fn.append_basic_block("entry")))
    b = nest.b
    args = b.inttoptr(b.ptrtoint(fn.args[0], I64), I64.as_pointer())
    frame = Frame(kernel, real, b, args)
    w, slot = frame.words, fn.args[1]
    scratch = b.add(w["scratch"], b.mul(slot, w["scratch_stride"]))
    for run in kernel.runs:                     # pointers of double-buffered states change every step
        for s in run.doubled:
            for role in ("state", "next"):
                name = f"{run.prefix}{role}.{s}"
                frame.slots[name] = b.alloca(memory_type(frame.buffers[name].kind, real).as_pointer())
    items = b.mul(b.mul(w["blocks"], w["heads"]), w["chunks"])
    count = b.sdiv(b.add(b.sub(items, slot), b.sub(w["slots"], i64(1))), w["slots"])

    def item(k, _):
        b = nest.b
        number = b.add(slot, b.mul(k, w["slots"]))
        chunk, number = b.srem(number, w["chunks"]), b.sdiv(number, w["chunks"])
        frame.enter(b, b.sdiv(number, w["blocks"]), b.srem(number, w["blocks"]), chunk, scratch)
        if kernel.elementwise:
            _twice(kernel, frame, nest, real, width)
            return []
        nest.base = len(nest.scopes) - 1
        _Item(kernel, frame, nest, real, width).emit()
        return []

    # Backward starts with what forward has used last, which may still be in a cache.
    nest.loop("item", i64(0), count, 1, [], item, down=kernel.reverse)
    nest.b.ret_void()


def _twice(kernel: Kernel, frame: Frame, nest: Nest, real: ir.Type, width: int) -> None:
    """Code that leaves its results in the caches, and code that does not (see `Launch`), of which one runs."""
    def version(streaming: bool):
        def body(_, __):
            nest.base = len(nest.scopes) - 1
            frame.streaming = streaming
            _Item(kernel, frame, nest, real, width).emit()
            if streaming:
                nest.b.fence("seq_cst")         # such stores are in no order with those that follow
            return []
        return body

    streaming = frame.words["streaming"]
    nest.loop("cached", streaming, i64(1), 1, [], version(False))
    nest.loop("streaming", i64(0), streaming, 1, [], version(True))


class _Item:
    """Code of one work item."""

    def __init__(self, kernel: Kernel, frame: Frame, nest: Nest, real: ir.Type, width: int):
        self.kernel, self.frame, self.nest, self.real, self.width = kernel, frame, nest, real, width
        self.wishes = between.wishes(kernel, real, width)
        self.places = Places(kernel, frame, nest.b.function, placed(kernel, width))

    def emit(self) -> None:
        k, frame = self.kernel, self.frame
        for run in k.runs:
            for s in run.states:
                self._reset_slots(run, s)
        carried = k.runs[1:] if k.checkpoint == "load" else k.runs
        start = self.nest.b.sub(frame.words["tiles"], i64(1)) if k.runs[0].reverse else i64(0)
        for run in carried:
            for s in run.states:
                kept = run is k.runs[0] and s in self.places.states
                self._copy(f"check.{s}" if kept else f"{run.prefix}state.{s}", f"first.{s}", start if kept else None)
        self.nest.loop("tile", i64(0), frame.words["tiles"], 1, [], self._tile, down=k.reverse)
        self.places.leave(self.nest.b)
        for run in carried:
            for s in run.states:
                self._copy(f"final.{s}", f"{run.prefix}state.{s}")

    def _reset_slots(self, run: Run, s: str) -> None:
        if s in run.doubled:
            for role in ("state", "next"):
                name = f"{run.prefix}{role}.{s}"
                self.nest.b.store(self.frame.pointers[name], self.frame.slots[name])

    def _tile(self, n: ir.Value, _):
        k, b, frame = self.kernel, self.nest.b, self.frame
        w = frame.words
        frame.tile, frame.tile_start = n, b.mul(n, w["tile"])
        steps = frame.least(b, w["tile"], b.sub(w["T"], frame.tile_start))
        if k.strip:                             # loads the checkpoints itself
            self._strips(n, steps)
            return []
        if k.checkpoint:
            run = k.runs[0]
            for s in (s for s in run.states if s not in self.places.states):
                pair = (f"check.{s}", f"{run.prefix}state.{s}")
                self._copy(*(pair if k.checkpoint == "save" else pair[::-1]), tile=n)
        for run in k.runs:
            self._part(run, run.before, steps)

            def step(t, _, run=run):
                if not self.wishes:
                    fetch_states(k, run, self.frame, self.nest, n, t)
                self._phases(run, run.steps, steps, t)
                for s in sorted(run.doubled):
                    b, pair = self.nest.b, [self.frame.slots[f"{run.prefix}{r}.{s}"] for r in ("state", "next")]
                    old, new = b.load(pair[0]), b.load(pair[1])
                    b.store(new, pair[0])
                    b.store(old, pair[1])
                return []

            if run.first.phases:
                first = b.sub(steps, i64(1)) if run.reverse else i64(0)
                self._phases(run, run.first, steps, first)
            if run.steps.phases:
                self.nest.loop("step", i64(0), steps, 1, [], step, down=run.reverse)
            self._part(run, run.after, steps)
        return []

    def _strips(self, n: ir.Value, steps: ir.Value) -> None:
        """A tile whose steps are made strip by strip."""
        for run in self.kernel.runs:
            self._part(run, run.before, steps)
        Strips(self.kernel, self.frame, self.nest, self.real, self.width, n, steps).emit()
        for run in self.kernel.runs:
            self._part(run, run.after, steps)

    def _part(self, run: Run, part: Part, steps: ir.Value) -> None:
        """Before the steps of a tile, or after them."""
        if not part.stepwise:
            return self._phases(run, part, steps, None)

        def row(t, _):
            self._phases(run, part, steps, t)
            return []

        self.nest.loop("step", i64(0), steps, 1, [], row)

    def _phases(self, run: Run, part: Part, steps: ir.Value, t: ir.Value | None) -> None:
        last = next((p for p in reversed(part.phases) if p.sweep), None)
        if t is not None:
            self.places.enter(self.nest.b, t, steps)
        name = {id(run.before): "before", id(run.steps): "steps"}.get(id(part))
        number = next(r for r, other in enumerate(self.kernel.runs) if other is run)
        for i, p in enumerate(part.phases):
            emitter = (SweepEmitter if p.sweep else PhaseEmitter)(
                self.kernel, run, part, self.frame, self.nest, self.real, self.width, self.frame.count, steps, t)
            if p is last and part is run.steps:
                emitter.ahead = Ahead(self.kernel, run, self.frame, t)
            emitter.asked = bool(self.wishes)
            emitter.wishes = self.wishes.get((number, name, i), ())
            if part is run.steps and for_later(self.kernel, run, p):
                self._unless_last(emitter, p, run, steps, t)
            else:
                emitter.emit(p)

    def _unless_last(self, emitter: PhaseEmitter, p: Phase, run: Run, steps: ir.Value, t: ir.Value) -> None:
        """The phase at every step but the last."""
        def body(_, __):
            emitter.emit(p)
            return []

        b = self.nest.b
        last = i64(0) if run.reverse else b.sub(steps, i64(1))
        self.nest.loop("more", i64(0), b.zext(b.icmp_signed("!=", t, last), I64), 1, [], body)

    def _copy(self, to: str, from_: str, tile: ir.Value | None = None) -> None:
        """Copy a state between scratch and a port, row by row; of a state with the lanes that items divide, its own."""
        frame, lane = self.frame, self.kernel.lanes
        buffer = frame.buffers[from_]
        size = size_of(memory_type(buffer.kind, self.real))
        cut = lane is not None and buffer.axes[-1:] == (lane,)
        pieces, length = (buffer.numel // lane.size, lane.size) if cut else (1, buffer.numel)

        def row(i, _):
            def piece(k, _):
                b = self.nest.b
                inner = b.mul(k, i64(length))
                inner, count = (b.add(inner, frame.low), b.sub(frame.high, frame.low)) if cut else (inner, i64(length))
                ends = []
                for name in (to, from_):
                    port = frame.buffers[name]
                    if port.space in ("state", "trail", "placed"):
                        at = frame.row(b, port, {"b": Index("row", 0, i)}, i64(0))
                    else:
                        sb, st = frame.strides[name]
                        at = b.mul(i, sb)
                        at = b.add(at, b.mul(tile, st)) if port.space == "check" else at
                    ends.append(b.gep(frame.pointer(b, name), [b.add(at, inner)]))
                copy(b, *ends, b.mul(count, i64(size)))
                return []

            self.nest.loop("piece", i64(0), i64(pieces), 1, [], piece)
            return []

        if buffer.numel:
            self.nest.loop("row", i64(0), frame.count, 1, [], row)
