"""The counter-based generator of `ir.rng` (Threefry-2x32, 20 rounds) in vector code."""

from __future__ import annotations

from llvmlite import ir


def uniform(b: ir.IRBuilder, seed: ir.Value, site: int, t: ir.Value, index: ir.Value, real: ir.Type) -> ir.Value:
    """Uniform draws in [0, 1) with the lanes of `index` and element type `real`.
    seed: i64 scalar, site: number of the draw in the cell, t: i64 scalar or lanes (the step),
    index: i64 scalar or lanes (element index, batch included)."""
    raise NotImplementedError


def normal(b: ir.IRBuilder, seed: ir.Value, site: int, t: ir.Value, index: ir.Value, real: ir.Type) -> ir.Value:
    """Standard normal draws, as `uniform`."""
    raise NotImplementedError
