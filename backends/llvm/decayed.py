"""Products with the decays between rows: see `ir.decayed`. One function per module, shape and operation.

Columns lie in the lanes. The decay between two rows is multiplied up on the way from one to the other, in registers:
n (n - 1) / 2 products per column and operand.

    decayed         row i goes down: z = a_i, G_ij = z . x_j, z *= d_j         for j = i - 1, ..., 0
    decayed_sum     Horner: y = G_i0 x_0, y = y d_j + G_ij x_j                 for j = 1, ..., i - 1
    decayed_back    both: y_m as it is before row m, then down: by x_m += G_im z, by d_m += z y_m, z *= d_m

Of more than LEAF rows `decayed_back` takes the first and the second half by themselves; between the halves, both are
decayed up to the middle once and the rest are products without decays. Every factor is a product of decays of some
rows, as everywhere in chunks.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from .loops import Nest, Parts, columns, i64
from .memory import load, store
from .vector import fma, splat, totals

VECTORS = 4         # registers of a row at once
LEAF = 8            # rows between which `decayed_back` goes pair by pair: its results are in registers


def function(module: ir.Module, op: str, transposed: bool, real: ir.Type, n: int, k: int, width: int) -> ir.Function:
    """The module's function of pointers to the operands and to the result, of n rows of k columns."""
    name = f"{op}{'.transposed' * transposed}.{real}.{n}.{k}"
    if name in module.globals:
        return module.globals[name]
    count = {"decayed": 4, "decayed_sum": 4, "decayed_back": 5}[op]
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [real.as_pointer()] * count), name)
    fn.linkage = "internal"
    rows = _Rows(fn, real, n, k, width)
    if n and op == "decayed":
        rows.gram(*fn.args)
    elif n and op == "decayed_sum":
        rows.sum(*fn.args, transposed)
    elif n:
        rows.back(*fn.args)
    rows.nest.b.ret_void()
    return fn


