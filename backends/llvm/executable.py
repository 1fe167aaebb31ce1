"""The LLVM back end as the runtime sees it: see `backends.base.Executable`."""

from __future__ import annotations

from functools import cached_property
from typing import Sequence

import torch
from torch import Tensor

from ...compiler.pipeline import Lowered, lower
from ...compiler.schedules.build import backward_kernel, forward_kernel, recomputes
from ...compiler.schedules.kernel import PER_STEP, Kernel
from ...compiler.schedules.printer import print_kernel
from ...ir.cell import Cell
from ...ir.types import Type
from ..pages import empty
from . import threads
from .launch import Launch, tuned
from .stepper import Stepper

DEVICES = ("cpu",)
FEW_ROWS = 32                  # rows up to which reading weights where they lie costs less than packing them
FEW = 256                      # sequences up to which a step packs no weights
CHECK_BYTES = 512 * 1024       # values of one tile that the recomputing backward pass keeps


def prepare(cell: Cell, save: str = "auto") -> Lowered:
    """The passes of the pipeline."""
    return lower(cell, save)


def build(lowered: Lowered, dtype: torch.dtype) -> LlvmExecutable:
    """The executable of a lowered cell; kernels are compiled when first needed."""
    return LlvmExecutable(lowered, dtype)


class LlvmExecutable:
    """Kernels of one cell in one dtype. B and T are free."""

    def __init__(self, lowered: Lowered, dtype: torch.dtype):
        self.lowered, self.dtype = lowered, dtype
        self.cell: Cell = lowered.cell

    # -- kernels, compiled on demand --------------------------------------
    @cached_property
    def recompute(self) -> bool:
        """Backward runs the steps again from states kept at the starts of tiles."""
        return self.lowered.save == "auto" and recomputes(self.cell)

    @cached_property
    def tile(self) -> int | None:
        """Steps per tile where forward and backward must agree on it: so many that what the tile computes again
        stays in cache, and that the states kept at the starts of tiles take no more memory than the inputs."""
        if not self.recompute:
            return None
        size = torch.finfo(self.dtype).bits // 8
        per_step = sum(b.numel for b in self._backward.scratch if b.space in PER_STEP) * size
        states, inputs = (sum(p.type.numel for p in ports) for ports in (self.cell.states, self.cell.inputs))
        most = 32 if self._backward.strip else 64
        return max(1, min(most, max(CHECK_BYTES // max(1, per_step), -(-states // max(1, inputs)))))

    @cached_property
    def infer(self) -> Launch:
        return Launch(self._forward, self.dtype)

    @cached_property
    def single(self) -> Launch:
        """The same without packs."""
        if not self.infer.packs:
            return self.infer
        return Launch(forward_kernel(self.cell, "step", packing=False), self.dtype)

    @cached_property
    def keep(self) -> Launch:
        if self.recompute:
            return Launch(forward_kernel(self.cell, "forward_checkpoints", checkpoint=True), self.dtype, self.tile)
        return Launch(forward_kernel(self.lowered.adjoint.forward, "forward_keeping"), self.dtype)

    @cached_property
    def back(self) -> Launch:
        return Launch(self._backward, self.dtype, self.tile)

    @cached_property
    def lean(self) -> Launch:
        """`back` without the gradients of inputs."""
        a = self.lowered.adjoint
        if not a.backward.outputs:
            return self.back
        return Launch(backward_kernel(a.forward, a.lean, "backward_lean", recompute=self.recompute), self.dtype,
                      self.tile)

    @cached_property
    def _forward(self) -> Kernel:
        return forward_kernel(self.cell, "forward")

    @cached_property
    def _backward(self) -> Kernel:
        a = self.lowered.adjoint
        return backward_kernel(a.forward, a.backward, "backward", recompute=self.recompute)

    # -- running ------------------------------------------------------------
    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool,
                into: Sequence[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        B, T = _batch(inputs, states)
        cell = self.lowered.adjoint.forward if keep and not self.recompute else self.cell
        types = cell.nodes()
        outputs = (list(into) if into is not None else
                   [self._empty(types[o.value].type, B, T) for o in self.cell.outputs])
        tape = [empty(*shape, dtype=dtype) for shape, dtype in self.tape_meta(B, T)] if keep else []
        if B == 0 or T == 0:
            return outputs, [s.clone(memory_format=torch.contiguous_format) for s in states], tape
        finals = [self._empty(s.type, B) for s in cell.states]
        tensors = self._tensors(inputs, params, states)
        kept = [x.transpose(0, 1) for x in tape]
        tensors |= {f"out.{o.name}": x for o, x in zip(cell.outputs, outputs if self.recompute else outputs + kept)}
        tensors |= {f"final.{s.name}": x for s, x in zip(cell.states, finals)}
        if keep and self.recompute:
            tensors |= {f"check.{s.name}": x for s, x in zip(cell.states, kept)}
        few, many = self._both if not keep else (self.keep, self.keep)
        (few if B * T <= FEW_ROWS else many)(B, T, tensors, seed=seed, training=training)
        return outputs, finals, tape

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True, into: Sequence[Tensor | None] | None = None,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        B, T = _batch(inputs, states)
        a, cell = self.lowered.adjoint, self.cell
        nodes = a.backward.nodes()
        d_outputs = {f"d.{o.name}": d for o, d in zip(cell.outputs, d_outputs)}
        d_states = {f"d.{s.name}": d for s, d in zip(cell.states, d_finals)}
        given = dict(zip((f"d.{p.name}" for p in cell.inputs), into or ()))
        grads = {o.name: given[o.name] if given.get(o.name) is not None else self._empty(nodes[o.value].type, B, T)
                 for o in a.backward.outputs if of_inputs}
        finals = {s.name: self._empty(s.type, B) for s in a.backward.states}
        run = self.back if of_inputs else self.lean         # made here, whatever B and T
        blocks = run.geometry(B, T)[1] if B and T else 1
        sums = {o.name: empty(blocks, *nodes[o.value].type.sizes, dtype=self.dtype).zero_() for o in a.backward.sums}
        if B and T:
            tensors = self._tensors(inputs, params, states)
            for p in a.backward.inputs:
                if p.name in d_outputs:
                    tensors[f"in.{p.name}"] = _given(d_outputs[p.name], p.type, (B, T), self.dtype)
            for s in a.backward.states:
                tensors[f"first.{s.name}"] = _given(d_states[s.name], s.type, (B,), self.dtype)
                tensors[f"final.{s.name}"] = finals[s.name]
            names = [f"check.{s.name}" for s in cell.states] if self.recompute else \
                [f"in.{o.name}" for o in a.forward.outputs[len(cell.outputs):]]
            tensors |= dict(zip(names, (x.transpose(0, 1) for x in tape)))
            tensors |= {f"out.{k}": x for k, x in grads.items()} | {f"sum.{k}": x for k, x in sums.items()}
            run(B, T, tensors, seed=seed, training=training)
        else:
            for s in a.backward.states:
                d = d_states[s.name]
                finals[s.name] = torch.zeros_like(finals[s.name]) if d is None else d.clone()
        return ([grads.get(f"d.{p.name}") for p in cell.inputs],
                [None if (s := sums.get(f"d.{p.name}")) is None else s.sum(0) if blocks > 1 else s.squeeze(0)
                 for p in cell.params],
                [finals.get(f"d.{s.name}") for s in cell.states])

    def kept(self, tape: Sequence[Tensor]) -> dict[str, Tensor]:
        """What a tape holds, by the names of the adjoint's inputs, [B, T, *shape]; nothing where it is states only."""
        kept = self.lowered.adjoint.forward.outputs[len(self.cell.outputs):]
        names = [] if self.recompute else [o.name for o in kept]
        return {name: x.transpose(0, 1) for name, x in zip(names, tape)}

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape. Time leads, unlike in inputs and outputs: what all sequences
        keep at a step lies together, where a batch stride of a power of two would fill one set of the caches."""
        if self.recompute:
            tiles = (T + self.tile - 1) // self.tile
            return [((tiles, B, *s.type.sizes), self._dtype(s.type)) for s in self.cell.states]
        a = self.lowered.adjoint
        types = a.forward.nodes()
        return [((T, B, *types[o.value].type.sizes), self._dtype(types[o.value].type))
                for o in a.forward.outputs[len(self.cell.outputs):]]

    def step(self, given: Sequence[Tensor], B: int, seed: int, training: bool) -> list[Tensor]:
        """One step of B sequences: inputs [B, *shape], params, states -> outputs [B, *shape], states."""
        stepper = self.stepper(B)
        if stepper is not None and stepper.takes(given):
            return stepper(given, seed, training)
        n, m = len(self.cell.inputs), len(given) - len(self.cell.states)
        outputs, finals, _ = self.forward([x.unsqueeze(1) for x in given[:n]], given[n:m], given[m:], seed=seed,
                                          training=training, keep=False)
        return [*(y.squeeze(1) for y in outputs), *finals]

    def stepper(self, B: int) -> Stepper | None:
        """The step of B sequences for the threads there are now; None for none or very many."""
        _ = self._both
        if not 0 < B <= FEW:
            return None
        key = B, threads.num_threads()          # not torch's number: in a forked child there is one
        if key not in self._steppers:
            c, nodes = self.cell, self.cell.nodes()
            ports = {"in": [(p.name, p.type) for p in c.inputs], "par": [(p.name, p.type) for p in c.params],
                     "first": [(s.name, s.type) for s in c.states],
                     "out": [(o.name, nodes[o.value].type) for o in c.outputs],
                     "final": [(s.name, s.type) for s in c.states]}
            self._steppers[key] = Stepper(self.single, B, {
                f"{space}.{name}": ((() if space == "par" else (B,)) + t.sizes, self._dtype(t))
                for space, some in ports.items() for name, t in some})
        return self._steppers[key]

    @cached_property
    def _both(self) -> tuple[Launch, Launch]:
        """Kernels for few and for many rows, made together: no later number of them compiles anything."""
        return self.single, self.infer

    @cached_property
    def _steppers(self) -> dict[tuple[int, int], Stepper]:
        return {}

    def ready(self, keep: bool) -> None:
        """Compile what `forward` will need, whatever the lengths."""
        _ = self.keep if keep else self._both

    # -- for people -----------------------------------------------------------
    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs, and what the backward pass keeps."""
        lines = ["schedule sequential: fused kernels, one pass over time, a tile of steps at a time"]
        for title, kernel in (("forward", self._forward), ("backward", self._backward)):
            for run in kernel.runs:
                n = {w: len(getattr(run, w).phases) for w in ("before", "steps", "after")}
                lines.append(f"  {title}{' (again)' if run.prefix == 'f.' else ''}: {n['before']} loop nests before "
                             f"the steps of a tile, {n['steps']} at every step, {n['after']} after")
        if self.recompute:
            lines.append(f"  backward runs the steps again from the states at every {self.tile}th step: no product "
                         "with a parameter lies between states, so that is cheaper than keeping values")
        else:
            names = ", ".join(o.name for o in self.lowered.adjoint.forward.outputs[len(self.cell.outputs):])
            why = ": a product with a parameter lies between states, too dear to repeat" * (self.lowered.save == "auto")
            lines.append(f"  backward reads what forward keeps ({names or 'nothing'}){why}")
        if B is not None and T is not None:
            kept = sum(_numel(shape) * dtype.itemsize for shape, dtype in self.tape_meta(B, T))
            lines.append(f"  kept for backward at B={B}, T={T}: {kept} bytes ({kept / 2**20:.2f} MiB)")
        return "\n".join([*lines, f"  threads: {threads.describe()}"])

    def ir(self, stage: str) -> str | None:
        """Text of the stages "schedule", "llvm" and "asm": forward, then backward."""
        match stage:
            case "schedule":
                return "\n".join(print_kernel(tuned(k, self.dtype)) for k in (self._forward, self._backward))
            case "llvm":
                return "\n".join(x.llvm() for x in (self.infer, self.back))
            case "asm":
                return "\n".join(x.code.asm() for x in (self.infer, self.back))
        return None

    # -- tensors --------------------------------------------------------------
    def _tensors(self, inputs, params, states) -> dict[str, Tensor]:
        out = {f"in.{p.name}": x for p, x in zip(self.cell.inputs, inputs)}
        out |= {f"par.{p.name}": x.contiguous() for p, x in zip(self.cell.params, params)}
        return out | {f"first.{s.name}": x for s, x in zip(self.cell.states, states)}

    def _dtype(self, t: Type) -> torch.dtype:
        return {"real": self.dtype, "int": torch.int64, "bool": torch.bool}[t.kind]

    def _empty(self, t: Type, *lead: int) -> Tensor:
        return empty(*lead, *t.sizes, dtype=self._dtype(t))


def _batch(inputs: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[int, int]:
    return tuple(inputs[0].shape[:2]) if inputs else (states[0].shape[0], 1)


def _numel(shape: tuple[int, ...]) -> int:
    n = 1
    for d in shape:
        n *= d
    return n


def _given(x: Tensor | None, t: Type, lead: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A cotangent; None is one zero for all rows."""
    return torch.zeros(t.sizes, dtype=dtype).expand(*lead, *t.sizes) if x is None else x
