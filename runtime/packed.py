"""Packed sequences: one after the other in [1, total, *shape], cut up by `cu_seqlens` [n + 1].

They run in buckets of similar lengths, each padded to its longest. A bucket takes further sequences, the longest
first, while its slack is at most a quarter of what it holds and 256 steps more: so work and memory stay proportional
to `total` however uneven the lengths, all sequences of a bucket share each read of the weights, and the states of
every sequence end in rows of their own. (Restarts within one long row would need the states at all ends as outputs of
every step, and would leave a dense cell one sequence at a time.) One gather fills all buckets, its inverse empties
them.

`ostinato::packed` is the whole as one operator, for traced graphs, where lengths are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backends.recording import recording
from . import direct, recur
from .plan import find
from .ports import fail

SHARE, FREE = 4, 256        # slack of a bucket: a share of its steps, and what is not counted
Call = Callable[[list[Tensor], list[Tensor]], list[Tensor]]


class Move(torch.autograd.Function):
    """Rows of x in another order. `there`: the row that each row of the result is; `back`: where each row of x went.
    A row that several others repeat gets the gradient of the one that `back` names."""
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        return x.index_select(0, there)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[2])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, d: Tensor | None):
        return None if d is None else d.index_select(0, *ctx.saved_tensors), None, None


@dataclass(frozen=True)
class Layout:
    """`there` [padded]: the step of the packed form that lies at each padded place; `back` [total]: the place of each
    step; `rows` [n]: the sequences in the order of the buckets; `buckets`: (sequences, longest) of each;
    `valid` [padded]: false where a place is slack."""

    there: Tensor
    back: Tensor
    rows: Tensor
    buckets: tuple[tuple[int, int], ...]
    valid: Tensor

    @property
    def straight(self) -> bool:
        """Everything is where it should be: sequences of one length."""
        return len(self.there) == len(self.back) and torch.equal(self.back, torch.arange(len(self.back)).to(self.back))


def layout(cu_seqlens: Tensor, total: int, reverse: bool, together: bool) -> Layout:
    """Where everything goes; `reverse`: each sequence from its end; `together`: one bucket, in the given order."""
    starts, lengths = cu_seqlens[:-1], cu_seqlens.diff()
    n = len(lengths)
    if together:
        order, buckets = torch.arange(n, device=lengths.device), ((n, int(lengths.max()) if n else 0),)
    else:
        order = lengths.argsort(descending=True, stable=True)
        buckets = _buckets(lengths[order].tolist())
    there, valid, first = [], [], 0
    for count, longest in buckets:
        rows = order[first:first + count]
        first += count
        begin, size = starts[rows, None], lengths[rows, None]
        at = torch.arange(longest, device=rows.device)
        within = torch.minimum(at, size - 1)
        step = begin + (size - 1 - within if reverse else within)
        there.append(step.clamp(0, max(total - 1, 0)).flatten())
        valid.append((at < size).flatten())
    there, valid = torch.cat(there), torch.cat(valid)
    back = torch.empty(total, dtype=torch.int64, device=there.device)
    back[there[valid]] = valid.nonzero()[:, 0]
    return Layout(there, back, order, buckets, valid)


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
    undone = place.rows.argsort()
    move = _stay if place.straight else Move.apply
    moved = [move(x[0], place.there, place.back) for x in xs]
    sorted_states = [move(s, place.rows, undone) for s in states]
    steps, sequences = [a * b for a, b in place.buckets], [a for a, _ in place.buckets]
    padded = zip(*([x.view(*bucket, *x.shape[1:]) for bucket, x in zip(place.buckets, x.split(steps))]
                   for x in (*moved, place.valid)))
    starts = zip(*(s.split(sequences) for s in sorted_states)) if states else iter([()] * len(steps))
    found = list(zip(*(call(list(some), list(first)) for some, first in zip(padded, starts))))
    outputs = (_joined([y.flatten(0, 1) for y in ys]) for ys in found[:n_out])
    return [*(move(y, place.back, place.there).unsqueeze(0) for y in outputs),
            *(move(_joined(ss), undone, place.rows) for ss in found[n_out:])]


def _stay(x: Tensor, there: Tensor, back: Tensor) -> Tensor:
    return x


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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
