"""One comparison for every form of a cell: its executable against the float64 interpreter.

    check("chunk(16)", "gla", 2, 65)                                # outputs, final states and every gradient
    check("scan(3)", TEXT, 2, 17, pieces=(4, 0, 13), K=60, V=100)   # in three calls, with the states carried over

A source is the name of a zoo cell, a text (whose first line has `# sizes: ...`) or a cell. What is compared is the
executable that a form makes, below the module: the numbers of the module are these.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from ostinato.backends import interpreter
from ostinato.backends.llvm import executable as llvm
from ostinato.compiler.pipeline import Lowered
from ostinato.ir import interp
from ostinato.ir.cell import Cell, Input
from ostinato.runtime import forms
from ostinato.runtime.files import declared_sizes
from ostinato.runtime.sample import sample
from ostinato.runtime.sources import elaborate
from torch import Tensor
from torch.nn import functional as F

BACKWARDS = "backwards "         # in front of a name or text: the cell run backwards in time
ZOO = Path(__file__).parents[1] / "examples" / "zoo"
F64 = torch.float64
OPTIONS = dict(seed=0, training=False)
ROUNDED = 2.0 ** -25             # RMS of what rounding to float32 changes, relative to the largest value
KEPT = 64                        # lowered cells, references and executables that are kept
# interprets what the LLVM back end would compile: forms of any size without a compiler
INTERPRETED = SimpleNamespace(prepare=lambda cell, save="auto": interpreter.Definition(cell),
                              build=lambda lowered, dtype, fold=None: interpreter.Interpreter(lowered.cell, dtype, fold))
BACKENDS = {"llvm": llvm, "interpreter": INTERPRETED}
Source = str | Cell


class Extreme(NamedTuple):
    """A value that a share of an input's elements have, or of its rows along the last axis."""

    input: str
    value: float
    share: float = 0.2
    rows: bool = False


@lru_cache(KEPT)
def lowered(source: Source, **sizes: int) -> Lowered:
    """What the pipeline makes of a source, at its declared sizes or those given."""
    if isinstance(source, Cell):
        return llvm.prepare(source)
    backwards, source = source.startswith(BACKWARDS), source.removeprefix(BACKWARDS)
    file = ZOO / f"{source}.ost"
    text = source if "\n" in source else file.read_text()
    cell = elaborate(source if text is source else file, None, declared_sizes(text) | sizes).cell
    return llvm.prepare(replace(cell, reverse=True) if backwards else cell)


@lru_cache(KEPT)
def executable(schedule: str, source: Source, dtype: torch.dtype = F64, backend: str = "llvm", **sizes: int):
    """A form's executable. Raises forms.Unsuitable."""
    return forms.build(schedule, forms.Source(BACKENDS[backend], lowered(source, **sizes), dtype))


@dataclass(frozen=True)
class Case:
    """Operands (inputs, params, states), what the interpreter makes of them (outputs, final states), cotangents of
    these, and gradients by the operands."""

    operands: tuple[list[Tensor], list[Tensor], list[Tensor]]
    ends: list[list[Tensor]]
    cotangents: list[list[Tensor | None]]
    gradients: list[list[Tensor | None]]


def example(port: Input, B: int, T: int, g: torch.Generator) -> Tensor:
    """Random values that keep the facts; keys are shorter than 1, so that no transition of the zoo expands."""
    x = sample(port, B, T, g)
    return 0.9 * F.normalize(x, dim=-1) if port.name in ("k", "p", "a", "b") and x.dim() > 2 else x


