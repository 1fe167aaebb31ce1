"""Products over other semirings, as reductions of sums.

    A @max x    max over j of A[i, j] + x[j]        (lse, min and argmax alike)

A contraction over (max, +) is kept as one node, so that an analysis sees a
linear map. Derivatives and kernels take it apart: the rules for reductions
(first on a tie, nothing at all -inf) then hold for it, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.build import Builder
from ...ir.cell import Cell, Node
from ...ir.ops import spec_parts
from .rewrite import Rules, rebuild


def expand(b: Builder, n: Node) -> str | None:
    """A contraction as `reduce(a + b)` of broadcasts; None for (+, x)."""
    if n.op != "contract" or n.attr("semiring") == "sum":
        return None
    specs = spec_parts(n.attr("spec"))
    gone = "".join(dict.fromkeys(c for c in specs[0] + specs[1] if c not in specs[2]))
    letters = specs[2] + gone
    dims = {c: d for s, a in zip(specs, n.args) for c, d in zip(s, b.type(a).shape)}
    shape = tuple(dims[c] for c in letters)
    terms = b.op("add", *(b.broadcast(a, shape, tuple(letters.index(c) for c in s)) for s, a in zip(specs, n.args)))
    if not gone:
        return terms
    axes = tuple(range(len(specs[2]), len(letters)))
    return b.add("reduce", (terms,), n.type, n.name, fn=n.attr("semiring"), axes=axes)


RULES: Rules = {"contract": (expand,)}


@dataclass(frozen=True, slots=True)
class Expand:
    """Cell -> Cell without products over other semirings."""

    def __call__(self, cell: Cell) -> Cell:
        if any(n.op == "contract" and n.attr("semiring") != "sum" for n in cell.body):
            return rebuild(cell, RULES)
        return cell
