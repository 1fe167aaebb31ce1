"""The whole pipeline: what it gives verifies, prints, and means the same."""

import pytest
from gradients import assert_adjoint, initial, values
from handmade import CELLS
from ostinato.compiler.pipeline import STAGES, lower
from ostinato.ir import interp


@pytest.mark.parametrize("name", CELLS)
def test_lowered_cells_mean_the_same(name):
    cell = CELLS[name]()
    lowered = lower(cell)
    inputs, params, _ = values(cell)
    state = initial(cell, params)
    hoisted = interp.evaluate(lowered.static, reads={("param", k): v for k, v in params.items()},
                              types={n.name: n.type for n in lowered.static})
    given = {p.name: hoisted.get(p.name, params.get(p.name)) for p in lowered.cell.params}
    assert_adjoint(lowered.cell, lowered.adjoint, (inputs, given, state))
    want, got = interp.run(cell, inputs, params, state), interp.run(lowered.cell, inputs, given, state)
    for o in want.outputs:
        assert (want.outputs[o] == got.outputs[o]).all() or (want.outputs[o] - got.outputs[o]).abs().max() < 1e-12


@pytest.mark.parametrize("name", CELLS)
def test_stages_print(name):
    lowered = lower(CELLS[name]())
    assert list(lowered.stages) == list(STAGES)
    assert all(lowered.ir(stage) for stage in STAGES)
    assert lowered.ir("llvm") is None


def test_forward_only_use_does_not_make_the_adjoint():
    lowered = lower(CELLS["lstm"]())
    assert "MakeAdjoint" not in dict(lowered.run.seconds)
    assert lowered.adjoint is lowered.adjoint
    assert [name for name, _ in lowered.run.seconds].count("MakeAdjoint") == 1
