"""Parallel loops in generated code, on the OpenMP threads that torch has."""

from __future__ import annotations

from llvmlite import ir


def describe() -> str:
    """One line: the OpenMP library in use, or why execution is serial."""
    raise NotImplementedError


def num_threads() -> int:
    """Threads to pass as `n_threads` to generated code now: torch.get_num_threads(), 1 if serial."""
    raise NotImplementedError


def emit_parallel_for(module: ir.Module, b: ir.IRBuilder, worker: ir.Function, data: ir.Value,
                      n_tasks: ir.Value, n_threads: ir.Value) -> None:
    """Call `worker(data: ptr, task: i64) -> void` for task = 0 ... n_tasks-1 (i64), tasks dealt
    dynamically to `n_threads` (i32) threads. n_threads <= 1 or n_tasks <= 1: a plain loop here.
    Returns when all tasks are done. A worker must not unwind."""
    raise NotImplementedError
