"""What each operation computes, as a differentiable torch function.

Every value has its type's axes last; any leading axes (batch) broadcast, so one
definition serves static values and values over a batch. Axis positions are
therefore counted from the right.

Derivatives come from torch, under the rule of `guards`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

from .guards import CustomGrad, LogSumExp, Multiply, Systems, guarded, needs_grad
from .ops import spec_parts

INF = float("inf")


# -- pointwise --------------------------------------------------------------
def multiply(a: Tensor, b: Tensor) -> Tensor:
    return Multiply.apply(*torch.broadcast_tensors(a, b)) if needs_grad((a, b)) else a * b


def _detach_where(x: Tensor, value: float) -> Tensor:
    return torch.where(x == value, x.detach(), x) if x.is_floating_point() else x


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """The first operand on a tie; NaN wins; no derivative at max(-inf, -inf)."""
    return _detach_where(torch.where((a >= b) | (a != a), a, b), -INF)


def minimum(a: Tensor, b: Tensor) -> Tensor:
    """The first operand on a tie; NaN wins."""
    return torch.where((a <= b) | (a != a), a, b)


def logaddexp(a: Tensor, b: Tensor) -> Tensor:
    return lse(torch.stack(torch.broadcast_tensors(a, b), -1))


def _floordiv(a: Tensor, b: Tensor) -> Tensor:
    """As Python's //; an integer divided by 0 gives 0 (no trap)."""
    if a.is_floating_point():
        return torch.div(a, b, rounding_mode="floor")
    return torch.where(b == 0, 0, torch.div(a, torch.where(b == 0, 1, b), rounding_mode="floor"))


def _mod(a: Tensor, b: Tensor) -> Tensor:
    """As Python's %; an integer modulo 0 gives itself, so a = a // b * b + a % b."""
    if a.is_floating_point():
        return torch.remainder(a, b)
    return torch.where(b == 0, a, torch.remainder(a, torch.where(b == 0, 1, b)))


def _custom_grad(y: Tensor, *pairs: Tensor) -> Tensor:
    return CustomGrad.apply(*torch.broadcast_tensors(y, *pairs))


def _above(z: Tensor) -> Tensor:
    """On a branch cut, which is the negative real axis, values are those from above: -0 becomes 0."""
    return torch.complex(z.real, z.imag + 0.0) if z.is_complex() else z


_logsigmoid = torch.nn.functional.logsigmoid

POINTWISE: dict[str, Callable[..., Tensor]] = {
    # linear or constant: torch's derivative already is a plain multiple of the cotangent
    "neg": torch.neg, "add": torch.add, "sub": torch.sub, "select": torch.where, "stop_gradient": torch.detach,
    "not": torch.logical_not, "and": torch.logical_and, "or": torch.logical_or,
    "eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge,
    "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "sign": torch.sign,
    "floordiv": _floordiv,
    # with rules of their own
    "mul": multiply, "max": maximum, "min": minimum, "logaddexp": logaddexp, "custom_grad": _custom_grad,
    "complex": lambda re, im: torch.complex(*torch.broadcast_tensors(re, im)), "re": torch.real, "im": torch.imag,
    "conj": torch.conj_physical, "modulus": guarded(torch.abs), "angle": guarded(lambda z: torch.angle(_above(z))),
    "log": guarded(lambda x: torch.log(_above(x))), "sqrt": guarded(lambda x: torch.sqrt(_above(x))),
    # the rest: torch's derivative, guarded
    **{name: guarded(getattr(torch, name)) for name in
       "abs exp expm1 log1p rsqrt sin cos tan tanh sigmoid erf atan div pow atan2".split()},
    "softplus": guarded(lambda x: -_logsigmoid(-x)), "logsigmoid": guarded(_logsigmoid),
    "mod": guarded(_mod),
}


