"""Small dense linear algebra inside kernels: elimination with partial pivoting.

One internal function per module and element type: `solve(a, x, n, m)`
overwrites x [n, m] (which holds b) by A^-1 b; `logdet(a, out, n)` stores
log |det A|. A [n, n] is copied first (to the stack), row-major, unchanged.
"""

from __future__ import annotations

from llvmlite import ir

from . import math
from .loops import I64, Nest, i64

VOID = ir.VoidType()


def function(module: ir.Module, op: str, real: ir.Type) -> ir.Function:
    """The module's `solve` or `logdet` for elements of type `real`."""
    name = f"linalg.{op}"
    if name in module.globals:
        return module.globals[name]
    ints = [I64, I64] if op == "solve" else [I64]
    fn = ir.Function(module, ir.FunctionType(VOID, [real.as_pointer(), real.as_pointer(), *ints]), name)
    fn.linkage = "internal"
    _Elimination(fn, op, real).emit()
    return fn


class _Elimination:
    def __init__(self, fn: ir.Function, op: str, real: ir.Type):
        self.op, self.real, self.nest = op, real, Nest(ir.IRBuilder(fn.append_basic_block("entry")))
        self.a_in, self.x, self.n = fn.args[:3]
        self.m = fn.args[3] if op == "solve" else i64(0)
        b = self.nest.b
        self.a = b.alloca(real, size=b.mul(self.n, self.n))

    # a [n, n] and x [n, m] as functions of indices
    def _at(self, base: ir.Value, width: ir.Value, i, j) -> ir.Value:
        b = self.nest.b
        return b.gep(base, [b.add(b.mul(i, width), j)])

    def get_a(self, i, j):
        return self.nest.b.load(self._at(self.a, self.n, i, j))

    def set_a(self, i, j, v):
        self.nest.b.store(v, self._at(self.a, self.n, i, j))

    def get_x(self, i, j):
        return self.nest.b.load(self._at(self.x, self.m, i, j))

    def set_x(self, i, j, v):
        self.nest.b.store(v, self._at(self.x, self.m, i, j))

    def each(self, name: str, start, stop, body, *, down: bool = False) -> None:
        def run(i, _):
            body(i)
            return []
        self.nest.loop(name, start, stop, 1, [], run, down=down)

    def emit(self) -> None:
        zero, n = i64(0), self.n
        self.each("i", zero, n, lambda i: self.each("j", zero, n, lambda j: self.set_a(
            i, j, self.nest.b.load(self._at(self.a_in, n, i, j)))))
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
            def body(j):
                upper, lower = get(k, j), get(pivot, j)
                put(k, j, lower)
                put(pivot, j, upper)
            return body

        self.each("j", i64(0), n, swap(self.get_a, self.set_a))
        self.each("j", i64(0), self.m, swap(self.get_x, self.set_x))

        def row(i):
            below = self.nest.b.add(k, i64(1))
            f = self.nest.b.fdiv(self.get_a(i, k), self.get_a(k, k))

            def less(get, put):
                return lambda j: put(i, j, self.nest.b.fsub(get(i, j), self.nest.b.fmul(f, get(k, j))))

            self.each("j", below, n, less(self.get_a, self.set_a))
            self.each("j", i64(0), self.m, less(self.get_x, self.set_x))

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
