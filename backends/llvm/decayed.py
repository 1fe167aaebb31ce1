"""Products with the decays between rows: see `ir.decayed`. One function per module, shape and operation.

Columns lie in the lanes. The decay between two rows is multiplied up on the way from one to the other, in registers:
n (n - 1) / 2 products per column and operand.

    decayed         row i goes down: see `grams`
    decayed_sum     Horner: y = G_i0 x_0, y = y d_j + G_ij x_j                 for j = 1, ..., i - 1
    decayed_back    both: y_m as it is before row m, then down: by x_m += G_im z, by d_m += z y_m, z *= d_m

Of more than LEAF rows `decayed_back` takes the first and the second half by themselves; between the halves, both are
decayed up to the middle once and the rest are products without decays. Every factor is a product of decays of some
rows, as everywhere in chunks.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ...ir.cell import Node
from . import grams
from .loops import Nest, Parts, columns, i64
from .memory import load, store
from .vector import fma, splat

LEAF = 8            # rows between which `decayed_back` goes pair by pair: its results are in registers


def function(module: ir.Module, node: Node, real: ir.Type, n: int, k: int, width: int) -> ir.Function:
    """The module's function of pointers to the node's operands and to its result, of n rows of k columns."""
    transposed, readers = node.attr("transposed", False), node.attr("readers", 1)
    name = f"{node.op}{'.transposed' * transposed}.{readers}.{len(node.args)}.{node.attr('ends', '')}.{real}.{n}.{k}"
    if name in module.globals:
        return module.globals[name]
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [real.as_pointer()] * (len(node.args) + 1)), name)
    fn.linkage = "internal"
    rows = Rows(fn, real, n, k, width)
    *operands, y = fn.args
    if n and node.op == "decayed":
        grams.emit(rows, operands[:readers], operands[readers], operands[readers + 1:], y)
    elif n and node.op == "decayed_sum":
        rows.sum(*operands, y, transposed)
    elif n and node.op == "ends":
        rows.ends(operands[:readers], operands[readers], operands[readers + 1:], y)
    elif n:
        g, operands = (None, operands) if node.op == "ends_back" else (operands[0], operands[1:])
        few = len(operands) // 2 if node.op == "ends_back" or node.attr("ends") else 0
        factors, operands = operands[:few], operands[few:]
        whole = factors.pop() if len(factors) == len(operands) else None
        parts = factors, whole, operands[:readers], operands[readers], operands[readers + 1:], y
        rows.ends_back(*parts) if g is None else rows.back(g, *parts)
    rows.nest.b.ret_void()
    return fn


class Rows:
    """Rows of columns: loads, stores and the operations but `decayed`."""

    def __init__(self, fn: ir.Function, real: ir.Type, n: int, k: int, width: int):
        self.nest = Nest(ir.IRBuilder(fn.append_basic_block("entry")))
        self.real, self.n, self.k, self.width = real, n, k, width

    # -- elements -----------------------------------------------------------
    def columns(self, body: Callable[[ir.Value, Parts], None]) -> None:
        """`body(first column, registers)` for blocks of registers, then for what is left."""
        columns(self.nest, self.k, self.width, grams.VECTORS, body)

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

    def ends(self, readers, d, writers, y) -> None:
        size = self.n * self.k

        def block(column, parts):
            def row(some, first):
                def one(i, ps):
                    for r, base in enumerate(some, first):
                        xs = self.row(base, i, column, parts)
                        self.put(self.nest.b.gep(y, [i64(r * size)]), i, column, parts, self.products(xs, ps))
                    return self.products(ps, self.row(d, i, column, parts))
                return one

            for some, first, down in ((readers, 0, False), (writers, len(readers), True)):
                if some:
                    self.each("i", i64(0), i64(self.n), self.ones(parts), row(some, first), down=down)

        self.columns(block)

    def ends_back(self, factors, whole, readers, d, writers, y) -> None:
        """Either way the sums u behind (before) every row, where a result will be, then the products up to it. The
        factor of the product of all decays is one more sum behind the last row."""
        size, n = self.n * self.k, i64(self.n)
        by = [self.nest.b.gep(y, [i64(i * size)]) for i in range(len(readers) + 1 + len(writers))]
        late, early = list(zip(factors, readers, by)), list(zip(factors[len(readers):], writers, by[len(readers) + 1:]))
        by_d = by[len(readers)]

        def block(column, parts):
            def sums(some, to):
                def one(i, us):
                    self.put(to, i, column, parts, us)
                    b, new = self.nest.b, self.products(us, self.row(d, i, column, parts))
                    for c, x, _ in some:
                        pairs = zip(self.row(c, i, column, parts), self.row(x, i, column, parts), new)
                        new = [fma(b, p, q, r) for p, q, r in pairs]
                    return new
                return one

            def products(some, sofar, to):
                def one(i, ps):
                    b = self.nest.b
                    us, was = self.row(to, i, column, parts), sofar and self.row(by_d, i, column, parts)
                    new = [b.select(b.fcmp_ordered("==", u, zero), zero, b.fmul(p, u))
                           for p, u, zero in zip(ps, us, self.zeros(parts))]
                    self.put(by_d, i, column, parts, [b.fadd(p, q) for p, q in zip(new, was)] if sofar else new)
                    for c, _, at in some:
                        self.put(at, i, column, parts, self.products(ps, self.row(c, i, column, parts)))
                    return self.products(ps, self.row(d, i, column, parts))
                return one

            last = self.row(whole, i64(0), column, parts) if whole else self.zeros(parts)
            for some, down in ((late, False), (early, True)):
                if some or whole and not down:
                    to, sofar = (some[0][2], late or whole) if down else (by_d, None)
                    self.each("i", i64(0), n, self.zeros(parts) if down else last, sums(some, to), down=not down)
                    self.each("i", i64(0), n, self.ones(parts), products(some, sofar, to), down=down)

        self.columns(block)

    def ones(self, parts: Parts) -> list[ir.Value]:
        return [splat(self.nest.b, ir.Constant(self.real, 1), lanes) for _, lanes in parts]

    def products(self, xs: list[ir.Value], ys: list[ir.Value]) -> list[ir.Value]:
        return [self.nest.b.fmul(x, y) for x, y in zip(xs, ys)]

    def back(self, g, factors, whole, readers, d, writers, y) -> None:
        size = self.n * self.k
        bases = [(("a", r), a) for r, a in enumerate(readers)] + [(("d", 0), d)]
        bases += [(("x", w), x) for w, x in enumerate(writers)]
        names = (name for name, _ in bases if name[0] != "d")
        ends = [((f"end {kind}", r), base) for (kind, r), base in zip(names, factors)]
        ends += [(("whole", 0), whole)] if whole else []

        def block(column, parts):
            for offset, lanes in parts:
                b = self.nest.b
                at = b.add(column, i64(offset))
                rows = {name: b.gep(base, [at]) for name, base in bases}
                rows |= {name: b.gep(base, [at]) for name, base in ends}
                rows |= {(f"by {kind}", r): b.gep(y, [b.add(at, i64(place * size))])
                         for place, ((kind, r), _) in enumerate(bases)}
                _Back(b, self.real, self.n, self.k, lanes, g, rows, len(readers), len(writers)).emit()

        columns(self.nest, self.k, self.width, 1, block)


Name = tuple[str, int]      # an operand or a result, and which of them


class _Back:
    """`decayed_back` of one register's columns, written out. `rows`: first row of each operand and result there."""

    def __init__(self, b: ir.IRBuilder, real: ir.Type, n: int, k: int, lanes: int, g: ir.Value,
                 rows: dict[Name, ir.Value], readers: int, writers: int):
        self.b, self.real, self.n, self.k, self.lanes, self.g, self.rows = b, real, n, k, lanes, g, rows
        self.readers, self.writers = range(readers), range(writers)
        self.ends = ("end a", 0) in rows
        self.by: dict[tuple[Name, int], ir.Value | None] = {}       # results so far; None is 0
        if self.ends:           # a row's factor is a sum over what is before all rows
            self.by = {(("by a", r), i): self.get(("end a", r), i) for r in self.readers for i in range(n)}

    def emit(self) -> None:
        if self.ends and self.leaf(self.n):
            self.behind(0, self.n, self.last())
        self.stretch(0, self.n, self.ends)
        zero = splat(self.b, ir.Constant(self.real, 0), self.lanes)
        for name in self.rows:
            for i in range(self.n):
                if name[0].startswith("by") and self.by.get((name, i)) is None:
                    self.store(name, i, zero)

    def leaf(self, rows: int) -> bool:
        return rows <= (LEAF if len(self.readers) == len(self.writers) == 1 else LEAF // 2)

    # -- elements -----------------------------------------------------------
    def get(self, name: Name, i: int) -> ir.Value:
        return load(self.b, self.rows[name], i64(i * self.k), "real", self.real, self.lanes, 1)

    def store(self, name: Name, i: int, value: ir.Value | None) -> None:
        if value is not None:
            store(self.b, value, self.rows[name], i64(i * self.k), "real", self.real, self.lanes, 1)

    def decay(self, i: int) -> ir.Value:
        return self.get(("d", 0), i)

    def last(self) -> ir.Value | None:
        """The factor of the product of all decays: what comes up to all rows goes on to it."""
        return self.get(("whole", 0), 0) if ("whole", 0) in self.rows else None

    def factor(self, r: int, w: int, i: int, j: int) -> ir.Value:
        at = ((r * len(self.writers) + w) * self.n + i) * self.n + j
        return splat(self.b, load(self.b, self.g, i64(at), "real", self.real, 0, 1), self.lanes)

    def times(self, p: ir.Value | None, q: ir.Value | None) -> ir.Value | None:
        """None as a factor is 1."""
        return q if p is None else p if q is None else self.b.fmul(p, q)

    def plus(self, p: ir.Value, q: ir.Value, sofar: ir.Value | None) -> ir.Value:
        return self.b.fmul(p, q) if sofar is None else fma(self.b, p, q, sofar)

    def add(self, name: Name, i: int, p: ir.Value, q: ir.Value | None) -> None:
        """p q (q None: 1) more for a result."""
        sofar = self.by.get((name, i))
        if q is None:
            self.by[name, i] = p if sofar is None else self.b.fadd(p, sofar)
        else:
            self.by[name, i] = self.plus(p, q, sofar)

    def written(self, m: int, factors: Callable[[int], ir.Value], up: ir.Value | None) -> ir.Value:
        """What comes up behind row m: what came up to it, and its own rows with their factors."""
        new = None
        for w in self.writers:
            new = self.plus(self.get(("x", w), m), factors(w), new)
        return new if up is None else fma(self.b, self.decay(m), up, new)

    def behind(self, low: int, high: int, up: ir.Value | None) -> ir.Value | None:
        """What rows up to the last one are to what comes behind that: it has a factor for each writer's rows. `up`:
        what comes up to them. The product of their decays."""
        p: ir.Value | None = None
        after: dict[int, ir.Value | None] = {}
        for m in reversed(range(low, high)):
            after[m] = p
            for w in self.writers:
                self.add(("by x", w), m, self.get(("end x", w), m), p)
            p = self.times(p, self.decay(m))
        for m in range(low, high):
            if up is not None:
                self.add(("by d", 0), m, up, after[m])
            if m + 1 < high:
                up = self.written(m, lambda w: self.get(("end x", w), m), up)
        return p

    # -- stretches of rows ----------------------------------------------------
    def stretch(self, low: int, high: int, ends: bool = False) -> None:
        """Rows of which "by a" holds the sums over the rows before `low`, decayed up to there. `ends`: all rows, with
        what comes behind them."""
        if self.leaf(high - low):
            self.pairs(low, high)
            return
        middle = (low + high + 1) // 2
        self.across(low, middle, high, ends)
        self.stretch(low, middle)
        self.stretch(middle, high)

    def pairs(self, low: int, high: int) -> None:
        """Row by row: the sums up to each row before it, then the row itself back down to each of them."""
        for i in range(low, high):
            factors = {(r, w, m): self.factor(r, w, i, m) for m in range(low, i)
                       for r in self.readers for w in self.writers}
            up: dict[tuple[int, int], ir.Value | None] = {}
            for r in self.readers:
                up[r, low] = self.by.get((("by a", r), i))
                for m in range(low, i):
                    up[r, m + 1] = self.written(m, lambda w: factors[r, w, m], up[r, m])
                self.by[("by a", r), i] = up[r, i]
                self.store(("by a", r), i, up[r, i])
            zs = [self.get(("a", r), i) for r in self.readers]
            for m in reversed(range(low, i)):
                for r, z in enumerate(zs):
                    for w in self.writers:
                        self.add(("by x", w), m, factors[r, w, m], z)
                    if (before := up[r, m]) is not None:
                        self.add(("by d", 0), m, z, before)
                if m > low:
                    zs = [self.b.fmul(z, self.decay(m)) for z in zs]
        for i in range(low, high):
            self.store(("by d", 0), i, self.by.get((("by d", 0), i)))
            for w in self.writers:
                self.store(("by x", w), i, self.by.get((("by x", w), i)))

    def across(self, low: int, middle: int, high: int, ends: bool) -> None:
        """What the rows before and after the middle are to each other, and to what comes behind all of them: the former
        are decayed up to the middle once, and so are the latter."""
        early, late = range(low, middle), range(middle, high)
        down: dict[int, ir.Value | None] = {middle - 1: None}       # from the middle to each row before it
        for j in reversed(range(low, middle - 1)):
            down[j] = self.times(down[j + 1], self.decay(j + 1))
        carried = {(w, j): self.times(self.get(("x", w), j), down[j]) for w in self.writers for j in early}
        whole = self.times(down[low], self.decay(low))
        sums: dict[tuple[int, int], ir.Value | None] = dict.fromkeys(carried)       # over what is late
        through, p = None, None                                     # what passes all early rows; decay from the middle
        if ends:
            up = None if (last := self.last()) is None else self.b.fmul(whole, last)
            for (w, j), x in carried.items():
                up = self.plus(x, self.get(("end x", w), j), up)
            rest = self.behind(middle, high, up)
            sums = {(w, j): self.times(rest, self.get(("end x", w), j)) for w, j in carried}
            through = None if last is None else self.times(rest, last)
        for i in late:
            for r in self.readers:
                row = self.times(self.get(("a", r), i), p)
                before, total = self.by.get((("by a", r), i)), None
                for w, j in carried:
                    f = self.factor(r, w, i, j)
                    total = self.plus(f, carried[w, j], total)
                    sums[w, j] = self.plus(f, row, sums[w, j])
                if before is not None:
                    through = self.plus(row, before, through)
                    total = fma(self.b, whole, before, total)
                self.by[("by a", r), i] = total
            p = self.times(p, self.decay(i))
        up = through
        for m in early:
            if up is not None:
                self.add(("by d", 0), m, up, down[m])
            for w in self.writers:
                self.add(("by x", w), m, sums[w, m], down[m])
            up = self.written(m, lambda w: sums[w, m], up)