# -- structure --------------------------------------------------------------
def broadcast(x: Tensor, rank: int, sizes: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """The operand's axis i (of its last `rank`) goes to position axes[i] of `sizes`."""
    lead = x.dim() - rank
    order = sorted(range(rank), key=axes.__getitem__)
    if order != list(range(rank)):
        x = x.permute((*range(lead), *(lead + i for i in order)))
    for position in range(len(sizes)):
        if position not in axes:
            x = x.unsqueeze(lead + position)
    return x.expand(*x.shape[:lead], *sizes)


def pad(x: Tensor, axis: int, start: int, size: int) -> Tensor:
    """`axis` counts from the right (negative)."""
    def zeros(n: int) -> Tensor:
        shape = list(x.shape)
        shape[axis] = n
        return x.new_zeros(shape)

    return torch.cat([zeros(start), x, zeros(size - start - x.shape[axis])], axis)


def place(x: Tensor, axis: int, at: int, size: int) -> Tensor:
    """`axis`: position of the new axis, from the right (negative)."""
    return pad(x.unsqueeze(axis), axis, at, size)


def join(xs: list[Tensor], ranks: list[int], axis: int, how: Callable) -> Tensor:
    """torch.cat or torch.stack after giving all the same leading axes."""
    leads = [x.shape[:x.dim() - r] for x, r in zip(xs, ranks)]
    lead = torch.broadcast_shapes(*leads)
    return how([x.expand((*lead, *x.shape[x.dim() - r:])) for x, r in zip(xs, ranks)], axis)


def fold(x: Tensor, axis: int, times: int) -> Tensor:
    return x.unflatten(axis, (x.shape[axis] // times, times)).sum(axis)


def gather(x: Tensor, rank: int, at: Tensor, at_rank: int, axis: int, batch: int) -> Tensor:
    """x [batch, other, n, rest] at [batch, places] -> [batch, other, places, rest]; 0 where `at` is out of range."""
    if x.dim() == rank and at.dim() > at_rank and not batch:        # one table for all rows: not copied for each
        lead = at.dim() - at_rank
        y = gather(x, rank, at.reshape(-1), 1, axis, 0).unflatten(axis, at.shape)
        return y.movedim(tuple(range(axis, axis + lead)), tuple(range(lead)))
    (lead, common, other, rest), x, at, places = _paired(x, rank, at, at_rank, axis, batch, 1)
    n = x.shape[2]
    if n == 0:
        y = x.new_zeros(x.shape[0], x.shape[1], at.shape[1], x.shape[3])
    else:
        inside = (at >= 0) & (at < n)
        spread = _between(at.clamp(0, n - 1), x)
        y = torch.where(_between(inside, x), torch.gather(x, 2, spread), torch.zeros((), dtype=x.dtype))
    return y.reshape((*lead, *common, *other, *places, *rest))


def scatter(y: Tensor, rank: int, at: Tensor, at_rank: int, axis: int, batch: int, n: int) -> Tensor:
    """The adjoint of gather: [batch, other, places, rest] -> [batch, other, n, rest]."""
    (lead, common, other, rest), y, at, _ = _paired(y, rank, at, at_rank, axis, batch, at_rank - batch)
    inside = _between((at >= 0) & (at < n), y)
    out = y.new_zeros(y.shape[0], y.shape[1], max(1, n), y.shape[3])
    out = out.scatter_add(2, _between(at.clamp(0, max(0, n - 1)), y), torch.where(inside, y, 0))[:, :, :n]
    return out.reshape((*lead, *common, *other, n, *rest))


def _paired(x: Tensor, rank: int, at: Tensor, at_rank: int, axis: int, batch: int, width: int):
    """x as [rows, other, `width` axes in one, rest] and positions as [rows, places], the rows being the leading
    axes and the common ones; and the sizes to unfold them again."""
    lead = torch.broadcast_shapes(x.shape[:x.dim() - rank], at.shape[:at.dim() - at_rank])
    sizes, places = x.shape[x.dim() - rank:], at.shape[at.dim() - at_rank + batch:]
    common, other, rest = sizes[:batch], sizes[batch:axis], sizes[axis + width:]
    rows = lead.numel() * common.numel()
    x = x.expand((*lead, *sizes)).reshape(rows, other.numel(), sizes[axis:axis + width].numel(), rest.numel())
    at = at.expand((*lead, *at.shape[at.dim() - at_rank:])).reshape(rows, places.numel())
    return (lead, common, other, rest), x, at, places


def _between(at: Tensor, x: Tensor) -> Tensor:
    """[rows, places] -> [rows, other, places, rest]"""
    return at[:, None, :, None].expand(x.shape[0], x.shape[1], at.shape[1], x.shape[3])


def cumsum(x: Tensor, axis: int, reverse: bool) -> Tensor:
    return x.flip(axis).cumsum(axis).flip(axis) if reverse else x.cumsum(axis)


_RUNNING: dict[str, tuple[Callable[..., Tensor], ...]] = {     # semiring: product, sum, and what b is at the start
    "sum": (multiply, torch.add, lambda b: b),
    "max": (torch.add, maximum, lambda b: _detach_where(b, -INF)),
    "lse": (torch.add, logaddexp, lambda b: lse(b.unsqueeze(-1))),
}


def running(a: Tensor, b: Tensor, axis: int, reverse: bool, semiring: str) -> Tensor:
    """y[i] = a[i] * y[i-1] + b[i] in a semiring; y = b where the axis starts (at its end if `reverse`)."""
    times, plus, start = _RUNNING[semiring]
    a, b = torch.broadcast_tensors(a, b)
    rows: list[Tensor] = []
    for p, q in list(zip(a.unbind(axis), b.unbind(axis)))[::-1 if reverse else 1]:
        rows.append(plus(times(p, rows[-1]), q) if rows else start(q))
    return torch.stack(rows[::-1] if reverse else rows, axis) if rows else b


def cumprod(a: Tensor, axis: int, reverse: bool) -> Tensor:
    """y[i] = product of the a[j] before i (after i if `reverse`), multiplied up one by one."""
    each = a.unbind(axis)[::-1 if reverse else 1]
    rows = [torch.ones_like(p) for p in each[:1]]
    for p in each[:-1]:
        rows.append(rows[-1] * p)
    return torch.stack(rows[::-1] if reverse else rows, axis) if rows else a


def cumprod_back(a: Tensor, c: Tensor, axis: int, reverse: bool) -> Tensor:
    """The derivative of sum c[i] y[i] by a: y[m] times u[m], the sum over the i behind m of c[i] times what lies
    strictly between them; 0 where u is."""
    way = 1 if reverse else -1
    each, cs = a.unbind(axis)[::way], c.unbind(axis)[::way]
    sums = [torch.zeros_like(p) for p in each[:1]]
    for p, q in zip(each[:-1], cs):
        sums.append(q + p * sums[-1])
    u = torch.stack(sums[::way], axis) if sums else a
    return torch.where(u == 0, 0, cumprod(a, axis, reverse) * u)


# -- reductions and products ------------------------------------------------
def lse(x: Tensor) -> Tensor:
    """log(sum(exp(x))) over the last axis; -inf over an empty axis."""
    return LogSumExp.apply(x)


def _largest(x: Tensor) -> Tensor:
    if x.shape[-1] == 0:
        return x.new_full(x.shape[:-1], -INF if x.is_floating_point() else torch.iinfo(x.dtype).min)
    first = torch.argmax(x, -1, keepdim=True)  # documented: the first of several
    return _detach_where(x.gather(-1, first).squeeze(-1), -INF)


def _smallest(x: Tensor) -> Tensor:
    if x.shape[-1] == 0:
        return x.new_full(x.shape[:-1], INF if x.is_floating_point() else torch.iinfo(x.dtype).max)
    return x.gather(-1, torch.argmin(x, -1, keepdim=True)).squeeze(-1)


def _product(x: Tensor) -> Tensor:
    y = x.new_ones(x.shape[:-1])
    for factor in x.unbind(-1):
        y = multiply(y, factor)
    return y


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(-1), "prod": _product, "lse": lse, "max": _largest, "min": _smallest,
    "argmax": lambda x: torch.argmax(x, -1) if x.shape[-1] else x.new_zeros(x.shape[:-1], dtype=torch.int64),
    "any": lambda x: x.any(-1), "all": lambda x: x.all(-1),
}


def reduce(x: Tensor, rank: int, fn: str, axes: tuple[int, ...]) -> Tensor:
    """Several axes are reduced as one, flattened in row-major order ("first" on a tie means that order)."""
    lead = x.dim() - rank
    kept = [i for i in range(rank) if i not in axes]
    x = x.permute((*range(lead), *(lead + i for i in (*kept, *sorted(axes)))))
    split = lead + len(kept)
    return REDUCTIONS[fn](x.reshape(*x.shape[:split], x.shape[split:].numel()))


def _spread(x: Tensor, letters: str, onto: str) -> Tensor:
    """Axes named `letters` put in the order of `onto`, size 1 where absent."""
    lead = x.dim() - len(letters)
    x = x.permute((*range(lead), *(lead + letters.index(c) for c in onto if c in letters)))
    for i, c in enumerate(onto):
        if c not in letters:
            x = x.unsqueeze(lead + i)
    return x


def _finite(x: Tensor) -> bool:
    return peek_interpreter_stack() is None and bool(torch.isfinite(x).all())       # torch.func traces no decisions


def einsum(spec: str, *xs: Tensor) -> Tensor:
    """torch.einsum of the numbers as they are: torch.autocast would round them to 16 bits first."""
    kind = xs[0].device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return torch.einsum(spec, *xs)
    with torch.autocast(kind, enabled=False):
        return torch.einsum(spec, *xs)


def contract(a: Tensor, b: Tensor, spec: str, semiring: str) -> Tensor:
    """einsum over (sum, times), or over (max | min | lse | argmax, plus); over bool it is (or, and)."""
    sa, sb, so = spec_parts(spec)
    if semiring == "sum" and a.is_floating_point() and (not needs_grad((a, b)) or _finite(a) and _finite(b)):
        return einsum(f"...{sa},...{sb}->...{so}", a, b)  # its derivatives keep the rule: all factors are finite
    gone = "".join(dict.fromkeys(c for c in sa + sb if c not in so))
    a, b = _spread(a, sa, so + gone), _spread(b, sb, so + gone)
    fn = semiring
    if semiring != "sum":
        terms = a + b
    elif a.dtype == torch.bool:
        terms, fn = a & b, "any"
    else:
        terms = multiply(a, b)
    n = len(so)
    return reduce(terms, n + len(gone), fn, tuple(range(n, n + len(gone))))


# -- linear algebra ---------------------------------------------------------
def _solve(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve_ex(a, b, check_errors=False)[0]


def _logdet(a: Tensor) -> Tensor:
    return torch.linalg.slogdet(a)[1]


def _systems(fn: Callable, *xs: Tensor) -> Tensor:
    """`fn` over matrices with equal leading axes, flattened to one."""
    lead = torch.broadcast_shapes(*(x.shape[:-2] for x in xs))
    y = Systems.apply(fn, *(x.expand(*lead, *x.shape[-2:]).reshape(lead.numel(), *x.shape[-2:]) for x in xs))
    return y.reshape((*lead, *y.shape[1:]))


def solve(a: Tensor, b: Tensor, vector: bool) -> Tensor:
    """A^-1 b for b[..., n] (`vector`) or b[..., n, m]; inf or NaN where A is singular."""
    return _systems(_solve, a, b.unsqueeze(-1)).squeeze(-1) if vector else _systems(_solve, a, b)


def solve_lower(low: Tensor, b: Tensor, transposed: bool, vector: bool) -> Tensor:
    """(I + tril(low, -1))^-1 b, or with that matrix transposed; the rest of `low` is not read."""
    below = torch.ones(low.shape[-2:], dtype=torch.bool, device=low.device).tril(-1)

    def substitute(low: Tensor, b: Tensor) -> Tensor:
        low = torch.where(below, low, 0)
        return torch.linalg.solve_triangular(low.mT if transposed else low, b, upper=transposed, unitriangular=True)

    return _systems(substitute, low, b.unsqueeze(-1)).squeeze(-1) if vector else _systems(substitute, low, b)


def logdet(a: Tensor) -> Tensor:
    return _systems(_logdet, a)
