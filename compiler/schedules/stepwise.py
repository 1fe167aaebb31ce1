"""Parts whose loop nests go over a tile step by step: all of them over one step before the next.

What is made ahead of the steps, or after them, is made for a whole tile by one loop nest after the other, so that rows
share weights and sums over time are made in one go. Where neither is so and a step is large (a chunk is many steps),
a tile of a few values is more than the first-level cache holds, while a step of all of them is not. Values that only
such a part uses then take the room of one step.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from .kernel import Kernel, Part, Run
from .leaves import uses

LARGE = 2048        # elements that a part stores per step, and reads of the states, at least


def stepwise(kernel: Kernel) -> Kernel:
    """The kernel with `stepwise` parts where that pays."""
    trails = {b.name: b.numel for b in kernel.scratch if b.space == "trail"}
    runs = tuple(replace(r, before=_part(r, r.before, trails), after=_part(r, r.after, trails)) for r in kernel.runs)
    users: dict[str, set[tuple[int, int]]] = {}
    for i, run in enumerate(runs):
        for k, part in enumerate(run.parts):
            for b in _buffers(run, part):
                users.setdefault(b, set()).add((i, k))
    alone = {b for b, at in users.items() if len(at) == 1 and all(runs[i].parts[k].stepwise for i, k in at)}
    scratch = tuple(replace(b, space="step") if b.space == "tile" and b.name in alone else b for b in kernel.scratch)
    return replace(kernel, runs=runs, scratch=scratch)


def _part(run: Run, part: Part, trails: dict[str, int]) -> Part:
    """The part, if its phases can and should be made step by step so that they are."""
    if any(p.rows == "sum" or p.weights or p.domain != "tile" for p in part.phases):
        return part
    states = sum(trails[b] for b in {b for p in part.phases for b in uses(p, run.nodes, part.reads)} & {*trails})
    if states + sum(prod(d.size for d in s.shape) for p in part.phases for s in p.stores) < LARGE:
        return part
    return replace(part, phases=tuple(replace(p, domain="step") for p in part.phases), stepwise=True)


def _buffers(run: Run, part: Part) -> set[str]:
    return {b for p in part.phases for b in uses(p, run.nodes, part.reads) | {s.buffer for s in p.stores}}
