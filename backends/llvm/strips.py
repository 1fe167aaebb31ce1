"""Strips (`compiler/schedules/strips.py`) as LLVM: a few rows of the states, in registers, through all steps of a tile.

The loops are: strips, sequences, blocks of lanes; within them run after run
(the first one starts from what was kept at the start of the tile), and
innermost the steps. What a step computes is a sweep over the strip's rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from ...compiler.schedules.kernel import Kernel, Run, Store
from .ahead import LINE, Ahead, prefetch
from .frame import Frame
from .loops import I64, Nest, i64
from .memory import I8, Index, load, memory_type, offset_of, size_of, store
from .nests import PhaseEmitter
from .sweeps import SweepEmitter

Held = dict[str, list[ir.Value]]                # per state the registers of the strip: rows, then lanes


@dataclass
class Strips:
    """Emits the steps of tile number `tile`, which has `steps` of them."""

    kernel: Kernel
    frame: Frame
    nest: Nest
    real: ir.Type
    width: int
    tile: ir.Value
    steps: ir.Value

    def emit(self) -> None:
        rows, height = self.kernel.runs[0].steps.phases[0].shape[0].size, self.kernel.strip
        whole = rows - rows % height
        self.nest.loop("p0", i64(0), i64(whole), height, [], self._strip(height))
        if whole < rows:
            self.nest.loop("p0", i64(whole), i64(rows), 1, [], self._strip(1))

    def _strip(self, height: int):
        def emit(first, _):
            self.frame.strip = first
            run = self.kernel.runs[0]
            self._fetch_states(first, height)
            Blocks(self.kernel, run, run.steps, self.frame, self.nest, self.real, self.width, self.frame.count,
                   self.steps, None).over(run.steps.phases[0], lambda at: self._block(at, first, height))
            self.frame.strip = None
            return []
        return emit

    def _block(self, at: dict[str, list[Index]], first: ir.Value, height: int) -> None:
        """One block of lanes of one sequence's strip."""
        rows = [Index("p0", r, first, r) for r in range(height)]
        for number, run in enumerate(self.kernel.runs):
            held = {s: [self._load(f"{run.prefix}state.{s}" if number else f"check.{s}", at, row, ix)
                        for row in rows for ix in at["p1"]] for s in run.states}
            sizes = {s: len(xs) for s, xs in held.items()}

            def step(t, values, run=run, sizes=sizes):
                if run is self.kernel.runs[-1]:
                    self._ask(run, at["b"][0], first, t)
                bound, self.nest.depth_of["b"] = self.nest.depth_of["b"], len(self.nest.scopes) - 1
                emitter = StripEmitter(self.kernel, run, run.steps, self.frame, self.nest, self.real, self.width,
                                       self.frame.count, self.steps, t)
                new = emitter.make(at, rows, unflat(values, sizes))
                self.nest.depth_of["b"] = bound
                return [x for s in run.states for x in new[s]]

            values = self.nest.loop("step", i64(0), self.steps, 1, [x for xs in held.values() for x in xs], step,
                                    down=run.reverse)
            for s, xs in unflat(values, sizes).items():
                if s not in run.trails:
                    places = [(row, ix) for row in rows for ix in at["p1"]]
                    for (row, ix), x in zip(places, xs):
                        self._store(f"{run.prefix}state.{s}", at, row, ix, x)

    def _ask(self, run: Run, row: Index, first: ir.Value, t: ir.Value) -> None:
        """For what the next tile reads, and this one writes after its steps: each strip at some of the steps."""
        b, rows = self.nest.b, self.kernel.runs[0].steps.phases[0].shape[0].size
        strips = i64(max(1, rows // self.kernel.strip))
        each = b.add(b.sdiv(self.frame.words["tile"], strips), i64(1))
        mine = b.sub(t, b.mul(b.sdiv(first, i64(self.kernel.strip)), each))

        def ask(_, __):
            b = self.nest.b
            for line in Ahead(self.kernel, run, self.frame, t).lines(b, row):
                prefetch(b, line)
            return []

        self.nest.loop("ask", i64(0), b.zext(b.icmp_unsigned("<", mine, each), I64), 1, [], ask)

    def _fetch_states(self, first: ir.Value, height: int) -> None:
        """Asks for the strip's states at the start of the tile that comes next."""
        b, frame = self.nest.b, self.frame
        later = b.add(self.tile, i64(-1 if self.kernel.reverse else 1))
        for s in self.kernel.runs[0].states:
            port = frame.buffers[f"check.{s}"]
            line = port.axes[-1].size
            size = size_of(memory_type(port.kind, self.real))
            at = b.add(b.mul(later, frame.strides[port.name][1]), b.mul(first, i64(line)))
            start = b.bitcast(b.gep(frame.pointer(b, port.name), [at]), I8.as_pointer())
            for k in range(0, line * height * size, LINE):
                prefetch(b, b.gep(start, [i64(k)]))

    def _place(self, name: str, at, row: Index, ix: Index):
        b, buffer = self.nest.b, self.frame.buffers[name]
        if buffer.space == "check":
            sb, st = self.frame.strides[name]
            start = b.add(b.mul(at["b"][0].value(b), sb), b.mul(self.tile, st))
        else:
            start = self.frame.row(b, buffer, {"b": at["b"][0]}, i64(0))
        return self.frame.pointer(b, name), offset_of(b, buffer, (row, ix), start), buffer.kind, self.real, ix.width, 1

    def _load(self, name: str, at, row: Index, ix: Index) -> ir.Value:
        return load(self.nest.b, *self._place(name, at, row, ix))

    def _store(self, name: str, at, row: Index, ix: Index, value: ir.Value) -> None:
        store(self.nest.b, value, *self._place(name, at, row, ix))


def unflat(values: list[ir.Value], sizes: dict[str, int]) -> Held:
    """Loop-carried values, by state."""
    out, at = {}, 0
    for s, n in sizes.items():
        out[s], at = values[at:at + n], at + n
    return out


class Blocks(PhaseEmitter):
    """The loops over sequences and blocks of lanes."""

    def over(self, p, body) -> None:
        self.phase, self.lane, self.blocked, self.body = p, "p1", None, body
        self._open(["b", "p1"])

    def _point(self) -> None:
        self.body({"b": self.at["b"], "p1": self.at["p1"]})


class StripEmitter(SweepEmitter):
    """Emits one step of a strip, whose states are in registers."""

    def make(self, at: dict[str, list[Index]], rows: list[Index], held: Held) -> Held:
        """The states' new registers."""
        self.prepare(self.run.steps.phases[0])
        self.at, lanes = dict(at), at["p1"]
        places = [(row.copy, ix.copy) for row in rows for ix in lanes]
        self.old = {f"{self.run.prefix}state.{s}": dict(zip(places, xs)) for s, xs in held.items()}
        self.new = {f"{self.run.prefix}next.{s}": {} for s in held}
        c = {"b": at["b"][0]}
        for s, trail in self.run.trails.items():
            for (row, ix), x in zip([(row, ix) for row in rows for ix in lanes], held[s]):
                point = {**c, self.down: row, self.lane: ix}
                super()._put(Store(None, trail, ((0, 0), (1, 0)), self.phase.shape), point, x)
        accs = [self._sofar(n, end) for n in self.columns for end in self._ends(c, lanes)]
        self._end(c, lanes, self._rows(c, rows, lanes, accs))
        return {s: [self.new[f"{self.run.prefix}next.{s}"][at] for at in places] for s in held}

    def _sofar(self, n: str, end: dict[str, Index]) -> ir.Value:
        """What the strips before have added to a sum over the rows."""
        s = next(s for s in self.after if s.node == n)
        return self.get(s.buffer, (end[self.down],), end, self.nest.b, self.step)

    def get(self, name, idx, c, b, step) -> ir.Value:
        if name in self.old:
            return self.old[name][(idx[0].copy, idx[1].copy)]
        return super().get(name, idx, c, b, step)

    def _put(self, s: Store, point, value: ir.Value, add: bool = False) -> None:
        if s.buffer in self.new:
            self.new[s.buffer][(point[self.down].copy, point[self.lane].copy)] = value
        else:
            super()._put(s, point, value, add)

    def _sum(self, n: str, point, value: ir.Value) -> None:
        """Sums of a row over several blocks of lanes add up from the first one's."""
        for s in self.sums:
            if s.node != n:
                continue
            if self.adding:
                b = self.nest.b
                idx = self._index(s.shape, point)
                before = self.get(s.buffer, tuple(idx[a] for a, _ in s.index), point, b, self.step)
                first = b.icmp_signed("==", self.at[self.lane][0].value(b), self._low())
                value = b.select(first, value, b.fadd(value, before))
            self._put(s, point, value)

    def _low(self) -> ir.Value:
        cut = self.kernel.lanes is not None and self.phase.shape[-1] == self.kernel.lanes
        return self.frame.low if cut else i64(0)
