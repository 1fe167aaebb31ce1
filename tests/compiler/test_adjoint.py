"""The adjoint against torch autograd of the interpreter."""

import pytest
from gradients import assert_adjoint
from handmade import CELLS
from ostinato.compiler.passes.adjoint import adjoint


@pytest.mark.parametrize("save", ["auto", "all", "none"])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_cells(name, save):
    cell = CELLS[name]()
    assert_adjoint(cell, adjoint(cell, save))
