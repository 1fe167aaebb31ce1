"""An executable of a derived cell: parameters in, parameters out, whatever the pipeline has hoisted out of it.

What depends on parameters only is evaluated once per call, what depends on nothing once.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from ...backends.base import Executable
from ...backends.fold import Fold
from ...backends.recording import recording
from ...compiler.passes.dce import live
from ...ir.cell import Cell
from ...ir.interp import evaluate


def build(backend: ModuleType, cell: Cell, dtype: torch.dtype, save: str = "auto",
          fold: Fold | None = None) -> Executable:
    """The executable of a cell that has not been through the pipeline; its ports are the cell's."""
    lowered = backend.prepare(cell, save)
    inner = backend.build(lowered, dtype, fold)
    return Hoisted(cell, lowered, inner, dtype) if lowered.static else inner


class Hoisted:
    """`inner` runs `lowered.cell`, whose parameters are some of the cell's and those that `lowered.static` gives."""

    def __init__(self, cell: Cell, lowered, inner: Executable, dtype: torch.dtype):
        self.cell, self.inner, self.dtype = cell, inner, dtype
        self.wanted = [p.name for p in lowered.cell.params]
        own = {p.name for p in cell.params}
        computed = [name for name in self.wanted if name not in own]
        nodes = lowered.static
        moving: set[str] = set()
        for n in nodes:
            if n.op == "param" or any(a in moving for a in n.args):
                moving.add(n.name)
        self.computed = [name for name in computed if name in moving]
        self.types = {n.name: n.type for n in nodes}
        needed = live(nodes, self.computed)
        self.nodes = [n for n in nodes if n.name in needed]
        fixed = [name for name in computed if name not in moving]
        needed = live(nodes, fixed)
        values = evaluate([n for n in nodes if n.name in needed], types=self.types, dtype=torch.float64)
        self.fixed = {name: _cast(values[name], dtype) for name in fixed}
        self.known = None if cell.params or self.nodes else [self.fixed[name] for name in self.wanted]

    def forward(self, inputs, params, states, *, seed, training, keep):
        """See `backends.base.Executable`."""
        return self.inner.forward(inputs, self._params(params), states, seed=seed, training=training, keep=keep)

    def backward(self, inputs, params, states, tape, d_outputs, d_finals, *, seed, training, of_inputs=True):
        """See `backends.base.Executable`."""
        dx, dp, ds = self.inner.backward(inputs, self._params(params), states, tape, d_outputs, d_finals, seed=seed,
                                         training=training, of_inputs=of_inputs)
        if self.known is not None:
            return dx, [], ds
        found = dict(zip(self.wanted, dp))
        given = {p.name: x for p, x in zip(self.cell.params, params)}
        total = {p.name: found.get(p.name) for p in self.cell.params}
        cotangents = {name: d for name in self.computed if (d := found[name]) is not None}
        trained = [p.name for p in self.cell.params if p.trainable and p.type.kind == "real"]
        if cotangents and trained:
            for name, d in zip(trained, self._pulled_back(given, trained, cotangents)):
                total[name] = d if total[name] is None else total[name] if d is None else total[name] + d
        for name in trained:
            if total[name] is None:
                total[name] = torch.zeros_like(given[name])
        return dx, list(total.values()), ds

    def _pulled_back(self, given: dict[str, Tensor], trained: list[str],
                     cotangents: dict[str, Tensor]) -> tuple[Tensor | None, ...]:
        def work():
            leaves = {k: x.detach().requires_grad_(k in trained) if x.is_floating_point() else x
                      for k, x in given.items()}
            values = self._evaluate(leaves)
            ends = [(values[name], d) for name, d in cotangents.items() if values[name].requires_grad]
            if not ends:
                return (None,) * len(trained)
            return torch.autograd.grad([y for y, _ in ends], [leaves[k] for k in trained], [d for _, d in ends],
                                       allow_unused=True)
        return recording(work)

    def _evaluate(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        return evaluate(self.nodes, reads={("param", k): x for k, x in given.items()}, types=self.types,
                        dtype=self.dtype)

    def _params(self, params: Sequence[Tensor]) -> list[Tensor]:
        if self.known is not None:              # there are no parameters
            return self.known
        given = {p.name: x for p, x in zip(self.cell.params, params)}
        values = given | self.fixed
        if self.nodes:
            computed = self._evaluate(given)
            values |= {name: computed[name] for name in self.computed}
        return [values[name] for name in self.wanted]

    def ready(self, call: str) -> None:
        """See `backends.base.Executable`."""
        if hasattr(self.inner, "ready"):
            self.inner.ready(call)

    def tape_meta(self, B: int, T: int):
        """See `backends.base.Executable`."""
        return self.inner.tape_meta(B, T)

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What the inner executable says."""
        return self.inner.explain(B, T)

    def ir(self, stage: str) -> str | None:
        """Text of the back end's stages."""
        return self.inner.ir(stage) if hasattr(self.inner, "ir") else None


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).contiguous() if x.is_floating_point() else x.contiguous()
