"""Constant dense transitions in the basis of their eigenvectors (`compiler.passes.diagonalize`), for the cell and for
its adjoint, whose transition is the transpose: A = E diag(e) E^-1 gives A^T = E^-T diag(e) E^T.

The decomposition belongs to the weights: it is computed in float64 when they change, and its condition measured.
Errors grow by the condition number of E, so matrices whose E is worse than LIMIT are refused; a defective matrix has
no E at all, and shows as one of 1/epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from ...backends.base import Executable
from ...compiler.passes.adjoint import Adjoint, MakeAdjoint
from ...compiler.passes.dce import live
from ...compiler.passes.diagonalize import INVERSE, MODES, SPREAD, VALUES, VECTORS, Dense, dense, diagonalize
from ...compiler.passes.realify import Realify, parts
from ...compiler.pipeline import CANONICAL, FUSE, SPLIT, Run
from ...ir.cell import Cell, Node
from ...ir.interp import evaluate
from ...ir.ops import spec_parts
from ..ports import fail
from . import Source, Unsuitable

LIMIT = {torch.float32: 1e3, torch.float64: 1e4}        # errors of 1e-4 and 1e-12, relative


@dataclass(frozen=True)
class Transformed:
    """What a back end builds: see `pipeline.Lowered`."""

    cell: Cell
    adjoint: Adjoint
    save: str = "cut"


@dataclass(frozen=True)
class Basis:
    """w and u [.., m], V [.., n, m] and W [.., m, n] of the pass, complex128 (u float64), m = ceil(n / 2);
    `condition`: the largest of the eigenvectors' condition numbers."""

    values: Tensor
    spread: Tensor
    vectors: Tensor
    inverse: Tensor
    condition: float


def _basis(values: Tensor, vectors: Tensor, inverse: Tensor, condition: float) -> Basis:
    """From all eigenvalues [.., n] and E, E^-1 [.., n, n] of real matrices, conjugate pairs being exact."""
    *lead, n = values.shape
    made = [_paired(*x) for x in zip(values.reshape(-1, n), vectors.reshape(-1, n, n), inverse.reshape(-1, n, n))]
    return Basis(*(torch.stack(x).reshape(*lead, *x[0].shape) for x in zip(*made)), condition)


