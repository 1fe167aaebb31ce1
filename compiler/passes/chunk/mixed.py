"""Matrix states that depend on each other channel by channel: the real and imaginary parts of a complex state whose
decays differ between the rows or between the columns.

As in `matrix`, with small matrices in place of decays (`lanes`): D(i, j)[s, t] is what is left in state s before step i
of what is written to state t at step j. It is not multiplied up pair by pair, but cut at the middle of the smallest
aligned stretch of 2 h steps with i in the second half and j in the first:

    D(i, j) = (the product of the second half before i) (that of the first half after j)

so that all pairs with the same h are one product of rows. Again no factor is a quotient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....ir.cell import State
from ....ir.types import Dim, Type
from ..realify import named
from ..rewrite import Rewriter
from .coupled import Coupled, Group
from .lanes import Lanes, Small, element
from .lift import Unchunkable
from .matrix import Matrix, Written

Parts = tuple[str | None, ...]      # of a decay: scalar [*lead, C], row [*lead, C, K], column [*lead, C, V]


def several(b: Rewriter, states: Sequence[State], dim: Dim, decays: dict[tuple[str, str], Parts]) -> dict[str, Matrix]:
    """States that add multiples of each other, by the state and the one that it adds. Raises Unchunkable."""
    names, shape = tuple(s.name for s in states), states[0].type.shape
    if any(s.type.shape != shape for s in states):
        raise Unchunkable(f"{named(names)} depend on each other and have different shapes")
    along = {axis for _, *parts in decays.values() for axis, part in enumerate(parts) if part is not None}
    if len(along) > 1:
        raise Unchunkable(f"{named(names)} depend on each other, and decays differ between rows and columns")
    wide = Type("real", (*shape[:-2], dim, *(shape[-2 + axis] for axis in along)))

    def product(parts: Parts) -> str:
        out = b.full(1.0, wide)
        for part in filter(None, parts):
            out = b.op("mul", out, b.broadcast(part, wide.shape, tuple(range(b.type(part).rank))))
        return out

    factors = {pair: product(parts) for pair, parts in decays.items()}
    if not along:
        group = Group(b, dim, factors)
        return {s.name: Coupled(b, s, dim, group=group) for s in states}
    step = {pair: e for pair, d in factors.items() if (e := element(b, d)) is not None}
    lanes, members = Lanes(b, names, wide, len(shape) - 2, step), {}
    return {s.name: Mixed(b, s, dim, lanes=lanes, members=members, along=min(along)) for s in states}


@dataclass
class Mixed(Matrix):
    """One state of those in `lanes`, `members` by their names; their transitions differ along `along` (0: rows)."""

    lanes: Lanes | None = None
    members: dict[str, Mixed] | None = None
    along: int = 0

    def __post_init__(self):
        super().__post_init__()
        self.members[self.state.name] = self

    def differs(self, axis: int) -> bool:
        return axis == self.along

    @property
    def name(self) -> str:
        return self.state.name

    # -- pairs of steps -------------------------------------------------------------
    def chosen(self, h: int, x: str, other: str | None) -> str:
        """x at the pairs of h, elsewhere the other (None: 0)."""
        return self.b.op("select", self.lanes.across(h, self.b.type(x)), x, other or self.b.full(0.0, self.b.type(x)))

    def near(self, p: Small, x: str) -> dict[str, tuple[int, str]]:
        """Rows x of this state times its row of p, by the states that they come from."""
        return {t: (sign, self.times(x, d)) for (s, t), (sign, d) in p.items() if s == self.name}

    def far(self, p: Small, x: str, into: frozenset[str]) -> dict[str, str]:
        """Rows x that are written to the states `into` times p, by the states that they come to."""
        lanes, out = self.lanes, {}
        for u in lanes.states:
            parts = [(sign, self.times(x, d)) for (s, t), (sign, d) in p.items() if s == u and t in into]
            if parts:
                out[u] = lanes.total(parts)
        return out

    def gram(self, reader: str, w: Written, axis: int) -> str | None:
        x = (w.x, w.y)[axis]
        if axis != self.along:
            return self.contract(reader, x, "ik,jk->ij", below="ij")
        return self._once(("gram", reader, x, w.into), lambda: self._gram(reader, x, w.into))

    def _gram(self, reader: str, x: str, into: frozenset[str]) -> str | None:
        total = None
        for h in self.lanes.halves():
            near, far = self.near(self.lanes.before(h), reader), self.far(self.lanes.after(h), x, into)
            parts = [(near[u][0], self.contract(near[u][1], far[u], "ik,jk->ij")) for u in near if u in far]
            if parts:
                total = self.chosen(h, self.lanes.total(parts), total)
        return total

    def applied(self, gram: str, w: Written, axis: int) -> str:
        if axis == self.along:
            return self.contract(gram, (w.x, w.y)[1 - axis], "ij,jv->iv", below="ij")
        x, parts = (w.x, w.y)[1 - axis], []
        for h in self.lanes.halves():
            g, far = self.chosen(h, gram, None), self.far(self.lanes.after(h), x, w.into)
            for (s, u), (sign, d) in self.lanes.before(h).items():
                if s == self.name and u in far:
                    parts.append((sign, self.times(self.contract(g, far[u], "ij,jv->iv"), d)))
        return self.lanes.total(parts) or self.b.full(0.0, self.b.type(x))

    # -- what is wanted -----------------------------------------------------------
    def of_state(self, reader: str, axis: int) -> str:
        spec, parts = "ik,kv->iv" if axis == 0 else "iv,kv->ik", []
        for (s, t), (sign, d) in self.lanes.before(self.dim.size).items():
            if s == self.name and axis == self.along:
                parts.append((sign, self.contract(self.times(reader, d), self.members[t].old, spec)))
            elif s == self.name:
                parts.append((sign, self.times(self.contract(reader, self.members[t].old, spec), d)))
        return self.lanes.total(parts)

    def next(self, written: list[Written]) -> str:
        b, lanes, parts = self.b, self.lanes, []
        step, before = ({pair: (sign, d and b.index(d, self.n, self.dim.size - 1)) for pair, (sign, d) in p.items()}
                        for p in (lanes.step, lanes.before(self.dim.size)))
        whole = lanes.times(step, before, Type("real", (*self.lead, lanes.type.shape[-1])))
        for (s, t), (sign, d) in whole.items():
            if s == self.name:
                factors = (d, None) if self.along == 0 else (None, d)
                parts.append((sign, self._scaled(self.members[t].old, None, *factors)))
        for w in written:
            far = self.far(lanes.after(self.dim.size), (w.x, w.y)[self.along], w.into).get(self.name)
            if far is not None:
                x, y = (far, w.y) if self.along == 0 else (w.x, far)
                parts.append((1, self.contract(x, y, "ik,iv->kv")))
        return lanes.total(parts) or b.full(0.0, self.state.type)
