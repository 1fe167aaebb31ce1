"""Parts that go over a tile step by step: which they are, what takes the room of one step, and that results agree."""

from __future__ import annotations

import pytest
from agreement import check, executable
from ostinato.compiler.schedules.kernel import Kernel
from ostinato.compiler.schedules.leaves import uses
from ostinato.compiler.schedules.printer import print_kernel


def kernels(name: str, schedule: str, **sizes: int) -> list[Kernel]:
    """Forward and back."""
    e = executable(schedule, name, **sizes)
    e = getattr(e, "chunks", e)
    e = getattr(e, "inner", e)
    return [e.keep.kernel, e.back.kernel]


@pytest.mark.parametrize("name, schedule, sizes, large", [
    ("rwkv7", "chunk(8)", dict(K=64, V=64), True), ("gla", "chunk(8)", dict(K=64, V=64), True),
    ("rwkv7", "chunk(8)", dict(K=4, V=4), False), ("lstm", "sequential", dict(I=800, H=800), False)])
def test_large_parts_without_weights(name, schedule, sizes, large):
    for kernel in kernels(name, schedule, **sizes):
        parts = [p for r in kernel.runs for p in (r.before, r.after)]
        assert any(p.stepwise for p in parts) == large == ("step by step" in print_kernel(kernel))
        assert all((p.domain == "step") == part.stepwise for part in parts for p in part.phases)


def test_what_several_parts_use_is_kept_for_the_tile():
    for kernel in kernels("rwkv7", "chunk(8)", K=64, V=64):
        space, users = {b.name: b.space for b in kernel.scratch}, {}
        for run in kernel.runs:
            for part in run.parts:
                for p in part.phases:
                    for b in uses(p, run.nodes, part.reads) | {s.buffer for s in p.stores}:
                        users.setdefault(b, []).append(part)
        alone = {b for b, at in users.items() if all(p is at[0] for p in at) and at[0].stepwise and b in space}
        assert alone and all(space[b] == "step" for b in alone)
        shared = {b for b, at in users.items() if any(p is not at[0] for p in at) and b in space}
        assert any(space[b] == "tile" for b in shared) and not any(space[b] == "step" for b in shared)


@pytest.mark.parametrize("name, K, V", [("rwkv7", 60, 100), ("gla", 130, 70), ("gated_deltanet", 64, 64)])
def test_results(name, K, V):
    check("chunk(8)", name, 2, 83, K=K, V=V)
