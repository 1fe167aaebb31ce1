"""Packs, made by generated code: a parameter goes into the order of its product's loops at the speed of a copy.

A panel is one register of lanes over the whole reduced axis. Where the parameter is contiguous along the reduced axis,
as in [out, in], squares of registers are transposed; along the lanes, registers are copied; else element by element.
"""

from __future__ import annotations

from math import prod

from llvmlite import ir

from ...compiler.schedules.kernel import Kernel, Pack
from . import parallel
from .block import MOVING, PER_PORT, WORDS, moving
from .loops import I64, Nest, i64
from .memory import lanes, load, store

PTR, I32 = ir.PointerType(), ir.IntType(32)
ALONE = 1 << 16                 # elements of a pack from which other threads are worth waking


def emit_packs(module: ir.Module, b: ir.IRBuilder, kernel: Kernel, real: ir.Type, width: int, args: ir.Value) -> None:
    """Make all packs of a kernel from the ports in the argument block `args` (i64*)."""
    threads = b.trunc(_word(b, args, WORDS.index("threads")), I32)
    for at, pack in enumerate(kernel.packs):
        worker = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, I64]), f"{pack.name}.make")
        worker.linkage = "internal"
        heads, tasks = _Maker(worker, kernel, pack, at, real, width).emit()
        many = heads * tasks * pack.reduced[1] * len(pack.members) * pack.lanes >= ALONE
        data = b.inttoptr(b.ptrtoint(args, I64), PTR)
        parallel.emit_parallel_for(module, b, worker, data, i64(heads * tasks), threads if many else I32(1))


def _word(b: ir.IRBuilder, args: ir.Value, i: int) -> ir.Value:
    return b.load(b.gep(args, [i64(i)]), align=8)


