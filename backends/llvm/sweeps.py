"""A sweep (`compiler/schedules/sweeps.py`) as an LLVM loop nest: blocks of lanes, within them the rows.

At each point the values read are loaded once, all sums take their terms, and
what is stored there is stored. Sums over the rows stay in registers for the
whole block. Sums along the lanes are finished a few rows at a time; where the
lanes are more than one block, they and the sums over all points add up in
memory.
"""

from __future__ import annotations

from llvmlite import ir

from ...compiler.schedules.kernel import Phase, Store
from ...compiler.schedules.views import reduced_dims
from .ahead import Ahead, Spread, prefetch
from .loops import i64
from .memory import Index, horizontal
from .nests import PhaseEmitter
from .vector import weavable, weave, woven


class SweepEmitter(PhaseEmitter):
    """Emits one sweep. `ahead`: what its rows ask for on the way."""

    ahead: Ahead | None = None

    def emit(self, p: Phase) -> None:
        self.prepare(p)
        self._open(["b", *(f"p{i}" for i in range(len(p.shape) - 2)), self.lane])

    def prepare(self, p: Phase) -> None:
        """What is summed over what, and what is stored when."""
        self.phase = p
        self.down, self.lane, self.blocked = f"p{len(p.shape) - 2}", f"p{len(p.shape) - 1}", None
        kinds = {n: {p.shape.index(d) for d in reduced_dims(self.nodes[n], self.nodes)} for g in p.groups
                 for n in g.nodes}
        rows, lanes = len(p.shape) - 2, len(p.shape) - 1
        self.columns = [n for n, over in kinds.items() if over == {rows}]
        self.along = [n for n, over in kinds.items() if over == {lanes}]
        self.whole = [n for n, over in kinds.items() if over == {rows, lanes}]
        self.own = {*kinds, *p.written(self.part.reads)}
        points = [s for s in p.stores if len(s.shape) == len(p.shape)]
        sums = [s for s in p.stores if s.node in self.along or s.node in self.whole]
        self.points, self.sums = points, sums
        self.after = [s for s in p.stores if s not in points and s not in sums]
        size, w = p.shape[-1].size, self.width
        left = size % (w * p.vectors)
        self.adding = size // (w * p.vectors) + (left >= w) + (left % w > 0) > 1

    def _open_lanes(self, var: str, rest: list[str]) -> None:
        """Blocks of lanes; several of them add to what is 0 at first."""
        if self.adding and self.sums:
            c = {v: ix[0] for v, ix in self.at.items() if v in self.nest.depth_of}

            def clear(i, _):
                here = {**c, self.down: Index(self.down, 0, i)}
                for s in self.sums:
                    if s.node in self.along:
                        self._put(s, here, self._start(s.node, 0))
                return []

            self.nest.loop(self.down, i64(0), i64(self.phase.shape[-2].size), 1, [], clear)
            for s in self.sums:
                if s.node in self.whole:
                    self._put(s, c, self._start(s.node, 0))
        self.spread = self._spread() if self.ahead else None
        super()._open_lanes(var, rest)

    def _spread(self) -> Spread | None:
        """Rows that come one by one are too short to share prefetches out among them."""
        b, turns = self.nest.b, self.phase.shape[-2].size // self.phase.unroll
        lines = self.ahead.lines(b, self.at["b"][0])
        if self.phase.unroll > 1 and turns:
            return Spread(b, lines, turns)
        for line in lines:
            prefetch(b, line)
        return None

    # -- one block of lanes ----------------------------------------------
    def _point(self) -> None:
        lanes = self.at[self.lane]
        c = {v: ix[0] for v, ix in self.at.items() if v in self.nest.depth_of and v != self.lane}
        size, u = self.phase.shape[-2].size, self.phase.unroll
        accs = [self._start(n, ix.width) for n in self.columns for ix in lanes]
        accs += [self._start(n, lanes[0].width) for n in self.whole for _ in lanes[:2]]

        def body(copies):
            def emit(i, accs):
                if self.spread and copies == u:
                    self.spread.ask(self.nest.b, self.nest.b.sdiv(i, i64(u)))
                return self._rows(c, [Index(self.down, r, i, r) for r in range(copies)], lanes, accs)
            return emit

        if size >= u:
            accs = self.nest.loop(self.down, i64(0), i64(size - size % u), u, accs, body(u))
        if size % u:
            accs = self.nest.loop(self.down, i64(size - size % u), i64(size), 1, accs, body(1))
        self._end(c, lanes, accs)

    def _ends(self, c, lanes: list[Index]) -> list[dict[str, Index]]:
        """Where sums over the rows are: they have the lanes in the rows' place."""
        return [{**c, self.down: ix} for ix in lanes]

    def _end(self, c, lanes: list[Index], accs: list[ir.Value]) -> None:
        """After the last row: the sums over rows and over all points, and what follows from them."""
        self.results = {}
        ends = self._ends(c, lanes)
        for j, n in enumerate(self.columns):
            for k, end in enumerate(ends):
                self._keep(n, end, accs[j * len(lanes) + k])
        done = [(s, end, self.value(s.node, tuple(end[f"p{i}"] for i in range(len(s.shape))), end))
                for end in ends for s in self.after]
        for s, end, value in done:
            self.put(s, tuple(end[f"p{i}"] for i in range(len(s.shape))), value, end)
        slots, first = len(lanes[:2]), len(self.columns) * len(lanes)
        for j, n in enumerate(self.whole):
            xs = accs[first + j * slots:first + (j + 1) * slots]
            x = xs[0] if len(xs) < 2 else self._combine(n, *xs)
            self._sum(n, c, horizontal(self.nest.b, x, lambda b, x, y, n=n: self._combine(n, x, y)))

    def _rows(self, c, rows: list[Index], lanes: list[Index], accs: list[ir.Value]) -> list[ir.Value]:
        """All points of some rows of the block; the new sums over rows."""
        accs, slots, first = list(accs), len(lanes[:2]), len(self.columns) * len(lanes)
        sums, together = {n: [] for n in self.along}, weavable(len(rows), lanes[0].width)
        for row in rows:
            across = {n: self._start(n, lanes[0].width) for n in self.along}
            for k, ix in enumerate(lanes):
                point = {**c, self.down: row, self.lane: ix}
                for n in self.along:
                    across[n] = self._term(n, across[n], point)
                for j, n in enumerate(self.columns):
                    at = j * len(lanes) + k
                    accs[at] = self._term(n, accs[at], point)
                for j, n in enumerate(self.whole):
                    at = first + j * slots + k % slots
                    accs[at] = self._term(n, accs[at], point)
                values = [(s, self.value(s.node, self._index(s.shape, point), point)) for s in self.points]
                for s, value in values:
                    self._put(s, point, value)
            for n in self.along:
                if together:
                    weave(self.nest.b, sums[n], across[n])
                else:
                    self._sum(n, {**c, self.down: row}, horizontal(
                        self.nest.b, across[n], lambda b, x, y, n=n: self._combine(n, x, y)))
        if together:                            # the rows lie in the lanes
            first = rows[0]
            here = {**c, self.down: Index(first.var, first.copy, first.base, first.offset, len(rows))}
            for n in self.along:
                self._sum(n, here, woven(self.nest.b, sums[n]))
        return accs

    # -- small parts -------------------------------------------------------
    def _index(self, dims, point) -> tuple[Index, ...]:
        return tuple(point[v] for v in self.phase.along(dims))

    def _term(self, n: str, acc: ir.Value, point) -> ir.Value:
        return self.accumulate(n, acc, point, self._index(self.nodes[n].type.shape, point),
                               self._index(reduced_dims(self.nodes[n], self.nodes), point))

    def _sum(self, n: str, point, value: ir.Value) -> None:
        for s in self.sums:
            if s.node == n:
                self._put(s, point, value, add=self.adding)

    def _put(self, s: Store, point, value: ir.Value, add: bool = False) -> None:
        self.put(s, self._index(s.shape, point), value, point, add)