@lru_cache(KEPT)
def reference(source: Source, B: int, T: int, seed: int = 0, extreme: tuple[Extreme, ...] = (), **sizes: int) -> Case:
    """By the interpreter, and by torch's autograd through it. The first sequence starts from the declared states moved
    by random numbers in (0, 1), so that -inf stays; the others from finite states."""
    low, g = lowered(source, **sizes), torch.Generator().manual_seed(seed)
    cell, program = low.cell, low.elaborated
    xs = [example(p, B, T, g) for p in cell.inputs]
    for e in extreme:
        i = [p.name for p in cell.inputs].index(e.input)
        hit = torch.rand(xs[i].shape[:-1] + (1,) if e.rows else xs[i].shape, generator=g) < e.share
        xs[i] = torch.where(hit, torch.tensor(e.value, dtype=F64), xs[i])
    given = interp.initial_params(program, seed)
    given |= {f"{k}.{part}": getattr(x, name) for k, x in given.items() if x.is_complex()
              for part, name in (("re", "real"), ("im", "imag"))}
    given = {p.name: given[p.name] if p.name in given else sample(Input("", p.type, facts=p.facts), 1, 1, g)[0, 0]
             for p in low.canonical.params}
    static = interp.evaluate(low.static, reads={("param", k): v for k, v in given.items()})
    ps = [given[p.name] if p.name in given else static[p.name] for p in cell.params]
    ss = [_moved(s, sample(Input("", p.type, facts=(">= 0", "<= 1")), B, 1, g)[:, 0])
          for s, p in zip(_declared(cell, xs, ps, B), cell.states)]
    leaves = [[x.clone().requires_grad_(x.is_floating_point()) for x in group] for group in (xs, ps, ss)]
    ins, params, states = ({p.name: x for p, x in zip(ports, group)}
                           for ports, group in zip((cell.inputs, cell.params, cell.states), leaves))
    r = interp.run(cell, ins, params, states)
    ends = [[r.outputs[o.name] for o in cell.outputs], [r.state[s.name] for s in cell.states]]
    cts = [[torch.randn(y.shape, generator=g, dtype=F64) if y.is_floating_point() else None for y in group]
           for group in ends]
    live = [(y, d) for group, ds in zip(ends, cts) for y, d in zip(group, ds) if d is not None and y.requires_grad]
    wanted = [x for group in leaves for x in group if x.requires_grad]
    found = iter(torch.autograd.grad([y for y, _ in live], wanted, [d for _, d in live], allow_unused=True)
                 if live else [None] * len(wanted))
    grads = [[(torch.zeros_like(x) if (d := next(found)) is None else d) if x.requires_grad else None for x in group]
             for group in leaves]
    grads[1] = [d if p.trainable else None for d, p in zip(grads[1], cell.params)]
    return Case((xs, ps, ss), [[y.detach() for y in group] for group in ends], cts, grads)


def _declared(cell: Cell, xs: Sequence[Tensor], ps: Sequence[Tensor], B: int) -> list[Tensor]:
    none = {p.name: x[:, :0] for p, x in zip(cell.inputs, xs)}
    return list(interp.run(cell, none, {p.name: x for p, x in zip(cell.params, ps)}, batch=B, steps=0).state.values())


def _moved(start: Tensor, by: Tensor) -> Tensor:
    if not start.is_floating_point():
        return start
    finite = torch.where(torch.isfinite(start), start, 0)
    return torch.cat([start[:1], finite[1:]]) + by


def run(e, case: Case, pieces: Sequence[int]) -> tuple[list[list[Tensor]], list[list[Tensor | None]]]:
    """(outputs, final states) and gradients of an executable, called once for each length in `pieces`."""
    (xs, ps, ss), (d_ys, d_ends) = case.operands, case.cotangents
    kept, ys, at = [], [], 0
    for n in pieces:
        some = [x[:, at:at + n] for x in xs]
        y, ends, tape = e.forward(some, ps, ss, keep=True, **OPTIONS)
        B = some[0].shape[0]
        assert [(tuple(x.shape), x.dtype) for x in tape] == [(tuple(s), t) for s, t in e.tape_meta(B, n)]
        kept.append((at, n, some, ss, tape))
        ys, ss, at = [*ys, y], ends, at + n
    dxs, dp = [], None
    for at, n, some, ss_, tape in reversed(kept):
        cut = [None if d is None else d[:, at:at + n] for d in d_ys]
        dx, dps, d_ends = e.backward(some, ps, ss_, tape, cut, d_ends, **OPTIONS)
        dxs, dp = [dx, *dxs], dps if dp is None else [None if a is None else a + b for a, b in zip(dp, dps)]
    joined = [[None if parts[0] is None else torch.cat(parts, 1) if len(parts) > 1 else parts[0]
               for parts in zip(*rows)] for rows in (ys, dxs)]
    return [joined[0], list(ss)], [joined[1], dp, d_ends]


