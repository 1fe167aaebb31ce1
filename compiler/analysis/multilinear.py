"""Values as sums of products: the algebra in which the analysis of `affine` computes.

A value of shape [d0, ..., dr-1] that is affine in some states is a sum of
`Part`s. A part is a product of `Factor`s (values known without the states) and
at most one state's old value, each with a letter per axis, as in an einsum:

    letter p >= 0       axis p of the value
    letter -1-j         axis j of the state, summed over
    letter >= INNER     summed over, between factors only; gone at once

"Sum" and "product" are those of a semiring, so a part may as well be a maximum
over an axis of a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ...ir.types import Dim, Type
from ..passes.rewrite import Rewriter

INNER = 1000


@dataclass(frozen=True, slots=True)
class Semiring:
    """Operations of the IR that add, multiply and divide; `kind` of contractions and reductions."""

    kind: str
    plus: str
    times: str
    divide: str
    one: float
    zero: float


SUM = Semiring("sum", "add", "mul", "div", 1.0, 0.0)
MAX = Semiring("max", "max", "add", "sub", 0.0, -math.inf)
LSE = Semiring("lse", "logaddexp", "add", "sub", 0.0, -math.inf)
SEMIRINGS = (SUM, MAX, LSE)


@dataclass(frozen=True, slots=True)
class Factor:
    """A body node and the letters of its axes."""

    node: str
    letters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A product. `place`: the letters of the axes of state `of`, if there is one."""

    factors: tuple[Factor, ...] = ()
    of: str | None = None
    place: tuple[int, ...] = ()

    def renamed(self, letters: Mapping[int, int]) -> Part:
        def moved(old):
            return tuple(letters.get(c, c) for c in old)
        return Part(tuple(Factor(f.node, moved(f.letters)) for f in self.factors), self.of, moved(self.place))

    def with_factors(self, factors: Iterable[Factor]) -> Part:
        return replace(self, factors=tuple(factors))

    @property
    def summed(self) -> tuple[int, ...]:
        """Axes of the state that are summed over."""
        return tuple(j for j, c in enumerate(self.place) if c < 0)


def is_matrix(f: Factor) -> bool:
    """Whether a factor has both the old and the new axis of a state."""
    return any(c < 0 and -1 - c in f.letters for c in f.letters)


