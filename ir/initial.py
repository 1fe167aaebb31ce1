"""Initial values of a cell's parameters, by its init region."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .cell import Cell
from .errors import EvaluationError
from .evaluate import Context, evaluate
from .types import Type


def initial_params(cell: Cell, seed: int = 0, dtype: torch.dtype = torch.float64,
                   given: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Initial values of the parameters, [*shape] each, by the cell's init region.

    Drawn in float64, in the order of the region, then cast: the same for every
    dtype. `given`: values of the parameters without an initialiser; those not
    given are left out of the result. Raises EvaluationError if one is read.
    """
    kinds = {p.name: p.type.kind for p in cell.params}
    wide = Context({}, torch.float64)
    given = {k: v.to(wide.torch_dtype(kinds[k])) if v.is_floating_point() or v.is_complex() else v
             for k, v in (given or {}).items()}
    source = {p.name: p.init for p in cell.params if p.init is not None}
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    types: dict[str, Type] = {}

    class Drawn(dict):  # a `param` read in the region sees values computed earlier in it
        def __missing__(self, key):
            raise EvaluationError(f"no value given for param {key[1]}, which an initial value reads")

    reads = Drawn({("param", k): v for k, v in given.items()})
    for n in cell.init:
        for name, node in source.items():
            if node in values:
                reads.setdefault(("param", name), values[node])
        values = evaluate([n], values, reads=reads, types=types, generator=generator)
        types[n.name] = n.type
    out = {}
    for p in cell.params:
        v = given[p.name] if p.name in given else values.get(p.init)
        if v is not None:
            out[p.name] = v.to(Context({}, dtype).torch_dtype(p.type.kind)).clone()
    return out