def _paired(e: Tensor, right: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    upper, reals = torch.nonzero(e.imag > 0)[:, 0], torch.nonzero(e.imag == 0)[:, 0]
    one, two = reals[0::2], reals[1::2]
    lone, one = one[len(two):], one[:len(two)]      # of an odd number of real eigenvalues one is alone
    values = torch.cat([e[upper], (e[one] + e[two]) / 2, e[lone]])
    spread = torch.cat([0 * e[upper].real, (e[one] - e[two]).real / 2, 0 * e[lone].real])
    vectors = torch.cat([2 * right[:, upper], right[:, one] - 1j * right[:, two], right[:, lone]], 1)
    inverse = torch.cat([left[upper], left[one] + 1j * left[two], left[lone]])
    return values, spread, vectors, inverse


def build(source: Source) -> Executable:
    """See the module. Raises Unsuitable where no state has a constant dense transition."""
    if not hasattr(source.lowered, "adjoint"):
        raise Unsuitable("this back end has no adjoint cell")
    split = source.lowered.split
    cell, found = dense(split)
    if not found:
        raise Unsuitable("no state is multiplied by a constant matrix")
    whole = MakeAdjoint("cut")(split)
    backward, back = dense(whole.backward)
    states = {d.state for d in found}
    if {d.state for d in back} != {f"d.{s}" for s in states}:
        raise Unsuitable("the adjoint of a state is not multiplied by the transposed matrix")
    keeping, kept = dense(whole.forward)
    run = Run()
    made = [run((Realify(), *CANONICAL), diagonalize(*pair))
            for pair in ((cell, found), (keeping, kept), (backward, back))]
    new = [p for p in dict.fromkeys(chain(*(c.params for c in made))) if p.name not in {q.name for q in split.params}]
    once, again = (replace(run(FUSE, c), params=(*split.params, *new)) for c in made[:2])
    inner = source.backend.build(Transformed(once, Adjoint(again, run(SPLIT, made[2]))), source.dtype)
    return Diagonalized(cell, found, inner, tuple(p.name for p in new), source)


class Diagonalized:
    """`inner` runs the transformed cell, with the parameters `new` besides the cell's; states in `found` and their
    cotangents go in and out in another basis."""

    def __init__(self, cell: Cell, found: tuple[Dense, ...], inner: Executable, new: tuple[str, ...], source: Source):
        self.cell, self.inner, self.dtype, self.new = cell, inner, source.dtype, new
        self.found = {d.state: d for d in found}
        self.order = [s.name for s in inner.cell.states]
        self.matrix = {d.state: _closure(cell, d.matrix) for d in found}
        self.plain = source.backend.build(source.lowered, source.dtype)
        self.bases: dict[str, tuple[Tensor, tuple[Basis, Basis]]] = {}
        for name in ("step", "stepper"):
            if hasattr(self.plain, name):
                setattr(self, name, getattr(self.plain, name))

    # -- bases ----------------------------------------------------------------
    def basis(self, state: str, params: Sequence[Tensor]) -> tuple[Basis, Basis]:
        """Of a state's matrix and of the transposed one. Raises OstinatoError for an ill-conditioned one."""
        nodes, last = self.matrix[state]
        reads = {("param", p.name): x.detach().to(torch.float64) for p, x in zip(self.cell.params, params)}
        matrix = evaluate(nodes, reads=reads, types={n.name: n.type for n in nodes})[last]
        old = self.bases.get(state)
        if old is None or not torch.equal(old[0], matrix):
            self.bases[state] = old = matrix.clone(), self._decomposed(state, matrix)
        return old[1]

    def _decomposed(self, state: str, matrix: Tensor) -> tuple[Basis, Basis]:
        if torch.equal(matrix, matrix.mT):
            values, vectors = (x.to(torch.complex128) for x in torch.linalg.eigh(matrix))
            basis = _basis(values, vectors, vectors.mT, 1.0)
            return basis, basis
        values, vectors = torch.linalg.eig(matrix)
        sizes = torch.linalg.svdvals(vectors)
        condition = float((sizes[..., 0] / sizes[..., -1]).max()) if sizes.numel() else 1.0
        limit = LIMIT[self.dtype]
        if not condition <= limit:
            fail("ill_conditioned", name=self.cell.name, state=state, dtype=self.dtype, condition=f"{condition:.1e}",
                 limit=f"{limit:.0e}")
        inverse = torch.linalg.inv(vectors)
        return _basis(values, vectors, inverse, condition), _basis(values, inverse.mT, vectors.mT, condition)

    def _all(self, params: Sequence[Tensor]) -> tuple[dict[str, Basis], list[Tensor]]:
        """Bases by state and by cotangent, and the executable's parameters."""
        with torch.no_grad():
            bases: dict[str, Basis] = {}
            for s in self.found:
                bases[s], bases[f"d.{s}"] = self.basis(s, params)
            made: dict[str, Tensor] = {}
            for s, x in bases.items():
                made[SPREAD.format(s)] = x.spread
                for title, value in ((VALUES, x.values), (VECTORS, x.vectors), (INVERSE, x.inverse)):
                    made |= zip(parts(title.format(s)), (value.real, value.imag))
            return bases, [*params, *(made[name].to(self.dtype).contiguous() for name in self.new)]

    def _into(self, prefix: str, bases: dict[str, Basis], states: Sequence[Tensor | None]) -> list[Tensor | None]:
        out: dict[str, Tensor | None] = {}
        for s, x in zip(self.cell.states, states):
            if s.name not in self.found:
                out[s.name] = x
                continue
            pair = (None, None)
            if x is not None:
                z = _applied(self.found[s.name].into(s.type.rank), bases[prefix + s.name].inverse, x)
                pair = tuple(part.to(self.dtype).contiguous() for part in (z.real, z.imag))
            out |= zip(parts(MODES.format(s.name)), pair)
        return [out[name] for name in self.order]

    def _out(self, prefix: str, bases: dict[str, Basis], values: Sequence[Tensor | None]) -> list[Tensor | None]:
        given = dict(zip(self.order, values))
        out = []
        for s in self.cell.states:
            if s.name in self.found:
                re, im = (given[part].to(torch.float64) for part in parts(MODES.format(s.name)))
                z = torch.complex(re, im)
                x = _applied(self.found[s.name].out_of(s.type.rank), bases[prefix + s.name].vectors, z)
                out.append(x.real.to(self.dtype).contiguous())
            else:
                out.append(given[s.name])
        return out

    # -- running ----------------------------------------------------------------
    def forward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], *,
                seed: int, training: bool, keep: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """See `backends.base.Executable`."""
        bases, given = self._all(params)
        outputs, finals, tape = self.inner.forward(inputs, given, self._into("", bases, states), seed=seed,
                                                   training=training, keep=keep)
        if inputs and inputs[0].shape[1] == 0:
            return outputs, [x.clone(memory_format=torch.contiguous_format) for x in states], tape
        return outputs, self._out("", bases, finals), tape

    def backward(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor],
                 tape: Sequence[Tensor], d_outputs: Sequence[Tensor | None], d_finals: Sequence[Tensor | None], *,
                 seed: int, training: bool, of_inputs: bool = True,
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """See `backends.base.Executable`."""
        bases, given = self._all(params)
        dx, dp, ds = self.inner.backward(inputs, given, self._into("", bases, states), tape, d_outputs,
                                         self._into("d.", bases, d_finals), seed=seed, training=training,
                                         of_inputs=of_inputs)
        return dx, dp[:len(params)], self._out("d.", bases, ds)

    def tape_meta(self, B: int, T: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of each tensor of the tape."""
        return self.inner.tape_meta(B, T)

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs."""
        lines = [f"schedule diagonalize: {', '.join(self.found)} in the basis of the matrix's eigenvectors, complex"]
        for s, (_, (basis, _)) in self.bases.items():
            limit = f"refused above {LIMIT[self.dtype]:.0e}"
            lines.append(f"  condition of the eigenvectors of {s}: {basis.condition:.3g} ({limit})")
        return "\n".join([*lines, *self.inner.explain(B, T).splitlines()[1:]])

    def ir(self, stage: str) -> str | None:
        """Text of the back end's stages."""
        return self.inner.ir(stage)


def _applied(spec: str, matrix: Tensor, x: Tensor) -> Tensor:
    """A basis applied to values [B, *shape] of a state."""
    a, v, y = spec_parts(spec)
    return torch.einsum(f"{a},...{v}->...{y}", matrix, x.to(torch.complex128))


def _closure(cell: Cell, root: str) -> tuple[list[Node], str]:
    needed = live(cell.body, [root])
    return [n for n in cell.body if n.name in needed], root
