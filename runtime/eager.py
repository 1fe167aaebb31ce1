"""The same cell as an eager PyTorch loop: what one would write by hand.

Plain torch operations where they exist (so without the definition's care for
zero cotangents and infinities), one step after the other, differentiated by
torch. For comparing speed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..compiler.passes.divide import FROM, divide
from ..ir.cell import Cell, Node
from ..ir.interp import evaluate, static_names
from ..ir.ops import OPS, spec_parts

_OTHER_NAMES: dict[str, Callable[..., Tensor]] = {
    "max": torch.maximum, "min": torch.minimum, "select": torch.where, "not": torch.logical_not,
    "and": torch.logical_and, "or": torch.logical_or, "softplus": F.softplus, "logsigmoid": F.logsigmoid,
    "mod": torch.remainder, "floordiv": torch.floor_divide, "stop_gradient": torch.Tensor.detach,
    "mul": operator.mul, "add": operator.add, "sub": operator.sub, "div": operator.truediv}
_OWN = ("custom_grad", "real", "int")       # need the definition
PLAIN = {name: _OTHER_NAMES.get(name) or getattr(torch, name)
         for name, op in OPS.items() if op.group == "pointwise" and name not in _OWN}


class EagerLoop:
    """`loop(inputs, params, states)`: values by name -> (outputs [B, T, *shape], final states [B, *shape]). One loop
    after the other where a cell has states of both directions."""

    def __init__(self, cell: Cell, dtype: torch.dtype = torch.float32):
        self.cell, self.loops = cell, [_Loop(part, dtype) for part in divide(cell)]

    def __call__(self, inputs: dict[str, Tensor], params: dict[str, Tensor],
                 states: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        outputs: dict[str, Tensor] = {}
        for loop in self.loops:
            handed = {name: y for name, y in outputs.items() if name.startswith(FROM)}
            found, states = loop(inputs | handed, params, states)
            outputs |= found
        return {o.name: outputs[o.name] for o in self.cell.outputs}, states


class _Loop:
    """A cell of one direction."""

    def __init__(self, cell: Cell, dtype: torch.dtype):
        self.cell, self.dtype = cell, dtype
        self.types = {n.name: n.type for n in cell.body}
        static = static_names(cell)
        self.once = [n for n in cell.body if n.name in static]
        self.each = [n for n in cell.body if n.name not in static]

    def __call__(self, inputs: dict[str, Tensor], params: dict[str, Tensor],
                 states: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        some = next(iter(inputs.values()))
        B, T = some.shape[:2]
        fixed = self._values(self.once, {}, {("param", k): p for k, p in params.items()}, B)
        states = dict(states)
        rows: dict[str, list[Tensor]] = {o.name: [] for o in self.cell.outputs}
        for t in reversed(range(T)) if self.cell.reverse else range(T):
            reads = {("input", k): x[:, t] for k, x in inputs.items()} | {("state", k): s for k, s in states.items()}
            v = self._values(self.each, dict(fixed), reads, B)
            states |= {s.name: v[s.next].expand(B, *s.type.sizes) for s in self.cell.states}
            for o in self.cell.outputs:
                rows[o.name].append(v[o.value].expand(B, *self.types[o.value].sizes))
        return {k: torch.stack(row[::-1] if self.cell.reverse else row, 1) for k, row in rows.items()}, states

    def _values(self, nodes: Sequence[Node], v: dict[str, Tensor], reads: dict, B: int) -> dict[str, Tensor]:
        for n in nodes:
            if n.op in ("input", "state", "param"):
                v[n.name] = reads[n.op, n.attr("name")]
            elif n.op in PLAIN:
                v[n.name] = PLAIN[n.op](*(v[a] for a in n.args))
            elif n.op == "contract" and n.attr("semiring") == "sum":
                a, b, out = spec_parts(n.attr("spec"))
                v[n.name] = torch.einsum(f"...{a},...{b}->...{out}", *(v[x] for x in n.args))
            else:
                v = evaluate([n], v, reads=reads, types=self.types, dtype=self.dtype, batch=(B,))
        return v
