"""A schedule that a cell does not have: the message says what of the cell it is, and which schedules the cell has."""

from __future__ import annotations

import ostinato
import pytest
from agreement import ZOO
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.runtime.files import declared_sizes

HAS = {
    ("gateloop", "chunk"): ("the real and imaginary parts of S depend on each other, and a decay differs between channels",
                            '"sequential", "scan"'),
    ("lru", "quadratic"): ("the real and imaginary parts of h depend on each other at every step",
                           '"sequential", "scan", "conv"'),
    ("lstm", "chunk"): ("h, c: line 9: `sigmoid` of a value that depends on h", '"sequential"'),
    ("lssl", "chunk"): ("h is multiplied by a matrix at every step", '"sequential", "scan", "diagonalize", "conv"'),
    ("mamba", "chunk(64)"): ("no product of one of the rows and one of the columns (line 9)", '"sequential", "scan"'),
    ("mesa", "chunk"): ("the output o needs every element of a matrix state: a product of two matrices that depend on "
                        "states (line 10)", '"sequential", "scan"'),
    ("gla", "conv"): ("the transition of S depends on the inputs: line 7", '"sequential", "chunk", "scan", "quadratic"'),
    ("rwkv4", "diagonalize"): ("no state is multiplied by a constant matrix",
                               '"sequential", "chunk", "scan", "quadratic"'),
    ("vim", "chunk"): ("part 1 of 2, with the states `f.h`", '"sequential", "scan"'),
}


@pytest.mark.parametrize("name, schedule", HAS)
def test_what_and_what_instead(name, schedule):
    text = (ZOO / f"{name}.ost").read_text()
    with pytest.raises(OstinatoError) as refused:
        ostinato.compile(ZOO / f"{name}.ost", schedule=schedule, **declared_sizes(text))
    reason, others = HAS[name, schedule]
    assert reason in str(refused.value)
    assert f'it has {others}; "auto" chooses' in str(refused.value)
