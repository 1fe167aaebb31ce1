"""Eager calls past the dispatcher: the same as the operators of `recur`, for
plain tensors outside of any tracing, with a tenth of the fixed cost."""

from __future__ import annotations

from collections.abc import Iterable
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

OPTIONS = 4         # arguments of `_Recur` before the tensors
PLAIN = (Tensor, nn.Parameter)
Lists = tuple[list[Tensor], list[Tensor], list[Tensor]]      # inputs, params, states
_zeros = lru_cache(maxsize=8)(recur.zeros)                   # which executables only read


def watched() -> bool:
    """Whether something follows the calls: a compiler, a mode, a transform."""
    return (is_compiling() or _len_torch_dispatch_stack() != 0 or peek_interpreter_stack() is not None
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
        # Where derivatives are recorded, or followed otherwise, zeros may become part of a result.
        zeros = recur.zeros if torch.is_grad_enabled() or watched() else _zeros
        d_outputs, d_finals = recur.cotangents(plan, groups, grads, zeros)
        if any(d is not None and is_legacy_batchedtensor(d) for d in grads):
            fail("not_yet", what=f"a batch of gradients of `{plan.cell.name}` at once (is_grads_batched, vectorize)",
                 instead="call grad() once for each, or torch.func.jacrev of layer.reference")
        if torch.is_grad_enabled() and hasattr(plan.executable, "recorded"):
            found = _again(plan, groups, _real(d_outputs + d_finals), ctx.seed, ctx.training)
        elif torch.is_grad_enabled():   # create_graph=True: the operator knows what to say about second derivatives
            found = torch.ops.ostinato.recur_backward(
                plan.key, *groups, tape, _real(d_outputs), _real(d_finals),
                torch.tensor(ctx.seed) if recur.draws(plan.cell) else None, ctx.training)
        else:
            found = recur.gradients(plan, groups, tape, d_outputs, d_finals, ctx.seed, ctx.training,
                                    of_inputs=any(ctx.needs_input_grad[OPTIONS:OPTIONS + ctx.counts[0]]))
        rest = iter(found)
        return (None, None, None, None,
                *(next(rest) if real else None for reals in plan.reals for real in reals))


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
