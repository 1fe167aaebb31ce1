"""Small dense linear algebra inside kernels: elimination with partial pivoting.

One internal function per module and element type: `solve(a, x, n, m)`
overwrites x [n, m] (which holds b) by A^-1 b; `logdet(a, out, n)` stores
log |det A|. A [n, n] is copied first (to the stack), row-major, unchanged.
Rows lie in the lanes.
"""

from __future__ import annotations

from llvmlite import ir

from . import math
from .loops import I64, Nest, i64
from .memory import copy, load, size_of, store
from .vector import splat

VOID = ir.VoidType()


def function(module: ir.Module, op: str, real: ir.Type, width: int) -> ir.Function:
    """The module's `solve` or `logdet` for elements of type `real`; `width`: lanes of a register."""
    name = f"linalg.{op}"
    if name in module.globals:
        return module.globals[name]
    ints = [I64, I64] if op == "solve" else [I64]
    fn = ir.Function(module, ir.FunctionType(VOID, [real.as_pointer(), real.as_pointer(), *ints]), name)
    fn.linkage = "internal"
    _Elimination(fn, op, real, width).emit()
    return fn


class _Elimination:
    def __init__(self, fn: ir.Function, op: str, real: ir.Type, width: int):
        self.op, self.real, self.width, self.nest = op, real, width, Nest(ir.IRBuilder(fn.append_basic_block("entry")))
        self.a_in, self.x, self.n = fn.args[:3]
        self.m = fn.args[3] if op == "solve" else i64(0)
        b = self.nest.b
        self.a = b.alloca(real, size=b.mul(self.n, self.n))

    # a [n, n] and x [n, m] as functions of indices; `lanes` of a row at a time, 0: one element
    def _at(self, width: ir.Value, i, j) -> ir.Value:
        b = self.nest.b
        return b.add(b.mul(i, width), j)

    def get_a(self, i, j, lanes=0):
        return load(self.nest.b, self.a, self._at(self.n, i, j), "real", self.real, lanes, 1)

    def set_a(self, i, j, v, lanes=0):
        store(self.nest.b, v, self.a, self._at(self.n, i, j), "real", self.real, lanes, 1)

    def get_x(self, i, j, lanes=0):
        return load(self.nest.b, self.x, self._at(self.m, i, j), "real", self.real, lanes, 1)

    def set_x(self, i, j, v, lanes=0):
        store(self.nest.b, v, self.x, self._at(self.m, i, j), "real", self.real, lanes, 1)

    def along(self, start, stop, body) -> None:
        """`body(j, lanes)` for the columns from `start` to `stop`: whole registers, then one by one."""
        b = self.nest.b
        whole = b.sub(stop, b.srem(b.sub(stop, start), i64(self.width)))
        for first, last, lanes in ((start, whole, self.width), (whole, stop, 0)):
            def run(j, _, lanes=lanes):
                body(j, lanes)
                return []
            self.nest.loop("j", first, last, max(1, lanes), [], run)

    def each(self, name: str, start, stop, body, *, down: bool = False) -> None:
        def run(i, _):
            body(i)
            return []
        self.nest.loop(name, start, stop, 1, [], run, down=down)

    def emit(self) -> None:
        zero, n = i64(0), self.n
        b = self.nest.b
        copy(b, self.a, self.a_in, b.mul(b.mul(n, n), i64(size_of(self.real))))
        self.each("k", zero, n, self._column)
        if self.op == "solve":
            self.each("k", zero, n, self._back, down=True)
        else:
            def add(k, acc):
                b = self.nest.b
                return [b.fadd(acc[0], math.emit(b, "log", math.emit(b, "abs", self.get_a(k, k))))]
            total, = self.nest.loop("k", zero, n, 1, [ir.Constant(self.real, 0)], add)
            self.nest.b.store(total, self.x)
        self.nest.b.ret_void()

    def _column(self, k) -> None:
        """Pivot, then clear the column below the diagonal."""
        b, n = self.nest.b, self.n

        def larger(i, best):
            b = self.nest.b
            size = math.emit(b, "abs", self.get_a(i, k))
            more = b.fcmp_ordered(">", size, best[1])
            return [b.select(more, i, best[0]), b.select(more, size, best[1])]

        start = math.emit(b, "abs", self.get_a(k, k))
        pivot, _ = self.nest.loop("i", b.add(k, i64(1)), n, 1, [k, start], larger)

        def swap(get, put):
            def body(j, lanes):
                upper, lower = get(k, j, lanes), get(pivot, j, lanes)
                put(k, j, lower, lanes)
                put(pivot, j, upper, lanes)
            return body

        self.along(i64(0), n, swap(self.get_a, self.set_a))
        self.along(i64(0), self.m, swap(self.get_x, self.set_x))

        def row(i):
            below = self.nest.b.add(k, i64(1))
            f = self.nest.b.fdiv(self.get_a(i, k), self.get_a(k, k))

            def less(get, put):
                def body(j, lanes):
                    b = self.nest.b
                    term = b.fmul(splat(b, f, lanes), get(k, j, lanes))
                    put(i, j, b.fsub(get(i, j, lanes), term), lanes)
                return body

            self.along(below, n, less(self.get_a, self.set_a))
            self.along(i64(0), self.m, less(self.get_x, self.set_x))

        self.each("i", self.nest.b.add(k, i64(1)), n, row)

    def _back(self, k) -> None:
        """x[k] = (x[k] - sum over j > k of a[k, j] x[j]) / a[k, k]"""
        def column(c):
            def term(j, acc):
                b = self.nest.b
                return [b.fsub(acc[0], b.fmul(self.get_a(k, j), self.get_x(j, c)))]
            total, = self.nest.loop("j", self.nest.b.add(k, i64(1)), self.n, 1, [self.get_x(k, c)], term)
            self.set_x(k, c, self.nest.b.fdiv(total, self.get_a(k, k)))
        self.each("c", i64(0), self.m, column)
