"""Comparing every schedule that a cell has, on every back end, with the interpreter: outputs, final
states, and the gradients of inputs, parameters and initial states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

from .. import backends
from ..frontend.diagnostics import OstinatoError, did_you_mean
from ..frontend.errors import CATALOGUE
from ..ir import interp
from ..ir.cell import Cell
from . import forms
from .layer import Layer
from .ports import fail, given_values
from .sample import sample_inputs

SHAPES = ((2, 7), (1, 1), (3, 33))      # (B, T)
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-9}
FEW = 4.0                               # times the errors of the interpreter itself in that precision
NEARBY = 8                              # further runs of it, at inputs that differ by a rounding
SEED = 11                               # of the draws inside cells
SEQUENTIAL = "sequential"
REFUSALS = tuple(CATALOGUE[name].code for name in ("unsuitable_schedule", "ill_conditioned", "too_long"))
SCHEDULES = tuple("chunk(16)" if name == "chunk" else name for name in forms.MODULES)   # whole chunks occur in SHAPES


@dataclass(frozen=True, slots=True)
class Row:
    """The largest errors of one schedule on one back end, relative to the largest value of each tensor; `ok` is None
    where the back end cannot run the cell at all. `note`: why there are no errors to compare. `rounding`: the errors
    that the interpreter itself has in that precision (0 in float64), forward and backward."""

    cell: str
    schedule: str
    backend: str
    dtype: str
    forward: float
    backward: float
    ok: bool | None
    note: str = ""
    rounding: tuple[float, float] = (0.0, 0.0)

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Unsuitable:
    """A schedule that a cell does not have, and why. No error: the cell runs by another one."""

    cell: str
    schedule: str
    backend: str
    dtype: str
    reason: str

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Case:
    """One run to compare. Values are float64 of the precision under test, so
    that rounding the data is not counted as an error."""

    inputs: dict[str, Tensor]
    params: dict[str, Tensor]
    state: dict[str, Tensor]            # empty: as declared
    training: bool = True


Found = tuple[dict[str, Tensor], dict[str, Tensor]]      # values, gradients


def verify_cell(cell: Cell, *, values: Mapping[str, Tensor] | None = None, shapes: Sequence[tuple[int, int]] = SHAPES,
                dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64), seed: int = 0,
                names: Sequence[str] | None = None, schedules: Sequence[str] = SCHEDULES,
                tolerance: float | None = None) -> tuple[list[Row], list[Unsuitable]]:
    """One row for each back end (`names`: which; by default all but the
    interpreter, unless there is no other), each of `schedules` that the cell has, and dtype;
    and the schedules that it does not have. `values`: for
    parameters without an initial value. The first shape starts from the
    declared initial state, the others from a state that the cell has reached.

    A row is right where its errors are within `tolerance`. Without one, they have to be within `TOLERANCE` or `FEW`
    times the errors that the interpreter itself has in that precision at the same inputs: what a cell amplifies is no
    fault of its kernels. One run of a cell that amplifies a lot may be lucky by orders of magnitude, so what is worse
    than that is compared with the worst of runs at inputs nearby, too (`NEARBY`). A schedule that refuses a cell
    (`REFUSALS`) is unsuitable; any other error is a failure."""
    found = [n for n in backends.available() if n != "interpreter"] or ["interpreter"]
    rows: list[Row] = []
    unsuitable: dict[tuple[str, str], Unsuitable] = {}
    for dtype in dtypes:
        cases = _cases(cell, values or {}, shapes, dtype, seed)
        references = [_reference(cell, case, torch.float64) for case in cases]
        rounding = _Rounding(cell, cases, references, dtype)
        for backend in names or found:
            for schedule in schedules:
                if (backend, schedule) in unsuitable:
                    continue
                row = _row(cell, backend, schedule, dtype, values, cases, references, rounding, tolerance)
                if isinstance(row, Row):
                    rows.append(row)
                else:
                    unsuitable[backend, schedule] = row
    return rows, list(unsuitable.values())


def _row(cell, backend, schedule, dtype, values, cases, references, rounding, tolerance) -> Row | Unsuitable:
    name = str(dtype).removeprefix("torch.")
    try:
        layer = Layer.from_cell(cell, backend=backend, schedule=schedule, dtype=dtype, values=values)
        errors = [tuple(map(_error, _compiled(layer, case), reference)) for case, reference in zip(cases, references)]
    except OstinatoError as refusal:
        first = refusal.diagnostics[0]
        if schedule != SEQUENTIAL and first.code in REFUSALS:
            reason = first.message.partition(f"no schedule `{schedule}`: ")[2] or first.message
            return Unsuitable(cell.name, schedule, backend, name, reason)
        return Row(cell.name, schedule, backend, name, 0.0, 0.0, None if schedule == SEQUENTIAL else False,
                   str(refusal).splitlines()[0])
    found = tuple(max(e) for e in zip(*errors))
    if tolerance is not None:
        return Row(cell.name, schedule, backend, name, *found, max(found) <= tolerance, rounding=rounding.here)
    for nearby in (False, True):        # these runs take time, and are not asked for without need
        errors = rounding.nearby if nearby else rounding.here
        if ok := all(e <= max(TOLERANCE[dtype], FEW * x) for e, x in zip(found, errors)):
            break
    return Row(cell.name, schedule, backend, name, *found, ok, rounding=errors)


class _Rounding:
    """The errors of the interpreter in `dtype`, forward and backward; 0 in float64, and where they are not finite, as
    where a rounded value falls on the other side of a threshold."""

    def __init__(self, cell: Cell, cases: Sequence[Case], references: Sequence[Found], dtype: torch.dtype):
        self.cell, self.cases, self.references, self.dtype = cell, cases, references, dtype

    @cached_property
    def here(self) -> tuple[float, float]:
        return self._errors(self.cases)

    @cached_property
    def nearby(self) -> tuple[float, float]:
        """The largest, also with every number moved by a rounding, up or down."""
        found = [self.here]
        for i in range(NEARBY):
            g = torch.Generator().manual_seed(i)
            found.append(self._errors([Case(*({k: self._moved(x, g) for k, x in xs.items()} for xs in (
                case.inputs, case.params, case.state)), case.training) for case in self.cases]))
        return tuple(map(max, zip(*found)))

    def _moved(self, x: Tensor, g: torch.Generator) -> Tensor:
        if not _continuous(x):
            return x
        step = torch.finfo(self.dtype).eps * (2 * torch.randint(2, x.shape, generator=g) - 1)
        return _cast(_cast(x * (1 + step), self.dtype), torch.float64)

    def _errors(self, cases: Sequence[Case]) -> tuple[float, float]:
        if self.dtype == torch.float64:
            return 0.0, 0.0
        pairs = ((_reference(self.cell, case, self.dtype), known) for case, known in zip(cases, self.references))
        errors = [tuple(map(_error, *pair)) for pair in pairs]
        return tuple(x if math.isfinite(x) else 0.0 for x in map(max, zip(*errors)))


def _cases(cell: Cell, values: Mapping[str, Tensor], shapes, dtype: torch.dtype, seed: int) -> list[Case]:
    def rounded(xs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k: _cast(_cast(x, dtype), torch.float64) for k, x in xs.items()}

    params = rounded(interp.initial_params(cell, seed, given=given_values(cell, values)))
    cases = []
    for i, (B, T) in enumerate(shapes):
        inputs, state = rounded(sample_inputs(cell, B, T, seed + i)), {}
        if i:  # where an earlier sequence ended
            before = sample_inputs(cell, B, 5, seed + 100 + i)
            state = rounded(interp.run(cell, before, params, seed=SEED).state)
        cases.append(Case(inputs, params, state))
    return cases


def _leaves(*groups: Mapping[str, Tensor], dtype: torch.dtype) -> list[dict[str, Tensor]]:
    return [{k: _cast(x.detach(), dtype).requires_grad_() if _continuous(x) else x for k, x in g.items()}
            for g in groups]


def _continuous(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Reals to `dtype`, complex values to the complex dtype of that precision."""
    return x.to(dtype.to_complex() if x.is_complex() else dtype) if _continuous(x) else x


