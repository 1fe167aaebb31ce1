"""The counter-based generator of `ir.rng` (Threefry-2x32, 20 rounds) in vector code.

Uniform draws are the same bits as the interpreter's; normal draws agree to a
few ulp (logarithm, sine and root are ours, in the precision of the module).
"""

from __future__ import annotations

from llvmlite import ir

from ...ir.rng import PARITY, ROTATIONS
from . import transcendental as tr
from . import trigonometry
from .vector import I32, I64, const, intrinsic, lanes, like, splat


def _word(b: ir.IRBuilder, x: ir.Value, n: int) -> ir.Value:
    """The low 32 bits, in n lanes."""
    x = b.trunc(x, like(x.type, I32)) if x.type != like(x.type, I32) else x
    return x if lanes(x.type) == n else splat(b, x, n)


def threefry(b: ir.IRBuilder, k0: ir.Value, k1: ir.Value, c0: ir.Value, c1: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Encrypt counters `c0`, `c1` under the key; all i32 of equal lanes."""
    keys = (k0, k1, b.xor(b.xor(k0, k1), const(k0.type, PARITY)))
    x0, x1 = b.add(c0, keys[0]), b.add(c1, keys[1])
    for r in range(20):
        x0 = b.add(x0, x1)
        x1 = b.xor(intrinsic(b, "fshl", x1, x1, const(x1.type, ROTATIONS[r % 8])), x0)
        if r % 4 == 3:
            j = r // 4 + 1
            x0 = b.add(x0, keys[j % 3])
            x1 = b.add(x1, b.add(keys[(j + 1) % 3], const(x1.type, j)))
    return x0, x1


def _words(b, seed, site, t, index):
    n = max(lanes(t.type), lanes(index.type))
    k0 = b.xor(b.trunc(seed, I32), I32(site & 0xFFFFFFFF))
    k1 = b.trunc(b.lshr(seed, I64(32)), I32)
    return threefry(b, splat(b, k0, n), splat(b, k1, n), _word(b, t, n), _word(b, index, n))


def _fraction(b: ir.IRBuilder, word: ir.Value, real: ir.Type, plus: int = 0) -> ir.Value:
    """((word >> 8) + plus) 2^-24, exact in either precision."""
    top = b.add(b.lshr(word, const(word.type, 8)), const(word.type, plus))
    whole = b.sitofp(top, like(word.type, real))
    return b.fmul(whole, const(whole.type, 2.0**-24))


def uniform(b: ir.IRBuilder, seed: ir.Value, site: int, t: ir.Value, index: ir.Value, real: ir.Type) -> ir.Value:
    """Uniform draws in [0, 1) with the lanes of `index` and element type `real`.
    seed: i64 scalar, site: number of the draw in the cell, t: i64 scalar or lanes (the step),
    index: i64 scalar or lanes (batch element times numel of the shape, plus row-major position)."""
    x0, _ = _words(b, seed, site, t, index)
    return _fraction(b, x0, real)


def normal(b: ir.IRBuilder, seed: ir.Value, site: int, t: ir.Value, index: ir.Value, real: ir.Type) -> ir.Value:
    """Standard normal draws by Box and Muller, as `uniform`."""
    x0, x1 = _words(b, seed, site, t, index)
    u, v = _fraction(b, x0, real, plus=1), _fraction(b, x1, real)
    radius = intrinsic(b, "sqrt", b.fmul(const(u.type, -2.0), tr.log(b, u)))
    return b.fmul(radius, trigonometry.sincos_turns(b, v)[1])
