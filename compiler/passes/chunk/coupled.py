"""Matrix states that add multiples of each other (a memory and its momentum): scalar decays and couplings.

    S = sum over T of a[S, T] T' + what is written

What a unit that is written at step j, or that a state holds before the chunk, has become before step i is again a
running product, state by state in the order of the couplings. Where these form a circle (the real and imaginary parts
of a complex state) it comes from products of small matrices (`lanes`), level by level as in `mixed`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from functools import cached_property

from ....ir.types import Dim, Type
from ..rewrite import Rewriter
from .lanes import Lanes, element
from .matrix import Matrix, Written


def ordered(states: tuple[str, ...], pairs: Container[tuple[str, str]]) -> list[str] | None:
    """States after those that they add, by the pairs of a state and one that it adds; None: there is a circle."""
    left, out = list(states), []
    while left:
        free = [s for s in left if not any((s, t) in pairs for t in left if t != s)]
        if not free:
            return None
        out += free
        left = [s for s in left if s not in free]
    return out


@dataclass
class Group:
    """`decays`: a[S, T] [*lead, C] by the two states; none: 0."""

    b: Rewriter
    dim: Dim
    decays: dict[tuple[str, str], str]
    members: dict[str, Coupled] = field(default_factory=dict)
    cache: dict = field(default_factory=dict)

    def responses(self, kind: str, into: frozenset[str]) -> dict[str, str]:
        """Before every step i: what is left in each state of a unit that `into` holds before the chunk ("first":
        [*lead, i]) or that was added to them at step j ("written": [*lead, i, j])."""
        key = kind, into
        if key not in self.cache:
            self.cache[key] = self._responses(kind, into)
        return self.cache[key]

    def _responses(self, kind: str, into: frozenset[str]) -> dict[str, str]:
        order = ordered(tuple(self.members), self.decays)
        if order is None:
            return self._in_a_circle(kind, into)
        b, m = self.b, next(iter(self.members.values()))
        shape = (*m.lead, self.dim) if kind == "first" else (*m.lead, self.dim, self.dim)
        real = Type("real", shape)
        unit = m.constant(shape, m.n, 0) if kind == "first" else b.op(
            "select", m.compared("eq", shape, 1), b.full(1.0, real), b.full(0.0, real))

        def spread(d: str) -> str:
            return b.broadcast(m.shifted(d), shape, tuple(range(m.n + 1)))

        out: dict[str, str] = {}
        for s in order:
            parts = [unit] if s in into else []
            parts += [b.op("mul", m.shifted(r), spread(self.decays[s, t])) for t, r in out.items()
                      if (s, t) in self.decays]
            if parts:
                total = parts[0]
                for p in parts[1:]:
                    total = b.op("add", total, p)
                out[s] = b.running(spread(self.decays[s, s]), total, m.n) if (s, s) in self.decays else total
        return out

    def _in_a_circle(self, kind: str, into: frozenset[str]) -> dict[str, str]:
        b, lanes = self.b, self.lanes
        n, one = lanes.axis, b.full(1.0, lanes.type)
        if kind == "first":
            before, (t,) = lanes.before(lanes.dim.size), into
            return {s: lanes.total([(sign, d or one)]) for (s, of), (sign, d) in before.items() if of == t}
        wide, out = Type("real", (*lanes.type.shape, lanes.dim)), {}
        for h in lanes.halves():
            before, after = lanes.before(h), lanes.after(h)
            for s in lanes.states:
                parts = [(p * q, b.op("mul", b.broadcast(x or one, wide.shape, tuple(range(n + 1))),
                                      b.broadcast(y or one, wide.shape, (*range(n), n + 1))))
                         for (to, u), (p, x) in before.items() if to == s
                         for (by, t), (q, y) in after.items() if by == u and t in into]
                if parts:
                    rest = out.get(s) or b.full(0.0, wide)
                    out[s] = b.op("select", lanes.across(h, wide), lanes.total(parts), rest)
        return out

    @cached_property
    def lanes(self) -> Lanes:
        t = self.b.type(next(iter(self.decays.values())))
        step = {pair: e for pair, d in self.decays.items() if (e := element(self.b, d)) is not None}
        return Lanes(self.b, tuple(self.members), t, t.rank - 1, step)

    def after(self, kind: str, into: frozenset[str], state: str) -> str | None:
        """What is left of it in `state` after the chunk: [*lead] or [*lead, j]; None: nothing."""
        b, m, last = self.b, self.members[state], self.dim.size - 1
        total = m.constant((*m.lead, self.dim), m.n, last) if kind == "written" and state in into else None
        for t, r in self.responses(kind, into).items():
            if (state, t) in self.decays:
                part = m.times(b.index(r, m.n, last), b.index(self.decays[state, t], m.n, last))
                total = part if total is None else b.op("add", total, part)
        return total


@dataclass
class Coupled(Matrix):
    """One state of a group."""

    group: Group | None = None

    def __post_init__(self):
        super().__post_init__()
        self.group.members[self.state.name] = self

    def gram(self, reader: str, w: Written, axis: int) -> str | None:
        left = self.group.responses("written", w.into).get(self.state.name)
        return None if left is None else self.b.op("mul", self.contract(reader, (w.x, w.y)[axis], "ik,jk->ij"), left)

    def of_state(self, reader: str, axis: int) -> str:
        b, total = self.b, None
        for name, m in self.group.members.items():
            left = self.group.responses("first", frozenset({name})).get(self.state.name)
            if left is not None:
                y = self.contract(self.times(reader, left), m.old, "ik,kv->iv" if axis == 0 else "iv,kv->ik")
                total = y if total is None else b.op("add", total, y)
        return total

    def next(self, written: list[Written]) -> str:
        b, total = self.b, self.b.full(0.0, self.state.type)
        for name, m in self.group.members.items():
            if (left := self.group.after("first", frozenset({name}), self.state.name)) is not None:
                total = b.op("add", total, self.times(m.old, left))
        for w in written:
            if (left := self.group.after("written", w.into, self.state.name)) is not None:
                total = b.op("add", total, self.contract(self.times(w.x, left), w.y, "ik,iv->kv"))
        return total
