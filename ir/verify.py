"""The verifier: the IR's rules, checked one by one, after every pass.

For each node the type is derived again from the operands and attributes and
compared with the one it carries, so that a pass cannot get a shape wrong
unnoticed. Every failure names the node and the rule (RULES).
"""

from __future__ import annotations

from collections.abc import Iterable

from .cell import Cell, Node
from .errors import VerifyError
from .infer import TypeRule, infer
from .ops import OPS
from .sweeps import NoOrder, sweeps
from .types import KINDS, Dim, Type

RULES = ("unique", "order", "op", "arity", "attrs", "kind", "shape", "port", "region", "state", "output", "dim", "time")


def verify(cell: Cell) -> Cell:
    """Return `cell` if it keeps all rules; raise VerifyError for the first that it breaks."""
    _Verifier(cell).run()
    return cell


class _Verifier:
    def __init__(self, cell: Cell):
        self.cell = cell
        self.ports = {
            "input": {p.name: p.type for p in cell.inputs},
            "param": {p.name: p.type for p in cell.params},
            "state": {s.name: s.type for s in cell.states},
        }

    def fail(self, where: str, rule: str, message: str):
        raise VerifyError(self.cell.name, where, rule, message)

    def run(self) -> None:
        cell = self.cell
        self.unique("input", (p.name for p in cell.inputs))
        self.unique("param", (p.name for p in cell.params))
        self.unique("state", (s.name for s in cell.states))
        self.unique("output", (o.name for o in cell.outputs))
        self.unique("sum", (o.name for o in cell.sums))
        self.dims()
        init, _ = self.region(cell.init, "init")
        body, static = self.region(cell.body, "body")
        for p in cell.params:
            if p.init is not None:
                self.refers(f"param {p.name}", "port", p.init, init, p.type)
        for s in cell.states:
            where = f"state {s.name}"
            self.refers(where, "state", s.init, body, s.type)
            self.refers(where, "state", s.next, body, s.type)
            if s.init not in static:
                self.fail(where, "state", f"its initial value {s.init} depends on more than params and literals")
        for what, ports in (("output", cell.outputs), ("sum", cell.sums)):
            for o in ports:
                if o.value not in body:
                    self.fail(f"{what} {o.name}", "output", f"reads {o.value}, which the body does not define")
        for o in cell.sums:
            if body[o.value].kind == "bool":
                self.fail(f"sum {o.name}", "output", "a bool cannot be summed; cast it to int or real")
        try:
            sweeps(cell)
        except NoOrder as circle:
            self.fail(f"state {circle.backward.name}", "time", str(circle))

    def unique(self, what: str, names: Iterable[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                self.fail(f"{what} {name}", "unique", f"there are two of this {what}")
            seen.add(name)

    def refers(self, where: str, rule: str, name: str, types: dict[str, Type], expected: Type) -> None:
        if name not in types:
            self.fail(where, rule, f"refers to {name}, which is not defined")
        if types[name] != expected:
            self.fail(where, rule, f"is {expected}, but {name} is {types[name]}")

    # -- dimensions -----------------------------------------------------
    def dims(self) -> None:
        """One size for each name, in the whole cell."""
        sizes: dict[str, int] = {}
        for where, d in self.all_dims():
            if not isinstance(d.size, int) or d.size < 0:
                self.fail(where, "dim", f"dimension {d.name} has size {d.size!r}")
            if sizes.setdefault(d.name, d.size) != d.size:
                self.fail(where, "dim", f"dimension {d.name} is {d.size} here and {sizes[d.name]} elsewhere")
        if self.cell.heads is not None and self.cell.heads not in self.cell.dims:
            self.fail("heads", "dim", f"{self.cell.heads.name} is not among the cell's dims")

    def all_dims(self) -> Iterable[tuple[str, Dim]]:
        cell = self.cell
        yield from (("dims", d) for d in cell.dims)
        if cell.heads is not None:
            yield "heads", cell.heads
        for p in (*cell.inputs, *cell.params, *cell.states):
            yield from ((p.name, d) for d in p.type.shape)
        for n in (*cell.init, *cell.body):
            yield from ((n.name, d) for d in n.type.shape)

    # -- regions --------------------------------------------------------
    def region(self, nodes: tuple[Node, ...], where: str) -> tuple[dict[str, Type], set[str]]:
        """Check all nodes of a region. Their types, and the names that are static."""
        types: dict[str, Type] = {}
        static: set[str] = set()
        for n in nodes:
            if n.name in types:
                self.fail(n.name, "unique", f"defined twice in the {where}")
            self.node(n, types, where)
            types[n.name] = n.type
            if n.op not in ("input", "state", "random") and all(a in static for a in n.args):
                static.add(n.name)
        return types, static

    def node(self, n: Node, types: dict[str, Type], where: str) -> None:
        if n.op not in OPS:
            self.fail(n.name, "op", f"no operation is called {n.op}")
        if n.type.kind not in KINDS:
            self.fail(n.name, "kind", f"no kind is called {n.type.kind}")
        op = OPS[n.op]
        for a in n.args:
            if a not in types:
                self.fail(n.name, "order", f"operand {a} is not defined before it")
        if op.arity >= 0 and len(n.args) != op.arity:
            self.fail(n.name, "arity", f"{n.op} takes {op.arity} operands, not {len(n.args)}")
        keys = [k for k, _ in n.attrs]
        if sorted(k for k in keys if k not in op.optional) != sorted(op.attrs) or len({*keys}) < len(keys):
            self.fail(n.name, "attrs", f"{n.op} has attributes {list(op.attrs)}, not {keys}")
        if where == "init" and n.op in ("input", "state", "random", "training"):
            self.fail(n.name, "region", f"{n.op} cannot be read in the init region")
        if where == "body" and n.op == "draw":
            self.fail(n.name, "region", "draw belongs to the init region")
        if n.op in self.ports:
            self.read(n)
            return
        operands = [types[a] for a in n.args]
        for a, t in zip(n.args, operands):
            if t.kind not in op.kinds and not (n.op == "select" and t.kind == "bool"):
                self.fail(n.name, "kind", f"{n.op} does not take {t.kind} ({a})")
        try:
            expected = infer(n, operands)
        except TypeRule as e:
            self.fail(n.name, e.rule, str(e))
        if expected.kind != n.type.kind:
            self.fail(n.name, "kind", f"is {n.type}, but {n.op} gives {expected.kind}")
        if expected.shape != n.type.shape:
            self.fail(n.name, "shape", f"is {n.type}, but {n.op} of its operands is {expected}")

    def read(self, n: Node) -> None:
        port = n.attr("name")
        if port not in self.ports[n.op]:
            self.fail(n.name, "port", f"the cell has no {n.op} {port}")
        if self.ports[n.op][port] != n.type:
            self.fail(n.name, "port", f"is {n.type}, but {n.op} {port} is {self.ports[n.op][port]}")