def check(schedule: str, source: Source, B: int, T: int, *, tolerance: float = 1e-11, seed: int = 0,
          extreme: tuple[Extreme, ...] = (), pieces: Sequence[int] | None = None, backend: str = "llvm",
          **sizes: int) -> None:
    """Values, final states and every gradient, for random cotangents of outputs and final states."""
    case = reference(source, B, T, seed, extreme, **sizes)
    e = executable(schedule, source, F64, backend, **sizes)
    ends, grads = run(e, case, pieces or (T,))
    what = f"{schedule} {backend} B={B} T={T} {pieces or ''}"
    for got, want in zip((*ends[0], *ends[1]), (*case.ends[0], *case.ends[1]), strict=True):
        assert got.is_contiguous()
        close(got, want, tolerance, what)
    for names, got, want in zip(("input", "param", "state"), grads, case.gradients, strict=True):
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            assert (a is None) == (b is None), (names, i)
            if a is not None:
                assert a.is_contiguous()
                close(a, b, tolerance, f"{what}: {names} {i}")
    if not pieces:
        again, _, none = e.forward(*case.operands, keep=False, **OPTIONS)
        assert not none
        for got, want in zip(again, case.ends[0], strict=True):
            close(got, want, tolerance, f"{what} without gradients")


def close(got: Tensor, want: Tensor, tolerance: float, what: str = "") -> None:
    """Relative to the largest value of the tensor, or to 1."""
    scale = max(1.0, want.abs().nan_to_num(0, 0, 0).max().item()) if want.is_floating_point() and want.numel() else 1.0
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * scale, equal_nan=False,  # no NaN at all
                               msg=lambda m: f"{what}: {m}")


def errors(schedule: str, source: Source, B: int, T: int, seed: int = 0, **sizes: int) -> list[float]:
    """RMS errors in float32, of outputs, final states and gradients, relative to the largest value."""
    return [e / scale for e, scale in _errors(schedule, source, B, T, seed, **sizes)]


def _errors(schedule: str, source: Source, B: int, T: int, seed: int, **sizes: int) -> list[tuple[float, float]]:
    """RMS errors and largest values."""
    case = reference(source, B, T, seed, **sizes)
    single = replace(case, operands=tuple(map(_single, case.operands)), cotangents=[*map(_single, case.cotangents)])
    ends, grads = run(executable(schedule, source, torch.float32, **sizes), single, (T,))
    got = [x for xs in (*ends, *grads) for x in xs]
    want = [x for xs in (*case.ends, *case.gradients) for x in xs]
    return [_error(a, b) for a, b in zip(got, want, strict=True) if a is not None and a.is_floating_point()]


def _single(xs: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [x if x is None or not x.is_floating_point() else x.float() for x in xs]


def _error(a: Tensor, b: Tensor) -> tuple[float, float]:
    finite = torch.isfinite(b)
    assert torch.equal(torch.isfinite(a), finite)
    a, b = a[finite].double(), b[finite]
    return ((a - b).square().mean().sqrt().item(), b.abs().max().item() + 1e-30) if b.numel() else (0.0, 1e-30)


def as_good_as_sequential(schedule: str, source: Source, B: int, T: int, seeds: Sequence[int] = (0,),
                          **sizes: int) -> None:
    """In float32: no more than a few times the errors of the sequential float32 run (over all seeds: those of a few
    values may be small by chance) and of rounding the result. In the basis of eigenvectors, whose errors grow by their
    condition number, that much more."""
    ours, steps = ([math.sqrt(sum(e * e for e, _ in found) / len(found)) / max(scale for _, scale in found)
                    for found in zip(*(_errors(s, source, B, T, seed, **sizes) for seed in seeds))]
                   for s in (schedule, "sequential"))
    bases = getattr(executable(schedule, source, torch.float32, **sizes), "bases", {})
    few = 4 * max((basis.condition for _, (basis, _) in bases.values()), default=1.0)
    for i, (a, b) in enumerate(zip(ours, steps, strict=True)):
        assert a <= few * (b + ROUNDED), f"{schedule} T={T}: RMS error {a:.1e} of result {i}, sequentially {b:.1e}"


def splits(T: int, n: int, seed: int) -> tuple[int, ...]:
    """T cut at n - 1 random places; pieces may be empty."""
    r = random.Random(seed)
    at = [0, *sorted(r.randrange(T + 1) for _ in range(n - 1)), T]
    return tuple(b - a for a, b in zip(at, at[1:]))
