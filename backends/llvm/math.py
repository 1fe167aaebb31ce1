"""Pointwise operations of the cell IR as LLVM IR, on scalars or vectors.

`emit(b, "tanh", x)` appends code to the builder `b` and returns the value;
operands are `float`, `double`, `i64` or `i1`, or vectors of any number of
lanes of these, all of the same lane count.
"""

from __future__ import annotations

from llvmlite import ir


def emit(b: ir.IRBuilder, op: str, *args: ir.Value, to: ir.Type | None = None) -> ir.Value:
    """The value of pointwise operation `op` (a name in `ir.ops.OPS`).

    `to`: for `real`, the element type wanted (`float` or `double`); ignored by
    other operations. bool is i1, int is i64; memory holds bool as i8 (see
    `load_bool`, `store_bool`). Raises NotImplementedError for an operation or
    operand type that has no code.
    """
    raise NotImplementedError(op)


def from_memory(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """i8 bool as loaded from memory -> i1 (lanes kept)."""
    raise NotImplementedError


def to_memory(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """i1 -> i8 holding 0 or 1, as torch.bool stores it (lanes kept)."""
    raise NotImplementedError
