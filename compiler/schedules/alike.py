"""Values that both runs of a kernel would compute ahead of their steps: the second reads the first one's.

A backward kernel runs the forward steps of a tile again before its own. Both
runs are of cells that read the same inputs, and what is expensive of these
(the exponentials of log decays) is made ahead of the steps and kept for the
tile: once is enough, whatever the two cells call it. What the first run would
hand to the second is then not stored for it once more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ...ir.cell import Cell, Node
from .kernel import Part, Run
from .leaves import uses

Numbers = dict[tuple, int]


def alike(first: Run, other: Cell, outputs: Mapping[str, str]) -> dict[str, str]:
    """Values of `other` that the first run leaves in tile buffers before the steps, and these. `outputs`: what the
    first run hands to the other: input there -> node here."""
    known: Numbers = {}
    made = _numbered(first.nodes.values(), known, {})
    kept = {made[s.node]: s.buffer for p in first.before.phases for s in p.stores
            if s.node in made and s.buffer == f"{first.prefix}tile.{s.node}"
            and s.index == tuple((i, 0) for i in range(first.nodes[s.node].type.rank))}
    handed = {name: made[n] for name, n in outputs.items() if n in made}
    return {n: kept[k] for n, k in _numbered(other.body, known, handed).items() if k in kept}


def unread(first: Run, second: Run, handed: Collection[str]) -> Run:
    """The first run without stores to those of the buffers `handed` that nobody reads."""
    read = {b for run in (first, second) for part in run.parts for p in part.phases
            for b in uses(p, run.nodes, part.reads)}
    gone = {*handed} - read

    def without(part: Part) -> Part:
        phases = [replace(p, stores=tuple(s for s in p.stores if s.buffer not in gone)) for p in part.phases]
        other = {s.node: s.buffer for p in phases for s in p.stores}
        reads = {n: b if b not in gone else other[n] for n, b in part.reads.items() if b not in gone or n in other}
        return Part(tuple(p for p in phases if p.stores), reads, part.stepwise)

    before, start, steps, after = map(without, first.parts)
    return replace(first, before=before, first=start, steps=steps, after=after)


def _numbered(nodes: Iterable[Node], known: Numbers, inputs: Mapping[str, int]) -> dict[str, int]:
    """A number for each value that follows from inputs and parameters: the same for the same expression, and for its
    copies. `inputs`: those that have one already."""
    out: dict[str, int] = {}
    for n in nodes:
        if n.op == "input" and n.attr("name") in inputs:
            out[n.name] = inputs[n.attr("name")]
        elif n.op == "broadcast" and n.attr("axes") == tuple(range(n.type.rank)) and n.args[0] in out:
            out[n.name] = out[n.args[0]]
        elif n.op not in ("state", "random") and all(a in out for a in n.args):
            out[n.name] = known.setdefault(_form(n, out), len(known))
    return out


def _form(n: Node, numbers: dict[str, int]) -> tuple:
    return n.op, n.attrs, n.type, tuple(numbers[a] for a in n.args)
