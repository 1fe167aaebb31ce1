"""Products of which half is left out (`Phase.triangle`).

The blocked axis falls into a few pieces, a loop each, for which it is known when compiling what its blocks leave out:
terms of their sums, or results along the other axis, which are 0.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from llvmlite import ir

from .loops import i64
from .memory import Index
from .reductions import Reductions
from .vector import splat

PIECES = 4              # at most: what a block leaves out needlessly costs less than more code
NOWHERE = 0, 0          # no piece: nothing is left out


class Halves(Reductions):
    """What `nests` does where the loops of a phase know about its triangle."""

    piece: tuple[int, int] = NOWHERE            # of the blocked axis, which the present block is in

    def _terms(self, terms: int) -> tuple[int, int]:
        t = self.phase.triangle
        if self.piece == NOWHERE or "r0" not in (t.row, t.column):
            return 0, terms
        return t.bounds(self.blocked, *self.piece, terms)

    def _open_pieces(self, var: str, whole: int, extent: int, body: Callable[[int], Callable]) -> None:
        """The blocked axis, of which `whole` comes in blocks; `body(copies)` emits one."""
        u = self.phase.unroll
        ends = sorted({whole // u * k // PIECES * u for k in range(PIECES + 1)})
        for low, high, copies in (*((*both, u) for both in pairwise(ends)), (whole, extent, 1)):
            if low < high:
                self.piece = low, high
                self._loop(var, i64(low), i64(high), copies, body(copies))
        self.piece = NOWHERE

    def _open_half(self, var: str, rest: list[str]) -> None:
        """The other axis, of whose results a part matters to the present piece."""
        size, u = self.phase.shape[int(var[1:])].size, self.phase.vectors if var == self.beside else 1
        start, stop = self.phase.triangle.bounds(self.blocked, *self.piece, size)
        start = min(start, stop)

        def zeros(i: ir.Value) -> None:
            self.at[var] = [Index(var, 0, i)]
            self._zeros()

        def some(copies: int) -> Callable[[ir.Value], None]:
            def emit(i: ir.Value) -> None:
                self.at[var] = [Index(var, r, i, r) for r in range(copies)]
                self._open(rest)
            return emit

        start -= start % u                      # blocks begin where they do if nothing is left out
        whole = start + -(-(stop - start) // u) * u
        whole = whole if whole <= size else start + (size - start) // u * u
        for low, high, step, emit in ((0, start, 1, zeros), (start, whole, u, some(u)),
                                      (whole, max(whole, stop), 1, some(1)), (max(whole, stop), size, 1, zeros)):
            if low < high:
                self._loop(var, i64(low), i64(high), step, emit)

    def _zeros(self) -> None:
        """A block's results that are 0, side by side."""
        before = self.at[self.blocked]
        if self.wishes:
            self._ask(i64(0))
        if len(before) > 1:
            self.at[self.blocked] = [Index(self.blocked, 0, before[0].base, 0, len(before))]
        self.results, width = {}, len(before) if len(before) > 1 else 0
        for g in self.phase.groups:
            for n in g.nodes:
                for c in self._copies():
                    self._keep(n, c, splat(self.nest.b, ir.Constant(self.real, 0), width))
        self._stores()
        self.at[self.blocked], self.results = before, {}
