"""The LLVM back end as the runtime sees it: see `backends.base.Executable`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from math import prod

import torch
from torch import Tensor

from ...compiler.passes.again import keeping
from ...compiler.pipeline import Lowered, lower
from ...compiler.schedules.build import backward_kernel, forward_kernel, recomputes, sums_kept
from ...compiler.schedules.kernel import PER_STEP, Kernel
from ...compiler.schedules.printer import print_kernel
from ...compiler.schedules.strips import striped
from ...ir.cell import Cell, Output
from ...ir.types import Type
from ..fold import Fold, of_a_step
from ..pages import Kind, each
from . import threads
from .gradients import Gradients, Meta
from .launch import SIZES, Folded, Launch, registers, tuned
from .places import placed
from .stepper import Stepper
from .tape import Tape

DEVICES = ("cpu",)
FEW_ROWS = 32                  # rows up to which reading weights where they lie costs less than packing them
FEW = 256                      # sequences up to which a step packs no weights
CHECK_BYTES = 256 * 1024       # values of one tile that the recomputing backward pass keeps


def prepare(cell: Cell, save: str = "auto") -> Lowered:
    """The passes of the pipeline."""
    return lower(cell, save)


def build(lowered: Lowered, dtype: torch.dtype, fold: Fold | None = None) -> LlvmExecutable:
    """The executable of a lowered cell; kernels are compiled when first needed."""
    return LlvmExecutable(lowered, dtype, fold)


class LlvmExecutable:
    """Kernels of one cell in one dtype. B and T are free."""

    def __init__(self, lowered: Lowered, dtype: torch.dtype, fold: Fold | None = None):
        self.lowered, self.dtype, self.fold = lowered, dtype, fold
        self.cell: Cell = lowered.cell

    # -- kernels, compiled on demand --------------------------------------
    @cached_property
    def recompute(self) -> bool:
        """Backward runs the steps again from states kept at the starts of tiles."""
        return self.lowered.save == "auto" and recomputes(self.cell)

    @cached_property
    def sums(self) -> tuple[Output, ...]:
        """What forward keeps at every step, so that running it again takes no sums over states."""
        return sums_kept(self.lowered.adjoint.forward, len(self.cell.outputs)) if self.recompute else ()

    @cached_property
    def tile(self) -> int | None:
        """Steps per tile where forward and backward must agree on it. States that steps use where they are kept take
        about as much memory as inputs and outputs: keeping more of them costs what it saves. Others are kept for so
        many steps that what the tile computes again stays in cache, and that they take no more memory than the
        inputs."""
        if not self.recompute:
            return None
        nodes = self.cell.nodes()
        states, inputs = (sum(p.type.numel for p in ports) for ports in (self.cell.states, self.cell.inputs))
        if placed(tuned(self._backward, self.dtype), registers(self.dtype)[0]):
            return max(1, round(states / (inputs + sum(nodes[o.value].type.numel for o in self.cell.outputs))))
        size = torch.finfo(self.dtype).bits // 8
        per_step = sum(b.numel for b in self._backward.scratch if b.space in PER_STEP) * size
        most = 32 if self._backward.strip else 64
        return max(1, min(most, max(CHECK_BYTES // max(1, per_step), -(-states // max(1, inputs)))))

    @cached_property
    def infer(self) -> Launch:
        return Launch(self._forward, self.dtype, self._operands, self._results, folded=self._folded)

    @cached_property
    def single(self) -> Launch:
        """The same without packs."""
        if not self.infer.packs:
            return self.infer
        return Launch(forward_kernel(self.cell, "step", packing=False), self.dtype, self._operands, self._results,
                      folded=self._folded)

    @cached_property
    def keep(self) -> Launch:
        cell = self.lowered.adjoint.forward
        if self.recompute:
            cell = keeping(cell, len(self.cell.outputs), self.sums) if self.sums else self.cell
        kernel = forward_kernel(cell, "forward_checkpoints" if self.recompute else "forward_keeping",
                                checkpoint=self.recompute)
        tape = self._tape("out")
        return Launch(kernel, self.dtype, self._operands, self._results + tape.names, tape, self.tile, self._folded)

    @cached_property
    def back(self) -> Launch:
        return self._launch_back(self._backward, self.lowered.adjoint.backward.outputs)

    @cached_property
    def lean(self) -> Launch:
        """`back` without the gradients of inputs."""
        a = self.lowered.adjoint
        if not a.backward.outputs:
            return self.back
        return self._launch_back(self._back(a.lean, "backward_lean"), ())

    def _launch_back(self, kernel: Kernel, outputs: Sequence[Output]) -> Launch:
        c, a, tape = self.cell, self.lowered.adjoint.backward, self._tape("in")
        operands = [*self._operands, *tape.names, *(f"in.d.{o.name}" for o in c.outputs),
                    *(f"first.d.{s.name}" for s in c.states)]
        results = [*(f"out.{o.name}" for o in outputs), *(f"final.{s.name}" for s in a.states),
                   *(f"sum.{o.name}" for o in a.sums)]
        return Launch(kernel, self.dtype, operands, results, tape, self.tile, self._folded)

    @cached_property
    def _folded(self) -> Folded | None:
        """Of inputs, outputs, their cotangents and gradients."""
        if self.fold is None:
            return None
        xs, ys = ([p.name for p in ports] for ports in (self.cell.inputs, self.cell.outputs))
        return Folded(self.fold, self.fold.ports([f"in.{x}" for x in xs], [f"out.{y}" for y in ys])
                      | self.fold.ports([f"out.d.{x}" for x in xs], [f"in.d.{y}" for y in ys]))

    @cached_property
    def _operands(self) -> list[str]:
        """Operands of a call, by the names of the kernels' ports."""
        c = self.cell
        return [f"{space}.{p.name}" for space, some in (("in", c.inputs), ("par", c.params), ("first", c.states))
                for p in some]

    @cached_property
    def _results(self) -> list[str]:
        """Its results, but for the tape."""
        return [*(f"out.{o.name}" for o in self.cell.outputs), *(f"final.{s.name}" for s in self.cell.states)]

    def _tape(self, space: str) -> Tape:
        """What is kept, `space` being where the kernel has it unless it is states."""
        checks = self.cell.states if self.recompute else ()
        ports = [*(f"check.{s.name}" for s in checks), *(f"{space}.{o.name}" for o in self._each_step)]
        return Tape(tuple(ports), self._parts)

    @property
    def _each_step(self) -> tuple[Output, ...]:
        """What is kept at every step."""
        return self.sums if self.recompute else self.lowered.adjoint.forward.outputs[len(self.cell.outputs):]

    @cached_property
    def _forward(self) -> Kernel:
        return forward_kernel(self.cell, "forward")

    @cached_property
    def _backward(self) -> Kernel:
        return self._back(self.lowered.adjoint.backward, "backward")

    def _back(self, backward: Cell, name: str) -> Kernel:
        forward = self.lowered.adjoint.forward
        kernel = backward_kernel(forward, backward, name, recompute=self.recompute, sums=self.sums)
        return striped(kernel, *registers(self.dtype))

    # -- running ------------------------------------------------------------
    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        B, T = _batch(inputs, states)
        made, ys = each(self._room(B, T, keep)), len(self._outputs)
        outputs, finals, tape = made[:ys], made[ys:ys + len(states)], made[ys + len(states):]
        n = self._own_steps(T)
        if B == 0 or n == 0:
            return outputs, [s.clone(memory_format=torch.contiguous_format) for s in states], tape
        run = self.keep if keep else self._both[B * n > FEW_ROWS]
        run(B, T, [*inputs, *params, *states, *made], seed=seed, training=training)
        return outputs, finals, tape

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        B, T = _batch(inputs, states)
        run = self.back if of_inputs else self.lean         # made here, whatever B and T
        of, n = self._gradients, self._own_steps(T)
        blocks = run.geometry(B, n)[1] if of.params and B and n else 1
        made = each(self._room_back(B, T, of_inputs, blocks))
        first, sums = len(made) - len(of.params) - len(of.states), len(made) - len(of.params)
        for x in made[sums:]:
            x.zero_()
        if B and n:
            run(B, T, [*inputs, *params, *states, *tape, *_given(d_outputs, self._outputs, (B, T)),
                       *_given(d_finals, self._finals, (B,)), *made], seed=seed, training=training)
        else:
            made[first:sums] = [x.zero_() if (d := d_finals[at]) is None else d.clone()
                                for x, (at, *_) in zip(made[first:sums], of.states)]
        if blocks > 1:
            made[sums:] = [x.sum(0) for x in made[sums:]]
        return of.placed(made, of_inputs)

    def kept(self, tape: Sequence[Tensor], B: int, T: int) -> dict[str, Tensor]:
        """What a tape holds, by the names of the adjoint's inputs, [B, T, *shape]; nothing where it is states only."""
        if self.recompute or not tape:
            return {}
        views = self._tape("in").views(tape[0], B, self._own_steps(T))
        return {name.removeprefix("in."): x.transpose(0, 1) for name, x in views.items()}

    def tape_meta(self, B: int, T: int) -> list[Kind]:
        """See `backends.base.Executable`: one memory for all parts."""
        return self._tape("in").kinds(B, self._own_steps(T))

    def _parts(self, B: int, T: int) -> list[Kind]:
        """What is kept of T steps of the cell. Time leads, unlike in inputs and outputs: what all sequences keep at a
        step lies together, where a batch stride of a power of two would fill one set of the caches."""
        steps = [((T, B, *sizes), dtype) for sizes, dtype in self._kept]
        if not self.recompute:
            return steps
        tiles = (T + self.tile - 1) // self.tile
        return [((tiles, B, *sizes), dtype) for sizes, dtype in self._finals] + steps

    def _own_steps(self, T: int) -> int:
        """How many steps of the cell there are in T steps of tensors."""
        return T if self.fold is None else T // self.fold.size

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
            c, results = self.cell, self._outputs + self._finals
            lead = [(B,)] * len(c.inputs) + [()] * len(c.params) + [(B,)] * (len(c.states) + len(results))
            metas = [*(self._meta(p.type) for p in (*c.inputs, *c.params, *c.states)), *results]
            self._steppers[key] = Stepper(self.single, B, {
                name: (rows + sizes, dtype)
                for name, rows, (sizes, dtype) in zip(self._operands + self._results, lead, metas)})
        return self._steppers[key]

    @cached_property
    def _both(self) -> tuple[Launch, Launch]:
        """Kernels for few and for many rows, made together: no later number of them compiles anything."""
        return self.single, self.infer

    @cached_property
    def _steppers(self) -> dict[tuple[int, int], Stepper]:
        return {}

    def ready(self, call: str) -> None:
        """See `backends.base.Executable`."""
        _ = self._both if call == "infer" else getattr(self, call)

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
            where = f"kept at one step of {self.tile}" if self.tile > 1 else "kept at every step"
            lines.append(f"  backward runs the steps again from the states {where}: no product "
                         "with a parameter lies between states, so that is cheaper than keeping values")
            if self.sums:
                names = ", ".join(o.name for o in self.sums)
                lines.append(f"  they are given {names} of every step, which would take sums over the states")
        else:
            names = ", ".join(o.name for o in self.lowered.adjoint.forward.outputs[len(self.cell.outputs):])
            why = ": a product with a parameter lies between states, too dear to repeat" * (self.lowered.save == "auto")
            lines.append(f"  backward reads what forward keeps ({names or 'nothing'}){why}")
        if B is not None and T is not None:
            kept = sum(prod(shape) * dtype.itemsize for shape, dtype in self.tape_meta(B, T))
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
    @cached_property
    def _outputs(self) -> list[Meta]:
        types = self.cell.nodes()
        metas = [self._meta(types[o.value].type) for o in self.cell.outputs]
        return metas if self.fold is None else [
            (of_a_step(sizes, axis), dtype) for (sizes, dtype), axis in zip(metas, self.fold.outputs)]

    @cached_property
    def _finals(self) -> list[Meta]:
        return [self._meta(s.type) for s in self.cell.states]

    @cached_property
    def _kept(self) -> list[Meta]:
        """Of what is kept at every step, without B and time."""
        types = self.lowered.adjoint.forward.nodes()
        return [self._meta(types[o.value].type) for o in self._each_step]

    @cached_property
    def _gradients(self) -> Gradients:
        return Gradients.of(self.cell, self.lowered.adjoint.backward, self._meta, self.fold)

    @cached_property
    def _room(self) -> Callable[[int, int, bool], list[Kind]]:
        """What forward makes for B, T, keep: outputs, final states, the tape."""
        return lru_cache(maxsize=SIZES)(lambda B, T, keep: [
            *(((B, T, *sizes), dtype) for sizes, dtype in self._outputs),
            *(((B, *sizes), dtype) for sizes, dtype in self._finals), *(self.tape_meta(B, T) if keep else ())])

    @cached_property
    def _room_back(self) -> Callable[[int, int, bool, int], list[Kind]]:
        """What backward makes; see `Gradients.kinds`."""
        return lru_cache(maxsize=SIZES)(self._gradients.kinds)

    def _meta(self, t: Type) -> Meta:
        return t.sizes, {"real": self.dtype, "int": torch.int64, "bool": torch.bool}[t.kind]


def _batch(inputs: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[int, int]:
    return tuple(inputs[0].shape[:2]) if inputs else (states[0].shape[0], 1)


def _given(cotangents: Sequence[Tensor | None], meta: Sequence[Meta], lead: tuple[int, ...]) -> list[Tensor]:
    """None is one zero for all rows, where the value is real."""
    return [torch.zeros(sizes, dtype=dtype).expand(*lead, *sizes) if d is None and dtype.is_floating_point else d
            for d, (sizes, dtype) in zip(cotangents, meta)]
