"""Sums over a matrix's points that a product makes in passing.

The gradient of a decay is a sum over a state's old values times what comes back to them, along its rows or over all of
it. A sweep for that alone does little but read both from the second-level cache. The product that comes after it, and
updates one of the two, has each point in a register before the first of its terms is added: it makes the sums as well.
"""

from __future__ import annotations

from dataclasses import replace

from .kernel import Phase
from .sweeps import Joiner
from .units import inline_leaves
from .views import is_product

SUMS = 2             # in one product, at most: its accumulators need the registers


def in_passing(phases: list[Phase], joiner: Joiner) -> list[Phase]:
    """The phases with such sweeps made part of products, in a valid order."""
    out = list(phases)
    for p in phases:
        if not _sums(p, joiner):
            continue
        i = out.index(p)
        for j in range(i + 1, len(out)):
            early, late = joiner.around(p, out[i + 1:j])
            if _takes(out[j], p, joiner) and all(joiner.free(m, out[j]) for m in late):
                both = replace(out[j], across=out[j].across + _made(p), stores=p.stores + out[j].stores)
                out[i:j + 1] = [*early, both, *late]
                break
    return out


def _made(p: Phase) -> tuple[str, ...]:
    return tuple(n for g in p.groups for n in g.nodes)


def _sums(p: Phase, joiner: Joiner) -> bool:
    """Whether a phase makes nothing but sums along rows or over all points, of what costs little."""
    names = _made(p)
    return (p.sweep and bool(names) and all(g.dims in (p.shape[-1:], p.shape[-2:]) for g in p.groups)
            and all(s.node in names and s.shape == p.shape[:len(s.shape)] for s in p.stores)
            and not any(_costly(a, joiner) for n in names for a in joiner.nodes[n].args))


def _costly(name: str, joiner: Joiner) -> bool:
    return inline_leaves(name, joiner.nodes, lambda n: n in joiner.buffers)[1]


def _takes(q: Phase, p: Phase, joiner: Joiner) -> bool:
    """Whether a phase is a product over the same points, none of which is left out, has room for the sums of `p` and
    does not read them."""
    plain = not (q.sweep or q.call or q.weights) and q.rows == "map" and q.lane == "par" and len(q.groups) == 1
    return (plain and q.shape == p.shape and len(q.across + _made(p)) <= SUMS
            and all(is_product(n) and n.attr("below") is None for n in map(joiner.nodes.__getitem__, _made(q)))
            and not {s.buffer for s in p.stores} & {joiner.buffers.get(n) for n in joiner.reads(q)})
