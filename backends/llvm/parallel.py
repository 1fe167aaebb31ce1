"""Parallel loops in generated code, dealt to the OpenMP threads of `threads`."""

from __future__ import annotations

from llvmlite import ir

from . import threads
from .vector import I32, I64

PTR = ir.PointerType()


def emit_parallel_for(module: ir.Module, b: ir.IRBuilder, worker: ir.Function, data: ir.Value,
                      n_tasks: ir.Value, n_threads: ir.Value) -> None:
    """Call `worker(data: ptr, task: i64) -> void` for task = 0 ... n_tasks-1 (i64), tasks dealt
    one at a time to `n_threads` (i32) threads. n_threads <= 1 or n_tasks <= 1: a plain loop here,
    in order. Returns when all tasks are done. A worker must not unwind; which thread runs a task
    is left open, so results must depend on the task only."""
    if not threads.symbols():
        return _emit_loop(b, worker, data, n_tasks)
    parallel = b.and_(b.icmp_signed(">", n_tasks, I64(1)), b.icmp_signed(">", n_threads, I32(1)))
    with b.if_else(parallel) as (many, one):
        with many:
            context = _context_type()
            with b.goto_entry_block():
                shared = b.inttoptr(b.ptrtoint(b.alloca(context), I64), PTR, name="team")  # untyped
            for i, value in enumerate((data, n_tasks, I64(0))):
                b.store(value, b.gep(shared, [I32(0), I32(i)], source_etype=context))
            wanted = b.select(b.icmp_signed("<", n_tasks, b.sext(n_threads, I64)), b.trunc(n_tasks, I32), n_threads)
            b.call(_entry(module), [_member(module, worker), shared, wanted, I32(0)])
        with one:
            _emit_loop(b, worker, data, n_tasks)


def _context_type() -> ir.LiteralStructType:
    """data, number of tasks, next task"""
    return ir.LiteralStructType([PTR, I64, I64])


def _entry(module: ir.Module) -> ir.Function:
    known = module.globals.get(threads.ENTRY)
    return known or ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, PTR, I32, I32]), threads.ENTRY)


def _member(module: ir.Module, worker: ir.Function) -> ir.Function:
    """What each thread of the team runs: take the next task until there is none."""
    name = f"{worker.name}.member"
    if name in module.globals:
        return module.globals[name]
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR]), name)
    fn.linkage = "internal"
    context = _context_type()
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    data, n_tasks, counter = (b.gep(fn.args[0], [I32(0), I32(i)], source_etype=context) for i in range(3))
    data, n_tasks = b.load(data, typ=PTR), b.load(n_tasks, typ=I64)
    take, work, done = (fn.append_basic_block(n) for n in ("take", "work", "done"))
    b.branch(take)
    b.position_at_end(take)
    task = b.atomic_rmw("add", counter, I64(1), "monotonic")
    b.cbranch(b.icmp_signed("<", task, n_tasks), work, done)
    b.position_at_end(work)
    b.call(worker, [data, task])
    b.branch(take)
    b.position_at_end(done)
    b.ret_void()
    return fn


def _emit_loop(b: ir.IRBuilder, worker: ir.Function, data: ir.Value, n_tasks: ir.Value) -> None:
    before = b.block
    head, body, after = (b.append_basic_block(f"serial.{n}") for n in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    task = b.phi(I64)
    task.add_incoming(I64(0), before)
    b.cbranch(b.icmp_signed("<", task, n_tasks), body, after)
    b.position_at_end(body)
    b.call(worker, [data, task])
    task.add_incoming(b.add(task, I64(1)), b.block)
    b.branch(head)
    b.position_at_end(after)