def _reference(cell: Cell, case: Case, dtype: torch.dtype) -> Found:
    inputs, params, state = _leaves(case.inputs, case.params, case.state, dtype=dtype)
    r = interp.run(cell, inputs, params, state, seed=SEED, training=case.training, dtype=dtype)
    trained = {p.name: params[p.name] for p in cell.params if p.trainable}
    return _gradients(r.outputs, r.state, {"input": inputs, "param": trained, "state": state})


def _compiled(layer: Layer, case: Case) -> Found:
    inputs, state = _leaves(case.inputs, case.state, dtype=layer._dtype)
    params = dict(zip((p.name for p in layer.cell.params), layer._params()))
    with torch.no_grad():
        for name, x in params.items():
            x.copy_(case.params[name])
    y, end = layer.train(case.training)(*(inputs[name] for name in layer.input_names), state=state, seed=SEED)
    outputs = dict(zip(layer.output_names, [y] if isinstance(y, Tensor) else y))
    trained = {name: x for name, x in params.items() if x.requires_grad}
    return _gradients(outputs, end, {"input": inputs, "param": trained, "state": state})


def _gradients(outputs: Mapping[str, Tensor], state: Mapping[str, Tensor],
               leaves: Mapping[str, Mapping[str, Tensor]]) -> Found:
    """Values, and gradients for a fixed random cotangent of every real value."""
    values = {f"output {k}": x for k, x in outputs.items()} | {f"state {k}": x for k, x in state.items()}
    generator = torch.Generator().manual_seed(1)
    ends = [(x, torch.randn(x.shape, generator=generator, dtype=torch.complex128 if x.is_complex() else torch.float64)
             .to(x.dtype)) for x in values.values() if _continuous(x)]
    ends = [(x, d) for x, d in ends if x.requires_grad]
    wanted = {f"{role} {k}": x for role, group in leaves.items() for k, x in group.items() if x.requires_grad}
    found = [None] * len(wanted)
    if ends and wanted:
        found = torch.autograd.grad([x for x, _ in ends], list(wanted.values()), [d for _, d in ends],
                                    allow_unused=True)
    gradients = {k: torch.zeros_like(x) if g is None else g for (k, x), g in zip(wanted.items(), found)}
    return {k: x.detach() for k, x in values.items()}, gradients


