"""Generated cells through the whole pipeline, values and gradients."""

import pytest
from gradients import B, T, assert_adjoint, close
from hypothesis import given, settings
from ostinato.compiler.passes.adjoint import adjoint
from ostinato.compiler.pipeline import lower
from ostinato.ir import interp
from strategies import cells, draw_data

KNOBS = {"semirings": True, "linalg": True}


def check(cell, training):
    lowered = lower(cell)
    inputs, params, state = draw_data(cell, B, T)
    reads = {("param", k): v for k, v in params.items()}
    hoisted = interp.evaluate(lowered.static, reads=reads, types={n.name: n.type for n in lowered.static})
    params_left = {p.name: hoisted[p.name] if p.name in hoisted else params[p.name] for p in lowered.cell.params}
    want = interp.run(cell, inputs, params, state, training=training)
    got = interp.run(lowered.cell, inputs, params_left, state, training=training)
    for a, b in ((want.outputs, got.outputs), (want.state, got.state)):
        for name in a:
            close(b[name].double(), a[name].double(), name, 1e-10)
    assert_adjoint(lowered.cell, lowered.adjoint, (inputs, params_left, state), 1e-9, training)
    for save in ("all", "none"):
        assert_adjoint(lowered.cell, adjoint(lowered.cell, save), (inputs, params_left, state), 1e-9, training)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(cells(**KNOBS))
def test_generated_cells(cell):
    check(cell, training=len(cell.body) % 2 == 0)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(cells(**KNOBS))
def test_many_generated_cells(cell):
    check(cell, training=len(cell.body) % 2 == 0)
