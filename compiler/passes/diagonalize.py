"""A state with a constant dense transition in the basis of its eigenvectors.

    h[t] = A h[t-1] + b[t]   becomes   z[t] = w * z[t-1] + u * conj(z[t-1]) + W b[t],  h = re(V z)

with a complex state z of half h's size: an eigenvalue w of a real matrix and its conjugate share one element (u = 0),
and so do two real eigenvalues, w + u and w - u, in its two parts. Factors that A commutes with (numbers, masks of
sequences) may stand before A and 1, as in (c[t] A + d[t]) h[t-1].

Every read of h, old or new, is replaced by re(V z), so outputs, other states and (in an adjoint cell, whose transition
is the transpose) sums over time keep their meaning: the gradient of A is contracted from cotangents and states in the
original basis, and nobody differentiates an eigendecomposition. w, u, V and W are new parameters, to be computed from
the weights; see `runtime/forms/diagonalize`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.build import Builder
from ...ir.cell import Cell, Node, Param, State
from ...ir.types import Dim, Type
from ..analysis.affine import Affine, Apply, Offset, Outer, Scale, Term, classify
from .dce import Dce, live

MODES = "{}.modes"              # the state z of the state h
VALUES, SPREAD, VECTORS, INVERSE = "{}.values", "{}.spread", "{}.vectors", "{}.inverse"      # w, u, V, W of the state h


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

    def params(self, t: Type) -> dict[str, Type]:
        """w, u, V and W by name, for a state of type `t`."""
        lead, n, half = tuple(t.shape[i] for i in self.lead), t.shape[self.axis], self.half(t)
        types = {VALUES: (*lead, half), SPREAD: (*lead, half), VECTORS: (*lead, n, half), INVERSE: (*lead, half, n)}
        return {k.format(self.state): Type("real" if k is SPREAD else "complex", v) for k, v in types.items()}

    def half(self, t: Type) -> Dim:
        n = t.shape[self.axis]
        return Dim(f"{n.name}.pairs", (n.size + 1) // 2)

    def modes(self, t: Type) -> Type:
        """The type of z."""
        return Type("complex", tuple(self.half(t) if i == self.axis else d for i, d in enumerate(t.shape)))

    def out_of(self, rank: int) -> str:
        """einsum of V with z."""
        x = "abcdefgh"[:rank]
        return f"{''.join(x[i] for i in self.lead)}{x[self.axis]}z,{x.replace(x[self.axis], 'z')}->{x}"

    def into(self, rank: int) -> str:
        """einsum of W with a value of the state's shape."""
        x = "abcdefgh"[:rank]
        return f"{''.join(x[i] for i in self.lead)}z{x[self.axis]},{x}->{x.replace(x[self.axis], 'z')}"


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
        d = kept[s.name]
        t, own = d.modes(s.type), d.params(s.type)
        params += [Param(name, type, None, False) for name, type in own.items()]
        w, u, v, inverse = (b.read("param", name, type) for name, type in own.items())
        spec = d.out_of(t.rank)
        z = b.read("state", MODES.format(s.name), t)
        parts = [_scaled(b, term, z, (w, u), d) for term in d.terms]
        parts += [b.contract(inverse, b.op("complex", _value(b, x, s.type), b.literal(0.0)), d.into(t.rank))
                  for x in d.offsets]
        moved = parts[0]
        for part in parts[1:]:
            moved = b.op("add", moved, part)
        for n in cell.body:
            if n.op == "state" and n.attr("name") == s.name:
                replaced[n.name] = b.op("re", b.contract(v, z, spec))
        replaced[s.next] = b.op("re", b.contract(v, moved, spec))
        states.append(State(MODES.format(s.name), t, b.full(0.0, t), moved, span=s.span))
    at = lambda x: replaced.get(x, x)
    body = [replace(n, args=tuple(at(a) for a in n.args)) for n in b.nodes]
    states = [replace(s, next=at(s.next)) for s in states]
    outputs, sums = (tuple(replace(o, value=at(o.value)) for o in ports) for ports in (cell.outputs, cell.sums))
    out = replace(cell, params=tuple(params), states=tuple(states), outputs=outputs, sums=sums, body=tuple(body))
    return Dce()(out.with_body(_sorted(live(body, out.roots()), body)))


def _scaled(b: Builder, term: Term, z: str, values: tuple[str, str], d: Dense) -> str:
    """A term in the basis of the eigenvectors."""
    t = b.type(z)
    for m in term.maps:
        if isinstance(m, Apply):
            w, u = (b.broadcast(x, t.shape, (*d.lead, d.axis)) for x in values)
            other = b.op("mul", b.op("complex", u, b.literal(0.0)), b.op("conj", z))
            z = b.op("add", b.op("mul", w, z), other)
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
