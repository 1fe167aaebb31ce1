"""Gram matrices with the decays between rows (`decayed`): all readers side by side, each with all writers' rows.

    row i goes down: z = a_i, G_ij = z . x_j, z *= d_j         for j = i - 1, ..., 0

Of few rows this is written out, and the sums over lanes of a pair's products are woven together as they come. Of more
it is a loop for each row, which puts the products of a row side by side in memory first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from llvmlite import ir

from .loops import Parts, columns, i64
from .memory import load, store
from .vector import I32, fma, splat, totals, weave, woven

if TYPE_CHECKING:
    from .decayed import Rows

VECTORS = 4                 # registers of a row at once
WRITTEN = 512               # of a register: multiply-adds and multiplications that are written out, 16 KiB of code
# an instruction before which what was loaded is forgotten
APART = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", side_effect=True)
Operands = Sequence[ir.Value]


def emit(rows: Rows, readers: Operands, d: ir.Value, writers: Operands, g: ir.Value) -> None:
    """G of each pair [n, n] into g, one after another, of rows [n, k] of the operands and d."""
    few = rows.n * (rows.n - 1) // 2 * len(readers) * (len(writers) + 1) <= WRITTEN
    (_written if few else _looped)(rows, readers, d, writers, g)


def _written(rows: Rows, readers: Operands, d: ir.Value, writers: Operands, g: ir.Value) -> None:
    """Written out: n (n - 1) / 2 products of each pair, in the order in which rows go down. Every row loads those
    before it again (`APART`): kept in registers they would push out the sums."""
    n, w = rows.n, rows.width
    pairs = [*product(range(len(readers)), range(len(writers)))]
    place = {(i, j): at for at, (i, j) in enumerate((i, j) for i in range(n) for j in reversed(range(i)))}
    groups = -(-len(place) // w)                # registers of sums of a pair
    zero = ir.Constant(ir.VectorType(rows.real, w), None)
    entry = rows.nest.b
    sums = {(p, q): entry.alloca(zero.type) for p in pairs for q in range(groups)}
    for at in sums.values():
        entry.store(zero, at)

    def block(column: ir.Value, parts: Parts) -> None:
        for r, a in enumerate(readers):
            reader(r, a, column, parts)

    def reader(r: int, a: ir.Value, column: ir.Value, parts: Parts) -> None:
        b = rows.nest.b
        stacks: list[list[tuple[int, ir.Value]]] = [[] for _ in writers]

        def take(s: int, at: int, x: ir.Value) -> None:
            weave(b, stacks[s], x)
            if at % w == w - 1:
                here = sums[(r, s), at // w]
                b.store(b.fadd(b.load(here), woven(b, stacks[s])), here)
                stacks[s].clear()

        for i in range(1, n):
            b.call(APART, [])
            z = rows.row(a, i64(i), column, parts)
            for j in reversed(range(i)):
                for s, x in enumerate(writers):
                    take(s, place[i, j], _dot(rows, z, rows.row(x, i64(j), column, parts), parts, None))
                if j:
                    z = rows.products(z, rows.row(d, i64(j), column, parts))
        for s in range(len(writers)):
            for at in range(len(place), groups * w):
                take(s, at, zero)

    rows.columns(block)
    b = rows.nest.b
    for number, p in enumerate(pairs):
        found = [b.load(sums[p, q]) for q in range(groups)]
        for start in range(0, n * n, w):
            lanes = min(w, n * n - start)
            at = [place.get(divmod(e, n)) for e in range(start, start + lanes)]
            store(b, _chosen(b, found, at, zero), g, i64(number * n * n + start), "real", rows.real, lanes, 1)


def _chosen(b: ir.IRBuilder, xs: Sequence[ir.Value], places: Sequence[int | None], zero: ir.Constant) -> ir.Value:
    """The elements at these places of registers side by side; None is 0."""
    w = zero.type.count
    out, lanes = zero, range(len(places))
    for q, x in enumerate(xs):
        mask = [w + places[k] % w if places[k] is not None and places[k] // w == q else k for k in lanes]
        if mask != [*lanes]:
            out = b.shuffle_vector(out, x, ir.Constant(ir.VectorType(I32, w), mask + [*range(len(places), w)]))
    narrow = ir.Constant(ir.VectorType(I32, len(places)), [*lanes])
    return out if len(places) == w else b.shuffle_vector(out, zero, narrow)


def _dot(rows: Rows, xs: Sequence[ir.Value], ys: Sequence[ir.Value], parts: Parts, acc: ir.Value | None) -> ir.Value:
    """Products of two rows, added up lane by lane."""
    b = rows.nest.b
    for x, y, (_, lanes) in zip(xs, ys, parts):
        if lanes == rows.width:
            acc = b.fmul(x, y) if acc is None else fma(b, x, y, acc)
        else:
            rest = _widened(rows, b.fmul(x, y), lanes)
            acc = rest if acc is None else b.fadd(acc, rest)
    return acc


def _widened(rows: Rows, x: ir.Value, lanes: int) -> ir.Value:
    """A register whose other lanes are 0."""
    b, zero = rows.nest.b, ir.Constant(ir.VectorType(rows.real, max(lanes, 1)), None)
    if not lanes:
        return b.insert_element(ir.Constant(ir.VectorType(rows.real, rows.width), None), x, I32(0))
    places = [s if s < lanes else lanes for s in range(rows.width)]
    return b.shuffle_vector(x, zero, ir.Constant(ir.VectorType(I32, rows.width), places))


def _looped(rows: Rows, readers: Operands, d: ir.Value, writers: Operands, g: ir.Value) -> None:
    """A loop over rows, and for each a loop over those before it."""
    nest, n, w, t = rows.nest, rows.n, rows.width, ir.VectorType(rows.real, rows.width)
    pairs = len(readers) * len(writers)
    most = -(-pairs * (n - 1) // w) * w                     # products of a row: of each pair with each earlier row
    sums = nest.b.alloca(t, size=max(1, most))              # lane by lane
    totalled = nest.b.alloca(rows.real, size=most + w)

    def at(j):
        return nest.b.gep(sums, [j])

    def clear(j, _):
        nest.b.store(ir.Constant(t, None), at(j))
        return []

    def earlier(column, parts, new, i):
        def pair(j, zs):
            b = nest.b
            reading = [zs[r * len(parts):(r + 1) * len(parts)] for r in range(len(readers))]
            others, decays = [rows.row(x, j, column, parts) for x in writers], rows.row(d, j, column, parts)
            for p, (z, xs) in enumerate(product(reading, others)):
                place = at(b.add(b.mul(i, i64(p)), j))
                b.store(_dot(rows, z, xs, parts, None if new else b.load(place)), place)
            return [b.fmul(q, y) for z in reading for q, y in zip(z, decays)]
        return pair

    def row(i, _):
        def block(column, parts, new):
            zs = [z for a in readers for z in rows.row(a, i, column, parts)]
            rows.each("j", i64(0), i, zs, earlier(column, parts, new, i), down=True)

        _blocks(rows, block)
        b = nest.b
        count = b.udiv(b.add(b.mul(i, i64(pairs)), i64(w - 1)), i64(w))

        def group(q, _):
            b, first = nest.b, nest.b.mul(q, i64(w))
            y = totals(b, [b.load(at(b.add(first, i64(s)))) for s in range(w)])
            store(b, y, totalled, first, "real", rows.real, w, 1)
            return []

        rows.each("group", i64(0), count, [], group)
        b = nest.b
        for p in range(pairs):
            for start in range(0, n, w):
                lanes = min(w, n - start)
                y = load(b, totalled, b.add(b.mul(i, i64(p)), i64(start)), "real", rows.real, lanes, 1)
                places = ir.Constant(ir.VectorType(I32, lanes), list(range(start, start + lanes)))
                below = b.icmp_signed("<", places, splat(b, b.trunc(i, I32), lanes))
                put_row(p, i, start, lanes, b.select(below, y, ir.Constant(y.type, None)))
        return []

    def put_row(pair: int, i: ir.Value, start: int, lanes: int, value: ir.Value) -> None:
        """A stretch of a row of one of several Gram matrices."""
        b = nest.b
        place = b.add(b.mul(i, i64(n)), i64(pair * n ** 2 + start))
        store(b, value, g, place, "real", rows.real, lanes, 1)

    rows.each("slot", i64(0), i64(most), [], clear)
    for p in range(pairs):
        for start in range(0, n, w):
            lanes = min(w, n - start)
            put_row(p, i64(0), start, lanes, ir.Constant(ir.VectorType(rows.real, lanes), None))
    rows.each("i", i64(1), i64(n), [], row)


def _blocks(rows: Rows, body: Callable[[ir.Value, Parts, bool], None]) -> None:
    """`body(first column, registers, whether it is the first block)`."""
    first = min(rows.k, rows.width * VECTORS)
    parts = [(s, rows.width) for s in range(0, first - first % rows.width, rows.width)]
    left = first % rows.width
    if first:
        body(i64(0), parts + ([(first - left, 0 if left == 1 else left)] if left else []), True)
    columns(rows.nest, rows.k - first, rows.width, VECTORS,
            lambda column, parts: body(rows.nest.b.add(column, i64(first)), parts, False))
