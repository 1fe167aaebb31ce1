"""Values that both runs of a kernel would compute ahead of their steps: the second reads the first one's.

A backward kernel runs the forward steps of a tile again before its own. Both
runs are of cells that read the same inputs, and what is expensive of these
(the exponentials of log decays) is made ahead of the steps and kept for the
tile: once is enough, whatever the two cells call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...ir.cell import Cell, Node
from .kernel import Run

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


def _numbered(nodes: Iterable[Node], known: Numbers, inputs: Mapping[str, int]) -> dict[str, int]:
    """A number for each value that follows from inputs and parameters: the same for the same expression. `inputs`:
    those that have one already."""
    out: dict[str, int] = {}
    for n in nodes:
        if n.op == "input" and n.attr("name") in inputs:
            out[n.name] = inputs[n.attr("name")]
        elif n.op not in ("state", "random") and all(a in out for a in n.args):
            out[n.name] = known.setdefault(_form(n, out), len(known))
    return out


def _form(n: Node, numbers: dict[str, int]) -> tuple:
    return n.op, n.attrs, n.type, tuple(numbers[a] for a in n.args)
