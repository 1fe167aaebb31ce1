"""Parallel loops in generated code: every task once, torch's thread count, nesting, forks."""

import ctypes
import multiprocessing
import threading

import numpy as np
import pytest
import torch
from llvmlite import ir
from ostinato.backends.llvm import jit, parallel, threads
from ostinato.backends.llvm.vector import I32, I64

PTR = ir.PointerType()
VOID = ir.VoidType()


def loops() -> str:
    """`outer(data, tasks, threads)`: each task counts itself, and if data[1] is set runs an inner
    loop of 8 tasks. data: [counts*, nested, thread ids*]; ids are taken through a callback."""
    module = ir.Module()
    who = ir.Function(module, ir.FunctionType(I64, []), "who")

    def worker(name, nested):
        fn = ir.Function(module, ir.FunctionType(VOID, [PTR, I64]), name)
        b = ir.IRBuilder(fn.append_basic_block("entry"))
        data, task = fn.args
        counts = b.load(b.gep(data, [I64(0)], source_etype=I64), typ=PTR)
        ids = b.load(b.gep(data, [I64(1)], source_etype=I64), typ=PTR)
        b.atomic_rmw("add", b.gep(counts, [task], source_etype=I64), I64(1), "monotonic")
        b.store(b.call(who, []), b.gep(ids, [task], source_etype=I64))
        if nested is not None:
            parallel.emit_parallel_for(module, b, nested, data, I64(8), I32(2))
        b.ret_void()
        return fn

    inner = worker("inner", None)
    for name, fn in (("flat", inner), ("nested", worker("middle", inner))):
        outer = ir.Function(module, ir.FunctionType(VOID, [PTR, I64, I32]), name)
        b = ir.IRBuilder(outer.append_basic_block("entry"))
        parallel.emit_parallel_for(module, b, fn, *outer.args)
        b.ret_void()
    return str(module)


meeting: threading.Barrier | None = None  # if set, tasks wait for one another


@ctypes.CFUNCTYPE(ctypes.c_int64)
def WHO():
    if meeting is not None:
        meeting.wait(timeout=30)
    return threading.get_native_id()


@pytest.fixture(scope="module")
def code():
    return jit.compile_module(loops(), symbols={**threads.symbols(), "who": ctypes.cast(WHO, ctypes.c_void_p).value})


def run(code, name, n_tasks, n_threads):
    counts, ids = np.zeros(max(n_tasks, 8), "int64"), np.zeros(max(n_tasks, 8), "int64")
    data = np.array([counts.ctypes.data, ids.ctypes.data], "int64")
    fn = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32)(code.address(name))
    fn(data.ctypes.data, n_tasks, n_threads)
    return counts[:n_tasks], ids[:n_tasks]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_tasks", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("n_threads", [0, 1, 2, 5])
def test_every_task_runs_once(code, n_tasks, n_threads):
    counts, _ = run(code, "flat", n_tasks, n_threads)
    assert (counts == 1).all()


def test_one_thread_stays_on_the_caller(code):
    _, ids = run(code, "flat", 50, 1)
    assert set(ids) == {threading.get_native_id()}


@pytest.mark.skipif(not threads.symbols(), reason="torch has no OpenMP runtime that we can call")
def test_follows_torch_set_num_threads(code, two_threads, monkeypatch):
    assert threads.num_threads() == 2
    assert "2 threads" in threads.describe() and "omp" in threads.describe()
    assert len(set(run(code, "flat", 1000, 2)[1])) <= 2
    monkeypatch.setitem(globals(), "meeting", threading.Barrier(2))
    _, ids = run(code, "flat", 2, 2)  # each task waits for the other: done only by two threads at once
    assert len(set(ids[:2])) == 2 and threading.get_native_id() in ids
    torch.set_num_threads(1)
    assert threads.num_threads() == 1


def test_nested_loops(code, two_threads):
    counts, _ = run(code, "nested", 20, 2)
    assert (counts[:8] == 21).all() and (counts[8:] == 1).all()


def test_called_from_several_python_threads(code, two_threads):
    results = []
    def work():
        results.extend(bool((run(code, "flat", 100, 2)[0] == 1).all()) for _ in range(20))
    workers = [threading.Thread(target=work) for _ in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert results == [True] * 60


def _in_child(code, queue):
    jit.compile_module("define i64 @f() {\n ret i64 1\n}", key_extra="child")
    counts, ids = run(code, "flat", 100, threads.num_threads())
    queue.put((threads.num_threads(), threads.describe(), bool((counts == 1).all()), len(set(ids))))


def test_forked_children_run_serially_and_do_not_hang(code, two_threads):
    run(code, "flat", 100, 2)  # the pool exists before the fork
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(code, queue))
    child.start()
    n, said, once, distinct = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0 and n == 1 and once and distinct == 1 and "serial" in said
    assert threads.num_threads() == 2  # the parent goes on as before


def test_without_a_runtime_loops_are_serial_and_say_so(monkeypatch):
    monkeypatch.setattr(threads, "_runtime", lambda: (0, "no OpenMP here"))
    assert threads.describe() == "serial: no OpenMP here" and threads.num_threads() == 1
    text = loops()
    assert threads.ENTRY not in text
    code = jit.compile_module(text, symbols={"who": ctypes.cast(WHO, ctypes.c_void_p).value})
    counts, ids = run(code, "nested", 20, 4)
    assert (counts[:8] == 21).all() and set(ids) == {threading.get_native_id()}
