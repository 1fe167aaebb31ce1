"""The structure of an affine component: what kind of matrix its transition is, and facts about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.cell import Cell
from .affine import Affine, Apply, LowRank, Mix, Scale, Term, nodes_of
from .domains import domains
from .mathematics import Product, Text
from .ranges import INF, Ranges

ORDER = ("identity", "scalar", "per channel", "rows", "columns", "rows and columns", "element-wise")


@dataclass(frozen=True, slots=True)
class Structure:
    """`name`: "none" (next values do not read the states), one of ORDER, "k x k per lane",
    "block-diagonal", "dense" or "general", the first ones perhaps "+ rank r".
    `rank`: how many different reads of old values there are. `constant`: it depends on
    parameters only. `decays`: factors in [0, 1], by node; `aliases`: (x, y) for vectors x that
    are a multiple of y, by node. `facts`: what is known, in words."""

    name: str
    rank: int
    constant: bool
    decays: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]


def structure(c: Affine, source: Cell | None = None) -> Structure:
    """The structure of a component. `source`: the cell that was classified, whose names facts use."""
    source = source or c.cell
    text, ranges, domain = Text(c.cell, source), Ranges(c.cell), domains(c.cell)
    rank = len({(t.of, m.read) for _, t, m in _maps(c) if isinstance(m, LowRank)})
    transition = [n for _, _, m in _maps(c) for n in _nodes(m)]
    facts, decays = [], []
    for _, _, m in _maps(c):
        if isinstance(m, Scale) and m.factor not in decays and (fact := _decay(m.factor, c.semiring, text, ranges)):
            facts.append(fact)
            decays += [m.factor] if ranges.interval[m.factor][0] >= 0 and ranges.interval[m.factor][1] <= 1 else []
    aliases = tuple(_aliases(c, text))
    facts += [_multiple(text, x, y) for x, y in aliases]
    return Structure(_name(c, rank), rank, all(domain[n] == "static" for n in transition), tuple(decays), aliases,
                     tuple(dict.fromkeys(facts)))


def _maps(c: Affine) -> Iterator[tuple[str, Term, object]]:
    return ((to, t, m) for to in c.states for t in c.terms[to] for m in t.maps)


def _nodes(m) -> tuple[str, ...]:
    match m:
        case Scale(factor, _):
            return (factor,)
        case Apply(matrix, _, _):
            return (matrix,)
        case LowRank(read, write, _, _):
            return read, write
    return m.factors


# -- names --------------------------------------------------------------------------
def _name(c: Affine, rank: int) -> str:
    terms = [(to, t) for to in c.states for t in c.terms[to]]
    if not terms:
        return "none"
    kinds = {_kind(c.cell, to, t) for to, t in terms}
    for worst in ("general", "dense", "block-diagonal"):
        if worst in kinds:
            return worst
    kinds.discard("low rank")
    if len(c.states) > 1:
        base = f"{len(c.states)} x {len(c.states)} per lane"
    elif {"rows", "columns"} <= kinds:
        base = "rows and columns"
    else:
        base = max(kinds, key=ORDER.index, default="")
    return f"{base} + rank {rank}".removeprefix(" + ") if rank else base


def _kind(cell: Cell, to: str, term: Term) -> str:
    """What one term is."""
    t = cell.state(to).type
    lead = 1 if cell.heads is not None and t.shape[:1] == (cell.heads,) else 0
    inner = t.rank - lead
    scales = [m for m in term.maps if isinstance(m, Scale)]
    others = [m for m in term.maps if not isinstance(m, Scale)]
    if any(isinstance(m, Mix) for m in others) or len(others) > 1:
        return "general"
    match others:
        case [LowRank()]:
            return "low rank"
        case [Apply(_, _, axes)]:
            return "block-diagonal" if any(a >= lead for a in axes) else "dense"
    axes = {a - lead for m in scales for a in m.axes if a >= lead}
    if not term.maps:
        return "identity"
    if not axes:
        return "scalar"
    if inner == 1:
        return "per channel"
    if inner == 2 and len(axes) == 1:
        return "rows" if 0 in axes else "columns"
    return "rows and columns" if inner == 2 and all(len({*m.axes} - {*range(lead)}) < 2 for m in scales) else (
        "element-wise")


# -- facts ----------------------------------------------------------------------------
def _decay(factor: str, semiring: str, text: Text, ranges: Ranges) -> str | None:
    """`e^g is a decay: g <= 0`, `f in [0, 1]`"""
    n = text.nodes[factor]
    if semiring != "sum":
        return None
    low, high = ranges.interval[factor]
    if n.op == "exp" and (top := ranges.interval[n.args[0]][1]) <= 0:
        bottom = ranges.interval[n.args[0]][0]
        inside = f"<= {top:g}" if bottom == -INF else f"in [{bottom:g}, {top:g}]"
        return f"{text.show(factor)} is a decay with logarithm {text.show(n.args[0])} {inside}"
    if (low, high) == (-INF, INF) or n.op == "literal":
        return None
    bounds = f"in [{low:g}, {high:g}]" if -INF < low and high < INF else f">= {low:g}" if low > -INF else f"<= {high:g}"
    return f"{text.show(factor)} {bounds}"


def _aliases(c: Affine, text: Text) -> Iterator[tuple[str, str]]:
    """Vectors that are multiples of a reader, so that products between them can be shared."""
    reads = [m.read for _, _, m in _maps(c) if isinstance(m, LowRank)]
    seen = set(reads)
    for x in nodes_of(c):
        for y in reads:
            if x not in seen and text.nodes[x].type == text.nodes[y].type and _quotient(text, x, y) is not None:
                seen.add(x)
                yield x, y
    for y in reads:             # a reader that is written itself
        if any(o.write == y for s in c.states for o in c.offsets[s] if hasattr(o, "write")):
            yield y, y


def _quotient(text: Text, x: str, y: str) -> Product | None:
    p, q = text.product(x, through=True), text.product(y, through=True)
    return Product(p.number / q.number, p.without(q.atoms).atoms) if q.number and p.has(q.atoms) else None


def _multiple(text: Text, x: str, y: str) -> str:
    read = text.show(y)
    if x == y:
        return f"{read} reads and is written"
    return f"writes {text.show_product(_quotient(text, x, y), text.atom(y))}, a multiple of the reader {read}"
