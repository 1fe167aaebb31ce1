"""A state with a constant dense transition in the basis of its eigenvectors.

    h[t] = A h[t-1] + b[t],  A = V diag(w) V^-1      becomes      z[t] = w * z[t-1] + V^-1 b[t],  h = re(V z)

with a complex state z of h's shape; factors that A commutes with (numbers, masks of sequences) may stand before A
and 1, as in (c[t] A + d[t]) h[t-1]. Every read of h, old or new, is replaced by re(V z), so outputs, other
states and (in an adjoint cell, whose transition is A^T) sums over time keep their meaning: the gradient of A
is contracted from cotangents and states in the original basis, and nobody differentiates an eigendecomposition.
w, V and V^-1 are new parameters, to be computed from the weights; see `runtime/forms/diagonalize`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.build import Builder
from ...ir.cell import Cell, Node, Param, State
from ...ir.types import Dim, Type
from ..analysis.affine import Affine, Apply, Offset, Outer, Scale, Term, classify
from .dce import Dce, live

MODES = "{}.modes"              # the state z of the state h
VALUES, VECTORS, INVERSE = "{}.values", "{}.vectors", "{}.inverse"      # w, V and V^-1 of the state h


@dataclass(frozen=True, slots=True)
class Dense:
    """`state`'s next value: a sum of terms that scale its old value, with `matrix` (a node that depends on parameters
    only) applied along `axis` or without, plus `offsets`."""

    state: str
    matrix: str
    axis: int
    lead: tuple[int, ...]
    terms: tuple[Term, ...]
    offsets: tuple[Offset, ...]

    def shapes(self, t: Type) -> dict[str, tuple[Dim, ...]]:
        """Of the parameters w, V and V^-1, by name."""
        lead, n = tuple(t.shape[i] for i in self.lead), t.shape[self.axis]
        return {VALUES.format(self.state): (*lead, n), VECTORS.format(self.state): (*lead, n, n),
                INVERSE.format(self.state): (*lead, n, n)}

    def spec(self, rank: int) -> str:
        """einsum of V (or V^-1) with a value of the state's shape."""
        x = "abcdefgh"[:rank]
        lead = "".join(x[i] for i in self.lead)
        return f"{lead}{x[self.axis]}z,{x.replace(x[self.axis], 'z')}->{x}"


def dense(cell: Cell) -> tuple[Cell, tuple[Dense, ...]]:
    """The states with a constant dense transition, and the cell with the nodes that they name."""
    fixed: set[str] = set()
    found = []
    for c in classify(cell):
        if not isinstance(c, Affine):
            continue
        if c.cell is not cell:
            cell, fixed = c.cell, _fixed(c.cell)
        if len(c.states) == 1 and c.semiring == "sum" and (d := _dense(c, fixed)) is not None:
            found.append(d)
    return cell, tuple(found)


def _dense(c: Affine, fixed: set[str]) -> Dense | None:
    (s,) = c.states
    maps = [m for t in c.terms[s] for m in t.maps]
    matrices = {m for m in maps if isinstance(m, Apply)}
    if len(matrices) != 1 or any(sum(isinstance(m, Apply) for m in t.maps) > 1 for t in c.terms[s]):
        return None
    (a,) = matrices
    commute = all(m == a or isinstance(m, Scale) and set(m.axes) <= set(a.lead) for m in maps)
    return Dense(s, a.matrix, a.axis, a.lead, c.terms[s], c.offsets[s]) if a.matrix in fixed and commute else None


def _fixed(cell: Cell) -> set[str]:
    fixed: set[str] = set()
    for n in cell.body:
        if n.op not in ("input", "state", "random", "training") and all(a in fixed for a in n.args):
            fixed.add(n.name)
    return fixed


def diagonalize(cell: Cell, found: tuple[Dense, ...]) -> Cell:
    """`cell` and `found` as `dense` gives them; has complex values, which `realify` takes apart."""
    kept = {d.state: d for d in found}
    replaced: dict[str, str] = {}       # nodes whose value is now read off z
    b = Builder(cell.body)
    states, params = [], list(cell.params)
    for s in cell.states:
        if s.name not in kept:
            states.append(s)
            continue
        d, t = kept[s.name], s.type.with_kind("complex")
        w, v, inverse = ((name, Type("complex", shape)) for name, shape in d.shapes(s.type).items())
        params += [Param(name, type, None, False) for name, type in (w, v, inverse)]
        spec, read = d.spec(t.rank), lambda p: b.read("param", *p)
        z = b.read("state", MODES.format(s.name), t)
        parts = [_scaled(b, term, z, read(w), d) for term in d.terms]
        parts += [b.contract(read(inverse), b.op("complex", _value(b, x, s.type), b.literal(0.0)), spec)
                  for x in d.offsets]
        moved = parts[0]
        for part in parts[1:]:
            moved = b.op("add", moved, part)
        for n in cell.body:
            if n.op == "state" and n.attr("name") == s.name:
                replaced[n.name] = b.op("re", b.contract(read(v), z, spec))
        replaced[s.next] = b.op("re", b.contract(read(v), moved, spec))
        states.append(State(MODES.format(s.name), t, b.full(0.0, t), moved, span=s.span))
    at = lambda x: replaced.get(x, x)
    body = [replace(n, args=tuple(at(a) for a in n.args)) for n in b.nodes]
    states = [replace(s, next=at(s.next)) for s in states]
    outputs, sums = (tuple(replace(o, value=at(o.value)) for o in ports) for ports in (cell.outputs, cell.sums))
    out = replace(cell, params=tuple(params), states=tuple(states), outputs=outputs, sums=sums, body=tuple(body))
    return Dce()(out.with_body(_sorted(live(body, out.roots()), body)))


def _scaled(b: Builder, term: Term, z: str, w: str, d: Dense) -> str:
    """A term in the basis of the eigenvectors."""
    t = b.type(z)
    for m in term.maps:
        if isinstance(m, Apply):
            z = b.op("mul", b.broadcast(w, t.shape, (*d.lead, d.axis)), z)
        else:
            z = b.op("mul", b.op("complex", b.broadcast(m.factor, t.shape, m.axes), b.literal(0.0)), z)
    return z


def _value(b: Builder, x: Offset, t: Type) -> str:
    """An offset, of the state's shape."""
    if not isinstance(x, Outer):
        return x.value
    lead, r = tuple(range(t.rank - 2)), t.rank
    return b.op("mul", b.broadcast(x.write, t.shape, (*lead, r - 2)), b.broadcast(x.value, t.shape, (*lead, r - 1)))


def _sorted(needed: set[str], body: list[Node]) -> list[Node]:
    """The needed nodes, each after its operands."""
    by_name, done, out = {n.name: n for n in body}, set(), []

    def visit(name: str) -> None:
        if name not in done:
            done.add(name)
            for a in by_name[name].args:
                visit(a)
            out.append(by_name[name])

    for n in body:
        if n.name in needed:
            visit(n.name)
    return out