class _Maker:
    """The worker of one pack; a task is one block of lanes, of one head, at one place of the other axes."""

    def __init__(self, fn: ir.Function, kernel: Kernel, pack: Pack, at: int, real: ir.Type, width: int):
        self.fn, self.kernel, self.pack, self.at, self.real, self.width = fn, kernel, pack, at, real, width
        self.nest = Nest(ir.IRBuilder(fn.append_basic_block("entry")))
        self.ports = {p.name: (i, p) for i, p in enumerate(kernel.ports)}
        self.each = pack.reduced[1] * len(pack.members) * pack.lanes        # elements of a task

    def emit(self) -> tuple[int, int]:
        """(heads, tasks of each)"""
        pack, b = self.pack, self.nest.b
        size, blocks = pack.lane[1], -(-pack.lane[1] // pack.lanes)
        tasks = blocks * prod(n for _, n in pack.letters)
        port = self.ports[f"par.{pack.members[0][0]}"][1]
        heads = self.kernel.heads.size if port.heads else 1
        self.args = b.inttoptr(b.ptrtoint(self.fn.args[0], I64), I64.as_pointer())
        task = self.fn.args[1]
        head, place = b.sdiv(task, i64(tasks)), b.srem(task, i64(tasks))
        block, where = b.srem(place, i64(blocks)), b.sdiv(place, i64(blocks))
        addresses = moving(len(self.kernel.ports), len(self.kernel.packs)) + len(MOVING)
        to = b.inttoptr(_word(b, self.args, addresses + len(self.kernel.ports) + self.at), self.real.as_pointer())
        to = b.gep(to, [b.mul(task, i64(self.each))])
        at = {}                                 # the other letters' values
        for letter, n in reversed(pack.letters):
            at[letter], where = b.srem(where, i64(n)), b.sdiv(where, i64(n))
        full = size // pack.lanes
        left = size % pack.lanes
        if left:
            with b.if_else(b.icmp_signed("<", block, i64(full))) as (whole, last):
                with whole:
                    self._block(head, at, block, to, addresses, pack.lanes)
                with last:
                    self._block(head, at, block, to, addresses, left)
        else:
            self._block(head, at, block, to, addresses, pack.lanes)
        b.ret_void()
        return heads, tasks

    def _block(self, head, at, block, to, addresses: int, count: int) -> None:
        """All members' panels of a block of which `count` lanes are there."""
        pack, w, b = self.pack, self.width, self.nest.b
        for m, (name, index) in enumerate(pack.members):
            i, port = self.ports[f"par.{name}"]
            start = i64(0)
            if port.heads:
                heads = _word(b, self.args, len(WORDS) + PER_PORT * i + 2)
                start = b.mul(b.sdiv(head, i64(port.groups)), heads)
            strides, stride = {}, 1
            for (letter, offset), axis in zip(reversed(index), reversed(port.axes)):
                start = b.add(start, i64(offset * stride))
                if letter in at:
                    start = b.add(start, b.mul(at[letter], i64(stride)))
                strides[letter] = stride
                stride *= axis.size
            across, along = strides[pack.reduced[0]], strides[pack.lane[0]]
            source = b.inttoptr(_word(b, self.args, addresses + i), self.real.as_pointer())
            source = b.gep(source, [b.add(start, b.mul(block, i64(pack.lanes * along)))])
            for k in range(0, pack.lanes, w):
                here = min(w, max(0, count - k))
                kind = "any" if here < w else "transposed" if across == 1 else "copied" if along == 1 else "any"
                b.call(_panel(b.module, kind, self.real, w),
                       [b.gep(source, [i64(k * along)]), i64(along), i64(across), i64(pack.reduced[1]), i64(here),
                        b.gep(to, [i64(m * pack.lanes + k)]), i64(len(pack.members) * pack.lanes)])


def _panel(module: ir.Module, kind: str, real: ir.Type, w: int) -> ir.Function:
    """The module's function (from, lane stride, reduced stride, n, lanes there, to, to stride): to[r, k] = from[k, r]
    for all r < n and k < w, 0 for lanes that are not there."""
    name = f"panel.{kind}"
    if name in module.globals:
        return module.globals[name]
    ptr = real.as_pointer()
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [ptr, I64, I64, I64, I64, ptr, I64]), name)
    fn.linkage = "internal"
    source, along, across, n, here, to, stride = fn.args
    nest = Nest(ir.IRBuilder(fn.append_basic_block("entry")))

    def get(r, k, lanes: int):
        b = nest.b
        return load(b, source, b.add(b.mul(k, along), b.mul(r, across)), "real", real, lanes, 1)

    def put(r, k, value, lanes: int):
        b = nest.b
        store(b, value, to, b.add(b.mul(r, stride), k), "real", real, lanes, 1)

    def square(r, _):
        rows = _transposed(nest.b, [get(r, i64(k), w) for k in range(w)])
        for k, row in enumerate(rows):
            put(nest.b.add(r, i64(k)), i64(0), row, w)
        return []

    def register(r, _):
        put(r, i64(0), get(r, i64(0), w), w)
        return []

    def single(r, _):
        def one(k, _):
            put(r, k, get(r, k, 0), 0)
            return []

        def none(k, _):
            put(r, k, ir.Constant(real, 0), 0)
            return []

        nest.loop("k", i64(0), here, 1, [], one)
        nest.loop("k", here, i64(w), 1, [], none)
        return []

    start = i64(0)
    if kind == "transposed":
        start = nest.b.sub(n, nest.b.srem(n, i64(w)))
        nest.loop("r", i64(0), start, w, [], square)
    nest.loop("r", start, n, 1, [], register if kind == "copied" else single)
    nest.b.ret_void()
    return fn


def _transposed(b: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """A square of registers: halves of stretches of 2 d elements change places between rows d apart."""
    n, rows, d = len(rows), list(rows), len(rows) // 2
    while d:
        for i in range(n):
            if not i & d:
                x, y = rows[i], rows[i + d]
                for to, picked in ((i, [k + n - d if k & d else k for k in range(n)]),
                                   (i + d, [k + n if k & d else k + d for k in range(n)])):
                    rows[to] = b.shuffle_vector(x, y, ir.Constant(lanes(I32, n), picked))
        d //= 2
    return rows
