"""Sequences as they come in practice: what the arguments `reset`, `lengths`, `padding`, `cu_seqlens` and `reverse`
of a call mean.

A mask becomes an input of the cell (`passes.masked`), so schedules and gradients follow from the cell as always; the
plan of a masked cell is made when it is first needed and kept. `reverse` is a cell that runs backwards, or where the
schedule has no such thing inputs and outputs turned around. Packed sequences are in `packed`. `Sequences.run` is
written once for anything that runs a cell over [B, T, *shape].
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.passes.masked import Masked
from ..ir import interp
from ..ir.cell import Cell
from . import direct, forms, packed, plan
from .ports import Port, check_state, fail
from .recur import draws, operator

ARGUMENTS = ("reset", "lengths", "padding", "cu_seqlens", "reverse")
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
Run = Callable[[list[Tensor], Sequence[Tensor]], list[Tensor]]


@dataclass(frozen=True, slots=True)
class Sequences:
    """What a call says about its sequences."""

    reset: Tensor | None = None         # [B, T] bool
    lengths: Tensor | None = None       # [B] int
    padding: str | None = None          # with lengths: "right" (as None) or "left"
    cu_seqlens: Tensor | None = None    # [n + 1] int
    reverse: bool = False

    @property
    def resets(self) -> list[Tensor]:
        """`reset` as further inputs."""
        return [] if self.reset is None else [self.reset]

    def count(self, B: int) -> int:
        """The number of sequences, each with states of its own."""
        return B if self.cu_seqlens is None else self.cu_seqlens.shape[0] - 1

    def change(self, schedule: str) -> tuple[bool, bool, bool]:
        """How the cell changes (see `Masked`) for a schedule."""
        return (self.reset is not None, self.lengths is not None or self.cu_seqlens is not None,
                self.reverse and self.cu_seqlens is None and schedule in forms.BACKWARDS)

    def plan(self, own: plan.Plan, auto: bool = False) -> plan.Plan:
        """The plan that runs it, given that of the cell as it is; `auto`: its schedule was not asked for."""
        reset, valid, _ = self.change(own.schedule)
        schedule = _schedule(own.key, reset, valid) if auto and (reset or valid) else own.schedule
        change = self.change(schedule)
        return plan.find(_masked(own.key, *change, schedule)) if any(change) else own

    def check(self, B: int, T: int, device: torch.device) -> None:
        """Shapes and dtypes, for inputs [B, T, *shape]. Raises OstinatoError, naming the argument."""
        if self.reset is not None:
            _check("reset", self.reset, (torch.bool,), (B, T), f"a bool tensor [B={B}, T={T}]", device)
        if not isinstance(self.reverse, bool):
            _wrong("reverse", "True or False", repr(self.reverse))
        if self.padding not in (None, "right", "left"):
            _wrong("padding", '"right" or "left"', repr(self.padding))
        if self.padding is not None and self.lengths is None:
            _wrong("padding", "given together with lengths", "it without them")
        if self.lengths is not None:
            if self.cu_seqlens is not None:
                _wrong("lengths", "left out where cu_seqlens is given", "both")
            _check("lengths", self.lengths, INTEGERS, (B,), f"an int tensor [B={B}]", device)
        if self.cu_seqlens is not None:
            if B != 1:
                _wrong("cu_seqlens", "given with inputs [1, total, ...]", f"inputs with B={B}")
            if isinstance(self.cu_seqlens, Tensor) and not self.cu_seqlens.numel():
                _wrong("cu_seqlens", "cumulative starts, from 0 to the number of steps", "an empty tensor")
            _check("cu_seqlens", self.cu_seqlens, INTEGERS, (None,), "an int tensor [n+1]", device)

    def run(self, call: Run, xs: list[Tensor], states: Sequence[Tensor], n_out: int, *, turn: bool,
            together: bool) -> list[Tensor]:
        """Outputs, then final states. `call` runs the changed cell on inputs [B, T, *shape] (masks last) and states to
        the same. `turn`: backwards is for this function to do. `together`: packed sequences stay in one batch, in
        their order."""
        xs = [*xs, *self.resets]
        if self.cu_seqlens is not None:
            return packed.run(call, xs, states, n_out, self.cu_seqlens, reverse=self.reverse, together=together)
        xs = self._masked(xs)
        if not turn:
            return call(xs, states)
        found = call([x.flip(1) for x in xs], states)
        return [*(y.flip(1) for y in found[:n_out]), *found[n_out:]]

    def _masked(self, xs: list[Tensor]) -> list[Tensor]:
        if self.lengths is None:
            return xs
        return [*xs, torch.ops.ostinato.valid(self.lengths, xs[0].shape[1], self.padding == "left")]


def take(named: dict[str, object], inputs: Collection[str]) -> Sequences | None:
    """Removes the arguments of `ARGUMENTS` that are given from `named`; None if nothing is said with them. A name that
    the program gives to an input means that input."""
    given = {k: named.pop(k) for k in ARGUMENTS if k in named and k not in inputs}
    if not any(v is not None and v is not False for v in given.values()):
        return None
    return Sequences(**{k: v for k, v in given.items() if v is not None})


def call(spec: Sequences, own: plan.Plan, groups: direct.Lists, seed: Tensor | None, training: bool,
         keep: bool) -> list[Tensor]:
    """Outputs [B, T, *shape], then final states, by the plan that `spec.plan` gave."""
    xs, params, states = groups
    further = len(own.state_meta) - len(states)     # carried by the mask (see `Masked`), and nobody's result
    states = [*states, *(xs[0].new_zeros(spec.count(xs[0].shape[0]), dtype=torch.bool) for _ in range(further))]
    if spec.cu_seqlens is not None:
        groups = [*xs, *spec.resets], params, states
        return packed.call(own.key, groups, spec.cu_seqlens, seed, training, spec.reverse, keep)
    turn = spec.reverse and not spec.change(own.schedule)[2]
    groups = xs, params, states
    return spec.run(lambda x, s: direct.call(own, (x, params, s), seed, training, keep), xs, states,
                    len(own.output_meta), turn=turn, together=False)


def interpret(spec: Sequences, cell: Cell, xs: list[Tensor], params: Sequence[Tensor], state: Mapping[str, Tensor],
              seed: int, training: bool) -> list[Tensor]:
    """The same by the interpreter, in float64, from the states given."""
    cell = Masked(*spec.change("sequential"))(cell)
    own = {p.name: x for p, x in zip(cell.params, params)}

    def step_by_step(xs: list[Tensor], states: Sequence[Tensor]) -> list[Tensor]:
        r = interp.run(cell, {p.name: x for p, x in zip(cell.inputs, xs)}, own, dict(zip(state, states)), seed=seed,
                       training=training)
        return [*(r.outputs[o.name] for o in cell.outputs), *(r.state[s.name] for s in cell.states)]

    return spec.run(step_by_step, xs, list(state.values()), len(cell.outputs), turn=False, together=draws(cell))


def restarted(spec: Sequences, ports: Sequence[Port], state: Mapping[str, Tensor], start: Sequence[Tensor], B: int,
              device: torch.device) -> dict[str, Tensor]:
    """The states [B, *shape] before one step: the declared ones where `reset` [B] is true. Raises OstinatoError for
    other arguments."""
    for name in ARGUMENTS[1:]:
        if (given := getattr(spec, name)) is not None and given is not False:
            _wrong(name, "left out of a single step", "it")
    _check("reset", spec.reset, (torch.bool,), (B,), f"a bool tensor [B={B}]", device)
    check_state(ports, state, B, device)
    return {p.name: torch.where(spec.reset.view(B, *(1,) * len(p.sizes)), x, state[p.name])
            for p, x in zip(ports, start) if p.name in state}


def _masked(key: str, reset: bool, valid: bool, reverse: bool, schedule: str) -> str:
    return plan.masked(key, reset, valid, reverse, schedule)


def _schedule(key: str, reset: bool, valid: bool) -> str:
    return plan.masked_schedule(key, reset, valid)


# Called while tracing: torch.compiler.assume_constant_result
_masked._dynamo_marked_constant = _schedule._dynamo_marked_constant = True


@operator("valid(Tensor lengths, SymInt T, bool left) -> Tensor")
def valid(lengths: Tensor, T: int, left: bool) -> Tensor:
    """[B, T]: the steps that lie within the sequences. Raises OstinatoError for lengths that T steps do not hold."""
    lengths = lengths.to(torch.int64)
    if len(lengths) and not 0 <= (worst := _worst(lengths, T)) <= T:
        _wrong("lengths", f"between 0 and T={T}", worst)
    at = torch.arange(T, device=lengths.device)
    return at >= T - lengths[:, None] if left else at < lengths[:, None]


@torch.library.register_fake("ostinato::valid")
def _(lengths, T, left):
    return lengths.new_empty((lengths.shape[0], T), dtype=torch.bool)


def _worst(lengths: Tensor, T: int) -> int:
    low, high = (int(x) for x in lengths.aminmax())
    return low if low < 0 else high


def _check(name: str, x: object, dtypes: tuple[torch.dtype, ...], sizes: tuple[int | None, ...], expected: str,
           device: torch.device) -> None:
    if not isinstance(x, Tensor):
        _wrong(name, expected, type(x).__name__)
    if x.dim() != len(sizes) or any(n is not None and m != n for m, n in zip(x.shape, sizes)):
        _wrong(name, expected, f"shape {list(x.shape)}")
    if x.dtype not in dtypes:
        _wrong(name, expected, x.dtype)
    if x.device != device:
        _wrong(name, f"on {device}, as the module is", x.device)


def _wrong(name: str, expected: str, actual: object) -> None:
    fail("option_value", option=f"`{name}`", expected=expected, actual=actual)
