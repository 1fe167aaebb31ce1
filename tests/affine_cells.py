"""Random cells all of whose components are affine, and do not expand.

`affine_cell(random.Random(7), blocks=2)`: the blocks have the structures that the
analysis tells apart: lanes, coupled lanes, matrix states with decays of every
kind and several reads and writes in any order, momentum, dense and shifting
transitions, the other semirings, resets. A block reads the inputs and the blocks
before it, old values or new ones.
"""

from __future__ import annotations

import math
import random

from hypothesis import strategies as st
from ostinato.ir.cell import Cell
from ostinato.ir.types import Dim
from random_cells import _Maker


def affine_cell(rng: random.Random, *, blocks: int | None = None, heads: bool | None = None, large: bool = False,
                semirings: bool = True, dense: bool = True, coupled: bool = True, wide: bool = False,
                name: str = "cell") -> Cell:
    """A random affine cell. `semirings`: maxima and logsumexp as well; `dense`: dense transitions as well; `coupled`:
    several states of a lane as well; `wide`: matrix states of 48 to 100 rows and columns."""
    heads = rng.random() < 0.4 if heads is None else heads
    knobs = dict(large=large, ints=False, noise=False, semirings=semirings, linalg=False, wide=wide)
    m = _Affine(rng, heads, knobs)
    pool = [m.input() for _ in range(rng.randint(1, 2))]
    choices = [m.scaled, m.matrix, m.matrix, m.momentum, m.turned, m.stabilised]
    choices += [m.coupled] if coupled else []
    choices += [m.mixed, m.shifted] if dense else []
    choices += [m.tropical_lanes] if semirings else []
    choices += [m.tropical_dense] if semirings and dense else []
    for _ in range(blocks or rng.randint(1, 3)):
        pool.append(m.op("tanh", rng.choice(choices)(rng.choice(pool))))
    for v in {pool[-1]: 0, **{v: 0 for v in pool[:-1] if rng.random() < 0.5}}:
        m.output(v)
    return m.cell(name, (), False)


def affine_cells(max_blocks: int = 3, **knobs) -> st.SearchStrategy[Cell]:
    return st.builds(lambda blocks, seed: affine_cell(random.Random(seed), blocks=blocks, name=f"affine_{seed}_{blocks}",
                                                      **knobs), st.integers(1, max_blocks), st.integers(0, 2**32 - 1))


