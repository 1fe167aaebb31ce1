"""Packed sequences: one after the other in [1, total, *shape], cut up by `cu_seqlens` [n + 1].

They run in buckets of similar lengths, each padded to its longest. A bucket takes further sequences, the longest
first, while its slack is at most an eighth of what it holds and 64 steps more: so work and memory stay proportional
to `total` however uneven the lengths, all sequences of a bucket share each read of the weights, and the states of
every sequence end in rows of their own. (Restarts within one long row would need the states at all ends as outputs of
every step, and would leave a dense cell one sequence at a time.) Steps are copied once into their buckets and once
out of them; sequences of one length are copied nowhere.

`ostinato::packed` is the whole as one operator, for traced graphs, where lengths are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import memmove, memset
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from ..backends.pages import empty
from ..backends.recording import recording
from . import direct, recur
from .plan import find
from .ports import fail

SHARE, FREE = 8, 64         # slack of a bucket: a share of its steps, and what is not counted
Call = Callable[[list[Tensor], list[Tensor]], list[Tensor]]


class Moves:
    """The places of some tensors as stretches of rows, (row, place, how many) in the order of the places: in memory
    these are moved as a whole. No tuple, which a transform of torch would take apart."""

    def __init__(self, of_each: Sequence[Sequence[tuple[int, int, int]]]):
        self.of_each = of_each

    def possible(self, *xs: Tensor) -> bool:
        """Whether these are numbers that lie in memory row by row, and nothing follows what is done with them."""
        return direct.possible(xs) and all(
            x.device.type == "cpu" and x.is_floating_point() and x.is_contiguous()
            and not x.is_neg() and not is_legacy_batchedtensor(x) for x in xs)

    def spread(self, x: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
        """Rows to places; 0 where no row goes."""
        ys = tuple([empty(count, *x.shape[1:], dtype=x.dtype) for count in counts])
        size = _row_bytes(x)
        for y, stretches in zip(ys, self.of_each):
            end = 0
            for row, place, count in (*stretches, (0, len(y), 0)):
                memset(y.data_ptr() + end * size, 0, (place - end) * size)
                memmove(y.data_ptr() + place * size, x.data_ptr() + row * size, count * size)
                end = place + count
        return ys

    def gathered(self, n: int, ys: Sequence[Tensor]) -> Tensor:
        """Places to rows, all of which have one."""
        x = empty(n, *ys[0].shape[1:], dtype=ys[0].dtype)
        size = _row_bytes(x)
        for y, stretches in zip(ys, self.of_each):
            for row, place, count in stretches:
                memmove(x.data_ptr() + row * size, y.data_ptr() + place * size, count * size)
        return x


def _row_bytes(x: Tensor) -> int:
    return prod(x.shape[1:]) * x.element_size()


class Spread(torch.autograd.Function):
    """Rows x [n, ...] to one tensor for each of `there` (the rows of its places), which may repeat rows. `back` says
    where the gradient of each place goes: to its row, or with n nowhere; what lies at such a place does not matter.
    `moves`: those of `back`, where they are stretches. The adjoint is `Gathered`."""
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, n: int, there: tuple[Tensor, ...], back: tuple[Tensor, ...],
                moves: Moves | None) -> tuple[Tensor, ...]:
        if moves is not None and moves.possible(x):
            return moves.spread(x, [len(rows) for rows in there])
        return tuple([x.index_select(0, rows) for rows in there])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, ctx.n, ctx.there, ctx.back, ctx.moves = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *ds: Tensor | None):
        like = next((d for d in ds if d is not None), None)
        if like is None:
            return None, None, None, None, None
        ds = [like.new_zeros(len(rows), *like.shape[1:]) if d is None else d for d, rows in zip(ds, ctx.there)]
        return Gathered.apply(ctx.n, ctx.there, ctx.back, ctx.moves, *ds), None, None, None, None


class Gathered(torch.autograd.Function):
    """The rows [n, ...] that places of several tensors hold: the adjoint of `Spread`."""
    generate_vmap_rule = True

    @staticmethod
    def forward(n: int, there: tuple[Tensor, ...], back: tuple[Tensor, ...], moves: Moves | None,
                *ys: Tensor) -> Tensor:
        if moves is not None and moves.possible(*ys):
            return moves.gathered(n, ys)
        x = ys[0].new_empty(n + 1, *ys[0].shape[1:])
        for rows, y in zip(back, ys):
            x.index_copy_(0, rows, y)
        return x[:n]

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.n, ctx.there, ctx.back, ctx.moves, *_ = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, d: Tensor | None):
        ds = [None] * len(ctx.there) if d is None else \
            Spread.apply(d, ctx.n, ctx.there, ctx.back, ctx.moves)
        return None, None, None, None, *ds


@dataclass(frozen=True)
class Layout:
    """Of each bucket: `sizes`, (sequences, longest); `there`, the step that lies at each place; `back`, the step
    that each place stands for (where it is slack: the number of steps); `rows`, its sequences; `valid`, false where a
    place is slack. `moves`: the steps as stretches, `ends` the sequences; none where steps change their order."""

    sizes: tuple[tuple[int, int], ...]
    there: tuple[Tensor, ...]
    back: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    valid: tuple[Tensor, ...]
    moves: Moves | None
    ends: Moves

    @property
    def straight(self) -> bool:
        """Everything is where it should be: sequences of one length."""
        if len(self.sizes) != 1 or not self.valid[0].all():
            return False
        return torch.equal(self.back[0], torch.arange(len(self.back[0])).to(self.back[0]))


def layout(cu_seqlens: Tensor, total: int, reverse: bool, together: bool) -> Layout:
    """Where everything goes; `reverse`: each sequence from its end; `together`: one bucket, in the given order."""
    starts, lengths = cu_seqlens[:-1], cu_seqlens.diff()
    n = len(lengths)
    if together:
        order, sizes = torch.arange(n, device=lengths.device), ((n, int(lengths.max()) if n else 0),)
    else:
        order = lengths.argsort(descending=True, stable=True)
        sizes = _buckets(lengths[order].tolist())
    found, moves, ends, first = [], [], [], 0
    for count, longest in sizes:
        rows = order[first:first + count]
        first += count
        begin, size = starts[rows, None], lengths[rows, None]
        at = torch.arange(longest, device=rows.device)
        valid, within = at < size, torch.minimum(at, size - 1)
        step = (begin + (size - 1 - within if reverse else within)).clamp(0, max(total - 1, 0))
        found.append((step.flatten(), torch.where(valid, step, total).flatten(), rows, valid))
        some = zip(starts[rows].tolist(), range(0, count * longest + 1, max(1, longest)), lengths[rows].tolist())
        moves.append([move for move in some if move[2]])
        ends.append([(row, place, 1) for place, row in enumerate(rows.tolist())])
    return Layout(sizes, *zip(*found), None if reverse else Moves(moves), Moves(ends))


def _buckets(lengths: list[int]) -> tuple[tuple[int, int], ...]:
    """(number of sequences, longest) of each bucket, for lengths in falling order."""
    found, count, held = [], 0, 0
    for i, size in enumerate(lengths):
        longest = lengths[i - count]
        if count and longest * (count + 1) - held - size > held // SHARE + FREE:
            found.append((count, longest))
            count, held = 0, 0
        count, held = count + 1, held + size
    return (*found, (count, lengths[len(lengths) - count] if count else 0))


def check(cu_seqlens: Tensor, total: int) -> None:
    """Raises OstinatoError if the values do not cut `total` steps into sequences."""
    values = cu_seqlens.tolist()
    if values[0] != 0:
        _wrong("begin with 0", values[0])
    if any(a > b for a, b in zip(values, values[1:])):
        _wrong("never decrease", values)
    if values[-1] != total:
        _wrong(f"end with the {total} steps of the inputs", values[-1])


def _wrong(expected: str, actual: object) -> None:
    fail("option_value", option="cu_seqlens", expected=f"cumulative starts that {expected}", actual=actual)


def run(call: Call, xs: Sequence[Tensor], states: Sequence[Tensor], n_out: int, cu_seqlens: Tensor, *, reverse: bool,
        together: bool) -> list[Tensor]:
    """Inputs [1, total, *shape] and states [n, *shape] to outputs and final states of the same shapes. `call` runs
    inputs [B, T, *shape], the last of them `valid@`, and states to `n_out` outputs and final states. Differentiable."""
    total = xs[0].shape[1]
    check(cu_seqlens, total)
    place = layout(cu_seqlens.to(torch.int64), total, reverse, together)
    n = len(cu_seqlens) - 1

    def spread(x: Tensor) -> Sequence[Tensor]:
        x = x.squeeze(0)
        found = [x] if place.straight else Spread.apply(x, total, place.there, place.back, place.moves)
        return [y.view(*size, *x.shape[1:]) for size, y in zip(place.sizes, found)]

    def joined(ys: Sequence[Tensor]) -> Tensor:
        ys = [y.flatten(0, 1) for y in ys]
        y = ys[0] if place.straight else Gathered.apply(total, place.there, place.back, place.moves, *ys)
        return y.unsqueeze(0)

    padded = list(zip(*(spread(x) for x in xs), place.valid))
    of_each = n, place.rows, place.rows, place.ends
    starts = list(zip(*([s] if place.straight else Spread.apply(s, *of_each) for s in states)))
    found = list(zip(*(call(list(some), list(first)) for some, first in zip(padded, starts or [()] * len(padded)))))
    finals = (ends[0] if place.straight else Gathered.apply(*of_each, *ends) for ends in found[n_out:])
    return [*(joined(ys) for ys in found[:n_out]), *finals]


def _eager(key: str, groups: direct.Lists, cu_seqlens: Tensor, seed: int, training: bool, reverse: bool,
           keep: bool) -> list[Tensor]:
    plan = find(key)
    xs, params, states = groups
    return run(lambda x, s: direct.run(plan, (x, params, s), seed, training, keep), xs, states,
               len(plan.output_meta), cu_seqlens, reverse=reverse, together=recur.draws(plan.cell))


def call(key: str, groups: direct.Lists, cu_seqlens: Tensor, seed: Tensor | None, training: bool, reverse: bool,
         keep: bool) -> list[Tensor]:
    """As `run`, on the plan of a cell with `valid@`."""
    if direct.transformed() or direct.possible(*groups, [cu_seqlens]):
        return _eager(key, groups, cu_seqlens, recur.number(seed), training, reverse, keep)
    return torch.ops.ostinato.packed(key, *groups, cu_seqlens, seed, training, reverse)


@recur.operator("packed(str key, Tensor[] inputs, Tensor[] params, Tensor[] states, Tensor cu_seqlens, Tensor? seed,"
                " bool training, bool reverse) -> Tensor[]")
def packed(key: str, inputs: list[Tensor], params: list[Tensor], states: list[Tensor], cu_seqlens: Tensor,
           seed: Tensor | None, training: bool, reverse: bool) -> list[Tensor]:
    """Outputs [1, total, *shape], then final states [n, *shape]."""
    found = _eager(key, (inputs, params, states), cu_seqlens, recur.number(seed), training, reverse, False)
    return [x.clone(memory_format=torch.contiguous_format) for x in found]


@torch.library.register_fake("ostinato::packed")
def _(key, inputs, params, states, cu_seqlens, seed, training, reverse):
    plan, like = find(key), inputs[0]
    n = cu_seqlens.shape[0] - 1
    return [*(like.new_empty((1, like.shape[1], *sizes), dtype=dtype) for sizes, dtype in plan.output_meta),
            *(like.new_empty((n, *sizes), dtype=dtype) for sizes, dtype in plan.state_meta)]


@recur.operator("packed_backward(str key, Tensor[] inputs, Tensor[] params, Tensor[] states, Tensor cu_seqlens,"
                " Tensor[] d_results, Tensor? seed, bool training, bool reverse) -> Tensor[]")
def packed_backward(key: str, inputs: list[Tensor], params: list[Tensor], states: list[Tensor], cu_seqlens: Tensor,
                    d_results: list[Tensor], seed: Tensor | None, training: bool, reverse: bool) -> list[Tensor]:
    """Gradients of the real inputs, params and states from those of the real results. Runs forward again: what it
    keeps has a size that depends on the lengths."""
    plan = find(key)

    def gradients() -> list[Tensor]:
        leaves = [[x.detach().requires_grad_(real) for x, real in zip(group, reals)]
                  for group, reals in zip((inputs, params, states), plan.reals)]
        found = _eager(key, leaves, cu_seqlens, recur.number(seed), training, reverse, True)
        ends = [(y, d) for y, d in zip((y for y in found if y.is_floating_point()), d_results) if y.requires_grad]
        wanted = [x for group in leaves for x in group if x.requires_grad]
        if not ends or not wanted:
            return [torch.zeros_like(x) for x in wanted]
        some = torch.autograd.grad([y for y, _ in ends], wanted, [d for _, d in ends], allow_unused=True)
        return [torch.zeros_like(x) if d is None else d.clone(memory_format=torch.contiguous_format)
                for x, d in zip(wanted, some)]

    return recording(gradients)


@torch.library.register_fake("ostinato::packed_backward")
def _(key, inputs, params, states, cu_seqlens, d_results, seed, training, reverse):
    return [x.new_empty(x.shape) for group, reals in zip((inputs, params, states), find(key).reals)
            for x, real in zip(group, reals) if real]


def _setup(ctx, inputs, output) -> None:
    ctx.key, *groups, cu_seqlens, ctx.seed, ctx.training, ctx.reverse = inputs
    ctx.counts = [len(group) for group in groups]
    ctx.save_for_backward(*(x for group in groups for x in group), cu_seqlens)
    ctx.results = [(y.shape, y.dtype) for y in output]


def _backward(ctx, grads):
    *saved, cu_seqlens = ctx.saved_tensors
    rest = iter(saved)
    groups = [[next(rest) for _ in range(n)] for n in ctx.counts]
    like = next(x for x in saved if x.is_floating_point())
    d_results = [like.new_zeros(shape, dtype=dtype) if d is None else d
                 for d, (shape, dtype) in zip(grads, ctx.results) if dtype.is_floating_point]
    found = iter(torch.ops.ostinato.packed_backward(ctx.key, *groups, cu_seqlens, d_results, ctx.seed, ctx.training,
                                                    ctx.reverse))
    dx, dp, ds = ([next(found) if real else None for _, real in zip(group, reals)]      # `valid@` is not among them
                  for group, reals in zip(groups, find(ctx.key).reals))
    return None, dx, dp, ds, None, None, None, None


torch.library.register_autograd("ostinato::packed", _backward, setup_context=_setup)