Combine = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Algebra:
    """Products and sums of factors and parts; new nodes go into `b`."""

    b: Rewriter
    s: Semiring
    known: dict[str, bool] = field(default_factory=dict)    # which of the nodes are static

    # -- factors ------------------------------------------------------------
    def constant(self, value: float, type: Type) -> str:
        return self.b.full(value, type)

    def one(self, kind: str) -> Factor:
        return Factor(self.constant(self.s.one, Type(kind)), ())

    def spread(self, f: Factor, letters: tuple[int, ...], shape: tuple[Dim, ...]) -> str:
        """The factor with axes `letters` of sizes `shape`."""
        return self.b.broadcast(f.node, shape, tuple(letters.index(c) for c in f.letters))

    def shape(self, factors: Iterable[Factor], letters: tuple[int, ...]) -> tuple[Dim, ...]:
        dims = {c: d for f in factors for c, d in zip(f.letters, self.b.type(f.node).shape)}
        return tuple(dims[c] for c in letters)

    def pointwise(self, op: Combine, f: Factor, g: Factor) -> Factor:
        """op(f, g) over the letters of both, in the order of the larger operand's."""
        wide, narrow = (f, g) if len(f.letters) >= len(g.letters) else (g, f)
        letters = wide.letters + tuple(c for c in narrow.letters if c not in wide.letters)
        shape = self.shape((f, g), letters)
        return Factor(op(self.spread(f, letters, shape), self.spread(g, letters, shape)), letters)

    def times(self, f: Factor, g: Factor) -> Factor:
        return self.pointwise(lambda x, y: self.b.op(self.s.times, x, y), f, g)

    def inverse(self, f: Factor) -> Factor:
        if self.s.divide == "sub":
            return Factor(self.b.op("neg", f.node), f.letters)
        return Factor(self.b.op("div", self.b.full(1.0, self.b.type(f.node)), f.node), f.letters)

    def eliminate(self, factors: tuple[Factor, ...], letter: int) -> tuple[Factor, ...]:
        """The product summed over a letter that some of the factors have."""
        hit = [f for f in factors if letter in f.letters]
        rest = tuple(f for f in factors if letter not in f.letters)
        acc = hit[0]
        for f in hit[1:-1]:
            acc = self.times(acc, f)
        if len(hit) == 1:
            node = self.b.reduce(acc.node, self.s.kind, (acc.letters.index(letter),))
            return (*rest, Factor(node, tuple(c for c in acc.letters if c != letter)))
        letters = sorted({*acc.letters, *hit[-1].letters}, key=lambda c: (c < 0, abs(c)))
        names = {c: chr(97 + i) for i, c in enumerate(letters)}
        out = tuple(c for c in letters if c != letter)
        spec = ",".join("".join(names[c] for c in f.letters) for f in (acc, hit[-1]))
        node = self.b.contract(acc.node, hit[-1].node, f"{spec}->{''.join(names[c] for c in out)}", self.s.kind)
        return (*rest, Factor(node, out))

    # -- parts ----------------------------------------------------------------
    def static(self, name: str) -> bool:
        """Whether a node depends on parameters and literals only."""
        for n in self.b.nodes[len(self.known):]:
            self.known[n.name] = n.op not in ("input", "state", "random", "training") and all(
                self.known[a] for a in n.args)
        return self.known[name]

    def fold(self, part: Part) -> Part:
        """Factors whose letters are among another's are multiplied into it: into one that writes
        a new axis rather than into one that reads, into the smaller one. A static matrix and
        what scales it step by step stay apart."""
        factors = sorted(part.factors, key=lambda f: len(f.letters))
        out: list[Factor] = []
        while factors:
            f = factors.pop(0)
            wider = [i for i, g in enumerate(factors) if set(f.letters) <= set(g.letters) and (
                not is_matrix(g) or self.static(f.node) == self.static(g.node))]
            if not wider:
                out.append(f)
                continue
            i = min(wider, key=lambda i: (not self._writes(part, factors[i]), self._reads(factors[i])))
            factors[i] = self.times(factors[i], f)
        return part.with_factors(out)

    @staticmethod
    def _writes(part: Part, f: Factor) -> bool:
        return part.of is not None and any(c >= 0 and c not in part.place for c in f.letters)

    @staticmethod
    def _reads(f: Factor) -> bool:
        return any(c < 0 for c in f.letters)

    def negative(self, part: Part, kind: str) -> Part:
        """The part times -1 (of the sum semiring)."""
        return part.with_factors((*part.factors, Factor(self.constant(-1, Type(kind)), ())))

    def merged(self, parts: Iterable[Part], kind: str) -> tuple[Part, ...]:
        """The sum with parts joined that differ in one factor only."""
        def plus(f: Factor, g: Factor) -> Factor:
            return self.pointwise(lambda x, y: self.b.op(self.s.plus, x, y), f, g)
        out: list[Part] = []
        for p in parts:
            for i, q in enumerate(out):
                if (joined := self.join(q, p, kind, plus)) is not None:
                    out[i] = joined
                    break
            else:
                out.append(p)
        return tuple(out)

    def join(self, p: Part, q: Part, kind: str, combine: Callable[[Factor, Factor], Factor]) -> Part | None:
        """combine(p, q) as one part, where they differ in one factor and one's letters are among the other's."""
        if (p.of, p.place) != (q.of, q.place):
            return None
        shared, x, y = [], [], list(q.factors)
        for f in p.factors:
            if f in y:
                y.remove(f)
                shared.append(f)
            else:
                x.append(f)
        x = self.fold(p.with_factors(x)).factors or (self.one(kind),)
        y = self.fold(q.with_factors(y)).factors or (self.one(kind),)
        if len(x) > 1 or len(y) > 1:
            return None
        a, c = set(x[0].letters), set(y[0].letters)
        return p.with_factors((*shared, combine(x[0], y[0]))) if a <= c or c <= a else None

    def dense(self, parts: Iterable[Part], type: Type) -> str | None:
        """The sum of parts without a state as one node; None if there are none."""
        letters, total = tuple(range(type.rank)), None
        for p in parts:
            factors = self.fold(p).factors or (self.one(type.kind),)
            nodes = [self.spread(f, letters, type.shape) for f in factors]
            value = nodes[0]
            for x in nodes[1:]:
                value = self.b.op(self.s.times, value, x)
            total = value if total is None else self.b.op(self.s.plus, total, value)
        return total
