"""The whole sequence as one chunk: `chunk(cell, T)` evaluated by torch, as attention is. Work and memory grow with T^2,
but all of it is large products: for short sequences.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ...compiler.passes.chunk import Unchunkable, chunk
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
        chunk(cell, 2)
    except Unchunkable as why:
        raise Unsuitable(str(why)) from None
    return Quadratic(cell, source.dtype)


class Quadratic(Torched):
    def __init__(self, cell: Cell, dtype: torch.dtype):
        super().__init__(cell, dtype)
        firsts = first_axes(cell)

        def at(shape) -> int:
            return 2 if shape and shape[0] in firsts else 1

        self.ins = {p.name: at(p.type.shape) for p in cell.inputs}
        self.outs = [at(self.types[o.value].type.shape) for o in cell.outputs]
        self.chunk = lru_cache(CELLS)(lambda T: chunk(cell, T))

    def run(self, inputs: Values, params: Values, states: Values, T: int,
            training: bool) -> tuple[list[Tensor], list[Tensor]]:
        """See `Torched`. Raises OstinatoError where a value would be larger than LIMIT."""
        B = next(iter((*inputs.values(), *states.values()))).shape[0]
        self._check(B, T, T * T * (self.cell.heads.size if self.cell.heads else 1))     # before the cell is made
        cell = self.chunk(T)
        self._check(B, T, max(n.type.numel for n in cell.body))
        moved = {k: x.movedim(1, self.ins[k]) for k, x in inputs.items()}
        values = self.values(cell, reading(moved, params, states), training)
        types = cell.nodes()
        outputs = [values[o.value].expand(B, *types[o.value].type.sizes).movedim(at, 1)
                   for o, at in zip(cell.outputs, self.outs)]
        return outputs, [values[s.next] for s in cell.states]

    def _check(self, B: int, T: int, elements: int) -> None:
        size = B * elements * self.dtype.itemsize
        if size > LIMIT:
            fail("too_long", name=self.cell.name, schedule="quadratic", B=B, T=T, size=f"{size / 2**30:.1f} GiB",
                 limit=f"{LIMIT >> 30} GiB")

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs."""
        lines = ["schedule quadratic: the whole sequence as one chunk, evaluated by torch; backward evaluates it "
                 f"again, nothing is kept; refused where a value is larger than {LIMIT >> 30} GiB"]
        if T is not None and T > 1:
            cell = self.chunk(T)
            largest = (B or 1) * max(n.type.numel for n in cell.body) * self.dtype.itemsize
            lines.append(f"  {len(cell.body)} operations, the largest value has {largest / 2**20:.1f} MiB")
        return "\n".join(lines)
