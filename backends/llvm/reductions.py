"""The sums of a phase: accumulators in registers, in one loop nest for all reductions that share their operands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from llvmlite import ir

from ...compiler.schedules.chains import Chain
from ...compiler.schedules.kernel import Group
from . import between, math
from .aside import Aside
from .evaluate import Evaluator
from .loops import i64
from .memory import Index, element_type, horizontal
from .vector import splat

COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}
START = {"sum": 0, "prod": 1, "max": float("-inf"), "min": float("inf"), "any": 0, "all": 1}


class Reductions(Evaluator):
    """Of a phase at its present point, a block of copies along its axes."""

    chains: dict[str, Chain] = {}
    wishes: Sequence[between.Wish] = ()
    aside: Aside | None = None
    blocked: str | None = None                  # the axis of `unroll` copies

    def _copies(self) -> list[dict[str, Index]]:
        """All unrolled copies of the present point: variable -> index."""
        out = [{}]
        for var, ixs in self.at.items():
            if var in self.nest.depth_of:
                out = [{**c, var: ix} for c in out for ix in ixs]
        return out

    def _ask(self, stretch: ir.Value) -> None:
        """For a part of what is read and written next, in a stretch of the sums of a block of accumulators."""
        p, b, turn = self.phase, self.nest.b, i64(0)
        for axis, (size, count) in enumerate(zip(between.sizes(p, self.width), between.counts(p, self.width))):
            here = self.at[f"p{axis}"][0].value(b)
            turn = b.add(b.mul(turn, i64(count)), b.udiv(here, i64(size)))
        turn = b.add(b.mul(turn, i64(between.stretches(p))), stretch)
        step = self.at["t"][0].value(b) if p.domain == "tile" else self.step
        for wish in self.wishes:
            between.ask(wish, self.kernel, self.run, self.frame, self.nest, self.at["b"][0], step, turn,
                        between.turns(p, self.width))

    def _sums_aside(self) -> bool:
        """Whether sums along the lanes come out side by side, one register for all copies along the blocked axis."""
        p = self.phase
        return p.lane == "red" and self.blocked is not None and all(
            g.dims[-1].size % self.width == 0 < g.dims[-1].size for g in p.groups) and all(
            self._kind(n) == "sum" and self.nodes[n].type.kind == "real" for g in p.groups for n in g.nodes)

    def _block_aside(self) -> bool:
        """No block of a single copy, which is left over."""
        return self.aside is not None and len(self.at[self.blocked]) == self.phase.unroll

    def _group(self, g: Group) -> None:
        """All reductions of a group in one nest, accumulators in registers."""
        copies = self._copies()
        red_lanes = self.phase.lane == "red"
        into = {n: end for end, (sums, _) in self.chains.items() for n in sums}
        ends = list(dict.fromkeys(into.get(n, n) for n in g.nodes))
        jobs = [(n, c, ends.index(into.get(n, n)) * len(copies) + k) for n in g.nodes for k, c in enumerate(copies)]
        sums = [(n, c) for n in ends for c in copies]
        if any(d.size == 0 for d in g.dims):
            for n, c in sums:
                self._keep(n, c, self._first(n, c, 0))
            return
        size, w = g.dims[-1].size, self.width
        v = self.phase.vectors if red_lanes and not self.phase.shape else 1
        whole = size - size % (w * v) if red_lanes else 0
        total = {}
        if whole or not red_lanes:
            accs = [self._first(n, c, w if red_lanes else self._width(c)) for n, c in sums for _ in range(v)]
            accs = self._red_loops(g, 0, accs, jobs, v, whole if red_lanes else size, w * v if red_lanes else 1)
            for j, (n, c) in enumerate(sums):
                xs = accs[j * v:(j + 1) * v]
                while len(xs) > 1:
                    xs = [
                        self._combine(n, xs[i], xs[i + 1]) if i + 1 < len(xs) else xs[i] for i in range(0, len(xs), 2)
                    ]
                total[j] = xs[0] if not red_lanes or self._block_aside() else horizontal(
                    self.nest.b, xs[0], lambda b, x, y: self._combine(n, x, y))
        left = size - whole if red_lanes else 0
        while left:                              # remaining lanes of a vectorised reduction
            tail = w if left >= w else left
            accs = [self._start(n, tail) for n, _ in sums]
            accs = self._red_loops(g, 0, accs, jobs, 1, None, (size - left, tail))
            for j, (n, c) in enumerate(sums):
                x = horizontal(self.nest.b, accs[j], lambda b, x, y: self._combine(n, x, y))
                total[j] = self._combine(n, total[j], x) if j in total else x
            left -= tail
        for j, (n, c) in enumerate(sums):
            self._keep(n, c, total[j])

    def _terms(self, terms: int) -> tuple[int, int]:
        """Of so many terms of a sum, those that the present block has."""
        return 0, terms

    def _red_loops(self, g: Group, level: int, accs, jobs, v: int, whole, step):
        """Loops over the reduced axes from `level` on; the last one in steps of
        `step` up to `whole`, or (whole None) the one stretch `step` of lanes."""
        var, last = f"r{level}", level == len(g.dims) - 1
        if not last:
            def body(i, phis):
                self.at[var] = [Index(var, 0, i)]
                return self._red_loops(g, level + 1, phis, jobs, v, whole, step)
            return self.nest.loop(var, i64(0), i64(g.dims[level].size), 1, accs, body)
        if whole is None:
            start, width = step
            self.nest.enter(var)
            out = self._accumulate(g, jobs, accs, [Index(var, 0, i64(start), 0, width)])
            self.nest.leave()
            return out
        lane_width = self.width if self.phase.lane == "red" else 0
        start, stop = self._terms(whole)

        def body(i, phis):
            return self._accumulate(g, jobs, phis, [Index(var, k, i, k * lane_width, lane_width) for k in range(v)])

        def stretch(i, phis):
            self._ask(i)
            first = self.nest.b.mul(i, i64(between.TERMS))
            return self.nest.loop(var, first, self.nest.b.add(first, i64(between.TERMS)), step, phis, body)

        if self.carried:                        # the rest of the block before is done between the terms
            accs = self.nest.loop(var, i64(0), i64(whole - step), step, accs, body)
            self.aside.before()
            self.nest.enter(var)
            accs = body(i64(whole - step), accs)
            self.nest.leave()
            return accs
        if self.wishes and between.stretches(self.phase) > 1:
            return self.nest.loop("stretch", i64(0), i64(between.stretches(self.phase)), 1, accs, stretch)
        return self.nest.loop(var, i64(start), i64(stop), step, accs, body)

    def _accumulate(self, g: Group, jobs, accs, last: list[Index]):
        """One step of the innermost reducing loop for all accumulators."""
        out = list(accs)
        red = [self.at[f"r{i}"][0] for i in range(len(g.dims) - 1)]
        for n, c, slot in jobs:
            idx = tuple(c[f"p{i}"] for i in range(self.nodes[n].type.rank))
            for k, ix in enumerate(last, slot * len(last)):
                out[k] = self.accumulate(n, out[k], c, idx, (*red, ix))
        return out

    def _width(self, c: dict[str, Index]) -> int:
        return c[self.lane].width if self.lane else 0

    def _kind(self, n: str) -> str:
        return self.nodes[n].attr("fn", self.nodes[n].attr("semiring"))

    def _start(self, n: str, width: int):
        """The neutral element (for integers, the least or greatest value)."""
        kind, t = self.nodes[n].type.kind, element_type(self.nodes[n].type.kind, self.real)
        value = START[self._kind(n)]
        if kind == "int" and isinstance(value, float):
            value = -2 ** 63 if value < 0 else 2 ** 63 - 1
        return splat(self.nest.b, ir.Constant(t, value), width)

    def _first(self, n: str, c: dict[str, Index], width: int):
        """Where a sum starts: its neutral element, or what its chain adds."""
        if n not in self.chains:
            return self._start(n, width)
        idx = tuple(c[f"p{i}"] for i in range(self.nodes[n].type.rank))
        terms = [splat(self.nest.b, self.value(t, idx, c), width) for t in self.chains[n][1]]
        return reduce(self.nest.b.fadd, terms) if terms else splat(self.nest.b, ir.Constant(self.real, 0), width)

    def _combine(self, n: str, x, y):
        return math.emit(self.nest.b, COMBINE[self._kind(n)], x, y)

    def _keep(self, n: str, c: dict[str, Index], value) -> None:
        self.results[(n, tuple(ix.key for ix in c.values()))] = value

    # -- sums over rows -------------------------------------------------
    def _sum(self) -> None:
        p = self.phase
        copies = self._copies()
        jobs = [(s, c) for s in p.stores for c in copies]
        accs = [splat(self.nest.b, ir.Constant(self.real, 0), self._width(c)) for _, c in jobs]
        rows = ["b", "t"] if p.domain == "tile" else ["b"]
        loops = rows + [f"r{i}" for g in p.groups for i in range(len(g.dims))]

        def nested(level, values):
            if level == len(loops):
                red = tuple(self.at[v][0] for v in loops[len(rows):])
                out = []
                for (s, c), acc in zip(jobs, values):
                    here = {**c, **{r: self.at[r][0] for r in rows}}
                    idx = tuple(c[f"p{i}"] for i in range(len(s.shape)))
                    out.append(self.add_product(s.node, acc, here, idx, red))
                return out
            var = loops[level]
            stop = self._extent(var) if var in rows else i64(p.groups[0].dims[int(var[1:])].size)

            def body(i, phis):
                self.at[var] = [Index(var, 0, i)]
                return nested(level + 1, phis)
            return self.nest.loop(var, i64(0), stop, 1, values, body)

        if any(d.size == 0 for g in p.groups for d in g.dims):
            return
        for (s, c), acc in zip(jobs, nested(0, accs)):
            self.put(s, tuple(c[f"p{i}"] for i in range(len(s.shape))), acc, c, add=True)
