"""Masked: the cell that also knows where sequences start anew and where there is none.

    reset   before a step at which the input `reset@` is true, every state starts from its declared initial value
    valid   a step at which the input `valid@` is false is slack: states keep their values, outputs are 0

Restarts cut time into pieces. A state that runs the other way (`ir.cell.State.reverse`) starts each piece from its
other end: after the step at which the next piece begins. That is known one step later in the cell's own time, so it
is carried by a further state, `reset@`, after the cell's own.

In slack the cell computes a step of its own: inputs read a number that their declared facts allow, states their
initial value, and what the step reads of a state's new value is the one that the state keeps (so that new values are
computed in one place). So nothing of what lies there reaches a value, and every cotangent that leaves passes a select
that makes it exactly 0. What is left are cotangents of parameters, which are products with values of that step: where
those may be infinite (log(W @ x) at x = 0) the operands of products are selected as well, and the adjoint's guards do
the rest. Everything else, gradients and parallel forms included, follows from the cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.build import Builder
from ...ir.cell import Cell, Input, Node, State
from ...ir.interp import static_names
from ...ir.sweeps import mixed
from ...ir.types import BOOL, Type
from ..analysis.ranges import INF, Ranges, from_facts
from .dce import live

RESET, VALID = "reset@", "valid@"       # no program can name an input so
_PRODUCTS = frozenset("contract solve solve_lower logdet running cumprod cumprod_back decayed decayed_sum "
                      "decayed_back ends ends_back".split())
_INVERTED = frozenset("solve logdet".split())


@dataclass(frozen=True, slots=True)
class Masked:
    """Cell -> Cell with the bool inputs `reset@` and `valid@` (those wanted) after its own, and with `reverse` the
    other way through time; see the module."""

    reset: bool = False
    valid: bool = False
    reverse: bool = False

    def __call__(self, cell: Cell) -> Cell:
        cell = _Maker(self, cell).make() if self.reset or self.valid else cell
        return replace(cell, reverse=cell.reverse != self.reverse)


class _Maker:
    def __init__(self, wanted: Masked, cell: Cell):
        self.wanted, self.cell = wanted, cell
        self.b = Builder(taken=(n.name for n in cell.body))
        self.new: dict[str, str] = {}       # what stands for a node of the cell
        self.static = static_names(cell)
        self.nexts = _computed(cell) if wanted.valid else {}
        self.risky = _risky(cell, self.nexts) - self.static if wanted.valid else set()

    def make(self) -> Cell:
        cell, b, wanted = self.cell, self.b, self.wanted
        names = [name for name, asked in ((RESET, wanted.reset), (VALID, wanted.valid)) if asked]
        reads = [b.read("input", name, BOOL) for name in names]
        self.valid = reads[-1]
        self.anew = {False: reads[0]}   # by direction: the step reads the states' initial values
        further = self.carried(reads[0]) if wanted.reset and mixed(cell) else ()
        if wanted.valid:
            slack = b.op("not", self.valid)
            self.anew = {way: b.op("or", x, slack) for way, x in self.anew.items()} if wanted.reset \
                else dict.fromkeys((False, True), slack)
        first = live(cell.body, [s.init for s in cell.states])
        for n in sorted(cell.body, key=lambda n: n.name not in first):
            self.node(n)
        states = tuple(replace(s, init=self.new[s.init], next=self.last(s)) for s in cell.states)
        outputs = tuple(replace(o, value=self.shown(o.value)) for o in cell.outputs)
        sums = tuple(replace(o, value=self.shown(o.value)) for o in cell.sums)
        inputs = (*cell.inputs, *(Input(name, BOOL) for name in names))
        return replace(cell, inputs=inputs, states=states + further, outputs=outputs, sums=sums, body=tuple(b.nodes))

    def carried(self, reset: str) -> tuple[State, ...]:
        """The state that says to the others of the other direction where a piece ends."""
        b = self.b
        self.anew[True] = b.read("state", RESET, BOOL)
        begins = b.op("and", reset, self.valid) if self.wanted.valid else reset
        return (State(RESET, BOOL, b.literal(False, "bool"), begins, reverse=True),)

    def node(self, n: Node) -> None:
        b, cell = self.b, self.cell
        b.span = n.span
        args = tuple(self.new[a] for a in n.args)
        if n.op in _PRODUCTS and self.wanted.valid:
            args = tuple(self.finite(n, i, a) for i, a in enumerate(args))
        value = b.append(replace(n, args=args))
        if n.op == "state":
            s = cell.state(n.attr("name"))
            value = b.op("select", self.anew[s.reverse], self.new[s.init], value)
        elif n.op == "input" and self.wanted.valid:
            value = self.select(value, b.full(_harmless(cell.input(n.attr("name"))), n.type))
        elif n.name in self.nexts:
            value = self.kept(self.nexts[n.name], value)
        self.new[n.name] = value

    def finite(self, n: Node, i: int, operand: str) -> str:
        """An operand of a product; in slack a constant where it may be infinite (the identity where inverted)."""
        b, t = self.b, self.b.type(operand)
        if n.op in _INVERTED and i == 0 and n.args[0] not in self.static:
            rows = [b.broadcast(b.add("iota", (), Type("int", (d,)), "iota"), t.shape, (t.rank - 2 + j,))
                    for j, d in enumerate(t.shape[-2:])]
            return self.select(operand, b.op("real", b.op("eq", *rows)))
        return self.select(operand, b.full(0.0, t)) if n.args[i] in self.risky else operand

    def kept(self, s: State, value: str) -> str:
        """The state's next value: in slack the old one."""
        return self.select(value, self.b.read("state", s.name, s.type))

    def last(self, s: State) -> str:
        value = self.new[s.next]
        return self.kept(s, value) if self.wanted.valid and s.next not in self.nexts else value

    def shown(self, value: str) -> str:
        """An output's value: in slack 0."""
        value = self.new[value]
        return self.select(value, self.b.full(0.0, self.b.type(value))) if self.wanted.valid else value

    def select(self, value: str, slack: str) -> str:
        return self.b.op("select", self.valid, value, slack)


