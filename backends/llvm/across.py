"""Sums that a product makes in passing (`compiler/schedules/passing.py`), block by block of its points.

They come before the block's products: what they read of a point is what its accumulator starts from. The sums along
the rows of a block are woven together, and lie in the lanes of one register; of sums that are not over in one block
the rest is in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from ...compiler.schedules.kernel import Store
from .loops import i64
from .memory import Index, horizontal
from .vector import totals, weavable

if TYPE_CHECKING:
    from .nests import PhaseEmitter


def emit(e: PhaseEmitter) -> None:
    """At the present block."""
    p, down, lanes = e.phase, f"p{len(e.phase.shape) - 2}", e.at[e.lane]
    rows, copies = e.at[down], e._copies()
    for n in p.across:
        rank = e.nodes[n].type.rank
        xs = [_row(e, n, [c for c in copies if c[down] is row], lanes[0].width) for row in rows]
        first = e.nest.b.icmp_signed("==", lanes[0].value(e.nest.b), i64(0))
        if rank < len(p.shape) - 1:             # over all points
            first = e.nest.b.and_(first, e.nest.b.icmp_signed("==", rows[0].value(e.nest.b), i64(0)))
            while len(xs) > 1:
                xs = [e._combine(n, *xs[:2]), *xs[2:]]
            _put(e, n, _total(e, xs[0]), copies[0], first)
        elif not weavable(len(xs), lanes[0].width):
            for row, x in zip(rows, xs):
                _put(e, n, _total(e, x), {**copies[0], down: row}, first)
        else:
            here = Index(rows[0].var, rows[0].copy, rows[0].base, rows[0].offset, len(rows))
            _put(e, n, totals(e.nest.b, xs), {**copies[0], down: here}, first)


def _row(e: PhaseEmitter, n: str, points: list[dict[str, Index]], width: int) -> ir.Value:
    """The terms of a row of the block, added up lane by lane."""
    acc, rank = e._start(n, width), e.nodes[n].type.rank
    for c in points:
        at = tuple(c[f"p{i}"] for i in range(len(e.phase.shape)))
        acc = e.accumulate(n, acc, c, at[:rank], at[rank:])
    return acc


def _total(e: PhaseEmitter, x: ir.Value) -> ir.Value:
    return horizontal(e.nest.b, x, lambda b, p, q: b.fadd(p, q))


def _put(e: PhaseEmitter, n: str, value: ir.Value, c: dict[str, Index], first: ir.Value) -> None:
    """Store a sum, or add to what blocks before the present one have stored."""
    for s in (s for s in e.phase.stores if s.node == n):
        idx = tuple(c[f"p{i}"] for i in range(len(s.shape)))
        e.put(s, idx, _sofar(e, s, idx, c, value, first), c)


def _sofar(e: PhaseEmitter, s: Store, idx: tuple[Index, ...], c: dict[str, Index], value: ir.Value,
           first: ir.Value) -> ir.Value:
    p, b = e.phase, e.nest.b
    if len(s.shape) == len(p.shape) - 1 and p.shape[-1].size <= e.width * p.vectors and not p.shape[-1].size % e.width:
        return value                            # one block has all lanes
    at = tuple(Index(None, 0, o) if a is None else idx[a].plus(o) for a, o in s.index)
    return b.select(first, value, b.fadd(value, e.get(s.buffer, at, c, b, e.step)))
