"""The derivatives of `decayed`, `ends` and the product of the same rows, made by one operation.

All are sums of products with the same decays, and all are added to the same cotangents. So the parts of one take the
place of those of another where the two meet in one sum, and the operation makes both at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

from ...ir.build import Builder
from ...ir.cell import Cell, Node
from .dce import live
from .rewrite import rename_roots


def joined(cell: Cell) -> Cell:
    """The same cell, with `ends_back` made part of another `ends_back` or of a `decayed_back` wherever that can be."""
    while (pair := _pair(cell)) is not None:
        cell = _merged(cell, *pair)
    return cell


def _ends(n: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Factors and rows of an `ends_back`. As many: the last factor is that of the product of all decays."""
    return n.args[:len(n.args) // 2], n.args[len(n.args) // 2:]


def _offers(n: Node) -> Hashable:
    """What an `ends_back` is part of: the operation whose `_takes` is the same."""
    _, rows = _ends(n)
    return (n.attr("readers"), *rows) if len(rows) > 1 else rows[0]


def _takes(n: Node) -> Hashable:
    """The rows whose `ends` a `decayed_back` has no factors of; the decays whose product an `ends_back` has none of."""
    if n.op == "decayed_back":
        return None if n.attr("ends") else (n.attr("readers"), *n.args[1:])
    if n.op == "ends_back":
        factors, rows = _ends(n)
        return rows[n.attr("readers")] if len(factors) < len(rows) else None
    return None


def _pair(cell: Cell) -> tuple[Node, Node] | None:
    """An operation and an `ends_back` of the same rows, of which each part is added to that of the other. Products of
    all decays first."""
    users: dict[str, list[Node]] = defaultdict(list)
    for n in cell.body:
        for a in n.args:
            users[a].append(n)
    roots = set(cell.roots())

    def total(name: str) -> str:
        """The sum that a value is part of, and of no other."""
        while name not in roots and len(users[name]) == 1 and users[name][0].op == "add":
            name = users[name][0].name
        return name

    def parts(n: Node) -> dict[int, str]:
        return {u.attr("at"): u.name for u in users[n.name]
                if u.op == "index" and u.attr("axis") == n.type.rank - 3} if n.name not in roots else {}

    takers = {key: n for n in cell.body if (key := _takes(n)) is not None}
    for ends in sorted((n for n in cell.body if n.op == "ends_back"), key=lambda n: len(n.args)):
        taker = takers.get(_offers(ends))
        if taker is None or taker.name in live(cell.body, ends.args) or ends.name in live(cell.body, taker.args):
            continue
        here, there = parts(ends), parts(taker)
        whole = all(len(p) == len(users[n.name]) for p, n in ((here, ends), (there, taker)))
        if len(ends.args) == 2:
            here = {taker.attr("readers"): x for x in here.values()}
        if whole and all(k in there and total(there[k]) == total(x) != x for k, x in here.items()):
            return taker, ends
    return None


def _merged(cell: Cell, taker: Node, ends: Node) -> Cell:
    few, readers, b = _ends(ends)[0], taker.attr("readers"), Builder(cell.body)
    if taker.op == "decayed_back":
        g, *rows = taker.args
        name = b.decayed_back(g, (*rows[:readers],), rows[readers], (*rows[readers + 1:],), few)
    else:
        factors, rows = _ends(taker)
        name = b.ends_back((*factors, *few), rows[:readers], rows[readers], rows[readers + 1:])
    made = b.by_name[name]
    gone = {n.name for n in cell.body if ends.name in n.args} | {taker.name, ends.name}
    names = {taker.name: made.name}
    for n in cell.body:                                 # the sum without a part that is gone is its other operand
        if n.op == "add" and not gone.isdisjoint(n.args):
            (other,) = (a for a in n.args if a not in gone)
            names[n.name] = names.get(other, other)
    last = max(taker, ends, key=cell.body.index)
    kept = [made if n is last else n for n in cell.body
            if n is last or n.name not in gone and not (n.op == "add" and n.name in names)]
    body = (Node(n.name, n.op, tuple(names.get(a, a) for a in n.args), n.attrs, n.type, n.span) for n in kept)
    return rename_roots(cell, names).with_body(_ordered(body))


def _ordered(body: Iterable[Node]) -> list[Node]:
    """Every node after its operands, else in the order given."""
    nodes = {n.name: n for n in body}
    done: dict[str, Node] = {}
    for start in nodes:
        todo = [start]
        while todo:
            name = todo[-1]
            missing = [a for a in nodes[name].args if a not in done] if name not in done else []
            if missing:
                todo += missing
                continue
            done[todo.pop()] = nodes[name]
    return list(done.values())
