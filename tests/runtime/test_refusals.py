"""A schedule that a cell does not have: the message says what of the cell it is, and which schedules the cell has."""

from __future__ import annotations

import ostinato
import pytest
from agreement import ZOO
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.runtime.files import declared_sizes

HAS = {
    ("s4", "quadratic"): ("the real and imaginary parts of h are multiplied by a matrix at every step",
                          '"sequential", "scan", "conv", "step"'),
    ("lstm", "chunk"): ("h, c: line 9: `sigmoid` of a value that depends on h", '"sequential", "step"'),
    ("lssl", "chunk"): ("h is multiplied by a matrix at every step", '"sequential", "scan", "diagonalize", "conv", "step"'),
    ("mamba", "conv"): ("the transition of h depends on the inputs: line 9",
                        '"sequential", "chunk", "scan", "quadratic", "step"'),
    ("gla", "conv"): ("the transition of S depends on the inputs: line 7", '"sequential", "chunk", "scan", "quadratic", "step"'),
    ("rwkv4", "diagonalize"): ("no state is multiplied by a constant matrix",
                               '"sequential", "chunk", "scan", "quadratic", "step"'),
    ("vim", "conv"): ("part 1 of 2, with the states `f.h`", '"sequential", "chunk", "scan", "quadratic", "step"'),
}


@pytest.mark.parametrize("name, schedule", HAS)
def test_what_and_what_instead(name, schedule):
    text = (ZOO / f"{name}.ost").read_text()
    with pytest.raises(OstinatoError) as refused:
        ostinato.compile(ZOO / f"{name}.ost", schedule=schedule, **declared_sizes(text))
    reason, others = HAS[name, schedule]
    assert reason in str(refused.value)
    assert f'it has {others}; "auto" chooses' in str(refused.value)
