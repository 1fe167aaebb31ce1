"""Every zoo cell, at every stage, verifies and comes back from its printed form."""

from pathlib import Path

import pytest
from ostinato.compiler.pipeline import lower
from ostinato.ir.parser import parse_cell
from ostinato.ir.printer import print_cell
from ostinato.ir.verify import verify
from ostinato.runtime.files import declared_sizes
from ostinato.runtime.sources import elaborate

FILES = sorted((Path(__file__).parents[2] / "examples" / "zoo").glob("*.ost"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_round_trip(path):
    cell = elaborate(path, None, declared_sizes(path.read_text(encoding="utf-8"))).cell
    assert parse_cell(print_cell(cell)) == cell
    for part in lower(cell).parts:
        for stage, at in part.stages.items():
            assert parse_cell(print_cell(verify(at))) == at, stage
