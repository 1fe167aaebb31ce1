"""C steps at once: the back end's executable of `chunk(cell, C)` over T // C chunks, then the steps that are left by
the executable of the cell. Backward goes the other way round: the gradient of the state between the two is the final
cotangent of the chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

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
    """`chunks` runs chunks of `size` steps, `rest` single steps, each if there are any. The tape: of the chunks, of the
    rest, and the states between them."""

    def __init__(self, cell: Cell, size: int, chunks: Executable, rest: Executable, dtype: torch.dtype):
        self.cell, self.size, self.chunks, self.rest = cell, size, chunks, rest
        self.dtypes = {"real": dtype, "int": torch.int64, "bool": torch.bool}
        firsts, nodes = first_axes(cell), cell.nodes()

        def at(t: Type) -> int:
            return 3 if t.shape and t.shape[0] in firsts else 2

        self.ins = [at(p.type) for p in cell.inputs]
        self.results = [nodes[o.value].type for o in cell.outputs]
        self.outs = [at(t) for t in self.results]
        self.made: set[str] = set()             # calls that nothing has to be compiled for
        self.kept = len(chunks.tape_meta(1, 1))
        self.nothing: dict[int, tuple[list[Tensor], ...]] = {}      # of the last number of sequences
        for name in ("step", "stepper"):
            if hasattr(rest, name):
                setattr(self, name, getattr(rest, name))

    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool,
                into: Sequence[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """See `backends.base.Executable`."""
        self._ready("keep" if keep else "infer")
        options = dict(seed=seed, training=training, keep=keep)
        B, T = self._sizes(inputs, states)
        n, left = self._parts(T)
        outputs = into or [self._empty(t, B, T) for t in self.results]
        finals, between, head, tail = states, [], [], []
        if n:
            _, finals, head = self.chunks.forward(self._head(inputs, self.ins, n), params, states, **options,
                                                  into=self._head(outputs, self.outs, n))
        if left:
            between = finals
            _, finals, tail = self.rest.forward(self._tail(inputs, n), params, between, **options,
                                                into=self._tail(outputs, n))
        if not keep:
            return list(outputs), finals, []
        if n and left:
            return list(outputs), finals, [*head, *tail, *between]
        if (nothing := self.nothing.get(B)) is None:
            nothing = self._nothing(B)
            self.nothing = {B: nothing}
        no_head, no_tail, no_between = nothing
        return list(outputs), finals, [*(head if n else no_head), *(tail if left else no_tail), *no_between]

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True, into: Sequence[Tensor | None] | None = None,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """See `backends.base.Executable`."""
        self._ready("back" if of_inputs else "lean")
        options = dict(seed=seed, training=training, of_inputs=of_inputs)
        B, T = self._sizes(inputs, states)
        n, left = self._parts(T)
        given = into or [None] * len(inputs)
        grads = [None if p.type.kind != "real" or not of_inputs else self._empty(p.type, B, T) if to is None else to
                 for p, to in zip(self.cell.inputs, given)]
        ds, sums = d_finals, []
        at, end = self.kept, len(tape) - len(states)
        if left:
            _, dp, ds = self.rest.backward(self._tail(inputs, n), params, tape[end:] if n else states, tape[at:end],
                                           self._tail(d_outputs, n), ds, **options, into=self._tail(grads, n))
            sums.append(dp)
        if n:
            _, dp, ds = self.chunks.backward(
                self._head(inputs, self.ins, n), params, states, tape[:at], self._head(d_outputs, self.outs, n), ds,
                **options, into=self._head(grads, self.ins, n))
            sums.append(dp)
        return grads, [_sum(*both) for both in zip(*sums)], ds

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape."""
        n = T // self.size
        return [*self.chunks.tape_meta(B, n), *self.rest.tape_meta(B, T - n * self.size),
                *self._states(B)]

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

    def _parts(self, T: int) -> tuple[int, bool]:
        """How many whole chunks there are, and whether single steps run: those that are left, or none at all."""
        n, left = divmod(T, self.size)
        return n, left > 0 or n == 0

    def _states(self, B: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each state."""
        return [((B, *s.type.sizes), self.dtypes[s.type.kind]) for s in self.cell.states]

    def _nothing(self, B: int) -> tuple[list[Tensor], ...]:
        """What nobody reads, in place of the tapes of parts that do not run and of the states between them."""
        metas = self.chunks.tape_meta(B, 0), self.rest.tape_meta(B, 0), self._states(B)
        return tuple([torch.empty(shape, dtype=dtype) for shape, dtype in meta] for meta in metas)

    def _ready(self, call: str) -> None:
        """Both parts, so that no other length compiles anything later."""
        if call not in self.made:
            for part in (self.chunks, self.rest):
                if hasattr(part, "ready"):
                    part.ready(call)
            self.made.add(call)

    def _head(self, xs: Sequence[Tensor | None], at: Sequence[int], n: int) -> list[Tensor | None]:
        """[B, T, ...] -> n chunks [B, n, ...] with C at the positions `at`: views, but of what is the negative of its
        memory (torch's views of conjugates)."""
        xs = [x if x is None or not x.is_neg() else x.resolve_neg() for x in xs]
        return [x if x is None else x.as_strided(*_chunks(x.shape, x.stride(), p, n, self.size))
                for x, p in zip(xs, at)]

    def _tail(self, xs: Sequence[Tensor | None], n: int) -> list[Tensor | None]:
        """[B, T, ...] -> the steps that are left."""
        return [x if x is None else x[:, n * self.size:] for x in xs]

    def _empty(self, t: Type, B: int, T: int) -> Tensor:
        return empty(B, T, *t.sizes, dtype=self.dtypes[t.kind])


@lru_cache(maxsize=256)
def _chunks(shape: tuple[int, ...], stride: tuple[int, ...], p: int, n: int, C: int) -> tuple[tuple[int, ...], ...]:
    """Sizes and strides of n chunks of C steps with C at position p."""
    (B, _, *sizes), (batch, time, *strides) = shape, stride
    sizes.insert(p - 2, C)
    strides.insert(p - 2, time)
    return (B, n, *sizes), (batch, C * time, *strides)


def _sum(x: Tensor | None, y: Tensor | None = None) -> Tensor | None:
    return x if y is None else y if x is None else x + y
