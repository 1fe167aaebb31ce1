"""Summaries of a segment: cells whose final states say what a stretch of time does to the states, whatever they were.

Over a segment an affine component maps its states s to A s (+) b. A summary is the cell itself, started from the
semiring's zero (its states end as b), with further states that start from the identity and end as A: for every pair
of states in the component the transition, which has the axes that some map depends on or mixes, and for every mixed
axis one more, the position in the old state.

Components come in stages. The values that a component's maps need must be known, so the summary of a stage contains
the states of earlier stages, which start from their true values there. States that only remember (lags of inputs: no
term reads a state of their own component, nor an earlier one that does not only remember) need no transition: they
are those after the last steps of a segment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...ir.build import Builder
from ...ir.cell import Cell, State
from ...ir.types import Dim, Type
from ..analysis.affine import Affine, Apply, LowRank, Map, Mix, Nonlinear, Scale, classify
from ..analysis.components import dependences
from .dce import live
from .realify import named

TIMES = {"sum": "mul", "max": "add", "lse": "add"}
PLUS = {"sum": "add", "max": "max", "lse": "logaddexp"}
ZERO = {"sum": 0.0, "max": -math.inf, "lse": -math.inf}
ONE = {"sum": 1.0, "max": 0.0, "lse": 0.0}
LARGEST = 64        # transitions of so many times the states' elements are still summarised


class Unsummable(Exception):
    """A component has no summary: says why."""


@dataclass(frozen=True, slots=True)
class Transition:
    """From the old state `of` to the state `to`. `name`: the summary's state that holds it, None for the identity.
    `axes`: the axes of `to` that it has; `mixed`: the axes of `of` that follow, as axes of their own."""

    to: str
    of: str
    name: str | None
    axes: tuple[int, ...] = ()
    mixed: tuple[int, ...] = ()

    def spec(self, to: Type, of: Type) -> str:
        """The contraction of the transition with the old state."""
        old = "".join(_new(p) if p in self.mixed else _old(p) for p in range(of.rank))
        mine = "".join(map(_old, self.axes)) + "".join(map(_new, self.mixed))
        return f"{mine},{old}->{''.join(_old(p) for p in range(to.rank))}"


@dataclass(frozen=True, slots=True)
class Summary:
    """One stage. `cell` has no outputs; its states: `earlier` ones (true values), those of the stage (`semiring` of
    each), those that hold `transitions`. `last`: only so many steps at a segment's end matter (None: all)."""

    cell: Cell
    earlier: tuple[str, ...]
    semiring: dict[str, str]
    transitions: tuple[Transition, ...]
    last: int | None = None

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(self.semiring)


def summaries(cell: Cell) -> tuple[Summary, ...]:
    """The stages of all states, in order. Raises Unsummable."""
    for n in cell.body:
        if n.op == "random":
            raise Unsummable("it draws random numbers, which are counted by sequence")
    found = classify(cell)
    for c in found:
        if isinstance(c, Nonlinear):
            raise Unsummable(f"{named(c.states)} not affine: {c.reason}")
    reads = dependences(cell)
    stage, memory = _order(found, reads)
    whole = found[0].cell if found else cell
    out = []
    if memory:
        members = [c for c in found if c.states[0] in memory]
        out.append(replace(_stage(whole, members, reads), last=max(memory.values())))
    for i in range(1 + max(stage.values(), default=-1)):
        members = [c for c in found if stage.get(c.states[0]) == i]
        out.append(_stage(whole, members, reads))
    return tuple(out)


# -- the order of the components -------------------------------------------------
def _order(found: Iterable[Affine], reads: dict[str, frozenset[str]]) -> tuple[dict[str, int], dict[str, int]]:
    """The stage of every state, and for states that only remember the number of steps."""
    stage: dict[str, int] = {}
    memory: dict[str, int] = {}
    for c in found:
        before = {r for s in c.states for r in reads[s]} - set(c.states)
        if not any(c.terms[s] for s in c.states) and before <= set(memory):
            memory |= dict.fromkeys(c.states, 1 + max((memory[r] for r in before), default=0))
        else:
            stage |= dict.fromkeys(c.states, 1 + max((stage.get(r, -1) for r in before), default=-1))
    return stage, memory


