"""C steps at once: the back end's executable of `chunk(cell, C)` over T // C chunks, then the steps that are left by
the executable of the cell. Backward goes the other way round: the gradient of the state between the two is the final
cotangent of the chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...backends.base import Executable
from ...backends.pages import empty
from ...compiler.passes.chunk import SIZE, Unchunkable, chunk
from ...compiler.passes.chunk.lift import first_axes
from ...compiler.pipeline import CANONICAL, Run
from ...ir.cell import Cell
from ...ir.types import Type
from . import Source, Unsuitable, hoisted


def build(source: Source) -> Executable:
    """See the module. Raises Unsuitable where the cell has no chunk form."""
    lowered = source.lowered
    cell = getattr(lowered, "split", None) or Run()(CANONICAL, lowered.cell)
    try:
        size = source.argument or SIZE
        made = chunk(cell, size)
    except Unchunkable as why:
        raise Unsuitable(str(why)) from None
    save = getattr(lowered, "save", "auto")
    return Chunked(cell, size, hoisted.build(source.backend, made, source.dtype, save),
                   source.backend.build(lowered, source.dtype), source.dtype)


class Chunked:
    """`chunks` runs chunks of `size` steps, `rest` single steps. The tape: of the chunks, of the rest, and the states
    between them."""

    def __init__(self, cell: Cell, size: int, chunks: Executable, rest: Executable, dtype: torch.dtype):
        self.cell, self.size, self.chunks, self.rest = cell, size, chunks, rest
        self.dtypes = {"real": dtype, "int": torch.int64, "bool": torch.bool}
        firsts, nodes = first_axes(cell), cell.nodes()

        def at(t: Type) -> int:
            return 3 if t.shape and t.shape[0] in firsts else 2

        self.ins = [at(p.type) for p in cell.inputs]
        self.outs = [at(nodes[o.value].type) for o in cell.outputs]
        for name in ("step", "stepper"):
            if hasattr(rest, name):
                setattr(self, name, getattr(rest, name))

    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool,
                into: Sequence[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """See `backends.base.Executable`."""
        for part in (self.chunks, self.rest):       # both, so that no other length compiles anything later
            if hasattr(part, "ready"):
                part.ready(keep)
        options = dict(seed=seed, training=training, keep=keep)
        B, T = self._sizes(inputs, states)
        nodes = self.cell.nodes()
        outputs = into or [self._empty(nodes[o.value].type, B, T) for o in self.cell.outputs]
        head, tail = self._cut(inputs, self.ins)
        to_head, to_tail = self._cut(outputs, self.outs)
        _, between, tape = self.chunks.forward(head, params, states, **options, into=to_head)
        _, finals, rest = self.rest.forward(tail, params, between, **options, into=to_tail)
        return list(outputs), finals, [*tape, *rest, *between] if keep else []

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True, into: Sequence[Tensor | None] | None = None,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """See `backends.base.Executable`."""
        options = dict(seed=seed, training=training, of_inputs=of_inputs)
        B, T = self._sizes(inputs, states)
        n = len(self.chunks.tape_meta(B, T // self.size))
        m = len(tape) - len(states)
        given = into or [None] * len(inputs)
        grads = [None if p.type.kind != "real" or not of_inputs else self._empty(p.type, B, T) if to is None else to
                 for p, to in zip(self.cell.inputs, given)]
        head, tail = self._cut(inputs, self.ins)
        d_head, d_tail = self._cut(d_outputs, self.outs)
        to_head, to_tail = self._cut(grads, self.ins)
        _, dp, ds = self.rest.backward(tail, params, tape[m:], tape[n:m], d_tail, d_finals, **options,
                                       into=to_tail)
        _, ep, es = self.chunks.backward(head, params, states, tape[:n], d_head, ds, **options, into=to_head)
        return grads, [_sum(p, q) for p, q in zip(dp, ep)], es

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape."""
        chunks = T // self.size
        return [*self.chunks.tape_meta(B, chunks), *self.rest.tape_meta(B, T - chunks * self.size),
                *(((B, *s.type.sizes), self.dtypes[s.type.kind]) for s in self.cell.states)]

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs."""
        lines = [f"schedule chunk({self.size}): {self.size} steps are one step of a cell of matrix products; "
                 "the steps that are left run one after the other", "  chunks:"]
        chunks = None if T is None else T // self.size
        lines += ["  " + line for line in str(self.chunks.explain(B, chunks)).splitlines()]
        return "\n".join(lines)

    def ir(self, stage: str) -> str | None:
        """Text of the back end's stages, of the chunk cell."""
        return self.chunks.ir(stage) if hasattr(self.chunks, "ir") else None

    # -- time ---------------------------------------------------------------
    @staticmethod
    def _sizes(inputs: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[int, int]:
        return tuple(inputs[0].shape[:2]) if inputs else (states[0].shape[0], 1)

    def _cut(self, xs: Sequence[Tensor | None], at: Sequence[int]) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """[B, T, ...] -> whole chunks [B, T // C, ...] with C at the positions `at`, and the steps that are left."""
        C, head, tail = self.size, [], []
        for x, p in zip(xs, at):
            if x is None:
                head.append(None)
                tail.append(None)
                continue
            n = x.shape[1] // C
            head.append(x[:, :n * C].unflatten(1, (n, C)).movedim(2, p))
            tail.append(x[:, n * C:])
        return head, tail

    def _empty(self, t: Type, B: int, T: int) -> Tensor:
        return empty(B, T, *t.sizes, dtype=self.dtypes[t.kind])


def _sum(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return x if y is None else y if x is None else x + y
