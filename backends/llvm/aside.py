"""Sums along the lanes of a block of accumulators that come out side by side, one register for many of them.

Every sum of a block is a register whose lanes are to be added up. They are woven together pair by pair (`vector.py`),
which takes a few instructions after each other for every pair, while nothing of the next block can wait in the
processor's queues. So only the first half of it, within 16 bytes, follows the block's products: what comes of it is
carried into the next block, where the rest is done between the products, and what is stored there is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from .loops import i64
from .memory import Index
from .vector import near, part, weave, woven

if TYPE_CHECKING:
    from .nests import PhaseEmitter

MOST = 16               # accumulators of a block with which there are registers for what is left of the one before

Half = tuple[int, ir.Value]     # sums in a register, of which each stands in lanes that are still to be added up


class Aside:
    """The sums of a phase that is `lane="red"`, block by block."""

    def __init__(self, e: PhaseEmitter):
        self.e, p = e, e.phase
        self.axes = [f"p{i}" for i in range(len(p.shape))][-2:]      # of the loops from block to block
        self.names = [n for g in p.groups for n in g.nodes]
        whole = p.shape[-1].size % p.unroll == 0 and (e.beside is None or p.shape[-2].size % p.vectors == 0)
        accumulators = len(self.names) * p.unroll * (p.vectors if e.beside else 1)
        dims = p.groups[0].dims
        inner = not p.weights                   # no loop over rows within those from block to block
        self.late = (inner and whole and len(p.groups) == len(dims) == 1 and dims[0].size > e.width
                     and accumulators <= MOST)
        self.steps: list[int] = []              # sums in each register that is carried
        while accumulators:
            self.steps.append(min(near(e.real), 1 << accumulators.bit_length() - 1))
            accumulators -= self.steps[-1]

    # -- from block to block ---------------------------------------------
    def open(self) -> None:
        """Before the loops over blocks: there is none yet."""
        nothing = ir.Constant(ir.VectorType(self.e.real, self.e.width), [0.0] * self.e.width)
        self.e.carried = [i64(0), *(i64(0) for _ in self.axes), *(nothing for _ in self.steps)]

    def before(self) -> None:
        """Within a block: the rest of the one before it, if there is one."""
        def rest(_, __):
            self._rest(bases, [*zip(self.steps, halves)])
            return []

        there, bases, halves = self._carried()
        self.e.nest.loop(None, i64(0), there, 1, [], rest)

    def close(self) -> None:
        """After the loops over blocks: the rest of the last one."""
        _, bases, halves = self._carried()
        self.e.carried = []
        self.e.nest.enter()
        self.e.nest.depth_of |= dict.fromkeys(self.axes, len(self.e.nest.scopes) - 1)
        self._rest(bases, [*zip(self.steps, halves)])
        self.e.nest.leave()

    def _carried(self) -> tuple[ir.Value, list[ir.Value], list[ir.Value]]:
        there, *rest = self.e.carried
        return there, rest[:len(self.axes)], rest[len(self.axes):]

    def block(self) -> None:
        """After a block's products."""
        e = self.e
        before = e.at[e.blocked]
        e.at[e.blocked] = [Index(e.blocked, 0, before[0].base, 0, len(before))]
        copies = e._copies()
        e.at[e.blocked] = before
        xs = [e.results.pop((n, tuple(ix.key for ix in {**c, e.blocked: lane}.values())))
              for n in self.names for c in copies for lane in before]
        halves = []
        for step in self.steps:
            stack: list[Half] = []
            for x in xs[:step]:
                weave(e.nest.b, stack, x)
            xs, halves = xs[step:], halves + stack
        bases = [e.at[v][0].base for v in self.axes]
        if self.late:
            e.carried = [i64(1), *bases, *(x for _, x in halves)]
        else:
            self._rest(bases, halves)

    # -- the rest of a block ----------------------------------------------
    def _rest(self, bases: list[ir.Value], halves: list[Half]) -> None:
        """From here on the blocked axis lies in the lanes."""
        e, at = self.e, self.e.at
        e.at = dict(at)
        for v, base in zip(self.axes, bases):
            late = ("late", v)
            e.nest.depth_of[late] = len(e.nest.scopes) - 1
            e.at[v] = ([Index(late, 0, base, 0, e.phase.unroll)] if v == e.blocked else
                       [Index(late, r, base, r) for r in range(len(at[v]))])
        sums = self._whole(halves)
        for n in self.names:
            for c in e._copies():
                e._keep(n, c, next(sums))
        e._stores()
        e.at, e.results = at, {}

    def _whole(self, halves: list[Half]):
        """The sums, as many at a time as there are copies along the blocked axis."""
        e, count = self.e, self.e.phase.unroll
        while halves:
            step = halves[0][0]
            many = min(e.width // step, 1 << len(halves).bit_length() - 1) if step == near(e.real) else 1
            many = min(many, next((k for k, (s, _) in enumerate(halves) if s != step), len(halves)))
            stack: list[Half] = []
            for s, x in halves[:many]:
                weave(e.nest.b, stack, x, s)
            x, halves = woven(e.nest.b, stack), halves[many:]
            yield from (part(e.nest.b, x, k, count) for k in range(0, many * step, count))
