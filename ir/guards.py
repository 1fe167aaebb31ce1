"""torch functions whose gradients keep the definition's rule.

**A cotangent that is exactly 0 contributes 0, whatever the local derivative**,
so that a branch not selected contributes nothing even where it is NaN. The
local derivatives themselves are torch's.

Gradients can be differentiated again, any number of times. Those of real
functions are then made of functions of this module, so that the rule holds for
them too; of complex functions and systems of equations torch's are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack


def needs_grad(xs: tuple[Tensor, ...]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in xs)


def times(ct: Tensor, p: Tensor) -> Tensor:
    """What a cotangent and a local derivative contribute."""
    return Times.apply(ct, p) if needs_grad((ct, p)) else (ct * p).masked_fill(ct == 0, 0)


def _safe(ct: Tensor, p: Tensor) -> Tensor:
    return p.masked_fill((ct == 0) & ~torch.isfinite(p), 0)


class Times(torch.autograd.Function):
    """ct * p by the rule, with derivatives by both: at ct = 0 that by ct is p, where it is finite."""

    generate_vmap_rule = True

    @staticmethod
    def forward(ct, p):
        return ct * _safe(ct, p)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        ct, p = ctx.saved_tensors
        p = _safe(ct, p)
        by_ct, by_p = times(g, p.conj()), times(g, ct.conj())
        return by_ct if ct.is_complex() else by_ct.real, by_p if p.is_complex() else by_p.real


class Pointwise(torch.autograd.Function):
    """y = fn(*xs), operands of equal shape; backward asks torch for dy/dx_i."""

    generate_vmap_rule = True

    @staticmethod
    def forward(fn, *xs):
        return fn(*xs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.fn, *xs = inputs
        ctx.save_for_backward(*xs)

    @staticmethod
    def backward(ctx, ct):
        xs, fn, again = ctx.saved_tensors, ctx.fn, torch.is_grad_enabled()
        if again and not any(x.is_complex() for x in xs):
            return None, *(times(ct, guarded(_slope(fn, i))(*xs)) for i in range(len(xs)))
        return None, *(times(ct, p) for p in _partials(fn, xs, again))


def _partials(fn: Callable[..., Tensor], xs: tuple[Tensor, ...], again: bool) -> tuple[Tensor, ...]:
    """dy/dx_i by torch; to be differentiated again by what of the operands requires a gradient if `again`."""
    if peek_interpreter_stack() is not None:        # torch.func follows
        return torch.func.grad(lambda *xs: fn(*xs).sum().real, tuple(range(len(xs))))(*xs)
    with torch.enable_grad():
        xs = tuple([x if again and x.requires_grad else x.detach().requires_grad_() for x in xs])
        y = fn(*xs)
        if not y.requires_grad:
            return tuple([torch.zeros_like(x) for x in xs])
        # given cotangents make torch import sympy, 0.3 s
        found = torch.autograd.grad(y.sum().real, xs, create_graph=again, allow_unused=True)
    return tuple([torch.zeros_like(x) if p is None else p for x, p in zip(xs, found)])


def _slope(fn: Callable[..., Tensor], i: int) -> Callable[..., Tensor]:
    """The derivative of a real pointwise function by operand i, a pointwise function itself."""
    return lambda *xs: _partials(fn, xs, torch.is_grad_enabled())[i]


class Multiply(torch.autograd.Function):
    """Pointwise for the product, spelled out because it is so common."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a, b):
        return a * b

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, ct):
        a, b = ctx.saved_tensors
        return times(ct, b.conj()), times(ct, a.conj())


class LogSumExp(torch.autograd.Function):
    """Over the last axis; derivative exp(x - y), and 0 where y = -inf."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.logsumexp(x, -1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx, ct):
        x, y = ctx.saved_tensors
        shares = torch.exp((x - y.unsqueeze(-1)).masked_fill((y == -torch.inf).unsqueeze(-1), -torch.inf))
        return times(*torch.broadcast_tensors(ct.unsqueeze(-1), shares))


class CustomGrad(torch.autograd.Function):
    """custom_grad(y, x1, d1, ...): the value y, gradient d_i * ct to x_i."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y, *pairs):
        return y.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[2::2])

    @staticmethod
    def backward(ctx, ct):
        grads = [None]
        for d in ctx.saved_tensors:
            grads += [times(ct, d), None]
        return tuple(grads)


class Systems(torch.autograd.Function):
    """A function of one matrix (and right-hand sides) per system, the systems
    on the first axis; a system whose cotangent is all 0 contributes 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(fn, *xs):
        return fn(*xs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.fn, *xs = inputs
        ctx.save_for_backward(*xs, output)

    @staticmethod
    def backward(ctx, ct):
        *xs, y = ctx.saved_tensors
        again = torch.is_grad_enabled()
        dead = _all(ct == 0) & ~_all(torch.isfinite(y)) if again else _all(ct == 0)

        def weighted(*xs: Tensor) -> Tensor:        # ones for what is not solvable: finite, so that nothing becomes NaN
            safe = [torch.where(_over(dead, x), torch.eye(*x.shape[1:], dtype=x.dtype, device=x.device), x) for x in xs]
            return ctx.fn(*safe) * ct.conj()

        grads = _partials(weighted, tuple(xs), again)
        return None, *(g.masked_fill(_over(dead, g), 0) for g in grads)


def _all(x: Tensor) -> Tensor:
    """[n, ...] -> [n], also for no system at all"""
    return x.reshape(x.shape[0], math.prod(x.shape[1:])).all(1)


def _over(x: Tensor, like: Tensor) -> Tensor:
    return x.reshape(-1, *(1,) * (like.dim() - 1))


def guarded(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def apply(*xs: Tensor) -> Tensor:
        return Pointwise.apply(fn, *torch.broadcast_tensors(*xs)) if needs_grad(xs) else fn(*xs)

    return apply
