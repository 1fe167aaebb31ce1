"""What a phase reads, and who reads what it stores."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.cell import Node
from .kernel import Kernel, Phase, Run


def leaves(p: Phase, nodes: Mapping[str, Node], reads: Mapping[str, str]) -> set[str]:
    """Values that a phase does not compute itself, of those that it is computed from."""
    own = {n for g in p.groups for n in g.nodes} | p.written(reads)
    todo = [p.call] if p.call else [*own, *(s.node for s in p.stores if s.node)]
    seen: set[str] = set()
    found: set[str] = set()
    while todo:
        n = todo.pop()
        if n in seen:
            continue
        seen.add(n)
        here = n in own or n == p.call
        if not nodes[n].args or n in reads and not here:
            found.add(n)
        else:
            todo += nodes[n].args
    return found


def uses(p: Phase, nodes: Mapping[str, Node], reads: Mapping[str, str]) -> set[str]:
    """Buffers that a phase reads."""
    return {reads[n] for n in leaves(p, nodes, reads) if n in reads}


def for_later(kernel: Kernel, run: Run, p: Phase) -> bool:
    """Whether a phase of the steps makes next states of steps that run again, for those steps only: the tile that comes
    next has its own, so a tile's last step does without."""
    made, states = {s.buffer for s in p.stores}, {f"{run.prefix}next.{s}" for s in run.states}
    if kernel.checkpoint != "load" or run is not kernel.runs[0] or not made <= states:
        return False
    parts = [(r, part) for r in kernel.runs for part in r.parts]
    return not any(made & uses(q, r.nodes, part.reads) for r, part in parts for q in part.phases)
