"""Small things about LLVM values that may be scalars or vectors of any width.

"Lanes" of a scalar type are 0: every helper treats `float` and
`<16 x float>` alike, so that code above is written once.
"""

from __future__ import annotations

from functools import lru_cache

from llvmlite import ir

F32, F64 = ir.FloatType(), ir.DoubleType()
I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)


def lanes(type: ir.Type) -> int:
    """Number of lanes, 0 for a scalar type."""
    return type.count if isinstance(type, ir.VectorType) else 0


def element(type: ir.Type) -> ir.Type:
    """The element type of a vector, a scalar type itself."""
    return type.element if isinstance(type, ir.VectorType) else type


def like(type: ir.Type, elem: ir.Type) -> ir.Type:
    """`elem` with as many lanes as `type`."""
    return widen(elem, lanes(type))


def widen(elem: ir.Type, n: int) -> ir.Type:
    """`<n x elem>`, or `elem` for n = 0."""
    return ir.VectorType(elem, n) if n else elem


def is_real(type: ir.Type) -> bool:
    return isinstance(element(type), (ir.FloatType, ir.DoubleType))


def is_bool(type: ir.Type) -> bool:
    return element(type) == I1


def const(type: ir.Type, value) -> ir.Constant:
    """The constant `value` in every lane (a float is rounded to the type first)."""
    value = float(value) if is_real(type) else int(value)
    return _constant(element(type), lanes(type), value, str(value))


@lru_cache(maxsize=1 << 14)
def _constant(type: ir.Type, n: int, value, text: str) -> ir.Constant:
    """One object for all uses, as its text takes long to write. `text` tells 0 from -0."""
    return ir.Constant(ir.VectorType(type, n), [value] * n) if n else ir.Constant(type, value)


def splat(b: ir.IRBuilder, value: ir.Value, n: int) -> ir.Value:
    """A scalar in n lanes (n = 0: as it is); a vector is returned as it is."""
    if not n or isinstance(value.type, ir.VectorType):
        return value
    vec = ir.VectorType(value.type, n)
    if isinstance(value, ir.Constant):
        return _constant(value.type, n, value.constant, str(value.constant))
    undef = ir.Constant(vec, ir.Undefined)
    one = b.insert_element(undef, value, ir.Constant(I32, 0))
    return b.shuffle_vector(one, undef, ir.Constant(ir.VectorType(I32, n), [0] * n))


def suffix(type: ir.Type) -> str:
    """A type's name within an intrinsic's: `v16f32`, `i64`."""
    e = element(type)
    name = "f32" if e == F32 else "f64" if e == F64 else f"i{e.width}"
    return f"v{lanes(type)}{name}" if lanes(type) else name


def intrinsic(b: ir.IRBuilder, name: str, *args: ir.Value, result: ir.Type | None = None,
              overload: tuple[ir.Type, ...] | None = None) -> ir.Value:
    """Call `llvm.NAME`; overloaded on the first argument's type unless said."""
    result = result or args[0].type
    overload = (args[0].type,) if overload is None else overload
    full = ".".join(["llvm", name, *map(suffix, overload)])
    fn = b.module.globals.get(full)
    if fn is None:
        fn = ir.Function(b.module, ir.FunctionType(result, [a.type for a in args]), full)
    return b.call(fn, args)


def fma(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z, rounded once."""
    return intrinsic(b, "fma", x, y, z)


def weavable(n: int, width: int) -> bool:
    """Whether the sums over the lanes of n > 1 vectors can be woven together into the lanes of one."""
    return 1 < n <= width and n & (n - 1) == 0 and width & (width - 1) == 0


def totals(b: ir.IRBuilder, xs: list[ir.Value]) -> ir.Value:
    """A vector whose lane r is the sum over the lanes of xs[r] (see `weavable`)."""
    stack: list[tuple[int, ir.Value]] = []
    for x in xs:
        weave(b, stack, x)
    return woven(b, stack)


def near(element: ir.Type) -> int:
    """Lanes in 16 bytes, within which instructions with two operands interleave two vectors."""
    return 2 if element == F64 else 4


def weave(b: ir.IRBuilder, stack: list[tuple[int, ir.Value]], x: ir.Value, step: int = 1) -> None:
    """Take one more vector whose lanes will be added up (see `totals`), or one into which `step` of them are woven
    already. Neighbours are woven together as soon as both are there: few of them are in registers at any time."""
    while stack and stack[-1][0] == step:
        _, p = stack.pop()
        x = b.fadd(*(_shuffled(b, p, x, lanes) for lanes in _pair(x.type.count, step, near(x.type.element))))
        step *= 2
    stack.append((step, x))


def _pair(n: int, step: int, group: int) -> list[list[int]]:
    """Two choices of the lanes of two vectors that together have each lane once. Within `group` lanes (16 bytes) those
    of both vectors are interleaved, so that lanes with the bit `step` are the second one's; from there on the groups
    of the first that are to be added up come before those of the second. Instructions with two operands do all that;
    those with three would take the place of multiply-adds beside them."""
    if step >= group:
        return [_groups(2 * n, group, half) for half in (0, 1)]
    group = min(n, group)
    return [[n * ((lane & step) > 0) + lane // group * group + half + lane % group // (2 * step) * step + lane % step
             for lane in range(n)] for half in (0, group // 2)]


def _groups(n: int, group: int, half: int) -> list[int]:
    """Every other group of n lanes."""
    return [start + lane for start in range(half * group, n, 2 * group) for lane in range(group)]


def woven(b: ir.IRBuilder, stack: list[tuple[int, ir.Value]]) -> ir.Value:
    """The sums of the vectors taken, side by side: what is left of each is added up."""
    (rows, x), = stack
    n, group = x.type.count, near(x.type.element)
    while n > rows:                             # all groups are of the same sums, or neighbours are
        parts = [_groups(n, group, half) for half in (0, 1)] if rows > group else [range(n // 2), range(n // 2, n)]
        x = b.fadd(*(_shuffled(b, x, x, lanes) for lanes in parts))
        n //= 2
    return x


def part(b: ir.IRBuilder, x: ir.Value, start: int, count: int) -> ir.Value:
    """Some neighbouring lanes of a vector, as a vector."""
    return x if count == x.type.count else _shuffled(b, x, x, range(start, start + count))


def _shuffled(b: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes) -> ir.Value:
    lanes = list(lanes)
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))
