"""Products with the decays between rows: see `ir.decayed`. One function per module, shape and operation.

Columns lie in the lanes. The decay between two rows is multiplied up on the way from one to the other, in registers:
n (n - 1) / 2 products per column and operand, whatever the operation.

    decayed         row i goes down: z = a_i, G_ij = z . x_j, z *= d_j         for j = i - 1, ..., 0
    decayed_sum     Horner: y = G_i0 x_0, y = y d_j + G_ij x_j                 for j = 1, ..., i - 1
    decayed_slope   both: y_m as it is before row m, then down: out_m += z y_m, z *= d_m
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from .loops import Nest, Parts, columns, i64
from .memory import load, store
from .vector import fma, splat, totals

VECTORS = 4         # registers of a row at once


def function(module: ir.Module, op: str, transposed: bool, real: ir.Type, n: int, k: int, width: int) -> ir.Function:
    """The module's function of pointers to the operands and to the result, of n rows of k columns."""
    name = f"{op}{'.transposed' * transposed}.{real}.{n}.{k}"
    if name in module.globals:
        return module.globals[name]
    count = {"decayed": 4, "decayed_sum": 4, "decayed_slope": 5}[op]
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [real.as_pointer()] * count), name)
    fn.linkage = "internal"
    rows = _Rows(fn, real, n, k, width)
    if n and op == "decayed":
        rows.gram(*fn.args)
    elif n and op == "decayed_sum":
        rows.sum(*fn.args, transposed)
    elif n:
        rows.slope(*fn.args)
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

    def slope(self, g, a, d, x, y) -> None:
        n = self.n
        before = self.nest.b.alloca(self.real, size=n * self.k)         # what has come together before row m

        def block(column, parts):
            self.each("i", i64(0), i64(n), [], lambda i, _: self.put(y, i, column, parts, self.zeros(parts)) or [])

            def row(i, _):
                start = self.scaled(self.factor(g, i, i64(0)), self.row(x, i64(0), column, parts), parts)

                def up(m, acc):
                    self.put(before, m, column, parts, acc)
                    new = self.scaled(self.factor(g, i, m), self.row(x, m, column, parts), parts)
                    return [fma(self.nest.b, p, q, r) for p, q, r in zip(acc, self.row(d, m, column, parts), new)]

                self.each("up", i64(1), i, start, up)

                def down(m, z):
                    b = self.nest.b
                    old, here = self.row(y, m, column, parts), self.row(before, m, column, parts)
                    self.put(y, m, column, parts, [fma(b, p, q, r) for p, q, r in zip(z, here, old)])
                    return [b.fmul(p, q) for p, q in zip(z, self.row(d, m, column, parts))]

                self.each("down", i64(1), i, self.row(a, i, column, parts), down, down=True)
                return []

            self.each("i", i64(2), i64(n), [], row)

        self.columns(block)