# -- one stage -----------------------------------------------------------------------
def _stage(cell: Cell, members: list[Affine], reads: dict[str, frozenset[str]]) -> Summary:
    own = [s for c in members for s in c.states]
    earlier, todo = set(), list(own)
    while todo:
        todo += (more := reads[todo.pop()] - earlier - set(own))
        earlier |= more
    b = Builder(cell.body)
    transitions: list[Transition] = []
    states: list[State] = [s for s in cell.states if s.name in earlier or s.name in own]
    for c in members:
        made = _Transitions(b, cell, c)
        transitions += made.found
        states += made.states
    read = live(b.nodes, [x for s in states for x in (s.init, s.next)])
    body = [n for n in b.nodes if n.name in read]
    ports = {(n.op, n.attr("name")) for n in body if n.op in ("input", "param")}
    inputs = tuple(p for p in cell.inputs if ("input", p.name) in ports) or cell.inputs[:1]     # which say how long
    params = tuple(replace(p, init=None) for p in cell.params if ("param", p.name) in ports)
    kinds = {s: c.semiring for c in members for s in c.states}
    return Summary(Cell(f"{cell.name}.summary", cell.dims, cell.heads, inputs, params, tuple(states), body=tuple(body),
                        reverse=cell.reverse), tuple(s.name for s in cell.states if s.name in earlier), kinds,
                   tuple(transitions))


def _old(p: int) -> str:
    return chr(97 + p)


def _new(p: int) -> str:
    return chr(65 + p)


