"""Cells elaborated for tests: random data, outputs by the interpreter, messages of errors."""

from pathlib import Path

import pytest
import torch
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.frontend.load import load
from ostinato.ir.interp import initial_params, run
from ostinato.ir.verify import verify

CELLS = Path(__file__).parent / "frontend" / "cells"
B, T = 2, 5


def sizes(cell, first=3):
    """Distinct sizes; a multiple for the outer heads of grouped ones."""
    out = {p.name: first + i for i, p in enumerate(cell.item.header) if p.value is None}
    if {"H", "HV"} <= out.keys():
        out["HV"] = 2 * out["H"]
    return out


def given(cell, seed=0):
    g = torch.Generator().manual_seed(seed)
    rand = lambda *s: torch.rand(s, generator=g, dtype=torch.float64) - 0.5
    inputs = {i.name: rand(B, T, *i.type.sizes) if i.type.kind == "real" else
              torch.randint(0, 3, (B, T, *i.type.sizes), generator=g) for i in cell.inputs}
    params = initial_params(cell, 1)
    params = {k: v + 0.3 * rand(*v.shape) for k, v in params.items()}
    return inputs, params


def cell_of(source, name=None, **dims):
    cell = load(source).cell(name).elaborate(**dims)
    return verify(cell)


def outputs(source, inputs=None, params=None, name=None, steps=None, **dims):
    cell = cell_of(source, name, **dims)
    if inputs is None:
        inputs, drawn = given(cell)
        params = drawn if params is None else params
    return cell, inputs, params, run(cell, inputs, params or {}, steps=steps, batch=B if not inputs else None).outputs


def design(name):
    return str(CELLS / f"{name}.ost")


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def errors(source, **dims):
    with pytest.raises(OstinatoError) as e:
        program = load(source)
        program.cell().elaborate(**dims)
    assert str(e.value)
    return [d.message for d in e.value.diagnostics]
