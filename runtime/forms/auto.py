"""schedule="auto": a model of what a step costs in each form chooses, once per cell; no length compiles anything.

Nanoseconds per step and head of forward + backward in float32, fitted to measurements of simple_gla, gla, deltanet,
gated_deltanet and rwkv7 at K = V = 16 to 256 on one thread with 512-bit registers (ratios between forms travel, the
numbers do not). K x V is the state, r the number of its reads that are written back, c whether decays
differ from channel to channel:

    sequential   K V (0.28 + 0.03 [it decays] + r (0.05 + 0.12 c)), 1.8 times that beyond 2^15 elements
                 sweeps over the state at every step; the states of a tile leave the second-level cache
    chunk(8)     60 + K V (0.145 + 0.015 c + r (0.05 + 0.085 c)) + K (4 + r c)
                 loops, products with the state; products between steps, what is solved, decays multiplied out.
                 Of states beyond 2^15 elements chunk(16), which goes over them half as often
                 10 + K V (0.04 + 0.15 u + 0.02 r) more for either part of a complex state that is turned (gateloop)
                 and read and written 2 + u times; K along the angle's axis

chunk is taken from a gain of 1.1 on, since it takes twice as long to compile. The other forms are never cheaper on a
CPU where one step fills its registers: scan does the work twice, conv and quadratic hold all states or all pairs of
steps. Nor is chunk where it multiplies small matrices up (`mixed`), and where it computes more than a 16th of the
matrices' elements at all steps (`whole`, `doubled`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ...compiler.passes.realify import named
from ...compiler.pipeline import CANONICAL, Run
from ...ir.cell import Cell
from ...ir.sweeps import mixed as runs_both_ways

GAIN = 1.1
LARGE = 1 << 15                # elements of a state
MORE = 16                      # elements of matrices that gain as much as one computed at all steps loses


@dataclass(frozen=True)
class Cost:
    """Nanoseconds per step and head; `size`: steps of a chunk, 0 without a matrix state; `elements` of these."""

    sequential: float
    chunk: float
    size: int
    elements: int

    @property
    def gain(self) -> float:
        return self.sequential / self.chunk if self.size else 0.0


def cost(cell: Cell, turned: Mapping[str, tuple[int, int]] = MappingProxyType({})) -> Cost:
    """What the model says of a cell's matrix states, of which some are `turned` (see `chunk.Derived`); everything else
    costs the same in both forms."""
    from ...compiler.analysis.affine import Affine, Dense, LowRank, Scale, classify
    from ...compiler.passes.chunk import SIZE

    sequential, chunk, size, elements = 0.0, 0.0, 0, 0
    for c in classify(cell):
        if not isinstance(c, Affine):
            continue
        matrices = [s for s in c.states if len(_shape(cell, s)) == 2
                    and not (c.offsets[s] and all(isinstance(o, Dense) for o in c.offsets[s]))]
        maps = [m for s in matrices for t in c.terms[s] for m in t.maps]
        lead = 1 if cell.heads is not None else 0
        r = len({m.read for m in maps if isinstance(m, LowRank)})
        decays = any(isinstance(m, Scale) for m in maps)
        channels = any(isinstance(m, Scale) and any(a >= lead for a in m.axes) for m in maps)
        for s in matrices:
            K, V = _shape(cell, s)
            elements += K * V
            large = K * V > LARGE
            size = max(size, 2 * SIZE if large and s not in turned else SIZE)
            sequential += (1.8 if large else 1.0) * K * V * (0.28 + 0.03 * decays + r * (0.05 + 0.12 * channels))
            axis, uses = turned.get(s, (0, 2))
            chunk += 60 + K * V * (0.145 + 0.015 * channels + r * (0.05 + 0.085 * channels))
            chunk += (K, V)[axis] * (4 + r * channels)
            chunk += 10 + K * V * (0.04 + 0.15 * max(uses - 2, 0) + 0.02 * r) if s in turned else 0
    return Cost(sequential, chunk, size, elements)


def _shape(cell: Cell, state: str) -> tuple[int, ...]:
    """Sizes of a state, of one head."""
    sizes = cell.state(state).type.sizes
    return sizes[1:] if cell.heads is not None else sizes


@dataclass(frozen=True)
class Choice:
    """A schedule, and the reason in words."""

    schedule: str
    why: str


def choose(cell: Cell) -> Choice:
    """The schedule of a cell (real, see `passes.realify`) on a CPU; of a cell in parts one for each, if they differ."""
    if runs_both_ways(cell):
        from ...compiler.passes.divide import divide

        choices = [choose(part) for part in divide(Run()(CANONICAL, cell))]
        schedules = [c.schedule for c in choices]
        if len(set(choices)) == 1:
            return choices[0]
        return Choice(schedules[0] if len(set(schedules)) == 1 else ", ".join(schedules),
                      "; ".join(f"part {k}: {c.why}" for k, c in enumerate(choices, 1)))
    lead = 2 + (cell.heads is not None)
    if not any(s.type.rank == lead for s in cell.states):
        return Choice("sequential", "there is no matrix state: a step's vectors fill the registers already")
    from ...compiler.passes.chunk import Unchunkable, derive  # not where there is no matrix

    cell = Run()(CANONICAL, cell)
    c = cost(cell)
    if not c.size:
        return Choice("sequential", "no matrix state is affine in itself and written by outer products")
    figures = f"by the model {c.sequential:.0f} ns per step and head, chunk({c.size}) {c.chunk:.0f} ns"
    if c.gain < GAIN:
        return Choice("sequential", f"{figures}: chunks are taken where {GAIN} times as fast")
    try:
        made = derive(cell, c.size)
    except Unchunkable as why:
        return Choice("sequential", f"{figures}, but {why}")
    if made.mixed:
        return Choice("sequential", f"{figures}, but {named(made.mixed)} depend on each other channel by channel")
    if made.turned:
        c = cost(cell, made.turned)
        figures = f"by the model {c.sequential:.0f} ns per step and head, chunk({c.size}) {c.chunk:.0f} ns"
        if c.gain < GAIN:
            return Choice("sequential", f"{figures}: chunks are taken where {GAIN} times as fast")
    more = [s.name for s in cell.states if s.name in (*made.whole, *made.doubled)]
    if MORE * sum(math.prod(_shape(cell, s)) for s in more) > c.elements:
        return Choice("sequential", f"{figures}, but chunks compute every element of {named(more)} at every step")
    return Choice(f"chunk({c.size})", figures.replace("by the model", "by the model sequential takes"))


REJECTED = {"chunk": "not that much faster by the model",
            "scan": "every step is done twice; it can pay with many threads and few sequences: ask for it",
            "diagonalize": "two more products per step, and it needs well-conditioned eigenvectors: ask for it",
            "conv": "the states of all steps at once: ask for it",
            "step": "a call for every step: ask for it",
            "quadratic": "all pairs of steps at once: ask for it"}
