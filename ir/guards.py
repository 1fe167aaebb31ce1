"""torch functions whose gradients keep the definition's rule.

**A cotangent that is exactly 0 contributes 0, whatever the local derivative**,
so that a branch not selected contributes nothing even where it is NaN. The
local derivatives themselves are torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def _zero_where_no_cotangent(grad: Tensor, ct: Tensor) -> Tensor:
    return grad.masked_fill(ct == 0, 0)


class Pointwise(torch.autograd.Function):
    """y = fn(*xs), operands of equal shape; backward asks torch for dy/dx_i."""

    @staticmethod
    def forward(ctx, fn, *xs):
        ctx.fn = fn
        ctx.save_for_backward(*xs)
        return fn(*xs)

    @staticmethod
    @once_differentiable
    def backward(ctx, ct):
        with torch.enable_grad():
            xs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            y = ctx.fn(*xs)
            partials = torch.autograd.grad(y.sum().real, xs)    # given cotangents make torch import sympy, 0.3 s
        return None, *(_zero_where_no_cotangent(ct * p, ct) for p in partials)


class Multiply(torch.autograd.Function):
    """Pointwise for the product, spelled out because it is so common."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    @once_differentiable
    def backward(ctx, ct):
        a, b = ctx.saved_tensors
        return _zero_where_no_cotangent(ct * b.conj(), ct), _zero_where_no_cotangent(ct * a.conj(), ct)


class LogSumExp(torch.autograd.Function):
    """Over the last axis; derivative exp(x - y), and 0 where y = -inf."""

    @staticmethod
    def forward(ctx, x):
        y = torch.logsumexp(x, -1)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, ct):
        x, y = ctx.saved_tensors
        dead = ((ct == 0) | (y == -torch.inf)).unsqueeze(-1)
        return (ct.unsqueeze(-1) * torch.exp(x - y.unsqueeze(-1))).masked_fill(dead, 0)


class CustomGrad(torch.autograd.Function):
    """custom_grad(y, x1, d1, ...): the value y, gradient d_i * ct to x_i."""

    @staticmethod
    def forward(ctx, y, *pairs):
        ctx.save_for_backward(*pairs[1::2])
        return y.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, ct):
        grads = [None]
        for d in ctx.saved_tensors:
            grads += [_zero_where_no_cotangent(ct * d, ct), None]
        return tuple(grads)


class Systems(torch.autograd.Function):
    """A function of one matrix (and right-hand sides) per system, the systems
    on the first axis; a system whose cotangent is all 0 contributes 0."""

    @staticmethod
    def forward(ctx, fn, *xs):
        ctx.fn = fn
        ctx.save_for_backward(*xs)
        return fn(*xs)

    @staticmethod
    @once_differentiable
    def backward(ctx, ct):
        dead = (ct == 0).reshape(ct.shape[0], math.prod(ct.shape[1:])).all(1)   # also for no system at all
        with torch.enable_grad():
            xs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            grads = torch.autograd.grad((ctx.fn(*xs) * ct.conj()).sum().real, xs)
        return None, *(g.masked_fill(dead.reshape(-1, *(1,) * (g.dim() - 1)), 0) for g in grads)


def needs_grad(xs: tuple[Tensor, ...]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in xs)


def guarded(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def apply(*xs: Tensor) -> Tensor:
        return Pointwise.apply(fn, *torch.broadcast_tensors(*xs)) if needs_grad(xs) else fn(*xs)

    return apply
