"""Which components of the states are affine, over which semiring, and with which maps.

`classify(cell)` gives one `Affine` or `Nonlinear` per strongly connected
component. An affine component's next value of state x is

    x[t] = sum over terms of maps(old value of term.of)  +  sum of offsets

where sum, product and + are those of the semiring: (+, *), (max, +) or
(logsumexp, +). Every node that terms and offsets name depends on inputs,
parameters and states of earlier components only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...ir.cell import Cell
from ...ir.types import Type
from ..passes.canonicalise import RULES
from ..passes.dce import live
from ..passes.rewrite import Rewriter
from .components import components
from .expand import Expansion, NotAffine
from .multilinear import SEMIRINGS, SUM, Algebra, Factor, Part


@dataclass(frozen=True, slots=True)
class Scale:
    """x -> x * factor. `factor` has the state's axes `axes` only, in this order."""

    factor: str
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """x -> sum over k of matrix[.., k', k] x[.., k, ..] along `axis`. The matrix has the
    state's axes `lead` first (heads, say), then the new and the old `axis`."""

    matrix: str
    axis: int
    lead: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LowRank:
    """x -> write * (sum along `axis` of read * x), of rank one. Both have the state's axes
    `lead` first, then `axis`."""

    read: str
    write: str
    axis: int
    lead: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Mix:
    """Every other linear map: x -> einsum(spec, *factors, x)."""

    factors: tuple[str, ...]
    spec: str


Map = Scale | Apply | LowRank | Mix


@dataclass(frozen=True, slots=True)
class Term:
    """`maps`, applied in order to the old value of state `of`; none: the identity."""

    of: str
    maps: tuple[Map, ...] = ()


@dataclass(frozen=True, slots=True)
class Outer:
    """write * value over the last two axes of a state [*lead, K, V]: write [*lead, K], value [*lead, V]."""

    write: str
    value: str


@dataclass(frozen=True, slots=True)
class Dense:
    """A value of the state's shape."""

    value: str


Offset = Outer | Dense


@dataclass(frozen=True)
class Affine:
    """A component that is affine over `semiring`: "sum", "max" or "lse".

    `terms` and `offsets` by state. `first`: states whose offsets come before their
    terms in the text (the first operand of a maximum takes the gradient of a tie).
    `cell`: the classified cell, its body extended by the nodes that are named; old
    nodes keep their names.
    """

    states: tuple[str, ...]
    semiring: str
    terms: dict[str, tuple[Term, ...]]
    offsets: dict[str, tuple[Offset, ...]]
    cell: Cell
    first: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Nonlinear:
    """`reason`: which operation, on which value, in which line of the text."""

    states: tuple[str, ...]
    reason: str


def classify(cell: Cell) -> tuple[Affine | Nonlinear, ...]:
    """One verdict per component, in the order of `components`.

    Sound for every cell; it finds the most structure in a canonical one (after
    `pipeline.CANONICAL`). The same cell is in every `Affine`.
    """
    b = Rewriter(RULES, cell.body)
    found = [_component(cell, states, b) for states in components(cell)]
    named = [n for c in found if isinstance(c, Affine) for n in nodes_of(c)]
    needed = live(b.nodes, named) | {n.name for n in cell.body}
    extended = cell.with_body(n for n in b.nodes if n.name in needed)
    return tuple(replace(c, cell=extended) if isinstance(c, Affine) else c for c in found)


def factors_of(m: Map) -> tuple[str, ...]:
    """The nodes that a map names."""
    match m:
        case Scale(factor, _):
            return (factor,)
        case Apply(matrix, _, _):
            return (matrix,)
        case LowRank(read, write, _, _):
            return read, write
    return m.factors


def nodes_of(c: Affine) -> tuple[str, ...]:
    """The nodes that the terms and offsets of a component name."""
    out: list[str] = []
    for s in c.states:
        for m in (m for t in c.terms[s] for m in t.maps):
            out += factors_of(m)
        for o in c.offsets[s]:
            out += [o.value] if isinstance(o, Dense) else [o.write, o.value]
    return tuple(dict.fromkeys(out))


def _component(cell: Cell, states: tuple[str, ...], b: Rewriter) -> Affine | Nonlinear:
    """The first semiring over which it is affine; else why it is not over (+, *), and where
    that is for the operation of another semiring, why not over that one."""
    reason, wall = "", ""
    for s in SEMIRINGS:
        try:
            expansion = Expansion(cell, states, b, s)
        except NotAffine as error:
            if s is SUM:
                reason, wall = str(error), error.op
            elif wall == s.plus:
                reason += f"; {error}"
            continue
        form = _Normal(expansion.alg, cell)
        terms, offsets, first = {}, {}, set()
        for x in states:
            parts = expansion.of(cell.state(x).next)
            terms[x] = form.terms(x, [p for p in parts if p.of is not None])
            offsets[x] = form.offsets(x, [p for p in parts if p.of is None])
            if parts and parts[0].of is None:
                first.add(x)
        return Affine(states, s.kind, terms, offsets, cell, frozenset(first))
    return Nonlinear(states, reason)


