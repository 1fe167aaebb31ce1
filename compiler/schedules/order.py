"""That no phase reads what a later phase of its part stores: it would read what the tile or step before has left."""

from __future__ import annotations

from .kernel import Run
from .leaves import uses


def check_order(run: Run) -> None:
    """Raises AssertionError for a run whose phases are in an order that gives wrong numbers (a mistake of the planner,
    not of the program). What the first step's own phases store is read by every step before it stores the next."""
    ready = {s.buffer for p in run.first.phases for s in p.stores}
    for part in (run.before, run.steps, run.after):
        stored = {s.buffer: i for i, p in reversed([*enumerate(part.phases)]) for s in p.stores}
        for i, p in enumerate(part.phases):
            late = sorted(b for b in uses(p, run.nodes, part.reads) - ready if stored.get(b, i) > i)
            if late:                            # no assert statement: python -O must not drop it
                raise AssertionError(f"{', '.join(late)} is read before it is stored")