class _Rows:
    def __init__(self, fn: ir.Function, real: ir.Type, n: int, k: int, width: int):
        self.nest = Nest(ir.IRBuilder(fn.append_basic_block("entry")))
        self.real, self.n, self.k, self.width = real, n, k, width

    # -- elements -----------------------------------------------------------
    def columns(self, body: Callable[[ir.Value, Parts], None]) -> None:
        """`body(first column, registers)` for blocks of registers, then for what is left."""
        columns(self.nest, self.k, self.width, VECTORS, body)

    def row(self, base: ir.Value, i: ir.Value, column: ir.Value, parts: Parts) -> list[ir.Value]:
        b = self.nest.b
        at = b.add(b.mul(i, i64(self.k)), column)
        return [load(b, base, b.add(at, i64(offset)), "real", self.real, lanes, 1) for offset, lanes in parts]

    def put(self, base: ir.Value, i: ir.Value, column: ir.Value, parts: Parts, values: list[ir.Value]) -> None:
        b = self.nest.b
        at = b.add(b.mul(i, i64(self.k)), column)
        for (offset, lanes), x in zip(parts, values):
            store(b, x, base, b.add(at, i64(offset)), "real", self.real, lanes, 1)

    def factor(self, g: ir.Value, i: ir.Value, j: ir.Value) -> ir.Value:
        b = self.nest.b
        return load(b, g, b.add(b.mul(i, i64(self.n)), j), "real", self.real, 0, 1)

    def scaled(self, f: ir.Value, xs: list[ir.Value], parts: Parts) -> list[ir.Value]:
        b = self.nest.b
        return [b.fmul(splat(b, f, lanes), x) for x, (_, lanes) in zip(xs, parts)]

    def zeros(self, parts: Parts) -> list[ir.Value]:
        return [splat(self.nest.b, ir.Constant(self.real, 0), lanes) for _, lanes in parts]

    def each(self, name: str, start: ir.Value, stop: ir.Value, carried, body, *, down: bool = False):
        return self.nest.loop(name, start, stop, 1, carried, body, down=down)

    # -- operations ---------------------------------------------------------
    def gram(self, a, d, x, g) -> None:
        n, w, t = self.n, self.width, ir.VectorType(self.real, self.width)
        groups = -(-n // w)
        sums = self.nest.b.alloca(t, size=groups * w)           # of every j, lane by lane

        def at(j):
            return self.nest.b.gep(sums, [j])

        def row(i, _):
            for j in range(groups * w):
                self.nest.b.store(ir.Constant(t, None), at(i64(j)))

            def block(column, parts):
                def earlier(j, z):
                    b = self.nest.b
                    acc = b.load(at(j))
                    for p, q, (_, lanes) in zip(z, self.row(x, j, column, parts), parts):
                        acc = fma(b, p, q, acc) if lanes == w else b.fadd(acc, self.widened(b.fmul(p, q), lanes))
                    b.store(acc, at(j))
                    return [b.fmul(p, q) for p, q in zip(z, self.row(d, j, column, parts))]

                self.each("j", i64(0), i, self.row(a, i, column, parts), earlier, down=True)

            self.columns(block)
            b = self.nest.b
            for r in range(groups):
                y = totals(b, [b.load(at(i64(r * w + s))) for s in range(w)])
                lanes = min(w, n - r * w)
                if lanes < w:
                    y = b.shuffle_vector(y, y, ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(lanes))))
                store(b, y, g, b.add(b.mul(i, i64(n)), i64(r * w)), "real", self.real, lanes, 1)
            return []

        self.each("i", i64(0), i64(n), [], row)

    def widened(self, x: ir.Value, lanes: int) -> ir.Value:
        """A register whose other lanes are 0."""
        b, i32, zero = self.nest.b, ir.IntType(32), ir.Constant(ir.VectorType(self.real, max(lanes, 1)), None)
        if not lanes:
            return b.insert_element(ir.Constant(ir.VectorType(self.real, self.width), None), x, i32(0))
        places = [s if s < lanes else lanes for s in range(self.width)]
        return b.shuffle_vector(x, zero, ir.Constant(ir.VectorType(i32, self.width), places))

    def sum(self, g, d, x, y, transposed: bool) -> None:
        n = self.n

        def block(column, parts):
            last = i64(n - 1 if transposed else 0)
            self.put(y, last, column, parts, self.zeros(parts))

            def row(i, _):
                pair = (last, i) if transposed else (i, last)
                start = self.scaled(self.factor(g, *pair), self.row(x, last, column, parts), parts)

                def term(j, acc):
                    f = self.factor(g, *((j, i) if transposed else (i, j)))
                    new = self.scaled(f, self.row(x, j, column, parts), parts)
                    return [fma(self.nest.b, p, q, r) for p, q, r in zip(acc, self.row(d, j, column, parts), new)]

                after = self.nest.b.add(i, i64(1))
                low, high = (after, last) if transposed else (i64(1), i)
                self.put(y, i, column, parts, self.each("j", low, high, start, term, down=transposed))
                return []

            self.each("i", i64(0 if transposed else 1), i64(n - 1 if transposed else n), [], row)

        self.columns(block)

    def back(self, g, a, d, x, y) -> None:
        size = self.n * self.k

        def block(column, parts):
            for offset, lanes in parts:
                b = self.nest.b
                at = b.add(column, i64(offset))
                rows = {name: b.gep(base, [b.add(at, i64(place * size))]) for name, base, place in (
                    ("a", a, 0), ("d", d, 0), ("x", x, 0), ("by a", y, 0), ("by d", y, 1), ("by x", y, 2))}
                _Back(b, self.real, self.n, self.k, lanes, g, rows).emit()

        columns(self.nest, self.k, self.width, 1, block)


