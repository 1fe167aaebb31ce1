"""Weights of torch.nn.LSTM, GRU and RNN for a cell with the same mathematics.

Only a mapping of arrays by name and shape: `W` and `R` multiply the input and
the state, `b` and `br` are their biases. Several layers, or both directions, are
sub-cells in the module's order: each layer forwards, then backwards. Whether the cell then computes what
the module computes (gate order, activations, peepholes) is tried out, by the
interpreter, before anything is copied.
"""

from __future__ import annotations

import copy
from typing import NoReturn

import torch
from torch import Tensor, nn

from ..ir import interp
from ..ir.cell import Cell
from .ports import fail

SOURCES = {"W": "weight_ih", "R": "weight_hh", "b": "bias_ih", "br": "bias_hh"}
AGREE = 1e-9        # of float64 outputs of order 1


def matching_weights(cell: Cell, module: nn.Module) -> dict[str, Tensor]:
    """Values for the cell's parameters, in float64. Raises OstinatoError that says what does not fit."""
    if not isinstance(module, (nn.LSTM, nn.GRU, nn.RNN)):
        _refuse(f"{type(module).__name__} is none of torch.nn.LSTM, GRU and RNN")
    if module.proj_size:
        _refuse("the module projects its output (proj_size), which has no counterpart here")
    given = {name: x.detach().to("cpu", torch.float64) for name, x in module.named_parameters()}
    names = {p.name for p in cell.params}
    scopes = list(dict.fromkeys(p.name.rpartition(".")[0] for p in cell.params))
    ends = [f"_l{k}{way}" for k in range(module.num_layers) for way in ("", "_reverse")[:1 + module.bidirectional]]
    if len(scopes) != len(ends):
        _refuse(f"{type(module).__name__} has {module.num_layers} layers"
                f"{' in two directions' if module.bidirectional else ''}, `{cell.name}` {len(scopes)} sets of weights",
                "write one sub-cell per layer and direction, in the module's order")
    theirs = {f"{scope}.{ours}" if scope else ours: name + end for scope, end in zip(scopes, ends)
              for ours, name in SOURCES.items()}
    values = {ours: given[name] for ours, name in theirs.items() if name in given}
    if extra := names - set(theirs):
        _refuse(
            f"`{cell.name}` also has {', '.join(f'`{n}`' for n in sorted(extra))}, for which the module has nothing"
        )
    for name in sorted(names - set(values)):           # a module without biases
        values[name] = torch.zeros(cell.param(name).type.sizes, dtype=torch.float64)
    for scope in scopes if module.bias else ():
        b, br = (f"{scope}.{name}" if scope else name for name in ("b", "br"))
        if br not in names and b in names:
            values[b] = values[b] + values.pop(br)
    for name, x in values.items():
        if name not in names:
            _refuse(f"`{cell.name}` has no parameter `{name}` for the module's {theirs[name]}")
        declared = cell.param(name).type
        if tuple(x.shape) != declared.sizes:
            axes = ", ".join(f"{d.name}={d.size}" for d in declared.shape)
            _refuse(f"`{name}` is [{axes}] here and {list(x.shape)} in the module")
    _try_out(cell, module, values)
    return values


def _try_out(cell: Cell, module: nn.Module, values: dict[str, Tensor]) -> None:
    """Refuse unless cell and module agree on a short random sequence."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, module.input_size, generator=draw, dtype=torch.float64)
    if len(cell.inputs) != 1 or cell.inputs[0].type.sizes != (module.input_size,):
        _refuse(f"`{cell.name}` has other inputs than one vector of {module.input_size}")
    twin = copy.deepcopy(module).to("cpu", torch.float64)
    with torch.no_grad():
        expected, _ = twin(x if module.batch_first else x.transpose(0, 1))
        ours = interp.run(cell, {cell.inputs[0].name: x}, values).outputs[cell.outputs[0].name]
    if not module.batch_first:
        expected = expected.transpose(0, 1)
    if ours.shape != expected.shape or not (ours - expected).abs().max() <= AGREE:
        _refuse(f"with these weights `{cell.name}` does not compute what {type(module).__name__} computes",
                "gate order, activations and the place of the reset gate must be torch's")


def _refuse(reason: str, help: str | None = None) -> NoReturn:
    fail("import_weights", help, reason=reason)
