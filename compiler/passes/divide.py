"""Divide: a cell with states of both directions becomes cells of one direction each, run one after the other over the
whole of time.

A part finds the states of one sweep (`ir.sweeps`). What it needs of earlier parts are inputs `from.NODE`, which those
have as outputs of the same name. A value is computed by the first part that can (one that depends on inputs only, by
the first that wants it) and handed on. Every part reads inputs and parameters and computes for itself what depends on
parameters only, and what is larger than all that it is computed from, element by element: so what is handed on of k v^T
is k and v, and nothing where these are inputs. Cotangents are guarded as in the
whole cell: what is handed on may be infinite where it was, and what comes back may be zeros that a choice made.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.cell import Cell, Input, Node, Output
from ...ir.interp import static_names
from ...ir.ops import OPS
from ...ir.sweeps import mixed, reads, sweeps
from ..analysis.ranges import Ranges

FROM = "from."      # `from` is a keyword, so no port of a program is called so
_VIEWS = frozenset("broadcast slice index concat stack interleave pad place".split())


def divide(cell: Cell) -> tuple[Cell, ...]:
    """The parts, in the order in which they run. Each has the name of the cell with a number, the cell's dimensions
    and heads, and those of its ports that it reads or computes (the program's own cell draws parameters); every state
    and output of the cell is in one part.
    A cell of one direction is its only part. Raises `ir.sweeps.NoOrder`."""
    return _Divider(cell).parts() if mixed(cell) else (cell,)


class _Divider:
    def __init__(self, cell: Cell):
        self.cell, self.sweeps = cell, sweeps(cell)
        self.ranges = Ranges(cell)
        self.found_by = {name: k for k, sweep in enumerate(self.sweeps) for name in sweep.states}
        static = static_names(cell)
        self.shared = {n.name for n in cell.body if n.name in static or n.op == "input"}
        self.again = self.cheap()
        self.place = self.places()

    def cheap(self) -> set[str]:
        """Nodes that are larger than what would have to be handed on to compute them."""
        found: set[str] = set()
        elements: dict[str, int] = {}
        for n in self.cell.body:
            size = 0 if n.name in self.shared else n.type.numel
            if OPS[n.op].group in ("pointwise", "complex") or n.op in _VIEWS:
                sources = sum(elements[a] for a in set(n.args))
                if sources < size:
                    found.add(n.name)
                    size = sources
            elements[n.name] = size
        return found

    def places(self) -> dict[str, int]:
        """The part that computes each node which is not `shared`."""
        under = reads(self.cell)
        found = {name: max(self.found_by[s] for s in states) for name, states in under.items() if states}
        wanted = {s.next: self.found_by[s.name] for s in reversed(self.cell.states)} \
            | dict.fromkeys((o.value for o in self.cell.outputs), 0)     # the first part that wants a node
        for n in reversed(self.cell.body):
            place = found.setdefault(n.name, wanted.get(n.name, len(self.sweeps) - 1))
            for a in n.args:
                wanted[a] = min(place, wanted.get(a, place))
        return found

    def parts(self) -> tuple[Cell, ...]:
        found: list[Cell] = []
        handed: set[str] = set()        # what later parts take from earlier ones
        for k in reversed(range(len(self.sweeps))):
            part, taken = self.part(k, handed)
            found.insert(0, part)
            handed |= taken
        return tuple(found)

    def part(self, k: int, handed: set[str]) -> tuple[Cell, set[str]]:
        """Part k, and the nodes that it takes from earlier parts."""
        cell, sweep = self.cell, self.sweeps[k]
        states = tuple(replace(s, reverse=False) for s in cell.states if s.name in sweep.states)
        outputs = [o for o in cell.outputs if (0 if o.value in self.shared else self.place[o.value]) == k]
        outputs += [Output(FROM + n.name, n.name) for n in cell.body if n.name in handed and self.place[n.name] == k]
        needed, taken = self.closure(k, {x for s in states for x in (s.init, s.next)} | {o.value for o in outputs})
        body = [self.read(n) if n.name in taken else n for n in cell.body if n.name in needed]
        inputs = {n.attr("name") for n in body if n.op == "input"}
        ports = [p for p in cell.inputs if p.name in inputs] + [self.port(n) for n in cell.body if n.name in taken]
        read = {n.attr("name") for n in body if n.op == "param"}
        params = tuple(replace(p, init=None) for p in cell.params if p.name in read)
        return Cell(f"{cell.name}.{k + 1}", cell.dims, cell.heads, tuple(ports) or cell.inputs[:1], params, states,
                    tuple(outputs), body=tuple(body), reverse=sweep.reverse), taken

    def closure(self, k: int, roots: set[str]) -> tuple[set[str], set[str]]:
        """The nodes of part k, and those of them that it takes from earlier parts."""
        needed, taken = set(roots), set()
        for n in reversed(self.cell.body):
            if n.name not in needed:
                continue
            if n.name not in self.shared | self.again and self.place[n.name] < k:
                taken.add(n.name)
            else:
                needed.update(n.args)
        return needed, taken

    def read(self, n: Node) -> Node:
        """The node that reads what another part computes."""
        return Node(n.name, "input", (), (("name", FROM + n.name),), n.type, n.span)

    def port(self, n: Node) -> Input:
        return Input(FROM + n.name, n.type, 0.0, self.ranges.known(n.name) if n.type.kind == "real" else (), n.span)