@dataclass(frozen=True, slots=True)
class _Normal:
    """Parts as terms and offsets."""

    alg: Algebra
    cell: Cell

    def node(self, f: Factor, axes: Sequence[int], of: Type, to: Type) -> str:
        """The factor with exactly the letters `axes`, in this order."""
        shape = tuple(of.shape[-1 - c] if c < 0 else to.shape[c] for c in axes)
        return self.alg.spread(f, tuple(axes), shape)

    # -- terms ----------------------------------------------------------------
    def terms(self, to: str, parts: list[Part]) -> tuple[Term, ...]:
        return tuple(self.term(to, p) for p in self._one_scale(to, parts))

    def _one_scale(self, to: str, parts: list[Part]) -> list[Part]:
        """Several scalings of one state (by rows and by columns) become one."""
        out: list[Part] = []
        t = self.cell.state(to).type
        for of in dict.fromkeys(p.of for p in parts):
            mine = [p for p in parts if p.of == of]
            scales = [p for p in mine if p.place == tuple(range(t.rank))]
            if len(scales) > 1:
                factor = self.alg.dense((Part(p.factors) for p in scales), t)
                mine = [Part((Factor(factor, tuple(range(t.rank))),), of, scales[0].place),
                        *(p for p in mine if p not in scales)]
            out += mine
        return out

    def term(self, to: str, part: Part) -> Term:
        t, old = self.cell.state(to).type, self.cell.state(part.of).type
        part = self.alg.fold(part)
        summed = part.summed
        straight = t.rank == old.rank and all(c in (j, -1 - j) for j, c in enumerate(part.place))
        if not straight or not all(self._axis(f, summed) is not None for f in part.factors):
            return Term(part.of, (self.mix(part, old, t),))
        scales = [f for f in part.factors if self._axis(f, summed) == -1]
        maps: list[Map] = []
        for j in summed:
            maps += self.along(j, [f for f in part.factors if self._axis(f, summed) == j], old, t)
        maps += [Scale(self.node(f, sorted(f.letters), old, t), tuple(sorted(f.letters))) for f in scales]
        return Term(part.of, tuple(maps))

    @staticmethod
    def _axis(f: Factor, summed: tuple[int, ...]) -> int | None:
        """The summed axis that a factor belongs to, -1 if none, None if several."""
        mine = {j for j in summed if j in f.letters or -1 - j in f.letters}
        return None if len(mine) > 1 else mine.pop() if mine else -1

    def along(self, j: int, factors: list[Factor], old: Type, t: Type) -> list[Map]:
        """The maps along axis j: read and write, or a matrix between two scalings."""
        one = self.alg.one(t.kind)
        matrix = self._product([f for f in factors if {j, -1 - j} <= set(f.letters)])
        read = self._product([f for f in factors if -1 - j in f.letters and j not in f.letters])
        write = self._product([f for f in factors if j in f.letters and -1 - j not in f.letters])
        if matrix is None:
            lead = tuple(sorted({c for f in factors for c in f.letters} - {j, -1 - j}))
            return [LowRank(self.node(read or one, (*lead, -1 - j), old, t),
                            self.node(write or one, (*lead, j), old, t), j, lead)]
        lead = tuple(sorted({*matrix.letters} - {j, -1 - j}))
        apply = Apply(self.node(matrix, (*lead, j, -1 - j), old, t), j, lead)
        return [*self._scaled(read, old, t), apply, *self._scaled(write, old, t)]

    def _scaled(self, f: Factor | None, old: Type, t: Type) -> list[Map]:
        """A scaling before or after a matrix."""
        if f is None:
            return []
        letters = sorted(f.letters, key=lambda c: c if c >= 0 else -1 - c)
        return [Scale(self.node(f, letters, old, t), tuple(c if c >= 0 else -1 - c for c in letters))]

    def _product(self, factors: list[Factor]) -> Factor | None:
        out = None
        for f in factors:
            out = f if out is None else self.alg.times(out, f)
        return out

    def mix(self, part: Part, old: Type, t: Type) -> Mix:
        """New axes that nothing has are spread over by a factor of ones."""
        have = {c for f in part.factors for c in f.letters} | set(part.place)
        factors = list(part.factors)
        if missing := tuple(c for c in range(t.rank) if c not in have):
            one = self.node(self.alg.one(t.kind), missing, old, t)
            factors.append(Factor(one, missing))
        names = {c: chr(97 + c) for c in range(t.rank)} | {-1 - j: chr(97 + t.rank + j) for j in range(old.rank)}
        spec = ",".join("".join(names[c] for c in letters) for letters in (*(f.letters for f in factors), part.place))
        return Mix(tuple(f.node for f in factors), f"{spec}->{''.join(names[c] for c in range(t.rank))}")

    # -- offsets ----------------------------------------------------------------
    def offsets(self, to: str, parts: list[Part]) -> tuple[Offset, ...]:
        """Outer products, and the rest as one dense value."""
        t = self.cell.state(to).type
        outers, rest = [], []
        for p in parts:
            outer = self.outer(p, t)
            outers += [outer] if outer else []
            rest += [] if outer else [p]
        dense = self.alg.dense(rest, t)
        return (*outers, *((Dense(dense),) if dense is not None else ()))

    def outer(self, part: Part, t: Type) -> Outer | None:
        part, r = self.alg.fold(part), t.rank
        if r < 2 or len(part.factors) != 2 or self.alg.s is not SUM:
            return None
        for f, g in (part.factors, part.factors[::-1]):
            if r - 2 in f.letters and r - 1 in g.letters and r - 1 not in f.letters and r - 2 not in g.letters:
                lead = tuple(range(r - 2))
                return Outer(self.node(f, (*lead, r - 2), t, t), self.node(g, (*lead, r - 1), t, t))
        return None
