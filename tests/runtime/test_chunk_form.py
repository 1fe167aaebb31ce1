"""schedule="chunk" in a module: default size, single precision, tape, refusals. See also test_forms_agree."""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import ZOO, as_good_as_sequential, check
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.runtime.files import declared_sizes


def compiled(name: str, schedule: str, **options):
    file = ZOO / f"{name}.ost"
    return ostinato.compile(str(file), schedule=schedule, dtype=torch.float64,
                            **(declared_sizes(file.read_text()) | options))


def test_default_size_and_odd_sizes():
    assert "chunk(16)" in compiled("gla", "chunk").explain()
    check("chunk(16)", "gla", 2, 37, tolerance=1e-10, K=20, V=12, N=3)


@pytest.mark.parametrize("T", [0, 3, 64, 65])
def test_lengths(T):
    check("chunk(16)", "deltanet", 2, T, tolerance=1e-10)


def test_single_precision():
    as_good_as_sequential("chunk(16)", "gated_deltanet", 2, 70, K=16, V=16)


def test_refused_with_a_reason():
    with pytest.raises(OstinatoError, match="no schedule"):
        compiled("lstm", "chunk(16)")
    with pytest.raises(OstinatoError, match="chunk"):
        compiled("gla", "chunk(0)")
