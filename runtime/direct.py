"""Eager calls past the dispatcher: the same as the operators of `recur`, for
plain tensors outside of any tracing, with a tenth of the fixed cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import TransformType, is_legacy_batchedtensor, peek_interpreter_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from . import recur
from .plan import Plan
from .ports import fail

PLAIN = (Tensor, nn.Parameter)
Lists = tuple[list[Tensor], list[Tensor], list[Tensor]]      # inputs, params, states
_zeros = lru_cache(maxsize=8)(recur.zeros)                   # which executables only read


@dataclass(frozen=True, slots=True)
class Call:
    """A call but for its tensors: `counts` inputs, params and states."""

    plan: Plan
    counts: tuple[int, int, int]
    seed: int
    training: bool

    def split(self, tensors: Iterable[Tensor]) -> tuple[Lists, list[Tensor]]:
        """Its tensors as inputs, params and states, and what follows them."""
        every, (inputs, params, states) = [*tensors], self.counts
        params += inputs
        states += params
        return (every[:inputs], every[inputs:params], every[params:states]), every[states:]


def watched() -> bool:
    """Whether something follows the calls: a compiler, a mode, a transform."""
    return is_compiling() or followed()


def followed() -> bool:
    """The same where no compiler does."""
    return (_len_torch_dispatch_stack() != 0 or peek_interpreter_stack() is not None
            or forward_ad._current_level >= 0)


def transformed() -> bool:
    """Whether torch.func follows the calls (grad, vmap, jvp and what is made of them)."""
    above = None if is_compiling() else peek_interpreter_stack()
    return above is not None and above.key() in (TransformType.Grad, TransformType.Vmap, TransformType.Jvp)


def tangents(*groups: Iterable[Tensor]) -> bool:
    """Whether derivatives travel forwards with some tensor (`torch.func.jvp`): operators would drop them silently."""
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(x).tangent is not None for group in groups for x in group)


def possible(*groups: Iterable[Tensor]) -> bool:
    """Whether nothing follows the calls, and no tensor is of a class of its own."""
    return not watched() and all(type(x) in PLAIN for group in groups for x in group)


def call(plan: Plan, groups: Lists, seed: Tensor | None, training: bool, keep: bool) -> list[Tensor]:
    """`run`, or where something follows the calls the operator, whose tape comes after the final states."""
    if transformed() or possible(*groups):
        return run(plan, groups, recur.number(seed), training, keep)
    return torch.ops.ostinato.recur(plan.key, *groups, seed, training, keep)


def run(plan: Plan, groups: Lists, seed: int, training: bool, keep: bool) -> list[Tensor]:
    """Outputs [B, T, *shape], then final states [B, *shape]; recorded by autograd if `keep`."""
    if transformed():
        if not hasattr(plan.executable, "recorded"):
            fail("not_yet", what=f"torch.func (grad, vmap, jacrev, ...) of `{plan.cell.name}`",
                 instead=f"use torch.autograd, or {recur.INSTEAD}")
        return plan.executable.recorded(*groups, seed=seed, training=training)
    call = Call(plan, tuple(map(len, groups)), seed, training)
    tensors = [*groups[0], *groups[1], *groups[2]]
    return [*_Recur.apply(call, *tensors)] if keep else unrecorded(call, tensors)


def recorded(call: Call, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """`run` with `keep`, of tensors that no transform of torch.func has left behind."""
    return _apply(call, *tensors)


def unrecorded(call: Call, tensors: Sequence[Tensor]) -> list[Tensor]:
    """`run` without `keep`, where no transform of torch.func follows the calls."""
    try:
        outputs, finals, _ = call.plan.executable.forward(*call.split(tensors)[0], seed=call.seed,
                                                          training=call.training, keep=False)
    except NotImplementedError as missing:
        recur.refuse(call.plan, missing)
    return [*outputs, *finals]


class _Recur(torch.autograd.Function):
    @staticmethod
    def forward(ctx, call: Call, *tensors: Tensor):
        (inputs, params, states), _ = call.split(tensors)
        try:
            outputs, finals, tape = call.plan.executable.forward(inputs, params, states, seed=call.seed,
                                                                 training=call.training, keep=True)
        except NotImplementedError as missing:
            recur.refuse(call.plan, missing)
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *tape)
        # A view may not be changed in place: give the memory as a tensor of its own.
        return tuple([x.new_empty(0).set_(x) if x._is_view() else x for x in (*outputs, *finals)])

    @staticmethod
    def backward(ctx, *grads):
        call: Call = ctx.call
        plan, (groups, tape), again = call.plan, call.split(ctx.saved_tensors), torch.is_grad_enabled()
        # Where derivatives are recorded, or followed otherwise, zeros may become part of a result.
        d_outputs, d_finals = recur.cotangents(plan, groups, grads, recur.zeros if again or watched() else _zeros)
        if any([d is not None and is_legacy_batchedtensor(d) for d in grads]):
            fail("not_yet", what=f"a batch of gradients of `{plan.cell.name}` at once (is_grads_batched, vectorize)",
                 instead="call grad() once for each, or torch.func.jacrev of layer.reference")
        if not again:
            found = recur.gradients(plan, groups, tape, d_outputs, d_finals, call.seed, call.training,
                                    of_inputs=True in ctx.needs_input_grad[1:1 + call.counts[0]])
            return (None, *[d if real else None for ds, reals in zip(found, plan.reals)
                            for d, real in zip(ds, reals)])
        if hasattr(plan.executable, "recorded"):
            rest = iter(_again(plan, groups, _real(d_outputs + d_finals), call.seed, call.training))
        else:                           # create_graph=True: the operator knows what to say about second derivatives
            rest = iter(torch.ops.ostinato.recur_backward(
                plan.key, *groups, tape, _real(d_outputs), _real(d_finals),
                torch.tensor(call.seed) if recur.draws(plan.cell) else None, call.training))
        return (None, *[next(rest) if real else None for reals in plan.reals for real in reals])


_apply = super(torch.autograd.Function, _Recur).apply       # torch's own, without what Function.apply does first


def _real(cotangents: list[Tensor | None]) -> list[Tensor]:
    return [d for d in cotangents if d is not None]


def _again(plan: Plan, groups: Lists, cotangents: list[Tensor], seed: int, training: bool) -> list[Tensor | None]:
    """Gradients of the real operands that can be differentiated again, from those of the real results."""
    results = [y for y in plan.executable.recorded(*groups, seed=seed, training=training) if y.is_floating_point()]
    ends = [(y, d) for y, d in zip(results, cotangents) if y.requires_grad]
    wanted = [x for xs, reals in zip(groups, plan.reals) for x, real in zip(xs, reals) if real]
    by = [x for x in wanted if x.requires_grad]
    found = iter(torch.autograd.grad([y for y, _ in ends], by, [d for _, d in ends], create_graph=True,
                                     allow_unused=True) if ends and by else [None] * len(by))
    return [next(found) if x.requires_grad else None for x in wanted]
