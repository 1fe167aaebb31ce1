"""One phase of the schedule IR as an LLVM loop nest."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ...compiler.schedules.chains import chains
from ...compiler.schedules.kernel import Phase, Store
from . import across, between
from .aside import Aside
from .halves import NOWHERE, Halves
from .loops import i64
from .memory import Index, copy, element_type, size_of
from .whole import whole


class PhaseEmitter(Halves):
    """Emits one phase. Loop order: rows, axes, lanes; for products with a
    parameter axes, lanes, rows, so that rows share the loads of weights; for
    sums the rows are the innermost, reducing loops."""

    carried: list[ir.Value] = []                # from block to block
    beside: str | None = None                   # the axis whose copies share the loads of those along the blocked one

    def emit(self, p: Phase) -> None:
        self.phase = p
        # what this phase computes itself; a sum reads whatever has a buffer
        self.chains = chains(p, self.nodes, self.part.reads)
        self.own = set() if p.rows == "sum" else (
            {n for g in p.groups for n in g.nodes} | p.written(self.part.reads))
        if p.call:
            self._call(p)
            return
        axes = [f"p{i}" for i in range(len(p.shape))]
        rows = ["b", "t"] if p.domain == "tile" else ["b"]
        if p.rows == "sum":
            blocked = axes[-2:-1] if p.block == "par" else []
            order = [a for a in axes[:-1] if a not in blocked] + axes[-1:] + blocked
        elif p.weights:
            blocked = axes[-1:] if p.block == "par" else rows[-1:]
            order = axes + rows
        elif p.lane == "par" and p.block == "par":    # a product of two values: a panel of columns, then its rows
            blocked = axes[-2:-1]
            order = rows + axes[:-2] + axes[-1:] + blocked
        elif p.lane == "red" and p.block == "par":    # a block of the one factor's rows, then all of the other's
            blocked = axes[-1:]
            order = rows + axes[:-2] + blocked + axes[-2:-1]
        else:
            blocked = axes[-1:] if p.block == "par" else []
            order = rows + axes
        self.blocked = blocked[0] if blocked and p.unroll > 1 else None
        self.beside = axes[-2] if p.lane == "red" and p.block == "par" and p.vectors > 1 else None
        self.lane = axes[-1] if p.lane == "par" and axes else None
        if any(d.size == 0 for d in p.shape):
            return
        self.aside = Aside(self) if self._sums_aside() else None
        self._open(order)

    def _call(self, p: Phase) -> None:
        """A node computed as a whole: once per row and leading axes."""
        node = self.nodes[p.call]
        it = whole(node, self.nodes, self.nest.b.module, self.real, self.width)
        made = [s.buffer for s in p.stores]         # computed in the first, the others are copies
        buffers = [self.part.reads[a] for a in node.args] + made
        sizes = (*it.sizes, *(it.sizes[-1] for _ in made[1:]))
        size = size_of(element_type(node.type.kind, self.real)) * it.sizes[-1]

        def rows(order: list[str]):
            if order:
                def body(i, _):
                    self.at[order[0]] = [Index(order[0], 0, i)]
                    rows(order[1:])
                    return []
                self.nest.loop(order[0], i64(0), self._extent(order[0]), 1, [], body)
                return
            c = {r: self.at[r][0] for r in ("b", "t") if r in self.nest.depth_of}

            def one(k, _):
                b = self.nest.b
                at = [
                    b.gep(
                        self.frame.pointer(b, name),
                        [b.add(self.frame.row(b, self.buffer(name), c, self.step), b.mul(k, i64(count)))],
                    )
                    for name, count in zip(buffers, sizes)
                ]
                n = len(it.sizes)
                it.call(b, at[:n])
                for other in at[n:]:
                    copy(b, other, at[n - 1], i64(size))
                return []
            self.nest.loop("lead", i64(0), i64(it.times), 1, [], one)

        rows(["b", "t"] if p.domain == "tile" else ["b"])

    def _extent(self, var: str) -> ir.Value:
        if var == "b":
            return self.rows_b
        if var == "t":
            return self.rows_t
        return i64(self.phase.shape[int(var[1:])].size)

    # -- the loops around -----------------------------------------------
    def _open(self, order: list[str]) -> None:
        if not order:
            self._point()
            return
        var, rest = order[0], order[1:]
        if var == self.lane:
            self._open_lanes(var, rest)
        elif var == self.blocked:
            late = self.aside is not None and self.aside.late
            if late:
                self.aside.open()
            self._open_blocked(var, rest, self.phase.unroll)
            if late:
                self.aside.close()
        elif self.piece != NOWHERE and self.phase.triangle.partner(self.blocked) == var:
            self._open_half(var, rest)
        elif var == self.beside:
            self._open_blocked(var, rest, self.phase.vectors)
        else:
            def body(i):
                self.at[var] = [Index(var, 0, i)]
                self._open(rest)
            self._loop(var, i64(0), self._extent(var), 1, body)

    def _loop(self, var: str, start: ir.Value, stop: ir.Value, step: int, body: Callable[[ir.Value], None]) -> None:
        """A loop that hands on from block to block what is `carried`."""
        def inner(i, carried):
            self.carried = carried
            body(i)
            return self.carried

        self.carried = self.nest.loop(var, start, stop, step, self.carried, inner)

    def _open_blocked(self, var: str, rest: list[str], u: int) -> None:
        """Blocks of `u` copies, then what is left one by one."""
        extent = self._extent(var)
        if isinstance(extent, ir.Constant):
            whole = i64(extent.constant - extent.constant % u)
        else:
            b = self.nest.b
            whole = b.sub(extent, b.srem(extent, i64(u)))

        def body(copies):
            def emit(i):
                self.at[var] = [Index(var, r, i, r) for r in range(copies)]
                self._open(rest)
            return emit

        if self.phase.triangle and var == self.blocked:
            self._open_pieces(var, whole.constant, extent.constant, body)
            return
        if not (isinstance(whole, ir.Constant) and whole.constant == 0):
            self._loop(var, i64(0), whole, u, body(u))
        if not (isinstance(extent, ir.Constant) and whole.constant == extent.constant):
            self._loop(var, whole, extent, 1, body(1))

    def _open_lanes(self, var: str, rest: list[str]) -> None:
        """Blocks of `vectors` registers, the remaining registers, the remaining lanes."""
        size, w, v = self.phase.shape[-1].size, self.width, self.phase.vectors
        block = w * v
        whole = size - size % block

        def copies(base, n, width, block_no, first):
            self.at[var] = [Index(var, k, base, k * w, width) for k in range(n)]
            self.lane_block = (block_no, first)
            self._open(rest)

        def full(i, _):
            copies(i, v, w, self.nest.b.sdiv(i, i64(block)) if whole > block else i64(0), 0)
            return []

        left = size - whole
        if self.kernel.lanes is not None and self.phase.shape[-1] == self.kernel.lanes:
            high = self.frame.least(self.nest.b, self.frame.high, i64(whole))
            self.nest.loop(var, self.frame.low, high, block, [], full)
            if left:                            # the last item's

                def rest_once(_, __):
                    self._open_rest(var, whole, copies)
                    return []

                self.nest.loop("last", i64(0), self.frame.last, 1, [], rest_once)
            return
        if whole:
            self.nest.loop(var, i64(0), i64(whole), block, [], full)
        self._open_rest(var, whole, copies)

    def _open_rest(self, var: str, whole: int, copies) -> None:
        """The registers, then the lanes, that do not fill a block."""
        size, w, block = self.phase.shape[-1].size, self.width, self.width * self.phase.vectors
        left = size - whole
        if left >= w:
            self.nest.enter(var)
            copies(i64(whole), left // w, w, i64(whole // block), 0)
            self.nest.leave()
        if left % w:
            self.nest.enter(var)
            start = whole + left // w * w
            copies(i64(start), 1, left % w, i64(whole // block), left // w * w)
            self.nest.leave()

    # -- at one point ---------------------------------------------------
    def _point(self) -> None:
        p = self.phase
        if p.rows == "sum":
            self._sum()
            return
        self.results = {}
        if self.wishes and between.stretches(p) == 1:
            self._ask(i64(0))
        if p.across:
            across.emit(self)
        for g in p.groups:
            self._group(g)
        if self._block_aside():
            self.aside.block()
        else:
            self._stores()

    def _stores(self) -> None:
        points = [s for s in self.phase.stores if s.node not in self.phase.across]
        for c in self._copies():
            values = [(s, self._stored(s, c)) for s in points]
            for s, value in values:
                self.put(s, tuple(c[f"p{i}"] for i in range(len(s.shape))), value, c)

    def _stored(self, s: Store, c: dict[str, Index]):
        if s.node is None:
            return ir.Constant(element_type(self.buffer(s.buffer).kind, self.real), 0)
        idx = tuple(c[f"p{i}"] for i in range(len(s.shape)))
        return self.value(s.node, idx, c)
