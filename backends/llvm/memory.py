"""Buffers at run time: where an element lives, loads, stores, gathers."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from ...compiler.schedules.kernel import Buffer
from . import math
from .loops import I64, i64

I8, BIT = ir.IntType(8), ir.IntType(1)


@dataclass(frozen=True, slots=True)
class Index:
    """A position along one axis: `base + offset`, or the lanes that start there.
    `var`: the loop variable it moves with (None: a constant); `copy`: which of
    the unrolled copies. `width` 0: one element, else that many lanes."""

    var: str | None
    copy: int
    base: ir.Value | int
    offset: int = 0
    width: int = 0

    @property
    def key(self) -> tuple:
        return (self.var, self.copy, self.offset, self.width, self.base if self.var is None else None)

    def plus(self, by: int) -> Index:
        return self if not by else Index(self.var, self.copy, self.base, self.offset + by, self.width)

    def value(self, b: ir.IRBuilder) -> ir.Value:
        if isinstance(self.base, int):
            return i64(self.base + self.offset)
        return b.add(self.base, i64(self.offset)) if self.offset else self.base


def element_type(kind: str, real: ir.Type) -> ir.Type:
    """In registers."""
    return {"real": real, "int": I64, "bool": BIT}[kind]


def memory_type(kind: str, real: ir.Type) -> ir.Type:
    return I8 if kind == "bool" else element_type(kind, real)


def size_of(t: ir.Type) -> int:
    return {"float": 4, "double": 8, "i64": 8, "i8": 1}[str(t)]


def lanes(t: ir.Type, width: int) -> ir.Type:
    return ir.VectorType(t, width) if width else t


def strides_of(buffer: Buffer, rows: ir.Value | None) -> list[int | ir.Value]:
    """Elements between neighbours, per axis; `rows`: those of the first axis, where that is free."""
    strides: list[int | ir.Value] = []
    stride = 1
    for d in reversed(buffer.axes):
        strides.append(stride)
        stride *= d.size
    strides.reverse()
    return strides if rows is None else [rows, *strides[1:]]


def offset_of(b: ir.IRBuilder, buffer: Buffer, idx: tuple[Index, ...], start: ir.Value,
              rows: ir.Value | None = None) -> ir.Value:
    """Element offset of the point `idx` (of the first lane), from the row's start."""
    at = start
    for stride, ix in zip(reversed(strides_of(buffer, rows)), reversed(idx)):
        v = ix.value(b)
        at = b.add(at, v if isinstance(stride, int) and stride == 1 else b.mul(v, _word(stride)))
    return at


def _word(x: int | ir.Value) -> ir.Value:
    return i64(x) if isinstance(x, int) else x


def lane_stride(b: ir.IRBuilder, buffer: Buffer, idx: tuple[Index, ...],
                rows: ir.Value | None = None) -> int | ir.Value:
    """Elements between neighbouring lanes; 0 if the point has no lanes."""
    found = [s for s, ix in zip(strides_of(buffer, rows), idx) if ix.width]
    if all(isinstance(s, int) for s in found):
        return sum(found)                        # the same lanes on two axes: a diagonal
    total = _word(found[0])
    for s in found[1:]:
        total = b.add(total, _word(s))
    return total


def _lanes(b: ir.IRBuilder, lane: int, stride: int | ir.Value) -> ir.Value:
    return i64(lane * stride) if isinstance(stride, int) else b.mul(i64(lane), stride)


def load(
    b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value, kind: str, real: ir.Type, width: int,
    stride: int | ir.Value
) -> ir.Value:
    """A scalar (width 0), `width` contiguous lanes, or a gather of them."""
    mem = memory_type(kind, real)
    if width and isinstance(stride, int) and stride == 1:
        p = b.bitcast(b.gep(pointer, [offset]), lanes(mem, width).as_pointer())
        value = b.load(p, align=size_of(mem))
    elif width:
        value = ir.Constant(lanes(mem, width), ir.Undefined)
        for lane in range(width):
            x = b.load(b.gep(pointer, [b.add(offset, _lanes(b, lane, stride))]), align=size_of(mem))
            value = b.insert_element(value, x, ir.Constant(ir.IntType(32), lane))
    else:
        value = b.load(b.gep(pointer, [offset]), align=size_of(mem))
    return math.from_memory(b, value) if kind == "bool" else value


def store(b: ir.IRBuilder, value: ir.Value, pointer: ir.Value, offset: ir.Value, kind: str, real: ir.Type, width: int,
          stride: int | ir.Value, *, streaming: bool = False) -> None:
    """The counterpart of `load`: contiguous lanes or a scatter. `streaming`: a whole aligned register of contiguous
    lanes, which goes past the caches."""
    mem = memory_type(kind, real)
    value = math.to_memory(b, value) if kind == "bool" else value
    if width and isinstance(stride, int) and stride == 1:
        p = b.bitcast(b.gep(pointer, [offset]), value.type.as_pointer())
        made = b.store(value, p, align=size_of(mem) * (width if streaming else 1))
        if streaming:
            made.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
    elif width:
        for lane in range(width):
            x = b.extract_element(value, ir.Constant(ir.IntType(32), lane))
            b.store(x, b.gep(pointer, [b.add(offset, _lanes(b, lane, stride))]), align=size_of(mem))
    else:
        b.store(value, b.gep(pointer, [offset]), align=size_of(mem))


def copy(b: ir.IRBuilder, to: ir.Value, from_: ir.Value, nbytes: ir.Value) -> None:
    """memcpy."""
    byte = I8.as_pointer()
    memcpy = b.module.declare_intrinsic("llvm.memcpy", [byte, byte, I64])
    b.call(memcpy, [b.bitcast(to, byte), b.bitcast(from_, byte), nbytes, ir.Constant(BIT, 0)])


def horizontal(b: ir.IRBuilder, value: ir.Value, combine) -> ir.Value:
    """Combine all lanes by halving, in a fixed order."""
    n = value.type.count
    if n == 1:
        return b.extract_element(value, ir.Constant(ir.IntType(32), 0))
    if n & (n - 1):                             # not a power of two: lane by lane
        xs = [b.extract_element(value, ir.Constant(ir.IntType(32), i)) for i in range(n)]
        while len(xs) > 1:
            xs = [combine(b, xs[i], xs[i + 1]) if i + 1 < len(xs) else xs[i] for i in range(0, len(xs), 2)]
        return xs[0]
    undef = ir.Constant(value.type, ir.Undefined)
    while n > 1:
        n //= 2
        i32 = ir.IntType(32)
        low = b.shuffle_vector(value, undef, ir.Constant(ir.VectorType(i32, n), list(range(n))))
        high = b.shuffle_vector(value, undef, ir.Constant(ir.VectorType(i32, n), list(range(n, 2 * n))))
        value, undef = combine(b, low, high), ir.Constant(ir.VectorType(value.type.element, n), ir.Undefined)
    return b.extract_element(value, ir.Constant(ir.IntType(32), 0))
