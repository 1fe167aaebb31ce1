"""An executable of a derived cell: parameters in, parameters out, whatever the pipeline has hoisted out of it.

What depends on parameters only is a cell of its own, run for one step in every call; what depends on nothing is
evaluated once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor

from ...backends.base import Executable
from ...backends.fold import Fold
from ...compiler.passes.dce import live
from ...ir.cell import Cell, Input, Node, Output
from ...ir.interp import evaluate
from ...ir.types import STEPS


def build(backend: ModuleType, cell: Cell, dtype: torch.dtype, save: str = "auto",
          fold: Fold | None = None) -> Executable:
    """The executable of a cell that has not been through the pipeline; its ports are the cell's."""
    lowered = backend.prepare(cell, save)
    inner = backend.build(lowered, dtype, fold)
    return Hoisted(backend, cell, lowered, inner, dtype) if lowered.static else inner


class Hoisted:
    """`inner` runs `lowered.cell`, whose parameters are some of the cell's and those that `lowered.static` gives."""

    def __init__(self, backend: ModuleType, cell: Cell, lowered, inner: Executable, dtype: torch.dtype):
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
        self.moving = _cell(cell, nodes, self.computed) if self.computed else None
        self.compiled = build(backend, self.moving, dtype) if self.computed else None
        fixed = [name for name in computed if name not in moving]
        needed = live(nodes, fixed)
        types = {n.name: n.type for n in nodes}
        values = evaluate([n for n in nodes if n.name in needed], types=types, dtype=torch.float64)
        self.fixed = {name: _cast(values[name], dtype) for name in fixed}
        self.known = None if cell.params or self.computed else [self.fixed[name] for name in self.wanted]

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
        total = {p.name: found.get(p.name) for p in self.cell.params}
        if any(found[name] is not None for name in self.computed):
            given = self._given(params)
            *_, tape = self.compiled.forward(given, [], [], seed=seed, training=training, keep=True)
            back, _, _ = self.compiled.backward(given, [], [], tape, [_once(found[name]) for name in self.computed], [],
                                                seed=seed, training=training)
            for p, d in zip(self.moving.inputs, back):
                if d is not None:
                    total[p.name] = d[0, 0] if total[p.name] is None else total[p.name] + d[0, 0]
        for p, x in zip(self.cell.params, params):
            if not p.trainable or p.type.kind != "real":
                total[p.name] = None
            elif total[p.name] is None:
                total[p.name] = torch.zeros_like(x)
        return dx, list(total.values()), ds

    def _given(self, params: Sequence[Tensor]) -> list[Tensor]:
        """The inputs of the cell of what is computed: one step of one sequence."""
        own = {p.name: x for p, x in zip(self.cell.params, params)}
        return [_once(own[p.name]) for p in self.moving.inputs]

    def _params(self, params: Sequence[Tensor]) -> list[Tensor]:
        if self.known is not None:              # there are no parameters
            return self.known
        values = {p.name: x for p, x in zip(self.cell.params, params)} | self.fixed
        if self.moving is not None:
            ys, _, _ = self.compiled.forward(self._given(params), [], [], seed=0, training=False, keep=False)
            values |= {name: y[0, 0] for name, y in zip(self.computed, ys)}
        return [values[name] for name in self.wanted]

    def ready(self, call: str) -> None:
        """See `backends.base.Executable`."""
        ahead = ("infer",) if call in ("infer", "keep") else ("infer", "keep", "back")
        for part, calls in ((self.inner, (call,)), (self.compiled, ahead)):
            if hasattr(part, "ready"):
                for one in calls:
                    part.ready(one)

    def tape_meta(self, B: int, T: int):
        """See `backends.base.Executable`."""
        return self.inner.tape_meta(B, T)

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What the inner executable says."""
        return self.inner.explain(B, T)

    def ir(self, stage: str) -> str | None:
        """Text of the back end's stages."""
        return self.inner.ir(stage) if hasattr(self.inner, "ir") else None


def _cell(cell: Cell, nodes: Sequence[Node], wanted: Sequence[str]) -> Cell:
    """What depends on parameters only as a cell whose inputs are these."""
    needed = live(nodes, wanted)
    body = tuple(replace(_own(n), op="input" if n.op == "param" else n.op) for n in nodes if n.name in needed)
    read = {n.attr("name"): n.type for n in body if n.op == "input"}
    inputs = tuple(Input(name, t) for name, t in read.items())
    dims = tuple(dict.fromkeys(d for n in body for d in n.type.shape))
    return Cell(f"{cell.name}.static", dims, None, inputs, outputs=tuple(Output(x, x) for x in wanted), body=body)


def _own(n: Node) -> Node:
    """Steps of a chunk are an axis like any other here."""
    shape = tuple(replace(d, name="steps") if d.name == STEPS else d for d in n.type.shape)
    return replace(n, type=n.type.with_shape(shape))


def _once(x: Tensor | None) -> Tensor | None:
    return x if x is None else x[None, None]


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).contiguous() if x.is_floating_point() else x.contiguous()
