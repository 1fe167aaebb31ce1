"""The structure of an affine component: what kind of matrix its transition is, and facts about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.cell import Cell
from .affine import Affine, Apply, LowRank, Mix, Outer, Scale, Term, factors_of
from .domains import domains
from .mathematics import Product, Text
from .ranges import INF, Ranges

ORDER = ("identity", "scalar", "per channel", "rows", "columns", "rows and columns", "element-wise")


@dataclass(frozen=True, slots=True)
class Structure:
    """`name`: "none" (next values do not read the states), one of ORDER, "k x k per lane",
    "block-diagonal", "dense" or "general", the first ones perhaps "+ rank r".
    `rank`: how many different reads of old values there are. `constant`: it depends on
    parameters only. `decays`: factors in [0, 1], by node. `aliases`: (x, y) for vectors read or
    written, by node: x is y times something, so that products of the two can be shared.
    `facts`: what is known, in words."""

    name: str
    rank: int
    constant: bool
    decays: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]


def structure(c: Affine, source: Cell | None = None, text: Text | None = None) -> Structure:
    """The structure of a component. `source`: the cell that was classified, whose names facts use;
    `text`: what shows its values, if there is one."""
    text, ranges, domain = text or Text(c.cell, source or c.cell), Ranges(c.cell), domains(c.cell)
    rank = len({(t.of, m.read) for _, t, m in _maps(c) if isinstance(m, LowRank)})
    transition = [n for _, _, m in _maps(c) for n in factors_of(m)]
    facts, decays = [], []
    for _, _, m in _maps(c):
        if isinstance(m, Scale) and m.factor not in decays and (fact := _decay(m.factor, c.semiring, text, ranges)):
            facts.append(fact)
            decays += [m.factor] if ranges.interval[m.factor][0] >= 0 and ranges.interval[m.factor][1] <= 1 else []
    aliases = tuple(_aliases(c, text))
    facts += _multiples(c, text, aliases) + _contractions(c, text, ranges)
    return Structure(_name(c, rank), rank, all(domain[n] == "static" for n in transition), tuple(decays), aliases,
                     tuple(dict.fromkeys(facts)))


def _maps(c: Affine) -> Iterator[tuple[str, Term, object]]:
    return ((to, t, m) for to in c.states for t in c.terms[to] for m in t.maps)


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
            return "block-diagonal" if axes else "dense"
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
    if semiring != "sum" or n.type.kind != "real":
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


def _vectors(c: Affine) -> dict[str, str]:
    """Vectors of rank-one parts and what is done with them: `reads`, `writes`, or both."""
    out: dict[str, list[str]] = {}
    ranked = [m for _, _, m in _maps(c) if isinstance(m, LowRank)]
    outers = [o.write for s in c.states for o in c.offsets[s] if isinstance(o, Outer)] if ranked else []
    for what, nodes in (("reads", [m.read for m in ranked]), ("writes", [*outers, *(m.write for m in ranked)])):
        for n in nodes:
            out.setdefault(n, [])
            out[n] += [what] if what not in out[n] else []
    return {n: " and ".join(what) for n, what in out.items()}


def _aliases(c: Affine, text: Text) -> Iterator[tuple[str, str]]:
    """Each vector with the simplest other one that it is a multiple of."""
    vectors = list(_vectors(c))
    for x in vectors:
        bases = [y for y in vectors if y != x and text.nodes[x].type == text.nodes[y].type
                 and (p := _quotient(text, x, y)) is not None and p.atoms]
        if bases:
            yield x, min(bases, key=lambda y: len(text.product(y, through=True).atoms))


def _quotient(text: Text, x: str, y: str) -> Product | None:
    """x / y where x has all of y's factors."""
    p, q = text.product(x, through=True), text.product(y, through=True)
    return Product(p.number / q.number, p.without(q.atoms).atoms) if q.number and p.has(q.atoms) else None


def _multiples(c: Affine, text: Text, aliases: tuple[tuple[str, str], ...]) -> list[str]:
    """`multiples: reads and writes k, writes -beta k`"""
    uses, out = _vectors(c), []
    for base in dict.fromkeys(y for _, y in aliases):
        shown = text.show_product(text.product(base))
        words = [f"{uses[base]} {shown}"]
        words += [f"{uses[x]} {text.show_product(_quotient(text, x, base), shown)}" for x, y in aliases if y == base]
        out.append(f"multiples: {', '.join(words)}")
    return out


def _contractions(c: Affine, text: Text, ranges: Ranges) -> list[str]:
    """`|1 - beta| <= 1: I - beta k k^T does not expand where |k| <= 1` for beta in [0, 2]"""
    out = []
    for _, t, m in _maps(c):
        if not isinstance(m, LowRank) or len(t.maps) != 1:
            continue
        decays = [a for _, u, s in _maps(c) if isinstance(s, Scale) and u.of == t.of and len(u.maps) == 1
                  for a in text.product(s.factor, s.axes, through=True).atoms]
        axes = (*m.lead, m.axis)
        write, read = (text.product(x, axes, through=True) for x in (m.write, m.read))
        write, read = (p.without([a for a in decays if p.has([a])]) for p in (write, read))
        if not write.has(read.atoms) or not read.number:
            continue
        rest = Product(-write.number / read.number, write.without(read.atoms).atoms)
        low, high = rest.number, rest.number
        for a in rest.atoms:
            corners = [x * y if x and y else 0.0 for x in (low, high) for y in ranges.interval[a.node]]
            low, high = min(corners), max(corners)
        if rest.atoms and all(x < m.axis for a in rest.atoms for x in a.axes) and low >= 0 and high <= 2:
            k, beta = text.show_product(Product(1, read.atoms)), text.show_product(rest)
            out.append(f"{beta} in [{low:g}, {high:g}]: I - {beta} {k} {k}^T does not expand where |{k}| <= 1")
    return out
