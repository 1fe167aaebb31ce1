"""Products of matrices that vary from step to step: sums along the lanes side by side, updates of matrix states."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ostinato.compiler.passes.canonicalise import Canonicalise
from ostinato.compiler.pipeline import lower
from ostinato.compiler.schedules.build import forward_kernel
from test_whole import cell_of, check, dim


@pytest.mark.parametrize("n, m, k", [(1, 16, 16), (3, 8, 32), (5, 12, 24), (2, 32, 8), (4, 4, 64), (6, 7, 16), (2, 16, 5)])
def test_sums_along_the_lanes(n, m, k):
    N, M, K = dim("N", n), dim("M", m), dim("K", k)

    def make(b, x, y, z):
        one, two = (b.contract(x, v, "ik,jk->ij") for v in (y, z))
        return b.op("add", b.op("mul", one, two), b.op("tanh", two))

    check(cell_of(make, (N, K), (M, K), (M, K)), lambda x: 0.3 * x)
    check(cell_of(lambda b, x, y: b.op("exp", b.contract(x, y, "ik,jk->ij")), (N, K), (M, K)), lambda x: 0.2 * x)


def test_an_update_by_a_large_product_is_part_of_the_steps():
    C, K, V = dim("C", 4), dim("K", 24), dim("V", 40)
    cell = cell_of(lambda b, x, y: b.contract(x, y, "ck,cv->kv"), (C, K), (C, V))
    (run,) = forward_kernel(lower(Canonicalise()(cell)).cell, "k").runs
    assert not run.before.phases
    assert any(g.dims == (C,) and p.shape == (K, V) for p in run.steps.phases for g in p.groups)
    check(cell)
