"""Measures the error of the vector mathematics; `python -m ostinato.backends.llvm.math` prints the table.

The reference is numpy's long double (64 bits of mantissa), for erf and the circle functions mpmath.
An error of 1 ulp is the distance of neighbouring numbers of the format at the exact result.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache as once

import numpy as np
from llvmlite import ir

from . import jit, math
from .vector import F32, F64, I8, I64, widen

ELEMENT = {"float32": F32, "float64": F64, "int64": I64, "bool": I8}
# Bounds that are asserted by the tests: op -> (float32, float64)
BOUNDS = {
    "exp": (1.1, 1.1), "expm1": (2.0, 2.5), "log": (1.0, 1.0), "log1p": (1.6, 1.6), "tanh": (3.0, 3.0),
    "sigmoid": (2.5, 2.5), "softplus": (2.0, 2.0), "logsigmoid": (2.0, 2.0), "erf": (1.5, 1.5),
    "sin": (1.0, 1.5), "cos": (1.0, 1.5), "tan": (1.0, 3.0),
}


@once
def kernel(op: str, dtypes: tuple[str, ...], lanes: int, real: str | None) -> tuple[Callable, str, jit.Compiled]:
    """A compiled loop out[i] = op(in0[i], ...) over arrays, `lanes` elements at a time (0: scalars)."""
    module = ir.Module(f"{op}.{lanes}")
    ptr = ir.PointerType()
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, *[ptr] * (len(dtypes) + 1)]), "kernel")
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    entry, (head, body, end) = b.block, (fn.append_basic_block(n) for n in ("head", "body", "end"))
    n, out, *arrays = fn.args
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(I64)
    i.add_incoming(I64(0), entry)
    b.cbranch(b.icmp_signed("<", i, n), body, end)
    b.position_at_end(body)
    xs = []
    for array, name in zip(arrays, dtypes):
        x = b.load(b.gep(array, [i], source_etype=ELEMENT[name]), typ=widen(ELEMENT[name], lanes), align=1)
        xs.append(math.from_memory(b, x) if name == "bool" else x)
    y = math.emit(b, op, *xs, to=ELEMENT[real] if real else None)
    if y.type in (ir.IntType(1), widen(ir.IntType(1), lanes)):
        y = math.to_memory(b, y)
    element = y.type.element if lanes else y.type
    b.store(y, b.gep(out, [i], source_etype=element), align=1)
    i.add_incoming(b.add(i, I64(max(lanes, 1))), b.block)
    b.branch(head)
    b.position_at_end(end)
    b.ret_void()
    compiled = jit.compile_module(str(module))
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * (len(dtypes) + 1))
    return call(compiled.address("kernel")), next(k for k, t in ELEMENT.items() if t == element), compiled


def apply(op: str, *xs: np.ndarray, lanes: int | None = None, real: str | None = None) -> np.ndarray:
    """`op` on flat arrays through compiled code. `real`: result dtype of the cast `real`."""
    n = len(xs[0])
    lanes = 64 // xs[-1].itemsize if lanes is None else lanes
    padded = -(-n // max(lanes, 1)) * max(lanes, 1)
    xs = tuple(np.concatenate([x, np.ones(padded - n, x.dtype)]) for x in xs)
    fn, result, _ = kernel(op, tuple(x.dtype.name for x in xs), lanes, real)
    out = np.empty(padded, result)
    fn(padded, out.ctypes.data, *(x.ctypes.data for x in xs))
    return out[:n]


# -- references -------------------------------------------------------------
def _exactly(name: str) -> Callable[[np.ndarray], np.ndarray]:
    def reference(x: np.ndarray) -> np.ndarray:
        import mpmath

        with mpmath.workdps(60):
            return np.array([np.longdouble(mpmath.nstr(getattr(mpmath, name)(float(v)), 25)) for v in x])
    return reference


def _log1p_exp(t: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(t))


REFERENCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "softplus": lambda x: np.maximum(x, 0) + _log1p_exp(-np.abs(x)),
    "logsigmoid": lambda x: np.minimum(x, 0) - _log1p_exp(-np.abs(x)), "erf": _exactly("erf"),
    "sin": _exactly("sin"), "cos": _exactly("cos"), "tan": _exactly("tan"),
}


def points(op: str, dtype: str, count: int, seed: int = 0) -> np.ndarray:
    """Where errors are measured: dense about 0 and 1, over the range where the function is not
    trivial, and random bit patterns."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    span = 1.05 * np.log(float(info.max))
    word = "uint32" if dtype == "float32" else "uint64"
    raw = rng.integers(0, np.iinfo(word).max, count, dtype=word, endpoint=True)
    x = np.concatenate([rng.uniform(-1.5, 1.5, count), rng.uniform(-12, 12, count), rng.uniform(-span, span, count),
                        rng.choice([-1, 1], count) * np.exp(rng.uniform(-20, 3, count)),
                        1 + rng.normal(size=count) * 1e-2, rng.uniform(0, 4, count)]).astype(dtype)
    x = np.concatenate([x, raw.view(dtype)])
    return x[np.isfinite(x)] if op not in ("log", "log1p") else x[np.isfinite(x) & (x > (0 if op == "log" else -1))]


def measure(op: str, dtype: str, count: int = 100_000, seed: int = 0) -> tuple[float, float]:
    """(largest error in ulp, where), over finite arguments whose exact result is a normal number."""
    if op in ("erf", "sin", "cos", "tan"):  # mpmath is slow
        count = min(count, 1500)
    x = points(op, dtype, count, seed)
    with np.errstate(all="ignore"):
        exact = REFERENCE[op](x.astype(np.longdouble))
        near = exact.astype(dtype)
        ok = np.isfinite(near) & (np.abs(near) >= np.finfo(dtype).tiny)
        x, exact, near = x[ok], exact[ok], near[ok]
        error = np.abs(apply(op, x).astype(np.longdouble) - exact) / np.spacing(np.abs(near))
    error = np.where(np.isnan(error), np.inf, error)  # NaN where a number was due
    worst = int(np.argmax(error))
    return float(error[worst]), float(x[worst])


def table(count: int = 1_000_000) -> str:
    """docs/math.md"""
    lines = [
        "# Errors of the vector mathematics", "",
        "Printed by `python -m ostinato.backends.llvm.math`: the largest error found, in units in the last place,",
        "over random and dense arguments whose exact result is a normal number, and the bound that the tests assert.",
        "Results below the smallest normal number may come out as 0 (exp, sigmoid, softplus, logsigmoid). NaN goes",
        "through, infinities give the exact limits, -0 stays -0 where the function is odd there. `sqrt`",
        "and `rsqrt` use the processor's correctly rounded root and division; `atan`, `atan2`, double `pow` and sines",
        "beyond 2^20 call the C library lane by lane; float `pow` goes through double.",
        "", "| function | float32 | bound | at | float64 | bound | at |", "|---|---|---|---|---|---|---|",
    ]
    for op, bounds in BOUNDS.items():
        cells = []
        for dtype, bound in zip(("float32", "float64"), bounds):
            error, at = measure(op, dtype, count)
            cells += [f"{error:.2f}", f"{bound}", f"{at:.6g}"]
        lines.append(f"| {op} | {' | '.join(cells)} |")
    return "\n".join(lines)
