"""Every pass, in order: from an elaborated cell to what a back end schedules.

A pass is a small frozen dataclass, its options its fields, called on a cell;
`Run` is the one wrapper that applies passes: it verifies what each gives,
times it, and keeps what is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from ..ir.cell import Cell, Node
from ..ir.printer import print_cell
from ..ir.sweeps import mixed
from ..ir.verify import verify
from .analysis.domains import Order
from .passes.adjoint import Adjoint, MakeAdjoint
from .passes.canonicalise import Canonicalise
from .passes.cse import Cse
from .passes.dce import Dce
from .passes.divide import divide
from .passes.doubled import Doubled
from .passes.gates import Gates
from .passes.realify import Realify
from .passes.regroup import Regroup
from .passes.static import Hoist, Static

Pass = Callable[[Cell], Cell]

CANONICAL: tuple[Pass, ...] = (Canonicalise(), Cse(), Dce())
SPLIT: tuple[Pass, ...] = (Order(),)                        # after Hoist
FUSE: tuple[Pass, ...] = (Gates(), *CANONICAL, Regroup(), Doubled(), Order())
STAGES = ("cell", "canonical", "split", "fused", "forward", "adjoint")


@dataclass
class Run:
    """Applies passes and remembers `seconds` per pass, in order."""

    seconds: list[tuple[str, float]] = field(default_factory=list)

    def __call__(self, passes: Iterable[Pass], cell: Cell) -> Cell:
        for p in passes:
            cell = self.timed(p, cell)
            verify(cell)
        return cell

    def timed(self, p: Callable, cell: Cell):
        start = time.perf_counter()
        out = p(cell)
        self.seconds.append((type(p).__name__, time.perf_counter() - start))
        return out


@dataclass(frozen=True)
class Lowered:
    """A cell on its way down.

    `elaborated`: as the front end made it; `canonical`; `hoisted`: what depends
    on parameters only, and the rest; `split`: that rest, its body ordered by time
    domain; `fused`: with slices moved to the leaves, which is what runs.
    `adjoint` is made when first asked for.
    """

    elaborated: Cell
    canonical: Cell
    hoisted: Static
    split: Cell
    fused: Cell
    run: Run
    save: str = "auto"

    @property
    def cell(self) -> Cell:
        """What a back end runs."""
        return self.fused

    @property
    def static(self) -> tuple[Node, ...]:
        """What the runtime evaluates once per value of the parameters."""
        return self.hoisted.nodes

    @property
    def parts(self) -> tuple[Lowered]:
        """As `Divided` has several."""
        return (self,)

    @cached_property
    def adjoint(self) -> Adjoint:
        # before the gates are taken apart: the cotangent of a split is then one concat,
        # and W^T (da, db, ...) one product rather than one per gate
        adjoint = self.run.timed(MakeAdjoint(self.save), self.split)
        return Adjoint(self.run(FUSE, adjoint.forward), self.run(SPLIT, adjoint.backward))

    @property
    def stages(self) -> dict[str, Cell]:
        """The cell at every stage of `STAGES` (makes the adjoint)."""
        return {name: self.stage(name) for name in STAGES}

    def stage(self, name: str) -> Cell | None:
        match name:
            case "cell":
                return self.elaborated
            case "canonical" | "split" | "fused":
                return getattr(self, name)
            case "forward":
                return self.adjoint.forward
            case "adjoint":
                return self.adjoint.backward
        return None

    def ir(self, stage: str) -> str | None:
        """The printed cell at a stage; None for stages that are the back end's."""
        cell = self.stage(stage)
        return None if cell is None else print_cell(cell)


@dataclass(frozen=True)
class Divided:
    """A cell with states of both directions on its way down: as `Lowered` up to what is hoisted, then `parts` of one
    direction each, which run one after the other (see `passes.divide`)."""

    elaborated: Cell
    canonical: Cell
    hoisted: Static
    parts: tuple[Lowered, ...]
    run: Run
    save: str = "auto"

    @property
    def cell(self) -> Cell:
        """What all parts together compute."""
        return self.hoisted.cell

    @property
    def static(self) -> tuple[Node, ...]:
        """What the runtime evaluates once per value of the parameters."""
        return self.hoisted.nodes

    def ir(self, stage: str) -> str | None:
        """The printed cells at a stage, part by part once divided; None for stages that are the back end's."""
        match stage:
            case "cell":
                return print_cell(self.elaborated)
            case "canonical":
                return print_cell(self.canonical)
        texts = [part.ir(stage) for part in self.parts]
        return None if None in texts else "\n".join(texts)


def lower(cell: Cell, save: str = "auto") -> Lowered | Divided:
    """Run all passes; a cell of both directions is divided. `save`: see `passes.adjoint`. Raises VerifyError if `cell`,
    or what a pass makes of it, breaks a rule of the IR."""
    verify(cell)
    run = Run()
    canonical = run((Realify(), *CANONICAL), cell)
    hoisted = run.timed(Hoist(), canonical)
    if mixed(cell):
        verify(hoisted.cell)
        return Divided(cell, canonical, hoisted, tuple(lower(part, save) for part in divide(hoisted.cell)), run, save)
    split = run(SPLIT, hoisted.cell)
    return Lowered(cell, canonical, hoisted, split, run(FUSE, split), run, save)
