"""Running a layer on NumPy arrays, for the command line."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .files import UsageError
from .layer import Layer
from .ports import arrange, fail

STATE = "state."


def run_arrays(layer: Layer, arrays: Mapping[str, np.ndarray], params: Mapping[str, object] | None,
               seed: int) -> dict[str, np.ndarray]:
    """`arrays`: inputs [B, T, *shape] and initial states [B, *shape] (as
    `state.NAME`) -> outputs, and final states as `state.NAME`. Arrays of other
    precision are cast; params are the module's state_dict. Raises OstinatoError
    or UsageError."""
    if params is not None:
        _load(layer, params)
    kinds = {p.name: p.dtype for p in layer._inputs} | {STATE + p.name: p.dtype for p in layer._states}
    given = {name: _tensor(name, x, kinds.get(name)) for name, x in arrays.items()}
    state = {k.removeprefix(STATE): x for k, x in given.items() if k.startswith(STATE)}
    inputs = {k: x for k, x in given.items() if not k.startswith(STATE)}
    with torch.no_grad():
        y, end = layer.eval()(*arrange(layer._inputs, (), inputs, layer.cell.name), state=state, seed=seed)
    outputs = dict(zip(layer.output_names, [y] if isinstance(y, Tensor) else y))
    return {k: x.numpy() for k, x in (outputs | {STATE + k: x for k, x in end.items()}).items()}


def _tensor(name: str, x: np.ndarray, dtype: torch.dtype | None) -> Tensor:
    if x.dtype.kind not in "fiubc" or x.dtype.itemsize > (16 if x.dtype.kind == "c" else 8):
        raise UsageError(f"{name}: an array of {x.dtype} cannot be read")
    found = torch.from_numpy(np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="))).reshape(x.shape))
    if dtype is None:
        return found
    same = found.is_floating_point() == dtype.is_floating_point and found.is_complex() == dtype.is_complex
    return found.to(dtype) if same or dtype.is_complex and found.is_floating_point() else found


def _load(layer: Layer, params: Mapping[str, object]) -> None:
    own = layer.state_dict()
    if missing := [k for k in own if k not in params]:
        fail("import_weights", reason=f"there is no {', '.join(missing)}")
    if unknown := [k for k in params if k not in own]:
        fail("import_weights", f"parameters are {', '.join(own) or 'none'}", reason=f"`{unknown[0]}` is no parameter")
    with torch.no_grad():
        for k, x in own.items():
            value = torch.as_tensor(params[k])
            if value.shape != x.shape:
                fail("import_weights", reason=f"`{k}` is {list(x.shape)} here and {list(value.shape)} in the file")
            x.copy_(value)