def _error(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The largest |a - b| over the largest |b|, tensor by tensor; a tensor much
    smaller than the others is measured by a thousandth of theirs."""
    scale = max((_size(x) for x in theirs.values()), default=0.0)
    return max((_difference(ours[k].to(x.dtype), x, scale) for k, x in theirs.items()), default=0.0)


def _difference(a: Tensor, b: Tensor, scale: float) -> float:
    if a.shape != b.shape:
        return torch.inf
    if b.is_complex():
        return _difference(torch.view_as_real(a), torch.view_as_real(b), scale)
    if not b.is_floating_point():
        return 0.0 if torch.equal(a, b) else torch.inf
    special = ~torch.isfinite(b)
    if not torch.equal(torch.nan_to_num(a[special], 0.5), torch.nan_to_num(b[special], 0.5)):
        return torch.inf
    worst = float((a - b)[~special].abs().max()) if bool((~special).any()) else 0.0
    if worst == 0.0:
        return 0.0
    return torch.inf if math.isnan(worst) else worst / max(_size(b), 1e-3 * scale, 1e-30)


def _size(x: Tensor) -> float:
    if x.is_complex():
        return _size(torch.view_as_real(x))
    finite = x[torch.isfinite(x)] if x.is_floating_point() else x[:0]
    return float(finite.abs().max()) if finite.numel() else 0.0


def check_backends(names: Sequence[str]) -> None:
    """Raise OstinatoError for a back end that does not exist or is not here."""
    for name in names:
        if name not in backends.NAMES:
            fail("unknown_backend", did_you_mean(name, backends.NAMES), name=name, backends=", ".join(backends.NAMES))
        if name not in backends.available():
            fail("backend_unavailable", name=name, reason="it is not part of this version")