class _Back:
    """`decayed_back` of one register's columns, written out. `rows`: first row of each operand and result there."""

    def __init__(self, b: ir.IRBuilder, real: ir.Type, n: int, k: int, lanes: int, g: ir.Value,
                 rows: dict[str, ir.Value]):
        self.b, self.real, self.n, self.k, self.lanes, self.g, self.rows = b, real, n, k, lanes, g, rows
        self.sofar: set[tuple[str, int]] = set()        # results that have been stored

    def emit(self) -> None:
        self.stretch(0, self.n)
        zero = splat(self.b, ir.Constant(self.real, 0), self.lanes)
        for name in ("by a", "by d", "by x"):
            for i in range(self.n):
                if (name, i) not in self.sofar:
                    self.put(name, i, zero)

    # -- elements -----------------------------------------------------------
    def get(self, name: str, i: int) -> ir.Value:
        return load(self.b, self.rows[name], i64(i * self.k), "real", self.real, self.lanes, 1)

    def known(self, name: str, i: int) -> ir.Value | None:
        """A result as far as it has been computed; None is 0."""
        return self.get(name, i) if (name, i) in self.sofar else None

    def put(self, name: str, i: int, value: ir.Value | None) -> None:
        if value is not None:
            self.sofar.add((name, i))
            store(self.b, value, self.rows[name], i64(i * self.k), "real", self.real, self.lanes, 1)

    def factor(self, i: int, j: int) -> ir.Value:
        return splat(self.b, load(self.b, self.g, i64(i * self.n + j), "real", self.real, 0, 1), self.lanes)

    def times(self, p: ir.Value | None, q: ir.Value | None) -> ir.Value | None:
        """None as a factor is 1."""
        return q if p is None else p if q is None else self.b.fmul(p, q)

    def plus(self, p: ir.Value, q: ir.Value, sofar: ir.Value | None) -> ir.Value:
        return self.b.fmul(p, q) if sofar is None else fma(self.b, p, q, sofar)

    # -- stretches of rows ----------------------------------------------------
    def stretch(self, low: int, high: int) -> None:
        """Rows of which "by a" holds the sums over the rows before `low`, decayed up to there."""
        if high - low <= LEAF:
            self.pairs(low, high)
            return
        middle = (low + high + 1) // 2
        self.across(low, middle, high)
        self.stretch(low, middle)
        self.stretch(middle, high)

    def pairs(self, low: int, high: int) -> None:
        """Row by row: the sums up to each row before it, then the row itself back down to each of them."""
        by_d, by_x = ({i: self.known(name, i) for i in range(low, high)} for name in ("by d", "by x"))
        for i in range(low, high):
            up = {low: self.known("by a", i)}
            for m in range(low, i):
                new = self.b.fmul(self.factor(i, m), self.get("x", m))
                up[m + 1] = new if up[m] is None else fma(self.b, self.get("d", m), up[m], new)
            self.put("by a", i, up[i])
            z = self.get("a", i)
            for m in reversed(range(low, i)):
                by_x[m] = self.plus(self.factor(i, m), z, by_x[m])
                if up[m] is not None:
                    by_d[m] = self.plus(z, up[m], by_d[m])
                if m > low:
                    z = self.b.fmul(z, self.get("d", m))
        for name, values in (("by d", by_d), ("by x", by_x)):
            for i, value in values.items():
                self.put(name, i, value)

    def across(self, low: int, middle: int, high: int) -> None:
        """What the rows before and after the middle are to each other: both are decayed up to there once."""
        early, late = range(low, middle), range(middle, high)
        down: dict[int, ir.Value | None] = {middle - 1: None}       # from the middle to each row before it
        for j in reversed(range(low, middle - 1)):
            down[j] = self.times(down[j + 1], self.get("d", j + 1))
        carried = {j: self.times(self.get("x", j), down[j]) for j in early}
        whole = self.times(down[low], self.get("d", low))
        sums: dict[int, ir.Value | None] = dict.fromkeys(early)     # over the late rows
        through, p = None, None                                     # what passes all early rows; decay from the middle
        for i in late:
            row = self.times(self.get("a", i), p)
            before = self.known("by a", i)
            total = None
            for j in early:
                total = self.plus(self.factor(i, j), carried[j], total)
                sums[j] = self.plus(self.factor(i, j), row, sums[j])
            if before is not None:
                through = self.plus(row, before, through)
                total = fma(self.b, whole, before, total)
            self.put("by a", i, total)
            p = self.times(p, self.get("d", i))
        up = through
        for m in early:
            if up is not None:
                self.put("by d", m, self.added("by d", m, up, down[m]))
            self.put("by x", m, self.added("by x", m, sums[m], down[m]))
            new = self.b.fmul(self.get("x", m), sums[m])
            up = new if up is None else fma(self.b, self.get("d", m), up, new)

    def added(self, name: str, i: int, p: ir.Value, q: ir.Value | None) -> ir.Value:
        """A result with p q (q None: 1) more."""
        sofar = self.known(name, i)
        if q is None:
            return p if sofar is None else self.b.fadd(p, sofar)
        return self.plus(p, q, sofar)
