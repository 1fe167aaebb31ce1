"""What products of chunk kernels ask memory for: rows of every port twice, a kept state once, and of each every line."""

from __future__ import annotations

import ctypes
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from llvmlite import ir
from ostinato.backends.llvm import between, jit
from ostinato.backends.llvm.executable import build
from ostinato.backends.llvm.loops import Nest, i64
from ostinato.backends.llvm.memory import Index
from ostinato.backends.llvm.vector import F32
from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.kernel import Buffer
from ostinato.frontend.load import load
from ostinato.ir.types import Dim

ZOO = Path(__file__).parents[2] / "examples/zoo"
WIDTH = jit.vector_width(torch.float32)


def kernels(name: str, C: int):
    """Forward that keeps, and backward; in chunks, or step by step (C = 0)."""
    made = lower(load(ZOO / f"{name}.ost").cells[name].elaborate(K=64, V=64, N=2))
    made = build(lower(chunk(made.split, C)) if C else made, torch.float32)
    return made.keep.kernel, made.back.kernel


@pytest.mark.parametrize("name", ["gla", "rwkv7", "simple_gla"])
def test_two_products_ask_for_every_port_and_one_for_a_state(name):
    for kernel in kernels(name, 16):
        wishes = between.wishes(kernel, F32, WIDTH)
        asked = Counter(w.port.name for some in wishes.values() for w in some)
        wanted = {p.name: 1 if p.space == "check" else between.TIMES
                  for p in kernel.ports if p.space in ("input", "output", "check")}
        assert asked == wanted
        assert all(len({w.port.name for w in some}) == len(some) for some in wishes.values())
        for (r, name, i), some in wishes.items():
            p = getattr(kernel.runs[r], name).phases[i]
            assert between.turns(p, WIDTH) >= between.TURNS and p.groups
            assert all(w.when == "tile" for w in some if w.port.space == "check")
    assert any(w.when == "present" for some in wishes.values() for w in some)      # results of later parts


def test_steps_without_products_of_matrices_ask_as_they_did():
    assert not any(between.wishes(k, F32, WIDTH) for name in ("gla", "deltanet") for k in kernels(name, 0))


@pytest.mark.parametrize("shape, apart, number", [
    ((16, 24), 100, 64), ((16, 16), 48, 5), ((7, 40), 40, 200), ((50,), 0, 16), ((4, 64), 64, 8), ((4, 64), 80, 5),
    ((4, 64), 64, 6)])
def test_turns_reach_every_line_of_a_port(monkeypatch, shape, apart, number):
    """The turns add 1 where they would ask: in all lines of the rows of step 3, and nowhere else."""
    def mark(b, pointer):
        b.store(b.add(b.load(pointer), ir.Constant(ir.IntType(8), 1)), pointer)

    monkeypatch.setattr(between, "prefetch", mark)
    port = Buffer("in.x", "input", "real", tuple(Dim(f"d{i}", n) for i, n in enumerate(shape)), rows=len(shape) > 1)
    fn = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [F32.as_pointer()]), "go")
    nest = Nest(ir.IRBuilder(fn.append_basic_block("entry")))
    step = 5000
    frame = SimpleNamespace(
        real=F32, words={"tile": i64(2)}, rows={"in.x": i64(apart)} if apart else {},
        pointer=lambda b, name: fn.args[0], row=lambda b, buffer, c, t: b.mul(t, i64(step)),
        least=lambda b, x, y: b.select(b.icmp_signed("<", x, y), x, y))
    kernel, run = SimpleNamespace(reverse=True), SimpleNamespace(reverse=True)

    def turn(i, _):
        between.ask(between.Wish(port, "tile"), kernel, run, frame, nest, Index("b", 0, i64(0)), i64(5), i, number)
        return []

    nest.loop("turn", i64(0), i64(number), 1, [], turn)
    nest.b.ret_void()
    memory = torch.zeros(5 * step)
    code = jit.compile_module(str(fn.module))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code.address("go"))(memory.data_ptr())
    lengths, rows = (shape[-1], shape[0]) if len(shape) > 1 else (shape[0], 1)
    wanted = {3 * step * 4 + r * apart * 4 + k for r in range(rows) for k in range(0, lengths * 4, 64)}
    assert {*memory.view(torch.uint8).nonzero().flatten().tolist()} == wanted
