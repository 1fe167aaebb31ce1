"""The whole sequence as one chunk: `chunk(cell, T)` evaluated by torch, as attention is. Work and memory grow with T^2,
but all of it is large products: for short sequences. Where most of what is added up cancels, so that roundings grow
with T (delta rules, and angles from the inputs: see `compiler.passes.chunk.composed`), it is evaluated in float64.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ...compiler.passes.chunk import Unchunkable, derive
from ...compiler.passes.chunk.lift import first_axes
from ...compiler.pipeline import CANONICAL, Run
from ...ir.cell import Cell
from ..ports import fail
from . import Source, Unsuitable
from .torched import Torched, Values, reading

LIMIT = 2 << 30         # bytes of a value
CELLS = 8               # lengths whose cells are kept


def build(source: Source) -> Quadratic:
    """See the module. Raises Unsuitable where the cell has no chunk form."""
    cell = getattr(source.lowered, "split", None) or Run()(CANONICAL, source.lowered.cell)
    try:
        made = derive(cell, 2)
    except Unchunkable as why:
        raise Unsuitable(str(why)) from None
    return Quadratic(cell, source.dtype, torch.float64 if made.cancels else source.dtype)


class Quadratic(Torched):
    """`inner`: the dtype of what is computed."""

    def __init__(self, cell: Cell, dtype: torch.dtype, inner: torch.dtype):
        super().__init__(cell, dtype)
        self.inner = inner
        firsts = first_axes(cell)

        def at(shape) -> int:
            return 2 if shape and shape[0] in firsts else 1

        self.ins = {p.name: at(p.type.shape) for p in cell.inputs}
        self.outs = [at(self.types[o.value].type.shape) for o in cell.outputs]
        self.chunk = lru_cache(CELLS)(lambda T: derive(cell, T, in_parts=False).cell)

    def run(self, inputs: Values, params: Values, states: Values, T: int,
            training: bool) -> tuple[list[Tensor], list[Tensor]]:
        """See `Torched`. Raises OstinatoError where a value would be larger than LIMIT."""
        B = next(iter((*inputs.values(), *states.values()))).shape[0]
        self._check(B, T, T * T * (self.cell.heads.size if self.cell.heads else 1))     # before the cell is made
        cell = self.chunk(T)
        self._check(B, T, max(n.type.numel for n in cell.body))
        moved = {k: x.movedim(1, self.ins[k]) for k, x in inputs.items()}
        reads = {k: _cast(x, self.inner) for k, x in reading(moved, params, states).items()}
        values = self.values(cell, reads, training, self.inner)
        types = cell.nodes()
        outputs = [_cast(values[o.value], self.dtype).expand(B, *types[o.value].type.sizes).movedim(at, 1)
                   for o, at in zip(cell.outputs, self.outs)]
        return outputs, [_cast(values[s.next], self.dtype) for s in cell.states]

    def _check(self, B: int, T: int, elements: int) -> None:
        size = B * elements * self.inner.itemsize
        if size > LIMIT:
            fail("too_long", name=self.cell.name, schedule="quadratic", B=B, T=T, size=f"{size / 2**30:.1f} GiB",
                 limit=f"{LIMIT >> 30} GiB")

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs."""
        lines = ["schedule quadratic: the whole sequence as one chunk, evaluated by torch; backward evaluates it "
                 f"again, nothing is kept; refused where a value is larger than {LIMIT >> 30} GiB"]
        if self.inner != self.dtype:
            lines.append("  in float64: most of what its steps add up cancels, so that roundings would grow with them")
        if T is not None and T > 1:
            cell = self.chunk(T)
            largest = (B or 1) * max(n.type.numel for n in cell.body) * self.inner.itemsize
            lines.append(f"  {len(cell.body)} operations, the largest value has {largest / 2**20:.1f} MiB")
        return "\n".join(lines)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x
