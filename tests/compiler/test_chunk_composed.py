"""Chunks of more steps than roundings allow are made of shorter ones."""

from __future__ import annotations

import pytest
from agreement import check
from gradients import assert_adjoint
from ostinato.compiler.passes.adjoint import adjoint
from ostinato.compiler.passes.chunk import Unchunkable, chunk, derive
from ostinato.compiler.passes.chunk.composed import MOST, parts
from ostinato.ir.types import STEPS
from ostinato.ir.verify import verify
from test_chunk import zoo

SHORT = ["deltanet", "gated_deltanet", "kda", "rwkv7", "comba", "deltaproduct", "titans_linear", "fast_weights", "gateloop"]
LONG = ["linear_attention", "gla", "gsa", "mlstm", "aaren", "mingru", "retnet", "lru"]


@pytest.mark.parametrize("C", [2, 15, 16, 17, 31, 32, 33, 40, 64, 100, 128])
def test_parts(C):
    sizes = [d.size for d in parts(C)]
    assert sum(sizes) == C and len(sizes) == -(-C // MOST)
    assert min(sizes) >= 2 and max(sizes) - min(sizes) <= 1
    assert (len(sizes) == 1) == ([d.name for d in parts(C)] == [STEPS])


@pytest.mark.parametrize("name", SHORT)
def test_what_cancels_is_in_parts(name):
    assert derive(zoo(name), 16).parts == (16,)
    made = derive(zoo(name), 40)
    assert made.cancels and made.parts == (14, 13, 13)
    verify(made.cell)
    assert [p.type.shape for p in made.cell.inputs] == [p.type.shape for p in derive(zoo(name), 40, in_parts=False).cell.inputs]


@pytest.mark.parametrize("name", LONG)
def test_what_does_not_is_whole(name):
    made = derive(zoo(name), 40)
    assert not made.cancels and made.parts == (40,)


@pytest.mark.parametrize("name", SHORT)
def test_there_are_not_too_many_parts(name):
    assert len(derive(zoo(name), 128).parts) == 8
    with pytest.raises(Unchunkable, match=r"ask for chunk\(128\) or less"):
        derive(zoo(name), 129)
    assert derive(zoo(name), 200, in_parts=False).parts == (200,)
    assert derive(zoo("gla"), 200).parts == (200,)


@pytest.mark.parametrize("name", ["deltanet", "kda", "deltaproduct", "gateloop"])
@pytest.mark.parametrize("C", [17, 33, 40])
def test_values_and_gradients(name, C):
    for T in (0, 1, C - 1, C, C + 1, 2 * C + 3):
        check(f"chunk({C})", name, 2, T, backend="interpreter")


def test_the_adjoint():
    cell = chunk(zoo("gated_deltanet"), 19)
    assert_adjoint(cell, adjoint(cell))


def test_compiled():
    for T in (16, 17, 40):
        check("chunk(17)", "gated_deltanet", 2, T)
