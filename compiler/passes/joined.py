"""The derivatives of `decayed` and `ends` of the same rows, made by one operation.

Both are sums of products with the same decays, and both are added to the same cotangents. So the parts of one take the
place of those of the other where the two meet in one sum, and the operation makes both at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ...ir.build import Builder
from ...ir.cell import Cell, Node
from .dce import live
from .rewrite import rename_roots


def joined(cell: Cell) -> Cell:
    """The same cell, with `ends_back` made part of a `decayed_back` wherever that can be."""
    while (pair := _pair(cell)) is not None:
        cell = _merged(cell, *pair)
    return cell


def _pair(cell: Cell) -> tuple[Node, Node] | None:
    """A `decayed_back` and an `ends_back` of the same rows, of which each part is added to that of the other."""
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

    grams = {(n.args[1:], n.attr("readers")): n for n in cell.body if n.op == "decayed_back" and not n.attr("ends")}
    for ends in cell.body:
        if ends.op != "ends_back":
            continue
        gram = grams.get((ends.args[len(ends.args) // 2:], ends.attr("readers")))
        if gram is None or gram.name in live(cell.body, ends.args) or ends.name in live(cell.body, gram.args):
            continue
        here, there = parts(ends), parts(gram)
        whole = all(len(p) == len(users[n.name]) for p, n in ((here, ends), (there, gram)))
        if whole and all(k in there and total(there[k]) == total(x) != x for k, x in here.items()):
            return gram, ends
    return None


def _merged(cell: Cell, gram: Node, ends: Node) -> Cell:
    few = len(ends.args) // 2
    readers, rows = gram.attr("readers"), gram.args[1:]
    b = Builder(cell.body)
    made = b.by_name[b.decayed_back(gram.args[0], rows[:readers], rows[readers], rows[readers + 1:], ends.args[:few])]
    gone = {n.name for n in cell.body if ends.name in n.args} | {gram.name, ends.name}
    names = {gram.name: made.name}
    for n in cell.body:                                 # the sum without a part that is gone is its other operand
        if n.op == "add" and not gone.isdisjoint(n.args):
            (other,) = (a for a in n.args if a not in gone)
            names[n.name] = names.get(other, other)
    kept = [made, *(n for n in cell.body if n.name not in gone and not (n.op == "add" and n.name in names))]
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