def _harmless(p: Input) -> float:
    """0 where the input's facts allow it, otherwise a number inside of what they allow."""
    low, high = from_facts(p.facts)
    if p.type.kind == "bool" or low < 0 < high:
        return 0.0
    if high == INF:
        return low + 1
    return high - 1 if low == -INF else (low + high) / 2


def _computed(cell: Cell) -> dict[str, State]:
    """The nodes that compute the next value of one state from its old one. (What does not read it, a lag of inputs,
    stays free of the state: it may be computed ahead.)"""
    nodes, nexts = cell.nodes(), [s.next for s in cell.states]

    def recurs(s: State) -> bool:
        return any(nodes[n].op == "state" and nodes[n].attr("name") == s.name for n in live(cell.body, [s.next]))

    return {s.next: s for s in cell.states
            if nexts.count(s.next) == 1 and nodes[s.next].op != "state" and recurs(s)}


def _risky(cell: Cell, nexts: dict[str, State]) -> set[str]:
    """Nodes that may be infinite or NaN in a step in slack."""
    nodes, new, body = cell.nodes(), {}, []
    first = live(cell.body, [s.init for s in cell.states])
    for n in sorted(cell.body, key=lambda n: n.name not in first):
        new[n.name] = n.name
        if n.op == "state":
            new[n.name] = new[cell.state(n.attr("name")).init]
        elif n.name in nexts:
            body.append(Node(n.name, "state", (), (("name", nexts[n.name].name),), n.type))
        elif n.op == "input" and n.type.kind == "real":
            b = Builder(taken=nodes)
            new[n.name] = b.full(_harmless(cell.input(n.attr("name"))), n.type)
            nodes |= b.by_name
            body += b.nodes
        else:
            body.append(replace(n, args=tuple(new[a] for a in n.args)))
    in_slack = Ranges(cell.with_body(body)).nonfinite
    return {name for name, standing in new.items() if standing in in_slack}
