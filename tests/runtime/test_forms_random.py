"""Random affine cells of every structure in every form that they have: lanes, rows and columns, diagonal + low rank in
any order, several reads, coupled and chained states, dense transitions, semirings, restarts."""

from __future__ import annotations

import pytest
import torch
from affine_cells import affine_cells
from agreement import as_good_as_sequential, check, errors, executable, splits
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ostinato.ir.cell import Cell
from ostinato.runtime import forms
from ostinato.runtime.forms import auto

LENGTHS, SEEDS = st.integers(0, 40), st.integers(0, 10**6)
TINY = dict(max_examples=2, deadline=None, derandomize=True)
SLOW = dict(max_examples=25, deadline=None)
# most of these have chunks
CHUNKED = dict(dense=False, coupled=False)


def agrees(cell: Cell, schedule: str, T: int, seed: int, backend: str = "llvm") -> bool:
    """Whether the cell has the form; where it has, it agrees, in one call and in three."""
    try:
        executable(schedule, cell, backend=backend)
    except forms.Unsuitable:
        return False
    for n in (T, 17):
        check(schedule, cell, 2, n, seed=seed, backend=backend)
    check(schedule, cell, 2, T, seed=seed, backend=backend, pieces=splits(T, 3, seed))
    return True


@settings(max_examples=6, deadline=None, derandomize=True)
@given(cell=affine_cells(**CHUNKED), C=st.sampled_from((2, 5, 13, 24)), T=LENGTHS, seed=SEEDS)
def test_chunks_and_attention(cell, C, T, seed):
    agrees(cell, f"chunk({C})", T, seed, "interpreter")
    agrees(cell, "quadratic", T, seed)
    agrees(cell, "conv", T, seed)


@settings(**TINY)
@given(cell=affine_cells(**CHUNKED, max_blocks=1), T=LENGTHS, seed=SEEDS)
def test_compiled_chunks(cell, T, seed):
    assume(agrees(cell, "chunk(4)", T, seed))


@settings(**TINY)
@given(cell=affine_cells(max_blocks=1), P=st.sampled_from((2, 3, 8)), T=LENGTHS, seed=SEEDS)
def test_segments(cell, P, T, seed):
    assume(agrees(cell, f"scan({P})", T, seed))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(cell=affine_cells(large=True), C=st.sampled_from((2, 5, 8, 13, 24, 64)), T=st.integers(0, 150), seed=SEEDS)
def test_many_chunks(cell, C, T, seed):
    agrees(cell, f"chunk({C})", T, seed, "interpreter")
    agrees(cell, "quadratic", T, seed)
    agrees(cell, "conv", T, seed)


@pytest.mark.slow
@settings(**SLOW)
@given(cell=affine_cells(**CHUNKED, large=True), C=st.sampled_from((2, 5, 8, 13, 24)), T=LENGTHS, seed=SEEDS)
def test_many_compiled_chunks(cell, C, T, seed):
    assume(agrees(cell, f"chunk({C})", T, seed))


@pytest.mark.slow
@settings(**SLOW)
@given(cell=affine_cells(), P=st.integers(1, 9), T=LENGTHS, seed=SEEDS)
def test_many_segments(cell, P, T, seed):
    assume(agrees(cell, f"scan({P})", T, seed))


@pytest.mark.slow
@settings(**SLOW)
@given(cell=affine_cells(**CHUNKED, max_blocks=2, wide=True), T=LENGTHS, seed=SEEDS)
def test_what_is_chosen(cell, T, seed):
    assert agrees(cell, auto.choose(cell).schedule, T, seed)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(cell=affine_cells(max_blocks=2), schedule=st.sampled_from(("quadratic", "conv", "scan", "chunk(24)", "chunk(64)")),
       T=st.sampled_from((40, 130, 300)), seed=SEEDS)
def test_many_in_single_precision(cell, schedule, T, seed):
    try:
        executable(schedule, cell, torch.float32)
    except forms.Unsuitable:
        return
    seeds = range(seed, seed + 4)
    if all(e < 1e-3 for i in seeds for e in errors("sequential", cell, 2, T, i)):       # else roundings are amplified
        as_good_as_sequential(schedule, cell, 2, T, seeds)
