"""Matrix states over a chunk: Gram matrices, a unit lower solve where reads are written back, reads, the next state.

With p(i) the product of the decays of the chunk's steps before i, D(i, j) of those strictly between j and i, t(j) of
those after j, and a_i reading the state S'_i before step i,

    a_i . S'_i = (a_i p(i)) . S_0 + sum_{j<i} (a_i . D(i,j) x_j) y_j
    S_C        = p(C) S_0 + sum_j (t(j) x_j) y_j^T

Where y_j = z_j + sum_r c_jr w_jr with the inner reads w = a . S', these solve (I - G c) w = (a p) . S_0 + G z.
Decays are running products, so zeros (and logarithms -inf) are exact, and so are gradients there. Where they differ
from channel to channel, D(i, j) is a vector: inside a block of a few steps it is multiplied up (the operations
`decayed`), between blocks it is the product of what comes before and after the start of the later block. So every
factor is a product of decays of some steps, never a quotient: none is larger than 1 if the decays are not.

Where c_i M of a constant matrix M is added (a restart from a learned state), S'_i has r_i M as well, r being one more
running sum: r = decay * r + c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from ....ir.build import Builder
from ....ir.cell import State
from ....ir.types import Dim, Type
from .lift import LETTERS, Unchunkable

BLOCK = 16      # steps between which decays that differ from channel to channel are multiplied out


@dataclass(frozen=True, slots=True)
class Written:
    """One outer product at all steps, x [*lead, C, K] and y [*lead, C, V], which is added to the states `into`."""

    x: str
    y: str
    into: frozenset[str]


@dataclass(frozen=True, slots=True)
class Constant:
    """A matrix [*lead, K, V] that is added at every step, times scalar [*lead, C] * row [*lead, C, K] *
    column [*lead, C, V]."""

    matrix: str
    scalar: str | None = None
    row: str | None = None
    column: str | None = None


@dataclass
class Matrix:
    """A matrix state over a chunk. `scalar` [*lead, C], `row` [*lead, C, K], `column` [*lead, C, V]: its decay at
    every step, None where there is none. Values have the axes *lead, C, and then their own."""

    b: Builder
    state: State
    dim: Dim
    scalar: str | None = None
    row: str | None = None
    column: str | None = None
    constants: tuple[Constant, ...] = ()
    cache: dict = field(default_factory=dict)

    def __post_init__(self):
        *lead, self.K, self.V = self.state.type.shape
        self.lead, self.n = tuple(lead), len(lead)
        if self.scalar is not None and (self.row is not None or self.column is not None):
            one = "row" if self.row is not None else "column"
            wide = self.b.broadcast(self.scalar, self.b.type(getattr(self, one)).shape, tuple(range(self.n + 1)))
            setattr(self, one, self.b.op("mul", getattr(self, one), wide))
            self.scalar = None

    @cached_property
    def old(self) -> str:
        """Its value before the chunk."""
        return self.b.read("state", self.state.name, self.state.type)

    def differs(self, axis: int) -> bool:
        """Whether the decay differs along the rows (0) or the columns (1)."""
        return (self.row, self.column)[axis] is not None

    # -- decays: d [*lead, n, ...] over a stretch of n steps ----------------------
    def constant(self, shape: tuple[Dim, ...], axis: int, at: int) -> str:
        """1 at one place of an axis, elsewhere 0."""
        b, real = self.b, Type("real", (shape[axis],))
        iota = b.add("iota", (), Type("int", real.shape), "iota")
        one = b.op("select", b.op("eq", iota, b.literal(at, "int")), b.full(1.0, real), b.full(0.0, real))
        return b.broadcast(one, shape, (axis,))

    def compared(self, op: str, shape: tuple[Dim, ...], by: int = 0) -> str:
        """i op j + by over the axes i and j after `lead`."""
        b, two = self.b, shape[self.n:self.n + 2]
        i, j = (b.add("iota", (), Type("int", (d,)), "iota") for d in two)
        j = j if by == 0 else b.op("add", j, b.literal(by, "int"))
        return b.broadcast(b.op(op, b.broadcast(i, two, (0,)), b.broadcast(j, two, (1,))), shape, (self.n, self.n + 1))

    def shifted(self, d: str) -> str:
        """d one step later, 0 at the first."""
        b, dim = self.b, self.b.type(d).shape[self.n]
        if dim.size == 1:
            return b.full(0.0, b.type(d))
        less = Dim(f"{dim.name}-1", dim.size - 1)
        return b.pad(b.slice(d, self.n, 0, less), self.n, 1, dim)

    def before(self, d: str) -> str:
        """p(i): the product of the decays of the steps before i."""
        return self.b.cumprod(d, self.n)

    def after(self, d: str) -> str:
        """t(j): the product of the decays of the steps after j."""
        return self.b.cumprod(d, self.n, reverse=True)

    def whole(self, d: str) -> str:
        """p(C)"""
        return self.b.reduce(d, "prod", (self.n,))

    def between(self, d: str) -> str:
        """D(i, j) [*lead, i, j] of a decay [*lead, C]: the product strictly between j and i, 0 for j >= i."""
        b, n, shape = self.b, self.n, self.b.type(d).shape
        wide = Type("real", (*shape, shape[n]))
        start = b.op("select", self.compared("eq", wide.shape, 1), b.full(1.0, wide), b.full(0.0, wide))
        return b.running(b.broadcast(self.shifted(d), wide.shape, tuple(range(n + 1))), start, n)

    # -- blocks of steps, where decays differ from channel to channel ---------------
    def blocks(self) -> list[tuple[int, Dim]]:
        """First steps and axes of the blocks."""
        C, name = self.dim.size, self.dim.name
        if C <= BLOCK:
            return [(0, self.dim)]
        return [(i, Dim(f"{name}[{i}:{min(i + BLOCK, C)}]", min(BLOCK, C - i))) for i in range(0, C, BLOCK)]

    def cut(self, x: str, start: int, dim: Dim) -> str:
        """A stretch of steps of a value [*lead, C, ...]."""
        return x if dim == self.dim else self.b.slice(x, self.n, start, dim)

    def earlier(self, start: int) -> Dim:
        """The axis of the steps before one."""
        return self.dim if start == self.dim.size else Dim(f"{self.dim.name}[0:{start}]", start)

    def decays(self, axis: int, start: int, dim: Dim) -> str:
        """The decay of an axis at the steps of a block."""
        return self.cut((self.row, self.column)[axis], start, dim)

    def carried(self, x: str, axis: int, start: int) -> str:
        """x_j of the steps before a block, decayed up to its start."""
        dim = self.earlier(start)
        return self._once(("carried", x, axis, start), lambda: self.b.op(
            "mul", self.cut(x, 0, dim), self.after(self.decays(axis, 0, dim))))

    def anchored(self, axis: int, start: int, dim: Dim) -> str:
        """The decay from the start of a block to each of its steps."""
        return self.before(self.decays(axis, start, dim))

    def _once(self, key: tuple, make: Callable[[], str]) -> str:
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    # -- products ---------------------------------------------------------------
    def spec(self, text: str) -> str:
        """An einsum with the leading axes put before every operand."""
        lead = LETTERS[:self.n]
        left, out = text.split("->")
        return ",".join(lead + s for s in left.split(",")) + "->" + lead + out

    def contract(self, x: str, y: str, text: str, below: str = "") -> str:
        return self.b.contract(x, y, self.spec(text), below=below)

    def times(self, x: str, by: str | None) -> str:
        """x scaled by a value that lacks some of its last axes."""
        b = self.b
        return x if by is None else b.op("mul", x, b.broadcast(by, b.type(x).shape, tuple(range(b.type(by).rank))))

    def gram(self, reader: str, w: Written, axis: int) -> str | None:
        """G(i, j) = reader_i . D(i, j) x_j, 0 for j >= i: [*lead, i, j]; None: 0 everywhere."""
        b, x = self.b, (w.x, w.y)[axis]
        if self.differs(axis):
            return self._once(("gram", reader, x, axis), lambda: self._channel_gram(reader, x, axis))
        g = self.contract(reader, x, "ik,jk->ij", below="ij")
        if self.differs(1 - axis):
            return g                                    # the decay of the other axis is 0 for j >= i
        if self.scalar is not None:
            return b.op("mul", g, self.between(self.scalar))
        t = b.type(g)
        return b.op("select", self.compared("gt", t.shape), g, b.full(0.0, t))

    def _channel_gram(self, reader: str, x: str, axis: int) -> str:
        b, n, rows = self.b, self.n, []
        for start, dim in self.blocks():
            a = self.cut(reader, start, dim)
            row = b.decayed((a,), self.decays(axis, start, dim), (self.cut(x, start, dim),))
            if start:
                near = b.op("mul", a, self.anchored(axis, start, dim))
                far = self.contract(near, self.carried(x, axis, start), "ik,jk->ij")
                row = b.concat((far, row), n + 1, self.earlier(start + dim.size))
            rows.append(row if start + dim.size == self.dim.size else b.pad(row, n + 1, 0, self.dim))
        return rows[0] if len(rows) == 1 else b.concat(tuple(rows), n, self.dim)

    def of_state(self, reader: str, axis: int) -> str:
        """(reader_i p(i)) . S_0, and what constants have added: [*lead, i, V or K]."""
        parts = [p and self.before(p) for p in (self.scalar, self.row, self.column)]
        y = self._of_matrix(reader, axis, self.old, *parts)
        for c in self.constants:
            parts = [p and self.shifted(p) for p in self._response(c)]
            y = self.b.op("add", y, self._of_matrix(reader, axis, c.matrix, *parts))
        return y

    def _of_matrix(self, reader: str, axis: int, matrix: str, scalar: str | None, row: str | None,
                   column: str | None) -> str:
        """reader_i . (matrix times these factors at step i). Scalars go to the reader, too, so that the gradient of a
        decay is a product with the reader's, and not with what was read, which would have to be read again."""
        along, across = (row, column)[::1 if axis == 0 else -1]
        for factor in (along, scalar):
            reader = self.times(reader, factor)
        y = self.contract(reader, matrix, "ik,kv->iv" if axis == 0 else "iv,kv->ik")
        return y if across is None else self.b.op("mul", y, across)

    def _response(self, c: Constant) -> tuple[str | None, str | None, str | None]:
        """r after every step, as (scalar, row, column), one of them. Raises Unchunkable."""
        return self._once(("response", c), lambda: self._responded(c))

    def _responded(self, c: Constant) -> tuple[str | None, str | None, str | None]:
        b, wide = self.b, Type("real", (*self.lead, self.dim))
        if (self.row or c.row) and (self.column or c.column):
            raise Unchunkable(f"a constant is added to {self.state.name}, whose rows and columns both decay")
        place = 1 if self.row or c.row else 2 if self.column or c.column else 0
        shape = (*wide.shape, *((), (self.K,), (self.V,))[place])

        def product(*factors: str | None) -> str:
            out = b.full(1.0, Type("real", shape))
            for f in filter(None, factors):
                out = self.times(out, f)
            return out

        r = b.running(product(self.scalar, self.row, self.column), product(c.scalar, c.row, c.column), self.n)
        return tuple(r if i == place else None for i in range(3))

    def applied(self, gram: str, w: Written, axis: int) -> str:
        """sum_j G(i, j) D(i, j) y_j with the decay of the other axis."""
        b, n, y, other = self.b, self.n, (w.x, w.y)[1 - axis], 1 - axis
        if not self.differs(other):
            return self.contract(gram, y, "ij,jv->iv", below="ij")
        out = []
        for start, dim in self.blocks():
            g = self.cut(gram, start, dim)
            here = g if dim == self.dim else b.slice(g, n + 1, start, dim)
            part = b.decayed_sum(here, self.decays(other, start, dim), self.cut(y, start, dim))
            if start:
                there = b.slice(g, n + 1, 0, self.earlier(start))
                far = self.contract(there, self.carried(y, other, start), "ij,jv->iv")
                part = b.op("add", b.op("mul", far, self.anchored(other, start, dim)), part)
            out.append(part)
        return out[0] if len(out) == 1 else b.concat(tuple(out), n, self.dim)

    # -- what is wanted -----------------------------------------------------------
    def read(self, reader: str, axis: int, written: list[Written]) -> str:
        """reader_i . S'_i at all steps: [*lead, C, V or K]."""
        y = self.of_state(reader, axis)
        for w in written:
            if (g := self.gram(reader, w, axis)) is not None:
                y = self.b.op("add", y, self.applied(g, w, axis))
        return y

    def next(self, written: list[Written]) -> str:
        """S_C"""
        b, s = self.b, self.old
        s = self._scaled(s, *(p and self.whole(p) for p in (self.scalar, self.row, self.column)))
        for c in self.constants:
            parts = (p and b.index(p, self.n, self.dim.size - 1) for p in self._response(c))
            s = b.op("add", s, self._scaled(c.matrix, *parts))
        for w in written:
            x, y = w.x, w.y
            if self.scalar is not None:
                x = self.times(x, self.after(self.scalar))
            if self.row is not None:
                x = b.op("mul", x, self.after(self.row))
            if self.column is not None:
                y = b.op("mul", y, self.after(self.column))
            s = b.op("add", s, self.contract(x, y, "ik,iv->kv"))
        return s

    def _scaled(self, matrix: str, scalar: str | None, row: str | None, column: str | None) -> str:
        """A matrix times a scalar [*lead], a factor of its rows [*lead, K] and one of its columns [*lead, V]."""
        b = self.b
        for d, axes in ((scalar, ()), (row, (self.n,)), (column, (self.n + 1,))):
            if d is not None:
                matrix = b.op("mul", matrix, b.broadcast(d, b.type(matrix).shape, (*range(self.n), *axes)))
        return matrix
