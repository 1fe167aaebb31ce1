"""Convolutions: states whose transition is the same at every step, whatever the inputs.

    h[t] = A h[t-1] + b[t]   gives   h[t] = A^(t+1) h[-1] + sum over s of A^(t-s) b[s]

`convolution(cell)` finds, component by component, which axes of the states A mixes (M elements together with the number
of states) and along which it differs (its lanes); every element of the other axes has the same A. What comes in, b, may
be any function of the inputs and of earlier components, and outputs any function of the states.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ...ir.cell import Cell, Node
from ...ir.types import Type
from ..analysis.affine import (
    Affine,
    Apply,
    LowRank,
    Mix,
    Nonlinear,
    Offset,
    Scale,
    Term,
    classify,
    factors_of,
    nodes_of,
)
from ..analysis.domains import domains
from .masked import VALID
from .realify import named


class Unconvolvable(Exception):
    """The cell has no such form: says why, in words for `explain`."""


@dataclass(frozen=True)
class Component:
    """States of one `type`, their terms and offsets (see `analysis.affine`), and the axes of the states that the
    transition mixes and, of the others, those along which it differs."""

    states: tuple[str, ...]
    type: Type
    terms: dict[str, tuple[Term, ...]]
    offsets: dict[str, tuple[Offset, ...]]
    mixed: tuple[int, ...]
    lanes: tuple[int, ...]

    @property
    def size(self) -> int:
        """M: how many elements depend on each other."""
        return len(self.states) * prod(self.type.sizes[a] for a in self.mixed)

    @property
    def kernel(self) -> int:
        """Elements of a power of the transition."""
        return self.size ** 2 * prod(self.type.sizes[a] for a in self.lanes)

    @property
    def counts(self) -> bool:
        """A single state to which something is added: a running sum."""
        terms = self.terms[self.states[0]]
        return len(self.states) == len(terms) == 1 and not terms[0].maps

    @property
    def recurs(self) -> bool:
        """Whether there is a transition at all."""
        return any(self.terms[s] for s in self.states)

    def nodes(self) -> tuple[str, ...]:
        """All that terms and offsets name, which is all they need."""
        return nodes_of(self)

    def factors(self) -> tuple[str, ...]:
        """All that terms name, which depends on parameters only."""
        return tuple(f for s in self.states for t in self.terms[s] for m in t.maps for f in factors_of(m))


def released(cell: Cell) -> Cell:
    """A cell with `valid@` (`passes.masked`) whose states go on in slack, so that their transition is that of the cell:
    for a form that knows itself where the sequences lie. What depends on states means nothing in slack."""
    if all(p.name != VALID for p in cell.inputs):
        return cell
    nodes, new = cell.nodes(), {}

    def within(n: Node) -> bool | None:
        """Whether it says that a step is valid (True) or slack (False)."""
        if n.op == "broadcast":
            return within(nodes[n.args[0]])
        if n.op == "not":
            return None if (inner := within(nodes[n.args[0]])) is None else not inner
        return True if n.op == "input" and n.attr("name") == VALID else None

    moves: set[str] = set()
    for n in cell.body:
        if n.op == "state" or not moves.isdisjoint(n.args):
            moves.add(n.name)
            if n.op == "select" and (said := within(nodes[n.args[0]])) is not None:
                value = n.args[1 if said else 2]
                new[n.name] = new.get(value, value)
    body = tuple(replace(n, args=tuple(new.get(a, a) for a in n.args)) for n in cell.body if n.name not in new)
    return replace(
        cell, body=body, states=tuple(replace(s, next=new.get(s.next, s.next)) for s in cell.states),
        outputs=tuple(replace(o, value=new.get(o.value, o.value)) for o in cell.outputs))


def convolution(cell: Cell) -> tuple[Cell, tuple[Component, ...]]:
    """The cell with the nodes that components name, and these in dependence order. Raises Unconvolvable."""
    if cell.reverse:
        raise Unconvolvable("it runs time backwards")
    if any(n.op == "random" for n in cell.body):
        raise Unconvolvable("it draws random numbers, which are counted step by step")
    out: list[Component] = []
    for c in classify(cell):
        states = named(c.states)
        if isinstance(c, Nonlinear):
            raise Unconvolvable(f"{states}: {c.reason}")
        out.append(_component(c, states))
        cell = c.cell
    if not any(c.recurs for c in out):
        raise Unconvolvable("no state depends on its old value")
    return cell, tuple(out)


def _component(c: Affine, states: str) -> Component:
    nodes, domain = c.cell.nodes(), domains(c.cell)
    maps = [m for s in c.states for t in c.terms[s] for m in t.maps]
    for m in maps:
        for name in factors_of(m):
            if domain[name] != "static":
                what = "the inputs" if domain[name] == "pre" else "other states"
                raise Unconvolvable(f"the transition of {states} depends on {what}{_line(nodes[name])}")
    type = c.cell.state(c.states[0]).type
    recurs = any(c.terms[s] for s in c.states)
    if recurs and c.semiring != "sum":
        raise Unconvolvable(f"{states} are sums over ({c.semiring}, +), which have no Fourier transform")
    if any(c.cell.state(s).type != type for s in c.states):
        raise Unconvolvable(f"{states} depend on each other and have different types")
    mixed, lanes = set(), set()
    for m in maps:
        match m:
            case Scale(_, axes):
                lanes |= {*axes}
            case Apply(_, axis, lead) | LowRank(_, _, axis, lead):
                mixed.add(axis)
                lanes |= {*lead}
            case Mix():
                mixed |= {*range(type.rank)}
    made = Component(c.states, type, c.terms, c.offsets, tuple(sorted(mixed)), tuple(sorted(lanes - mixed)))
    if recurs and type.kind != "real" and not (type.kind == "int" and made.counts):
        raise Unconvolvable(f"{states} of kind {type.kind} are no sums")
    return made


def _line(n: Node) -> str:
    return f": line {n.span.line}" if n.span else ""
