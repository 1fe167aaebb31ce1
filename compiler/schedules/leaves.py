"""What a phase reads."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.cell import Node
from .kernel import Phase


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