class _Affine(_Maker):
    def keep(self, handle: int, x: str, new: str, zero: float = 0.0) -> str:
        """The next value of a state; sometimes the state restarts at some steps."""
        if self.chance(0.2):
            w = self.b.reduce(x, "sum", tuple(range(self.b.type(x).rank)))
            shape = self.b.type(new).shape
            stop = self.b.broadcast(self.op("gt", w, self.k(0.7319)), shape, ())
            new = self.op("select", stop, self.b.broadcast(self.k(zero), shape, ()), new)
        return self.set(handle, new)

    def gate(self, x: str, d: Dim) -> str:
        return self.op("sigmoid", self.bias(self.linear(x, d)))

    def scaled(self, x: str) -> str:
        d = self.dim("D")
        h, handle = self.state(*self.lead, d)
        a = self.gate(x, d) if self.chance(0.6) else self.op("tanh", self.param(*self.lead, d))
        new = self.op("add", self.op("mul", a, h), self.op("mul", self.gate(x, d), self.linear(x, d)))
        new = self.keep(handle, x, new)
        return h if self.chance(0.2) else new

    def coupled(self, x: str) -> str:
        """k states of a lane, some of them seen by the others as they are now."""
        d, k = self.dim("D"), self.rng.choice((2, 2, 3))
        states = [self.state(*self.lead, d) for _ in range(k)]
        seen = [h for h, _ in states]
        for i, (_, handle) in enumerate(states):
            new = self.op("tanh", self.linear(x, d))
            for h in seen:
                if self.chance(0.8):
                    part = self.op("mul", self.op("tanh", self.linear(x, d)), self.k(1 / k))
                    new = self.op(self.rng.choice(("add", "sub")), new, self.op("mul", part, h))
            new = self.keep(handle, x, new)
            if self.chance(0.5):
                seen[i] = new
        return new

    def mixed(self, x: str) -> str:
        """A dense transition: static, scaled step by step, or from the input."""
        d = self.dim("H")
        h, handle = self.state(*self.lead, d)
        half = self.k(0.5 / d.size)
        if self.chance(0.5):
            kept = self.op("mul", self.gate(x, d), self.linear(self.op("mul", h, half), d))
        else:
            k = self.op("tanh", self.linear(x, d))
            n = "n" if self.lead else ""
            M = self.b.contract(k, self.op("tanh", self.param(*self.lead, d, d)), f"{n}i,{n}ij->{n}ij")
            kept = self.b.contract(M, self.op("mul", h, half), f"{n}ij,{n}j->{n}i")
        if self.chance(0.4):
            kept = self.op("add", kept, self.op("mul", h, self.k(0.4)))
        return self.keep(handle, x, self.op("add", kept, self.linear(x, d)))

    def shifted(self, x: str) -> str:
        """A shift register: slices of the old value and a new element, or a running sum."""
        d = Dim(f"R{len(self.dims)}", self.rng.choice((2, 3, 5)))
        self.dims.append(d)
        one, rest = Dim(f"{d.name}-{d.size - 1}", 1), Dim(f"{d.name}-1", d.size - 1)
        h, handle = self.state(*self.lead, d)
        at = len(self.lead)
        new, old = self.op("tanh", self.linear(x, one)), self.b.slice(h, at, self.rng.choice((0, 1)), rest)
        if self.chance(0.3):
            old = self.op("mul", self.b.add("cumsum", (old,), self.b.type(old), "cumsum", axis=at,
                                            reverse=self.chance(0.5)), self.k(1 / d.size))
        pieces = (new, old) if self.chance(0.5) else (old, new)
        return self.keep(handle, x, self.b.concat(pieces, at, d))

    def tropical_lanes(self, x: str) -> str:
        d, plus = self.dim("D"), self.rng.choice(("max", "logaddexp"))
        h, handle = self.state(*self.lead, d, init=self.rng.choice((-math.inf, 0.0)))
        left = self.op("add", self.op("logsigmoid", self.linear(x, d)), h)
        args = (left, self.linear(x, d)) if self.chance(0.5) else (self.linear(x, d), left)
        return self.op("max", self.keep(handle, x, self.op(plus, *args), -math.inf), self.k(-9.0))

    def tropical_dense(self, x: str) -> str:
        """Transition and emission: Viterbi's maxima, or the forward algorithm."""
        d, n = self.dim("S"), "n" if self.lead else ""
        h, handle = self.state(*self.lead, d, init=0.0)
        A = self.op("logsigmoid", self.param(*self.lead, d, d))
        best = self.b.contract(A, h, f"{n}ij,{n}j->{n}i", self.rng.choice(("max", "lse")))
        return self.set(handle, self.op("add", best, self.op("logsigmoid", self.linear(x, d))))

    # -- matrix states ------------------------------------------------------
    def rows_and_columns(self) -> tuple[Dim, Dim]:
        sizes = (48, 64, 100) if self.knobs["wide"] else None
        return self.dim("K", sizes), self.dim("V", sizes)

    def key(self, x: str, d: Dim) -> str:
        return self.unit(x, d)

    def step(self, x: str, k: Dim) -> str:
        """2 sigmoid: a step length in (0, 2), as wide as a head."""
        return self.op("mul", self.scalar_per_head(x), self.k(2.0))

    def matrix(self, x: str) -> str:
        k, v = self.rows_and_columns()
        S, handle = self.state(*self.lead, k, v)
        t, lead = self.b.type(S), len(self.lead)
        new = S
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            match self.rng.randrange(5):
                case 0:
                    new = self.op("mul", self.scale_rows(self.scalar_per_head(x), t.shape), new)
                case 1:
                    new = self.op("mul", self.scale_rows(self.heads(self.gate(x, k)), t.shape), new)
                case 2:
                    columns = self.b.broadcast(self.heads(self.gate(x, v)), t.shape, (*range(lead), lead + 1))
                    new = self.op("mul", columns, new)
                case _:
                    new = self.delta_rule(x, new, new if self.chance(0.8) else S, k, v)
        new = self.op("add", new, self.outer(self.heads(self.key(x, k)), self.heads(self.op("tanh", self.linear(x, v)))))
        new = self.keep(handle, x, new)
        return self.read_rows(self.heads(self.key(x, k)), new if self.chance(0.7) else S)

    def heads(self, v: str) -> str:
        """The value with the heads' axis."""
        t = self.b.type(v)
        missing = self.lead and t.rank == 1
        return self.b.broadcast(v, (*self.lead, *t.shape), (1,)) if missing else v

    def delta_rule(self, x: str, S: str, read: str, k: Dim, v: Dim) -> str:
        """S + beta k (v - k S)^T, or a read and a write that have nothing to do with each other."""
        key = self.heads(self.key(x, k))
        write = key if self.chance(0.7) else self.heads(self.key(x, k))
        error = self.op("neg", self.read_rows(key, read))
        if self.chance(0.6):
            error = self.op("add", self.heads(self.op("tanh", self.linear(x, v))), error)
        step = self.scale_rows(self.step(x, k), self.b.type(error).shape)
        return self.op("add", S, self.outer(write, self.op("mul", step, error)))

    def momentum(self, x: str) -> str:
        k, v = self.rows_and_columns()
        (S, hs), (P, hp) = self.state(*self.lead, k, v), self.state(*self.lead, k, v)
        shape = self.b.type(S).shape
        new = self.delta_rule(x, self.op("mul", self.scale_rows(self.scalar_per_head(x), shape), P), S, k, v)
        new = self.set(hp, self.op("mul", new, self.k(0.5)))
        kept = self.op("mul", self.scale_rows(self.scalar_per_head(x), shape), S)
        return self.read_rows(self.heads(self.key(x, k)), self.keep(hs, x, self.op("add", kept, new)))

    def turned(self, x: str) -> str:
        """2 or 3 matrix states that add multiples of each other, which differ between rows or columns or do not; some
        are seen by the others as they are now, and not all are written to."""
        k, v = self.rows_and_columns()
        n, lead, axis = self.rng.choice((2, 2, 3)), len(self.lead), self.rng.choice((0, 0, 1, None))
        states = [self.state(*self.lead, k, v) for _ in range(n)]
        seen, shape = [S for S, _ in states], self.b.type(states[0][0]).shape

        def part() -> str:
            if axis is None:
                return self.scale_rows(self.scalar_per_head(x), shape)
            gate = self.heads(self.op("tanh", self.linear(x, (k, v)[axis])))
            return self.b.broadcast(gate, shape, (*range(lead), lead + axis))

        for i, (_, handle) in enumerate(states):
            new = self.op("mul", self.op("mul", part(), self.k(1 / n)), seen[i])
            for S in (S for j, S in enumerate(seen) if j != i and self.chance(0.7)):
                new = self.op(self.rng.choice(("add", "sub")), new, self.op("mul", self.op("mul", part(), self.k(1 / n)), S))
            if i == 0 or self.chance(0.4):
                write = self.outer(self.heads(self.key(x, k)), self.heads(self.op("tanh", self.linear(x, v))))
                new = self.op("add", new, write)
            new = self.keep(handle, x, new)
            if self.chance(0.3):
                seen[i] = new
        return self.read_rows(self.heads(self.key(x, k)), self.rng.choice([*seen, *(S for S, _ in states)]))
