"""The torch operators: a cell over time, and its backward pass.

`ostinato::recur(key, inputs, params, states, seed, training, keep)` gives the
outputs, the final states and, if `keep`, the tape in one list;
`ostinato::recur_backward` gives the gradients of the real inputs, trainable
real params and real states. `key` names a plan of this process. Registered
with torch.library, so that autograd, torch.compile and opcheck know them.
`ostinato::derive` is the part that depends on parameters only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from ..backends.recording import recording
from ..ir.cell import Cell
from .plan import Meta, Plan, find
from .ports import fail

INSTEAD = 'use layer.reference or backend="interpreter", whose operations are torch\'s own'


def operator(schema: str) -> Callable:
    """Define the torch operator of a function. (Not torch.library.custom_op,
    whose first call imports the whole of torch._dynamo, more than a second.)"""
    name = f"ostinato::{schema.partition('(')[0]}"
    torch.library.define(name, schema[schema.index("("):], tags=torch.Tag.pt2_compliant_tag)

    def register(kernel: Callable) -> Callable:
        torch.library.impl(name, "default", kernel)
        return kernel
    return register


def refuse(plan: Plan, missing: NotImplementedError) -> NoReturn:
    """What a back end has no code for becomes an error that names it and the way out."""
    fail("backend_unavailable", 'backend="interpreter" runs every cell', name=plan.backend,
         reason=f"in `{plan.cell.name}` it has no code for {missing}")


def number(seed: Tensor | None) -> int:
    """The seed as the executables take it; cells without draws have none."""
    return 0 if seed is None else int(seed)


@operator("recur(str key, Tensor[] inputs, Tensor[] params, Tensor[] states, Tensor? seed, bool training, bool keep)"
          " -> Tensor[]")
def recur(key: str, inputs: list[Tensor], params: list[Tensor], states: list[Tensor], seed: Tensor | None,
          training: bool, keep: bool) -> list[Tensor]:
    """Outputs [B, T, *shape], final states [B, *shape], then the tape (empty unless `keep`)."""
    plan = find(key)
    try:
        outputs, finals, tape = plan.executable.forward(inputs, params, states, seed=number(seed), training=training,
                                                        keep=keep)
    except NotImplementedError as missing:
        refuse(plan, missing)
    return [*outputs, *finals, *tape]


@torch.library.register_fake("ostinato::recur")
def _(key, inputs, params, states, seed, training, keep):
    plan = find(key)
    B, T = inputs[0].shape[:2]
    like = inputs[0]
    tape = plan.executable.tape_meta(B, T) if keep else ()
    return [*(like.new_empty((B, T, *sizes), dtype=dtype) for sizes, dtype in plan.output_meta),
            *(like.new_empty((B, *sizes), dtype=dtype) for sizes, dtype in plan.state_meta),
            *(like.new_empty(sizes, dtype=dtype) for sizes, dtype in tape)]


@operator("recur_backward(str key, Tensor[] inputs, Tensor[] params, Tensor[] states, Tensor[] tape,"
          " Tensor[] d_outputs, Tensor[] d_finals, Tensor? seed, bool training) -> Tensor[]")
def recur_backward(key: str, inputs: list[Tensor], params: list[Tensor], states: list[Tensor], tape: list[Tensor],
                   d_outputs: list[Tensor], d_finals: list[Tensor], seed: Tensor | None,
                   training: bool) -> list[Tensor]:
    """Gradients of the real inputs, params and states, from those of the real outputs and final states."""
    plan = find(key)
    found = gradients(plan, (inputs, params, states), tape, _spread(d_outputs, plan.output_meta),
                      _spread(d_finals, plan.state_meta), number(seed), training)
    return [d for group, reals in zip(found, plan.reals) for d, real in zip(group, reals) if real]


@torch.library.register_fake("ostinato::recur_backward")
def _(key, inputs, params, states, tape, d_outputs, d_finals, seed, training):
    return [x.new_empty(x.shape) for group, reals in zip((inputs, params, states), find(key).reals)
            for x, real in zip(group, reals) if real]


def gradients(plan: Plan, groups: Sequence[list[Tensor]], tape: list[Tensor], d_outputs: list[Tensor | None],
              d_finals: list[Tensor | None], seed: int, training: bool,
              of_inputs: bool = True) -> tuple[list[Tensor | None], ...]:
    """Gradients of inputs, params and states; None, or nothing of use, for those without. Without `of_inputs`, inputs
    may have None, too."""
    try:
        return plan.executable.backward(*groups, tape, d_outputs, d_finals, seed=seed, training=training,
                                        of_inputs=of_inputs)
    except NotImplementedError as missing:
        refuse(plan, missing)


def _spread(values: Sequence[Tensor], meta: Sequence[Meta]) -> list[Tensor | None]:
    """Those of the real values, with None for the others."""
    found = iter(values)
    return [next(found) if dtype.is_floating_point else None for _, dtype in meta]


def _setup(ctx, inputs, output) -> None:
    key, xs, ps, ss, seed, training, keep = inputs
    ctx.set_materialize_grads(False)
    ctx.keep = keep
    ctx.key, ctx.training, ctx.seed = key, training, seed
    ctx.counts = len(xs), len(ps), len(ss)
    ctx.save_for_backward(*xs, *ps, *ss, *output[_ends(key):])


def _ends(key: str) -> int:
    """Where the tape begins in what `recur` gives."""
    plan = find(key)
    return len(plan.output_meta) + len(plan.state_meta)


def zeros(lead: tuple[int, ...], sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """One zero value, repeated by its strides."""
    return torch.zeros(sizes, dtype=dtype, device=device).expand(*lead, *sizes)


def cotangents(plan: Plan, groups: Sequence[list[Tensor]], grads: Sequence[Tensor | None],
               zeros: Callable[..., Tensor] = zeros) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Those of the outputs and of the final states: `zeros` where nothing flows back, None for what is not real."""
    first, found = groups[0][0], list(grads)
    for i, (sizes, dtype) in enumerate(metas := (*plan.output_meta, *plan.state_meta)):
        if found[i] is None and dtype.is_floating_point:
            lead = tuple(first.shape[:2 if i < len(plan.output_meta) else 1])
            found[i] = zeros(lead, sizes, dtype, first.device)
    return found[:len(plan.output_meta)], found[len(plan.output_meta):len(metas)]


