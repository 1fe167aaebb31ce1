"""Time cut into P segments that run side by side, as further sequences of the batch.

1. Summaries of the segments (`compiler.passes.summary`): what each does to the states, whatever they were.
2. From them, in P short steps, the states at the starts of the segments.
3. The cell itself on all segments, from these states; then the T mod P steps that are left (at the end of time, or
   at its start where the cell runs backwards), one after the other.

Backward is the same on the adjoint cell, which is linear in the cotangents of the states and reads what the forward
pass kept of the segments: its summaries give the cotangents at the ends of the segments, and the adjoint runs from
these. Nothing is differentiated through 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from ...backends.base import Executable
from ...compiler.passes.summary import ONE, ZERO, Summary, Transition, Unsummable, summaries
from ...ir.cell import Cell
from ...ir.meaning import contract, logaddexp, maximum
from ...ir.types import Type
from . import Source, Unsuitable, hoisted

SEGMENTS = 8
_PLUS = {"sum": torch.add, "max": maximum, "lse": logaddexp}


def build(source: Source) -> Executable:
    """See the module. Raises Unsuitable where states do not depend on each other by affine maps."""
    lowered = source.lowered
    if not hasattr(lowered, "adjoint"):
        raise Unsuitable("this back end has no adjoint cell")
    if lowered.save == "auto":          # what is kept has to be there by name, not to be made again a tile at a time
        lowered = replace(lowered, save="cut")
    return Scanned(replace(source, lowered=lowered))


class Stages:
    """The summaries of a cell as executables."""

    def __init__(self, cell: Cell, source: Source):
        self.cell, self.dtype = cell, source.dtype
        try:
            self.summaries = summaries(cell)
        except Unsummable as why:
            raise Unsuitable(str(why)) from None
        self.executables = [hoisted.build(source.backend, s.cell, source.dtype) for s in self.summaries]
        self.types = {s.name: s.type for s in cell.states}

    def starts(self, inputs: Mapping[str, Tensor], params: Mapping[str, Tensor], first: Mapping[str, Tensor],
               segments: int, training: bool) -> dict[str, Tensor]:
        """The states [B, P, *shape] that the segments start from. inputs [B, P, L, *shape], `first` [B, *shape]."""
        found: dict[str, Tensor] = {}
        length = next(iter(inputs.values())).shape[2]
        if length == 0:
            return {s: x.unsqueeze(1).expand(-1, segments, *self.types[s].sizes) for s, x in first.items()}
        for summary, executable in zip(self.summaries, self.executables):
            if summary.last is not None and length < summary.last:
                found |= self._one_by_one(summary, executable, inputs, params, first, segments, training)
                continue
            ends = self._run(summary, executable, inputs, params, found, segments, training)
            found |= self._carried(summary, ends, first, segments)
        return found

    def _order(self, segments: int) -> Sequence[int]:
        return range(segments)[::-1] if self.cell.reverse else range(segments)

    def _call(self, summary: Summary, executable: Executable, inputs: Sequence[Tensor], params: Mapping[str, Tensor],
              states: Mapping[str, Tensor], training: bool) -> list[Tensor]:
        _, finals, _ = executable.forward(inputs, [params[p.name] for p in summary.cell.params],
                                          [states[s.name] for s in summary.cell.states], seed=0, training=training,
                                          keep=False)
        return finals

    def _run(self, summary: Summary, executable: Executable, inputs: Mapping[str, Tensor],
             params: Mapping[str, Tensor], found: Mapping[str, Tensor], segments: int,
             training: bool) -> dict[str, Tensor]:
        """What the segments make of zero and of the identity, [B, P, *shape]."""
        xs = [inputs[p.name] for p in summary.cell.inputs]
        B = xs[0].shape[0]
        if summary.last is not None:
            xs = [x[:, :, :summary.last] if self.cell.reverse else x[:, :, -summary.last:] for x in xs]
        states: dict[str, Tensor] = {s: found[s].flatten(0, 1) for s in summary.earlier}
        for s, semiring in summary.semiring.items():
            states[s] = _full(self.types[s], ZERO[semiring], self.dtype).expand(B * segments, *self.types[s].sizes)
        types = {s.name: s.type for s in summary.cell.states}
        for t in summary.transitions:
            if t.name is not None:
                one = _identity(t, types[t.name], summary.semiring[t.to], self.dtype)
                states[t.name] = one.expand(B * segments, *one.shape)
        finals = self._call(summary, executable, [x.flatten(0, 1) for x in xs], params, states, training)
        return {s.name: x.unflatten(0, (B, segments)) for s, x in zip(summary.cell.states, finals)}

    def _carried(self, summary: Summary, ends: Mapping[str, Tensor], first: Mapping[str, Tensor],
                 segments: int) -> dict[str, Tensor]:
        """The states before every segment, from one to the next."""
        now = {s: first[s] for s in summary.states}
        rows: dict[str, list[Tensor]] = {s: [now[s]] for s in summary.states}
        order = self._order(segments)
        for p in order[:-1]:
            then = {}
            for s, semiring in summary.semiring.items():
                total = None
                for t in (t for t in summary.transitions if t.to == s):
                    x = now[t.of]
                    if t.name is not None:
                        x = contract(ends[t.name][:, p], x, t.spec(self.types[s], self.types[t.of]), semiring)
                    total = x if total is None else _PLUS[semiring](total, x)
                then[s] = ends[s][:, p] if total is None else _PLUS[semiring](total, ends[s][:, p])
            now = then
            for s, x in now.items():
                rows[s].append(x)
        return {s: torch.stack(xs[::-1] if self.cell.reverse else xs, 1) for s, xs in rows.items()}

    def _one_by_one(self, summary: Summary, executable: Executable, inputs: Mapping[str, Tensor],
                    params: Mapping[str, Tensor], first: Mapping[str, Tensor], segments: int,
                    training: bool) -> dict[str, Tensor]:
        """Segments too short to hold what the states remember."""
        now, rows = dict(first), {s: [] for s in summary.states}
        order = self._order(segments)
        for p in order:
            for s in summary.states:
                rows[s].append(now[s])
            xs = [inputs[q.name][:, p] for q in summary.cell.inputs]
            now = dict(zip((s.name for s in summary.cell.states),
                           self._call(summary, executable, xs, params, now, training)))
        return {s: torch.stack(xs[::-1] if self.cell.reverse else xs, 1) for s, xs in rows.items()}


class Scanned:
    """The executable. The tape: of the segments, of the steps that are left, the states before every segment, and
    those between segments and rest."""

    def __init__(self, source: Source):
        self.source, self.lowered, self.dtype = source, source.lowered, source.dtype
        self.segments = source.argument or SEGMENTS
        self.cell: Cell = source.lowered.cell
        if not self.cell.inputs:
            raise Unsuitable("it has no inputs, which would say how long to run")
        self.before = Stages(source.lowered.split, source)
        _ = self.after                          # unsuitable now rather than in the middle of training
        self.steps = source.backend.build(source.lowered, source.dtype)
        for name in ("step", "stepper"):
            if hasattr(self.steps, name):
                setattr(self, name, getattr(self.steps, name))

    @cached_property
    def after(self) -> Stages:
        """The summaries of the adjoint."""
        return Stages(self.lowered.adjoint.backward, self.source)

    # -- running ------------------------------------------------------------------
    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """See `backends.base.Executable`."""
        options = dict(seed=seed, training=training, keep=keep)
        head, tail = self._cut(inputs)
        B, P = head[0].shape[:2]
        found = self.before.starts(_named(self.cell.inputs, head), _named(self.cell.params, params),
                                   _named(self.cell.states, states), P, training)
        starts = [found[s.name].flatten(0, 1) for s in self.cell.states]
        ys, ends, main = self.steps.forward([x.flatten(0, 1) for x in head], params, starts, **options)
        end = 0 if self.cell.reverse else -1
        between = [x.unflatten(0, (B, P))[:, end].contiguous() for x in ends]
        zs, finals, rest = self.steps.forward(tail, params, between, **options)
        return self._joined(ys, zs), finals, [*main, *rest, *starts, *between] if keep else []

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """See `backends.base.Executable`."""
        options = dict(seed=seed, training=training, of_inputs=of_inputs)
        B, k, P = len(inputs[0]), len(states), self.segments
        n = len(tape) // 2 - k
        main, rest, starts, between = tape[:n], tape[n:2 * n], tape[2 * n:2 * n + k], tape[2 * n + k:]
        head, tail = self._cut(inputs)
        d_head, d_tail = self._cut(d_outputs)
        dx, dp, ds = self.steps.backward(tail, params, between, rest, d_tail, d_finals, **options)
        known = self._known(head, main, d_head)
        last = {f"d.{s.name}": d for s, d in zip(self.cell.states, ds) if d is not None}
        found = self.after.starts(known, _named(self.cell.params, params), last, P, training)
        ends = [found[name].flatten(0, 1) if (name := f"d.{s.name}") in found else None for s in self.cell.states]
        ex, ep, es = self.steps.backward([x.flatten(0, 1) for x in head], params, starts, main,
                                         [None if d is None else d.flatten(0, 1) for d in d_head], ends, **options)
        start = -1 if self.cell.reverse else 0
        es = [None if d is None else d.unflatten(0, (B, P))[:, start].contiguous() for d in es]
        return self._joined(ex, dx), [_sum(p, q) for p, q in zip(ep, dp)], es

    def _known(self, head: Sequence[Tensor], tape: Sequence[Tensor],
               d_head: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """What the adjoint cell reads, [B, P, L, *shape]."""
        B, P, L = head[0].shape[:3]
        nodes = self.cell.nodes()
        known = _named(self.cell.inputs, head)
        known |= {name: x.unflatten(0, (B, P)) for name, x in self.steps.kept(tape, B * P, L).items()}
        for o, d in zip(self.cell.outputs, d_head):
            t = nodes[o.value].type
            if t.kind == "real":
                known[f"d.{o.name}"] = _full(t, 0.0, self.dtype).expand(B, P, L, *t.sizes) if d is None else d
        return known

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape."""
        L, P = T // self.segments, self.segments
        dtypes = {"real": self.dtype, "int": torch.int64, "bool": torch.bool}
        return [*self.steps.tape_meta(B * P, L), *self.steps.tape_meta(B, T - P * L),
                *(((B * P, *s.type.sizes), dtypes[s.type.kind]) for s in self.cell.states),
                *(((B, *s.type.sizes), dtypes[s.type.kind]) for s in self.cell.states)]

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs."""
        lines = [f"schedule scan({self.segments}): time in {self.segments} segments side by side, T mod "
                 f"{self.segments} steps after them"]
        for title, stages in (("forward", self.before), ("backward", self.after)):
            for s in stages.summaries:
                size = sum(x.type.numel for x in s.cell.states) - sum(stages.types[n].numel for n in s.states)
                what = f"the last {s.last} steps" if s.last is not None else f"{size} elements of transitions"
                lines.append(f"  {title}: summary of {', '.join(s.states)}: {what}")
        return "\n".join([*lines, *("  " + line for line in str(self.steps.explain(B, T)).splitlines())])

    def ir(self, stage: str) -> str | None:
        """Text of the back end's stages, of the cell on the segments."""
        return self.steps.ir(stage) if hasattr(self.steps, "ir") else None

    # -- time ---------------------------------------------------------------------
    def _cut(self, xs: Sequence[Tensor | None]) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """[B, T, ...] -> segments [B, P, L, ...] and the steps that are left, the last ones to run."""
        head, tail, P = [], [], self.segments
        for x in xs:
            if x is None:
                head.append(None)
                tail.append(None)
                continue
            L = x.shape[1] // P
            rest = x.shape[1] - P * L
            x, y = (x[:, rest:], x[:, :rest]) if self.cell.reverse else (x[:, :P * L], x[:, P * L:])
            head.append(x.unflatten(1, (P, L)))
            tail.append(y)
        return head, tail

    def _joined(self, head: Sequence[Tensor | None], tail: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The inverse of `_cut`; contiguous. head [B * P, L, ...]"""
        out = []
        for x, y in zip(head, tail):
            if x is None or y is None:
                out.append(None)
                continue
            x = x.unflatten(0, (y.shape[0], self.segments)).flatten(1, 2)
            pair = (y, x) if self.cell.reverse else (x, y)
            out.append(torch.cat(pair, 1) if y.shape[1] else x.contiguous())
        return out


def _named(ports: Sequence, xs: Sequence[Tensor]) -> dict[str, Tensor]:
    return {p.name: x for p, x in zip(ports, xs)}


def _full(t: Type, value: float, dtype: torch.dtype) -> Tensor:
    """[*shape] of one value, as far as the kind has it."""
    if t.kind == "real":
        return torch.full(t.sizes, value, dtype=dtype)
    if not math.isfinite(value):
        raise Unsuitable(f"a state of kind {t.kind} has no {value}")
    return torch.full(t.sizes, int(value), dtype=torch.int64 if t.kind == "int" else torch.bool)


def _identity(t: Transition, type: Type, semiring: str, dtype: torch.dtype) -> Tensor:
    """The transition of no step at all."""
    out = _full(type, ZERO[semiring], dtype)
    if t.to != t.of:
        return out
    mask = torch.ones(type.sizes, dtype=torch.bool)
    for i, p in enumerate(t.mixed):
        a, b = t.axes.index(p), len(t.axes) + i
        n, shape = type.sizes[a], [1] * type.rank
        shape[a] = shape[b] = n
        mask &= torch.eye(n, dtype=torch.bool).reshape(shape)
    return torch.where(mask, _full(type, ONE[semiring], dtype), out)


def _sum(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return x if y is None else y if x is None else x + y
