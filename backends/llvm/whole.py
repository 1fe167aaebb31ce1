"""Operations computed as a whole, from buffers to a buffer: recurrences within a step, triangular and general solves.

`whole(node, ...)` says how often a node is computed per row (its leading axes), how many elements of each operand and
of the result one time takes, and emits the call. Sizes are constants of the functions, one per module and shape; the
axes behind the one that is run along lie in the lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from llvmlite import ir

from ...compiler.passes.lower import DECAYED
from ...ir.cell import Node
from . import decayed, linalg, math
from .loops import Nest, Parts, columns, i64
from .memory import copy, element_type, load, size_of, store
from .vector import fma, splat

ROWS, VECTORS = 4, 2        # accumulators of a substitution: rows share loads of x, vectors those of the matrix
CHAINS = 4                  # vectors of a recurrence at once: one addition's latency hides behind the others


@dataclass(frozen=True)
class Whole:
    """`times` per row; `sizes`: elements of the operands, then of the result; `call(b, pointers)` in that order."""

    times: int
    sizes: tuple[int, ...]
    call: Callable[[ir.IRBuilder, Sequence[ir.Value]], object]


def whole(node: Node, nodes: dict[str, Node], module: ir.Module, real: ir.Type, width: int) -> Whole:
    """See the module. `width`: lanes of a register."""
    if node.op in ("cumsum", "running"):
        axis, kind = node.attr("axis"), node.type.kind
        n, m = node.type.sizes[axis], prod(node.type.sizes[axis + 1:])
        semiring = node.attr("semiring", "sum")
        fn = _running(module, node.op, semiring, node.attr("reverse"), kind, real, n, m, width)
        return Whole(prod(node.type.sizes[:axis]), (n * m,) * (len(node.args) + 1), lambda b, at: b.call(fn, at))
    if node.op in ("cumprod", "cumprod_back"):
        axis = node.attr("axis")
        n, m = node.type.sizes[axis], prod(node.type.sizes[axis + 1:])
        fn = _cumprod(module, node.op, node.attr("reverse"), real, n, m, width)
        return Whole(prod(node.type.sizes[:axis]), (n * m,) * (len(node.args) + 1), lambda b, at: b.call(fn, at))
    if node.op in DECAYED:
        *lead, n, k = nodes[node.args[-1]].type.sizes
        fn = decayed.function(module, node, real, n, k, width)
        sizes = tuple(prod(nodes[a].type.sizes[len(lead):]) for a in (*node.args, node.name))
        return Whole(prod(lead), sizes, lambda b, at: b.call(fn, at))
    t = nodes[node.args[0]].type
    n, times = t.sizes[-1], prod(t.sizes[:-2])
    if node.op == "logdet":
        return Whole(times, (n * n, 1),
                     lambda b, at: b.call(linalg.function(module, "logdet", real, width), [*at, i64(n)]))
    m = prod(node.type.sizes[t.rank - 1:])

    def solve(b: ir.IRBuilder, at: Sequence[ir.Value]) -> None:
        if node.op == "solve":
            copy(b, at[2], at[1], i64(n * m * size_of(real)))
            b.call(linalg.function(module, "solve", real, width), [at[0], at[2], i64(n), i64(m)])
        else:
            b.call(_solve_lower(module, node.attr("transposed"), real, n, m, width), at)

    return Whole(times, (n * n, n * m, n * m), solve)


def _function(module: ir.Module, name: str, pointers: Sequence[ir.Type]) -> tuple[ir.Function, bool]:
    """A function of the module, and whether it is new."""
    if name in module.globals:
        return module.globals[name], False
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [t.as_pointer() for t in pointers]), name)
    fn.linkage = "internal"
    return fn, True


def _at(b: ir.IRBuilder, row: ir.Value, width: int, column: ir.Value | int) -> ir.Value:
    column = i64(column) if isinstance(column, int) else column
    return b.add(b.mul(row, i64(width)), column)


# -- recurrences ------------------------------------------------------------
def _running(module: ir.Module, op: str, semiring: str, reverse: bool, kind: str, real: ir.Type, n: int, m: int,
             width: int) -> ir.Function:
    """`running(a, b, y)` or `cumsum(b, y)` over [n, m]."""
    t = element_type(kind, real)
    way = "down" if reverse else "up"
    fn, new = _function(module, f"{op}.{semiring}.{way}.{t}.{n}.{m}", [t] * (3 if op == "running" else 2))
    if not new:
        return fn
    nest = Nest(ir.IRBuilder(fn.append_basic_block("entry")))
    a, b_in, y = (None, *fn.args) if op == "cumsum" else fn.args

    def read(base, row, column, part):
        at = nest.b.add(_at(nest.b, row, m, column), i64(part[0]))
        return load(nest.b, base, at, kind, real, part[1], 1)

    def write(value, row, column, part):
        at = nest.b.add(_at(nest.b, row, m, column), i64(part[0]))
        store(nest.b, value, y, at, kind, real, part[1], 1)

    def next_value(p, old, q):
        """p (x) old (+) q"""
        b = nest.b
        if p is None:
            return math.emit(b, "add", old, q)
        if semiring == "sum":
            return fma(b, p, old, q) if kind == "real" else math.emit(b, "add", math.emit(b, "mul", p, old), q)
        return math.emit(b, "max" if semiring == "max" else "logaddexp", math.emit(b, "add", p, old), q)

    def column_block(column, parts):
        first = i64(n - 1 if reverse else 0)
        start = [read(b_in, first, column, part) for part in parts]
        for value, part in zip(start, parts):
            write(value, first, column, part)

        def row(i, olds):
            out = []
            for old, part in zip(olds, parts):
                p = None if a is None else read(a, i, column, part)
                out.append(next_value(p, old, read(b_in, i, column, part)))
                write(out[-1], i, column, part)
            return out

        low, high = (0, n - 1) if reverse else (1, n)
        if low < high:
            nest.loop("row", i64(low), i64(high), 1, start, row, down=reverse)

    if n:
        columns(nest, m, width, CHAINS, column_block)
    nest.b.ret_void()
    return fn


def _cumprod(module: ir.Module, op: str, reverse: bool, real: ir.Type, n: int, m: int, width: int) -> ir.Function:
    """`cumprod(a, y)` or `cumprod_back(a, c, y)` over [n, m]. Back: first the sums u behind every row, into y, then the
    products before it, in registers; y = product * u, 0 where u is."""
    way = "down" if reverse else "up"
    fn, new = _function(module, f"{op}.{way}.{real}.{n}.{m}", [real] * (2 if op == "cumprod" else 3))
    if not new:
        return fn
    nest = Nest(ir.IRBuilder(fn.append_basic_block("entry")))
    a, y = fn.args[0], fn.args[-1]
    first, last = (n - 1, 0) if reverse else (0, n - 1)

    def read(base, row, column, part):
        return load(nest.b, base, nest.b.add(_at(nest.b, row, m, column), i64(part[0])), "real", real, part[1], 1)

    def write(value, row, column, part):
        store(nest.b, value, y, nest.b.add(_at(nest.b, row, m, column), i64(part[0])), "real", real, part[1], 1)

    def along(carried, body, back):
        """Over all rows but the first one (`back`: but the last one, from there)."""
        high = back != reverse
        nest.loop("row", i64(0 if high else 1), i64(n - 1 if high else n), 1, carried, body, down=high)

    def neighbour(i, back):
        return nest.b.add(i, i64(1 if back != reverse else -1))

    def column_block(column, parts):
        ones = [splat(nest.b, ir.Constant(real, 1), lanes) for _, lanes in parts]
        zeros = [splat(nest.b, ir.Constant(real, 0), lanes) for _, lanes in parts]

        def sums(i, us):
            there = neighbour(i, True)
            new = [fma(nest.b, read(a, there, column, part), u, read(fn.args[1], there, column, part))
                   for u, part in zip(us, parts)]
            for u, part in zip(new, parts):
                write(u, i, column, part)
            return new

        def products(i, ps):
            there = neighbour(i, False)
            new = [nest.b.fmul(p, read(a, there, column, part)) for p, part in zip(ps, parts)]
            for p, part, zero in zip(new, parts, zeros):
                if op == "cumprod_back":
                    u = read(y, i, column, part)
                    p = nest.b.select(nest.b.fcmp_ordered("==", u, zero), zero, nest.b.fmul(p, u))
                write(p, i, column, part)
            return new

        if op == "cumprod":
            for one, part in zip(ones, parts):
                write(one, i64(first), column, part)
        else:
            for zero, part in zip(zeros, parts):
                write(zero, i64(last), column, part)
            if n > 1:
                along(zeros, sums, True)
        if n > 1:
            along(ones, products, False)

    if n:
        columns(nest, m, width, CHAINS, column_block)
    nest.b.ret_void()
    return fn


# -- substitution -----------------------------------------------------------
def _solve_lower(module: ir.Module, transposed: bool, real: ir.Type, n: int, m: int, width: int) -> ir.Function:
    """`solve(L, b, x)`: x [n, m] becomes (I + L below the diagonal)^-1 b (of the transpose, from the last row up).
    Blocks of rows: what the rows before contribute, then the triangle of the block, in registers."""
    fn, new = _function(module, f"solve_lower{'.transposed' * transposed}.{real}.{n}.{m}", [real] * 3)
    if not new:
        return fn
    nest = Nest(ir.IRBuilder(fn.append_basic_block("entry")))
    low, right, x = fn.args

    def row_number(i: ir.Value) -> ir.Value:
        return nest.b.sub(i64(n - 1), i) if transposed else i

    def minus(i: ir.Value, j: ir.Value) -> ir.Value:
        """The negative of the element that takes row j from row i (in the order of the substitution)."""
        b, (p, q) = nest.b, (row_number(i), row_number(j))
        return b.fneg(load(b, low, _at(b, q, n, p) if transposed else _at(b, p, n, q), "real", real, 0, 1))

    def get(base, i, column, part):
        at = nest.b.add(_at(nest.b, row_number(i), m, column), i64(part[0]))
        return load(nest.b, base, at, "real", real, part[1], 1)

    def block(first: ir.Value, rows: int, column: ir.Value, parts: Parts) -> None:
        at = [nest.b.add(first, i64(r)) for r in range(rows)]
        start = [get(right, i, column, part) for i in at for part in parts]

        def earlier(j, accs):
            known = [get(x, j, column, part) for part in parts]
            out = []
            for r in range(rows):
                f = minus(nest.b.add(first, i64(r)), j)
                out += [fma(nest.b, splat(nest.b, f, part[1]), v, accs[r * len(parts) + k])
                        for k, (part, v) in enumerate(zip(parts, known))]
            return out

        accs = nest.loop("earlier", i64(0), first, 1, start, earlier)
        for r in range(rows):
            for s in range(r):
                f = minus(at[r], at[s])
                for k, part in enumerate(parts):
                    here = r * len(parts) + k
                    accs[here] = fma(nest.b, splat(nest.b, f, part[1]), accs[s * len(parts) + k], accs[here])
            for k, part in enumerate(parts):
                offset = nest.b.add(_at(nest.b, row_number(at[r]), m, column), i64(part[0]))
                store(nest.b, accs[r * len(parts) + k], x, offset, "real", real, part[1], 1)

    def column_block(column, parts):
        full = n - n % ROWS

        def rows(i, _):
            block(i, ROWS, column, parts)
            return []

        if full:
            nest.loop("rows", i64(0), i64(full), ROWS, [], rows)
        if n % ROWS:
            block(i64(full), n % ROWS, column, parts)

    columns(nest, m, width, VECTORS, column_block)
    nest.b.ret_void()
    return fn
