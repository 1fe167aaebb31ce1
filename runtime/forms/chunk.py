"""C steps at once: the back end's executable of `chunk(cell, C)` over T // C chunks, then the steps that are left by
the executable of the cell. Backward goes the other way round: the gradient of the state between the two is the final
cotangent of the chunks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ...backends.base import Executable
from ...backends.fold import Fold
from ...compiler.passes.chunk import SIZE, Derived, Unchunkable, derive
from ...compiler.passes.chunk.lift import first_axes
from ...compiler.passes.realify import named
from ...compiler.pipeline import CANONICAL, Run
from ...ir.cell import Cell
from . import Source, Unsuitable, hoisted


def build(source: Source) -> Executable:
    """See the module. Raises Unsuitable where the cell has no chunk form."""
    lowered = source.lowered
    cell = getattr(lowered, "split", None) or Run()(CANONICAL, lowered.cell)
    try:
        size = source.argument or SIZE
        made = derive(cell, size)
    except Unchunkable as why:
        raise Unsuitable(str(why)) from None
    save = getattr(lowered, "save", "auto")
    fold = Fold(size, *_axes(cell))
    return Chunked(cell, size, made, hoisted.build(source.backend, made.cell, source.dtype, save, fold),
                   source.backend.build(lowered, source.dtype), source.dtype)


def _axes(cell: Cell) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where tensors [B, n, ...] of inputs and of outputs have the C steps of a chunk: after the heads, if any."""
    firsts, nodes = first_axes(cell), cell.nodes()
    types = [p.type for p in cell.inputs], [nodes[o.value].type for o in cell.outputs]
    return tuple(tuple(3 if t.shape and t.shape[0] in firsts else 2 for t in some) for some in types)


class Chunked:
    """`chunks` runs chunks of `size` steps, `rest` single steps, each if there are any. The tape: of the chunks, of the
    rest, and the states between them."""

    def __init__(self, cell: Cell, size: int, made: Derived, chunks: Executable, rest: Executable, dtype: torch.dtype):
        self.cell, self.size, self.made_of, self.chunks, self.rest = cell, size, made, chunks, rest
        self.dtypes = {"real": dtype, "int": torch.int64, "bool": torch.bool}
        self.made: set[str] = set()             # calls that nothing has to be compiled for
        self.kept = len(chunks.tape_meta(1, 1))
        self.nothing: dict[int, tuple[list[Tensor], ...]] = {}      # of the last number of sequences
        for name in ("step", "stepper"):
            if hasattr(rest, name):
                setattr(self, name, getattr(rest, name))

    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """See `backends.base.Executable`."""
        call = "keep" if keep else "infer"
        if call not in self.made:
            self._ready(call)
        B, T = inputs[0].shape[:2] if inputs else (states[0].shape[0], 1)
        whole = T - T % self.size
        if whole:
            outputs, finals, head = self.chunks.forward(inputs, params, states, seed=seed, training=training, keep=keep)
            if whole == T:
                return outputs, finals, [*head, *self._nothing(B)[1]] if keep else []
            between = finals
            ys, finals, tail = self.rest.forward(_from(whole, inputs), params, between, seed=seed, training=training,
                                                 keep=keep)
            for y, to in zip(ys, _from(whole, outputs)):
                to.copy_(y)
            return outputs, finals, [*head, *tail, *between] if keep else []
        outputs, finals, tail = self.rest.forward(inputs, params, states, seed=seed, training=training, keep=keep)
        no_head, nothing = self._nothing(B)
        return outputs, finals, [*no_head, *tail, *nothing[len(nothing) - len(states):]] if keep else []

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """See `backends.base.Executable`."""
        call = "back" if of_inputs else "lean"
        if call not in self.made:
            self._ready(call)
        T = inputs[0].shape[1] if inputs else 1
        whole = T - T % self.size
        head, tail, between = tape[:self.kept], tape[self.kept:len(tape) - len(states)], tape[len(tape) - len(states):]
        if not whole:
            return self.rest.backward(inputs, params, states, tail, d_outputs, d_finals, seed=seed, training=training,
                                      of_inputs=of_inputs)
        if whole < T:
            dx, sums, d_finals = self.rest.backward(
                _from(whole, inputs), params, between, tail, _from(whole, d_outputs), d_finals, seed=seed,
                training=training, of_inputs=of_inputs)
        grads, dp, ds = self.chunks.backward(inputs, params, states, head, d_outputs, d_finals, seed=seed,
                                             training=training, of_inputs=of_inputs)
        if whole < T:
            for d, to in zip(dx, _from(whole, grads)):
                if of_inputs and to is not None:
                    to.copy_(d)
            dp = [_sum(*both) for both in zip(sums, dp)]
        return grads, dp, ds

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape."""
        return [*self.chunks.tape_meta(B, T), *self.rest.tape_meta(B, T % self.size), *self._states(B)]

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs."""
        lines = [f"schedule chunk({self.size}): {self.size} steps are one step of a cell of matrix products; "
                 "the steps that are left run one after the other"]
        if len(parts := self.made_of.parts) > 1:
            steps = " and ".join(f"{n} of {size}" for size, n in Counter(parts).items())
            lines.append(f"  a chunk is made of {steps} steps, one after the other: roundings grow with steps")
        if whole := self.made_of.whole:
            lines.append(f"  of {named(whole)} all elements are computed at all steps")
        lines.append("  chunks:")
        lines += ["  " + line for line in str(self.chunks.explain(B, T)).splitlines()]
        return "\n".join(lines)

    def ir(self, stage: str) -> str | None:
        """Text of the back end's stages, of the chunk cell."""
        return self.chunks.ir(stage) if hasattr(self.chunks, "ir") else None

    def _states(self, B: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each state."""
        return [((B, *s.type.sizes), self.dtypes[s.type.kind]) for s in self.cell.states]

    def _nothing(self, B: int) -> tuple[list[Tensor], list[Tensor]]:
        """What nobody reads: for the tape of chunks, and for the tape of the rest and the states between them."""
        if (nothing := self.nothing.get(B)) is None:
            metas = self.chunks.tape_meta(B, 0), [*self.rest.tape_meta(B, 0), *self._states(B)]
            with torch.inference_mode(False):       # autograd may have to save them later
                nothing = tuple([torch.empty(shape, dtype=dtype) for shape, dtype in meta] for meta in metas)
            self.nothing = {B: nothing}
        return nothing

    def _ready(self, call: str) -> None:
        """Both parts, so that no other length compiles anything later."""
        for part in (self.chunks, self.rest):
            if hasattr(part, "ready"):
                part.ready(call)
        self.made.add(call)


def _from(start: int, xs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """[B, T, ...] -> the steps that are left."""
    return [x if x is None else x[:, start:] for x in xs]


def _sum(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return x if y is None else y if x is None else x + y