def _backward(ctx, grads):
    plan = find(ctx.key)
    saved = list(ctx.saved_tensors)
    groups = [[saved.pop(0) for _ in range(n)] for n in ctx.counts]
    if not ctx.keep:
        saved = torch.ops.ostinato.recur(ctx.key, *groups, ctx.seed, ctx.training, True)[_ends(ctx.key):]
    d_outputs, d_finals = ([d for d in some if d is not None] for some in cotangents(plan, groups, grads))
    found = iter(torch.ops.ostinato.recur_backward(ctx.key, *groups, saved, d_outputs, d_finals, ctx.seed,
                                                   ctx.training))
    dx, dp, ds = ([next(found) if real else None for real in reals] for reals in plan.reals)
    return None, dx, dp, ds, None, None, None


torch.library.register_autograd("ostinato::recur", _backward, setup_context=_setup)


def _second_setup(ctx, inputs, output) -> None:
    ctx.cell = find(inputs[0]).cell.name


def _second_backward(ctx, grads):
    fail("not_yet", what=f"the second derivative of `{ctx.cell}` (a gradient through its gradient)",
         instead=f"call backward() or grad() without create_graph=True, or {INSTEAD}")


torch.library.register_autograd("ostinato::recur_backward", _second_backward, setup_context=_second_setup)


@operator("derive(str key, Tensor[] params) -> Tensor[]")
def derive(key: str, params: list[Tensor]) -> list[Tensor]:
    """What the plan computes from the program's parameters (`Static.compute`), as one operator for traced graphs."""
    plan = find(key)
    return [x.clone(memory_format=torch.contiguous_format)
            for x in plan.static.compute(params, plan.dtype, _device(plan, params))]


@torch.library.register_fake("ostinato::derive")
def _(key, params):
    plan = find(key)
    return [torch.empty(sizes, dtype=dtype, device=_device(plan, params)) for sizes, dtype in plan.static.meta]


def _device(plan: Plan, params: list[Tensor]) -> torch.device:
    """Of what is computed from parameters; a cell without any has constants, on the back end's own device."""
    return params[0].device if params else torch.device(plan.devices[0])


@operator("derive_backward(str key, Tensor[] params, Tensor[] d_computed) -> Tensor[]")
def derive_backward(key: str, params: list[Tensor], d_computed: list[Tensor]) -> list[Tensor]:
    """Gradients of the real parameters from those of the real computed values."""
    plan = find(key)

    def gradients() -> list[Tensor]:
        leaves = [p.detach().requires_grad_() if p.is_floating_point() else p for p in params]
        values = [x for x in plan.static.compute(leaves, plan.dtype, params[0].device) if x.is_floating_point()]
        ends = [(x, d) for x, d in zip(values, d_computed) if x.requires_grad]
        wanted = [p for p in leaves if p.is_floating_point()]
        found = torch.autograd.grad([x for x, _ in ends], wanted, [d for _, d in ends], allow_unused=True)
        return [torch.zeros_like(p) if d is None else d.clone(memory_format=torch.contiguous_format)
                for p, d in zip(wanted, found)]

    return recording(gradients)


@torch.library.register_fake("ostinato::derive_backward")
def _(key, params, d_computed):
    return [p.new_empty(p.shape) for p in params if p.is_floating_point()]


def _derive_setup(ctx, inputs, output) -> None:
    ctx.key = inputs[0]
    ctx.save_for_backward(*inputs[1])


def _derive_backward(ctx, grads):
    params = list(ctx.saved_tensors)
    meta = find(ctx.key).static.meta
    found = iter(torch.ops.ostinato.derive_backward(
        ctx.key, params, [d for d, (_, dtype) in zip(grads, meta) if dtype.is_floating_point]))
    return None, [next(found) if p.is_floating_point() else None for p in params]


torch.library.register_autograd("ostinato::derive", _derive_backward, setup_context=_derive_setup)


def draws(cell: Cell) -> bool:
    """Whether a run of the cell needs a seed."""
    return any(n.op == "random" for n in cell.body)