class _Transitions:
    """The transitions of one component: `found`, and the `states` that hold them."""

    def __init__(self, b: Builder, cell: Cell, c: Affine):
        self.b, self.c = b, c
        self.types = {s: cell.state(s).type for s in c.states}
        self.found: tuple[Transition, ...] = ()
        self.states: tuple[State, ...] = ()
        if not any(c.terms[s] for s in c.states):
            return
        if len(c.states) == 1 and all(not t.maps for t in c.terms[c.states[0]]) and len(c.terms[c.states[0]]) == 1:
            self.found = (Transition(c.states[0], c.states[0], None),)
            return
        if any(t.kind not in ("real", "int") or t.kind == "int" and c.semiring != "sum" for t in self.types.values()):
            raise Unsummable(f"{', '.join(c.states)}: not real")
        self._axes()
        self.found = tuple(Transition(to, of, f"{to}<-{of}", self.kept[to], self.mixed[of])
                           for to in c.states for of in c.states)
        size = sum(self.type(t).numel for t in self.found)
        if size > LARGEST * max(LARGEST, sum(t.numel for t in self.types.values())):
            raise Unsummable(f"the transition of {named(c.states)} has {size} elements")
        self.states = tuple(self._state(t) for t in self.found)

    def type(self, t: Transition) -> Type:
        to, of = self.types[t.to], self.types[t.of]
        return Type(to.kind, (*(to.shape[p] for p in t.axes),
                              *(Dim(f"{of.shape[p].name}'{p}", of.shape[p].size) for p in t.mixed)))

    def _axes(self) -> None:
        """Which axes the maps mix, and which they depend on."""
        c = self.c
        ranks = {t.rank for t in self.types.values()}
        mixed, kept = set(), set()
        for t in (t for s in c.states for t in c.terms[s]):
            for m in t.maps:
                match m:
                    case Scale(_, axes):
                        kept |= set(axes)
                    case Apply(_, axis, lead) | LowRank(_, _, axis, lead):
                        mixed.add(axis)
                        kept |= {axis, *lead}
                    case Mix(_, spec):
                        place = spec.split("->")[0].split(",")[-1]
                        mixed |= {p for p, letter in enumerate(place) if letter != _old(p)}
                        kept |= set(range(len(place)))
        if len(ranks) > 1:
            self.kept = self.mixed = {s: tuple(range(t.rank)) for s, t in self.types.items()}
        else:
            self.kept = dict.fromkeys(c.states, tuple(sorted(kept)))
            self.mixed = dict.fromkeys(c.states, tuple(sorted(mixed)))

    def _state(self, t: Transition) -> State:
        b, type_ = self.b, self.type(t)
        total = None
        for term in self.c.terms[t.to]:
            old = Transition(term.of, t.of, f"{term.of}<-{t.of}", self.kept[term.of], self.mixed[t.of])
            x = b.read("state", old.name, self.type(old))
            letters = "".join(map(_old, old.axes)) + "".join(map(_new, old.mixed))
            for m in term.maps:
                x, letters = self._apply(m, x, letters)
            total = x if total is None else b.op(PLUS[self.c.semiring], total, x)
        zero = b.full(0 if type_.kind == "int" else ZERO[self.c.semiring], type_)
        return State(t.name, type_, zero, zero if total is None else total)

    # -- maps ---------------------------------------------------------------------
    def _times(self, x: str, y: str) -> str:
        return self.b.op(TIMES[self.c.semiring], x, y)

    def _contract(self, f: str, x: str, spec: str) -> str:
        return self.b.contract(f, x, spec, self.c.semiring)

    def _apply(self, m: Map, x: str, letters: str) -> tuple[str, str]:
        """The map applied to a transition whose axes have `letters`."""
        b = self.b
        match m:
            case Scale(factor, axes):
                f = b.broadcast(factor, b.type(x).shape, tuple(letters.index(_old(p)) for p in axes))
                return self._times(x, f), letters
            case Apply(matrix, axis, lead):
                k, first = _old(axis), "".join(map(_old, lead))
                spec = f"{first}Z{k},{letters}->{letters.replace(k, 'Z')}"
                return self._contract(matrix, x, spec), letters
            case LowRank(read, write, axis, lead):
                k, mine = _old(axis), "".join(map(_old, (*lead, axis)))
                rest = letters.replace(k, "")
                inner = self._contract(read, x, f"{mine},{letters}->{rest}")
                at = letters.index(k)
                shape = (*b.type(inner).shape[:at], b.type(write).shape[-1], *b.type(inner).shape[at:])
                return self._times(b.broadcast(write, shape, tuple(letters.index(c) for c in mine)),
                                   b.broadcast(inner, shape, tuple(letters.index(c) for c in rest))), letters
            case Mix(factors, spec):
                return self._mix(factors, spec, x, letters)

    def _mix(self, factors: tuple[str, ...], spec: str, x: str, letters: str) -> tuple[str, str]:
        """An einsum, one factor after the other."""
        left, out = spec.split("->")
        *parts, place = left.split(",")
        sources = "".join(c for c in letters if c.isupper())
        now = "".join(place[ord(c) - 97] for c in letters if c.islower()) + sources
        out += sources
        for i, (f, part) in enumerate(zip(factors, parts)):
            later = set(out).union(*parts[i + 1:])
            then = out if i == len(parts) - 1 else "".join(dict.fromkeys(c for c in now + part if c in later))
            x, now = self._contract(f, x, f"{part},{now}->{then}"), then
        if not factors:
            gone = tuple(i for i, c in enumerate(now) if c not in out)
            x = self.b.reduce(x, self.c.semiring, gone) if gone else x
            now = "".join(c for c in now if c in out)
            dims = dict(zip(now, self.b.type(x).shape))
            x = self.b.broadcast(x, tuple(dims[c] for c in out), tuple(out.index(c) for c in now))
        rank = len(out) - len(sources)
        return x, "".join(map(_old, range(rank))) + sources
