"""Products of matrices that vary from step to step: sums along the lanes side by side, updates of matrix states, factors
that are made once, sums that share an accumulator."""

import sys
from pathlib import Path

import ostinato
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from ostinato.backends.llvm import jit
from ostinato.backends.llvm.executable import build
from ostinato.compiler.passes.canonicalise import Canonicalise
from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.build import forward_kernel
from ostinato.compiler.schedules.chains import chains
from ostinato.compiler.schedules.kernel import Group, Phase, Store
from ostinato.frontend.load import load
from ostinato.ir.build import Builder
from ostinato.ir.types import Type
from test_whole import cell_of, check, dim

ZOO = Path(__file__).parents[2] / "examples/zoo"


@pytest.mark.parametrize("n, m, k", [(1, 16, 16), (3, 8, 32), (5, 12, 24), (2, 32, 8), (4, 4, 64), (6, 7, 16), (2, 16, 5), (8, 16, 32),
                                     (6, 20, 16), (4, 3, 64)])
def test_sums_along_the_lanes(n, m, k):
    N, M, K = dim("N", n), dim("M", m), dim("K", k)

    def make(b, x, y, z):
        one, two = (b.contract(x, v, "ik,jk->ij") for v in (y, z))
        return b.op("add", b.op("mul", one, two), b.op("tanh", two))

    check(cell_of(make, (N, K), (M, K), (M, K)), lambda x: 0.3 * x)
    check(cell_of(lambda b, x, y: b.op("exp", b.contract(x, y, "ik,jk->ij")), (N, K), (M, K)), lambda x: 0.2 * x)


@pytest.mark.parametrize("bits", [128, 256])
def test_sums_along_narrow_lanes(bits, monkeypatch):
    """A block has no more sums beside each other than a register of doubles has lanes."""
    host = jit.host() | {"vector_bits": bits}
    monkeypatch.setattr(jit, "host", lambda: host)
    cell = cell_of(lambda b, x, y: b.op("exp", b.contract(x, y, "ik,jk->ij")), *[(dim("N", 4), dim("K", 16))] * 2)
    check(cell, lambda x: 0.2 * x)


@pytest.mark.parametrize("n, m", [(8, 16), (2, 8), (1, 8), (8, 6)])
@pytest.mark.parametrize("count", [1, 3])
def test_sums_are_finished_beside_the_next_products(n, m, count):
    """What is stored also reads an input where the sum was, not where the next products are."""
    N, M, K = dim("N", n), dim("M", m), dim("K", 32)

    def make(b, x, z, *ys):
        total = z
        for y in ys:
            total = b.op("mul", b.op("add", total, z), b.op("tanh", b.contract(x, y, "ik,jk->ij")))
        return total

    cell = cell_of(make, (N, K), (N, M), *[(M, K)] * count)
    check(cell, lambda x: 0.3 * x)
    check(cell, lambda x: 0.3 * x, torch.float32, 2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("I, H", [(32, 48), (64, 64)])
def test_sums_along_the_lanes_of_weights(I, H, dtype):
    """Calls of few rows read weights where they lie; the rows are loops within those over blocks of sums."""
    layer = ostinato.compile(str(ZOO / "gru.ost"), schedule="sequential", dtype=dtype, I=I, H=H)
    x = torch.randn(3, 5, I, dtype=dtype)
    with torch.no_grad():
        ours, state = layer(x)
        torch.testing.assert_close(ours.double(), layer.reference(x)[0], rtol=1e-5, atol=1e-5)
        y, _ = layer.step(x[:, 0], state)
        torch.testing.assert_close(y.double(), layer.reference(x[:, :1], state=state)[0][:, 0], rtol=1e-5, atol=1e-5)


def test_an_update_by_a_large_product_is_part_of_the_steps():
    C, K, V = dim("C", 4), dim("K", 24), dim("V", 40)
    cell = cell_of(lambda b, x, y: b.contract(x, y, "ck,cv->kv"), (C, K), (C, V))
    (run,) = forward_kernel(lower(Canonicalise()(cell)).cell, "k").runs
    assert not run.before.phases
    assert any(g.dims == (C,) and p.shape == (K, V) for p in run.steps.phases for g in p.groups)
    check(cell)


SUMS = [
    (lambda b, one, two, z: b.op("add", b.op("add", z, one), two), 2),
    (lambda b, one, two, z: b.op("add", b.op("tanh", z), b.op("add", two, one)), 2),
    (lambda b, one, two, z: b.op("add", b.op("add", z, one), b.op("mul", two, one)), 0),         # one is used twice
    (lambda b, one, two, z: b.op("mul", b.op("add", z, one), two), 0),                            # a product of sums
    (lambda b, one, two, z: b.op("add", b.op("tanh", b.op("add", z, one)), two), 0),              # one: not a term
]


@pytest.mark.parametrize("make, count", SUMS)
def test_sums_that_are_only_added_share_an_accumulator(make, count):
    C, K, V = dim("C", 6), dim("K", 24), dim("V", 40)
    b = Builder()
    x, y, u, w, z = (b.read("input", f"x{i}", Type("real", s)) for i, s in enumerate(((C, K), (C, V)) * 2 + ((K, V),)))
    one, two = b.contract(x, y, "ck,cv->kv"), b.contract(u, w, "ck,cv->kv")
    end, nodes = make(b, one, two, z), {n.name: n for n in b.nodes}

    def of(*stored: str):
        stores = tuple(Store(n, f"out.{n}", ((0, 0), (1, 0)), (K, V)) for n in stored)
        return chains(Phase("step", "map", (K, V), (Group((C,), (one, two)),), stores, lane="par"), nodes, {})

    found = of(end)
    assert [len(sums) for sums, _ in found.values()] == [count] * (count > 0)
    assert all({*sums} == {one, two} and not {one, two} & {*rest} for sums, rest in found.values())
    assert not of(end, one)                     # what is stored is needed alone


@pytest.mark.skipif(jit.host()["vector_bits"] != 512, reason="blocks for 32 registers of 512 bits")
@pytest.mark.parametrize("name", ["rwkv7", "gla"])
def test_states_start_the_sums_of_their_updates(name):
    made = lower(load(ZOO / f"{name}.ost").cells[name].elaborate(K=64, V=64, N=2))
    e = build(lower(chunk(made.split, 8)), torch.float32)
    for run in e.keep.kernel.runs + e.back.kernel.runs:
        to = f"next.{run.states[0]}"
        (p,) = (p for p in run.steps.phases if any(s.buffer.endswith(to) for s in p.stores))
        ((sums, rest),) = chains(p, run.nodes, run.steps.reads).values()
        assert {*sums} == {*p.groups[0].nodes} and len(rest) == 1 and (p.unroll, p.vectors) == (4, 4)


@pytest.mark.parametrize("name", ["rwkv7", "gla", "gated_deltanet", "kda"])
def test_what_reads_an_old_state_comes_before_the_new_one(name):
    """One buffer is enough for the state, and for its cotangent."""
    made = lower(load(ZOO / f"{name}.ost").cells[name].elaborate(K=64, V=64, N=2))
    e = build(lower(chunk(made.split, 8)), torch.float32)
    for kernel in (e.keep.kernel, e.back.kernel):
        assert not any(run.doubled for run in kernel.runs)
        assert not any(b.name.endswith("next.d.S") for b in kernel.scratch)
