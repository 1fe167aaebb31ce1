"""A cell of both directions: its parts (`compiler.passes.divide`), one after the other over the whole of time, each by
a schedule of its own. What a part hands on is kept for the backward pass, in which the parts run in the opposite order
and add up what they say of an input or parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...backends.base import Executable
from ...compiler.passes.divide import FROM
from ...compiler.pipeline import Divided
from ...ir.cell import Cell
from . import BACKWARDS, Source, Unsuitable, build_one, parse


def build(schedules: Sequence[str], source: Source) -> Executable:
    """`schedules`: one for all parts, or one for each. Raises Unsuitable, naming the part."""
    divided: Divided = source.lowered
    n = len(divided.parts)
    if len(schedules) not in (1, n):
        raise Unsuitable(f"it runs in {n} parts, which take one schedule or {n}")
    parts = []
    for k, (lowered, schedule) in enumerate(zip(divided.parts, schedules * n if len(schedules) == 1 else schedules)):
        name, _ = parse(schedule)
        turned = lowered.cell.reverse and name not in BACKWARDS
        if turned:
            lowered = source.backend.prepare(replace(lowered.elaborated, reverse=False), divided.save)
        try:
            executable = build_one(schedule, replace(source, lowered=lowered))
        except Unsuitable as why:
            raise Unsuitable(f"part {k + 1} of {n}, with the states {_states(lowered.cell)}: {why}") from None
        assert not lowered.static, "what depends on parameters only has left before the cell was divided"
        parts.append(Part(lowered.cell, executable, turned, schedule))
    return Chain(divided.cell, tuple(parts), source.dtype)


def _states(cell: Cell) -> str:
    return ", ".join(f"`{s.name}`" for s in cell.states)


@dataclass(frozen=True)
class Part:
    """`turned`: the executable goes forwards in time, on inputs turned around."""

    cell: Cell
    executable: Executable
    turned: bool
    schedule: str

    def turn(self, xs: Sequence[Tensor | None]) -> list[Tensor | None]:
        return [None if x is None else x.flip(1) for x in xs] if self.turned else list(xs)

    def explain(self, B: int | None, T: int | None) -> list[str]:
        way = "turned around" if self.turned else "from the last step to the first" if self.cell.reverse else "forwards"
        return [f"{self.cell.name}: {_states(self.cell)}, {way}, {self.schedule}",
                *(f"  {line}" for line in str(self.executable.explain(B, T)).splitlines())]


class Chain:
    """See the module. The tape: of each part, then what parts hand on."""

    def __init__(self, cell: Cell, parts: tuple[Part, ...], dtype: torch.dtype):
        self.cell, self.parts = cell, parts
        dtypes = {"real": dtype, "int": torch.int64, "bool": torch.bool}
        self.handed = {o.name: (types[o.value].type.sizes, dtypes[types[o.value].type.kind])
                       for p in parts for types in (p.cell.nodes(),) for o in p.cell.outputs if o.name.startswith(FROM)}
        self.trained = [p.trainable and p.type.kind == "real" for p in cell.params]

    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *, seed: int,
                training: bool, keep: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """See `backends.base.Executable`."""
        xs, ps, ss = self._named(inputs, params, states)
        outputs, finals, tape = {}, {}, []
        for part in self.parts:
            c = part.cell
            ys, ends, kept = part.executable.forward(
                part.turn([xs[p.name] for p in c.inputs]), [ps[p.name] for p in c.params],
                [ss[s.name] for s in c.states], seed=seed, training=training, keep=keep)
            found = dict(zip((o.name for o in c.outputs), part.turn(ys)))
            outputs |= found
            xs |= {name: y for name, y in found.items() if name in self.handed}
            finals |= zip((s.name for s in c.states), ends)
            tape += kept
        if keep:
            tape += [xs[name] for name in self.handed]
        return [outputs[o.name] for o in self.cell.outputs], [finals[s.name] for s in self.cell.states], tape

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """See `backends.base.Executable`."""
        xs, ps, ss = self._named(inputs, params, states)
        B, T = inputs[0].shape[:2]
        tape = list(tape)
        xs |= zip(self.handed, tape[len(tape) - len(self.handed):])
        dy = dict(zip((o.name for o in self.cell.outputs), d_outputs))
        d_ends = dict(zip((s.name for s in self.cell.states), d_finals))
        dx: dict[str, Tensor] = {}
        dp: dict[str, Tensor] = {}
        ds: dict[str, Tensor | None] = {}
        end = len(tape) - len(self.handed)
        for part in reversed(self.parts):
            c = part.cell
            begin = end - len(part.executable.tape_meta(B, T))
            some = part.executable.backward(
                part.turn([xs[p.name] for p in c.inputs]), [ps[p.name] for p in c.params],
                [ss[s.name] for s in c.states], tape[begin:end],
                part.turn([dx.get(o.name) if o.name in self.handed else dy[o.name] for o in c.outputs]),
                [d_ends[s.name] for s in c.states], seed=seed, training=training,
                of_inputs=of_inputs or any(p.name in self.handed for p in c.inputs))
            _add(dx, c.inputs, part.turn(some[0]))
            _add(dp, c.params, some[1])
            ds |= zip((s.name for s in c.states), some[2])
            end = begin
        return ([dx.get(p.name, torch.zeros_like(x) if p.type.kind == "real" else None)
                 for p, x in zip(self.cell.inputs, inputs)],
                [dp.get(p.name, torch.zeros_like(x) if real else None)
                 for p, x, real in zip(self.cell.params, params, self.trained)],
                [ds[s.name] for s in self.cell.states])

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape."""
        return [*(meta for p in self.parts for meta in p.executable.tape_meta(B, T)),
                *(((B, T, *sizes), dtype) for sizes, dtype in self.handed.values())]

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """The parts, what each hands on, and how each runs."""
        lines = [f"runs in {len(self.parts)} parts, one after the other over all steps"]
        for part in self.parts:
            lines += [f"  {line}" for line in part.explain(B, T)]
        return "\n".join(lines)

    def ir(self, stage: str) -> str | None:
        """Text of the back end's stages, part by part."""
        texts = [p.executable.ir(stage) if hasattr(p.executable, "ir") else None for p in self.parts]
        return None if None in texts else "\n".join(texts)

    def _named(self, *groups: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        ports = self.cell.inputs, self.cell.params, self.cell.states
        return [{p.name: x for p, x in zip(own, xs)} for own, xs in zip(ports, groups)]


def _add(total: dict[str, Tensor], ports: Sequence, found: Sequence[Tensor | None]) -> None:
    """Gradients by name, added up where a port has some already."""
    for p, d in zip(ports, found):
        if d is not None:
            total[p.name] = total[p.name] + d if p.name in total else d
