"""Linear systems, determinants, and the decayed products of chunks."""

from __future__ import annotations

from ....ir.cell import Node
from ....ir.types import Type
from .rule import Cotangents, D, DerivativeRule


def _transpose(d: D, a: str) -> str:
    t = d.b.type(a)
    r = t.rank
    return d.b.broadcast(a, (*t.shape[:-2], t.shape[-1], t.shape[-2]), (*range(r - 2), r - 1, r - 2))


def _solve(d: D, n: Node, ct: str) -> Cotangents:
    """x = A^-1 b: db = A^-T dx, dA = -db x^T"""
    a, x = n.args[0], n.name
    db = d.b.add("solve", (_transpose(d, a), ct), n.type, "solve")
    lead = "abcdefgh"[:d.b.type(a).rank - 2]
    spec = f"{lead}i,{lead}j->{lead}ij" if n.type.rank < d.b.type(a).rank else f"{lead}im,{lead}jm->{lead}ij"
    return d("neg", d.b.contract(db, x, spec)), db


def _solve_lower(d: D, n: Node, ct: str) -> Cotangents:
    """x = (I + L)^-1 b: db = (I + L)^-T dx, dL = -db x^T below the diagonal; of the transposed: dL = -x db^T"""
    low, x = n.args[0], n.name
    t, across = d.b.type(low), n.attr("transposed")
    db = d.b.solve_lower(low, ct, transposed=not across)
    lead = "abcdefgh"[:t.rank - 2]
    spec = f"{lead}i,{lead}j->{lead}ij" if n.type.rank < t.rank else f"{lead}im,{lead}jm->{lead}ij"
    rows, cols = (d.b.broadcast(d.b.add("iota", (), Type("int", (t.shape[i],)), "iota"), t.shape, (i,))
                  for i in (t.rank - 2, t.rank - 1))
    product = d.b.contract(*((x, db) if across else (db, x)), spec, below="ij")
    return d.choose(d("gt", rows, cols), d("neg", product), 0.0), db


def _logdet(d: D, n: Node, ct: str) -> Cotangents:
    """log |det A|: dA = ct A^-T"""
    (a,) = n.args
    t = d.b.type(a)
    rows, cols = (d.b.broadcast(d.b.add("iota", (), Type("int", (t.shape[i],)), "iota"), t.shape, (i,))
                  for i in (t.rank - 2, t.rank - 1))
    eye = d.b.add("real", (d("eq", rows, cols),), t, "eye")
    inverse = d.b.add("solve", (_transpose(d, a), eye), t, "solve")
    return (d.mul(d.b.broadcast(ct, t.shape, tuple(range(t.rank - 2))), inverse),)


def _decayed(d: D, n: Node, ct: str) -> Cotangents:
    """G = a . D x: linear in a and x, each with the other decayed up to it"""
    readers = n.attr("readers")
    return _back(d, ct, n.args[:readers], n.args[readers], n.args[readers + 1:])


def _decayed_sum(d: D, n: Node, ct: str) -> Cotangents:
    """y_i = sum_j G_ij D(i, j) x_j: the roles of rows i and j change where it is transposed"""
    g, decay, x = n.args
    across = n.attr("transposed")
    late, early = (x, ct) if across else (ct, x)
    by_late, by_decay, by_early = _back(d, g, (late,), decay, (early,))
    return d.b.decayed((late,), decay, (early,)), by_decay, by_late if across else by_early


def _ends(d: D, n: Node, ct: str) -> Cotangents:
    """y = a p or x t: each with its own factor, which the decays share"""
    readers, axis = n.attr("readers"), n.type.rank - 3
    factors = tuple(d.b.index(ct, axis, i) for i in range(len(n.args) - 1))
    back = d.b.ends_back(factors, n.args[:readers], n.args[readers], n.args[readers + 1:])
    return tuple(d.b.index(back, axis, i) for i in range(len(n.args)))


def _back(d: D, g: str, readers: tuple[str, ...], decay: str, writers: tuple[str, ...]) -> tuple[str, ...]:
    """The derivatives of the sum over pairs of g_ij a_i D(i, j) x_j by the readers, the decays and the writers."""
    back, axis = d.b.decayed_back(g, readers, decay, writers), d.b.type(decay).rank - 2
    return tuple(d.b.index(back, axis, i) for i in range(len(readers) + 1 + len(writers)))


RULES: dict[str, DerivativeRule] = {"solve": _solve, "solve_lower": _solve_lower, "logdet": _logdet,
                                    "decayed": _decayed, "ends": _ends,
                                    "decayed_sum": _decayed_sum}
