"""In which order the states of a cell are found, where some of them run the other way through time.

A sweep goes once over time, one way, and finds the states that need nothing but each other and what earlier sweeps
have found at every step. A cell whose states all go one way is a single sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .cell import Cell, State
from .errors import IRError


@dataclass(frozen=True, slots=True)
class Sweep:
    """`states`, in the cell's order, from the last step to the first if `reverse`."""

    reverse: bool
    states: tuple[str, ...]


class NoOrder(IRError):
    """`forward` and `backward`, two states that go through time in different ways, need each other's new values."""

    def __init__(self, forward: State, backward: State):
        super().__init__(f"{forward.name} and {backward.name} need each other and run in different ways through time")
        self.forward, self.backward = forward, backward


def mixed(cell: Cell) -> bool:
    """Whether a state runs against the cell's own direction."""
    return any(s.reverse for s in cell.states)


def reads(cell: Cell) -> dict[str, frozenset[str]]:
    """For every node of the body, the states whose old values it depends on."""
    found: dict[str, frozenset[str]] = {}
    for n in cell.body:
        own = frozenset((n.attr("name"),)) if n.op == "state" else frozenset()
        found[n.name] = own.union(*(found[a] for a in n.args))
    return found


def sweeps(cell: Cell) -> tuple[Sweep, ...]:
    """As few sweeps as possible, each state in the first that can find it; the last finds everything else too. Raises
    NoOrder where states of both directions need each other."""
    if not mixed(cell):
        return (Sweep(cell.reverse, tuple(s.name for s in cell.states)),)
    under = reads(cell)
    needs = {s.name: under[s.next] for s in cell.states}
    return min((_sweeps(cell, needs, first) for first in (cell.reverse, not cell.reverse)), key=len)


def _sweeps(cell: Cell, needs: Mapping[str, frozenset[str]], reverse: bool) -> tuple[Sweep, ...]:
    """Sweeps in alternating directions, the first `reverse`."""
    left, found, idle = {s.name: s for s in cell.states}, [], 0
    while left:
        own = {name for name, s in left.items() if (s.reverse != cell.reverse) == reverse}
        while late := {name for name in own if any(x in left and x not in own for x in needs[name])}:
            own -= late
        if own:
            found.append(Sweep(reverse, tuple(s.name for s in cell.states if s.name in own)))
            left = {name: s for name, s in left.items() if name not in own}
        idle = 0 if own else idle + 1
        if idle == 2:
            raise NoOrder(*_circle(left, needs))
        reverse = not reverse
    return tuple(found)


def _circle(left: Mapping[str, State], needs: Mapping[str, frozenset[str]]) -> tuple[State, State]:
    """A state of each direction that need each other."""
    def reach(start: str) -> set[str]:
        seen, stack = set(), [start]
        while stack:
            for x in needs[stack.pop()]:
                if x in left and x not in seen:
                    seen.add(x)
                    stack.append(x)
        return seen

    beneath = {name: reach(name) for name in left}
    return next((f, b) for f in left.values() for b in left.values()
                if b.reverse and not f.reverse and f.name in beneath[b.name] and b.name in beneath[f.name])
