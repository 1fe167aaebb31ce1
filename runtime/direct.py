"""Eager calls past the dispatcher: the same as the operators of `recur`, for
plain tensors outside of any tracing, with a tenth of the fixed cost."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from . import recur
from .plan import Plan

PLAIN = (Tensor, nn.Parameter)
Lists = tuple[list[Tensor], list[Tensor], list[Tensor]]      # inputs, params, states


def watched() -> bool:
    """Whether something follows the calls: a compiler, a mode, a transform."""
    return (is_compiling() or _len_torch_dispatch_stack() != 0 or peek_interpreter_stack() is not None
            or forward_ad._current_level >= 0)


def tangents(*groups: Iterable[Tensor]) -> bool:
    """Whether derivatives travel forwards with some tensor (`torch.func.jvp`): operators would drop them silently."""
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(x).tangent is not None for group in groups for x in group)


def possible(*groups: Iterable[Tensor]) -> bool:
    """Whether nothing follows the calls, and no tensor is of a class of its own."""
    return not watched() and all(type(x) in PLAIN for group in groups for x in group)


def call(plan: Plan, groups: Lists, seed: Tensor | None, training: bool, keep: bool) -> list[Tensor]:
    """`run`, or where something follows the calls the operator, whose tape comes after the final states."""
    if possible(*groups):
        return run(plan, groups, recur.number(seed), training, keep)
    return torch.ops.ostinato.recur(plan.key, *groups, seed, training, keep)


def run(plan: Plan, groups: Lists, seed: int, training: bool, keep: bool) -> list[Tensor]:
    """Outputs [B, T, *shape], then final states [B, *shape]; recorded by autograd if `keep`."""
    if keep:
        return list(_Recur.apply(plan, tuple(map(len, groups)), seed, training, *groups[0], *groups[1], *groups[2]))
    try:
        outputs, finals, _ = plan.executable.forward(*groups, seed=seed, training=training, keep=False)
    except NotImplementedError as missing:
        recur.refuse(plan, missing)
    return [*outputs, *finals]


def _split(tensors: Iterable[Tensor], counts: tuple[int, int, int]) -> tuple[Lists, list[Tensor]]:
    """The three groups, and what is left."""
    rest = list(tensors)
    ends = counts[0], counts[0] + counts[1], sum(counts)
    return (rest[:ends[0]], rest[ends[0]:ends[1]], rest[ends[1]:ends[2]]), rest[ends[2]:]


class _Recur(torch.autograd.Function):
    @staticmethod
    def forward(ctx, plan: Plan, counts: tuple[int, int, int], seed: int, training: bool, *tensors: Tensor):
        groups, _ = _split(tensors, counts)
        try:
            outputs, finals, tape = plan.executable.forward(*groups, seed=seed, training=training, keep=True)
        except NotImplementedError as missing:
            recur.refuse(plan, missing)
        ctx.plan, ctx.counts, ctx.seed, ctx.training = plan, counts, seed, training
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *tape)
        # A view may not be changed in place: give the memory as a tensor of its own.
        return tuple(x.new_empty(0).set_(x) if x._is_view() else x for x in (*outputs, *finals))

    @staticmethod
    def backward(ctx, *grads):
        plan: Plan = ctx.plan
        groups, tape = _split(ctx.saved_tensors, ctx.counts)
        d_outputs, d_finals = recur.cotangents(plan, groups, grads)
        if torch.is_grad_enabled():     # create_graph=True: the operator knows what to say about second derivatives
            found = torch.ops.ostinato.recur_backward(
                plan.key, *groups, tape, d_outputs, d_finals,
                torch.tensor(ctx.seed) if recur.draws(plan.cell) else None, ctx.training)
        else:
            found = recur.gradients(plan, groups, tape, d_outputs, d_finals, ctx.seed, ctx.training)
        rest = iter(found)
        return (None, None, None, None,
                *(next(rest) if real else None for reals in plan.reals for real in reals))
