"""Every cell of the zoo through the pipeline: values and gradients."""

from pathlib import Path

import ostinato
import pytest
import torch
from gradients import B, T, assert_adjoint, close
from ostinato.compiler.analysis.ranges import from_facts
from ostinato.compiler.passes.realify import realify
from ostinato.compiler.pipeline import lower
from ostinato.ir import interp
from strategies import draw_data

ZOO = sorted((Path(__file__).parents[2] / "examples" / "zoo").glob("*.ost"))
SIZES = {"I": 3, "H": 4, "D": 3, "K": 3, "V": 2, "N": 2, "M": 3, "R": 2, "n": 2, "S": 3}


def elaborate(path):
    *_, cell = ostinato.load(path).cells.values()
    sizes = {name: SIZES[name] for name in cell.header if name in SIZES}
    return cell.elaborate(**sizes, **({"N": 2} if "heads N" in path.read_text() and "N" not in sizes else {}))


def within_facts(x, facts):
    """Values moved into the interval that the program declares."""
    low, high = from_facts(facts)
    match low > float("-inf"), high < float("inf"):
        case True, True:
            return low + (high - low) * torch.sigmoid(x)
        case True, False:
            return low + x.abs()
        case False, True:
            return high - x.abs()
    return x


@pytest.mark.parametrize("path", ZOO, ids=lambda p: p.stem)
def test_zoo_cell(path):
    cell = realify(elaborate(path))
    lowered = lower(cell)
    inputs, params, _ = draw_data(cell, B, T)
    inputs = {p.name: within_facts(inputs[p.name], p.facts) for p in cell.inputs}
    hoisted = interp.evaluate(lowered.static, reads={("param", k): v for k, v in params.items()},
                              types={n.name: n.type for n in lowered.static})
    given = {p.name: hoisted[p.name] if p.name in hoisted else params[p.name] for p in lowered.cell.params}
    start = interp.run(cell, {k: x[:, :0] for k, x in inputs.items()}, params).state
    want, got = interp.run(cell, inputs, params, start), interp.run(lowered.cell, inputs, given, start)
    for name in want.outputs:
        close(got.outputs[name].double(), want.outputs[name].double(), name, 1e-10)
    for part in lowered.parts:      # of both directions: one after the other
        ports = (part.cell.inputs, inputs), (part.cell.params, given), (part.cell.states, start)
        own = [{p.name: values[p.name] for p in some} for some, values in ports]
        assert_adjoint(part.cell, part.adjoint, own, 1e-8)
        inputs = inputs | interp.run(part.cell, *own).outputs
