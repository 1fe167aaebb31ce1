"""Sums that add up in one accumulator.

`next S = decay * S + a' b + c' d` has two reductions, whose results are only added to each other and to a value known
before: one accumulator that starts from that value takes all their terms. Half as many accumulators leave room for
blocks of twice the rows, which share the loads of the other factor, and nothing is left to be added at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from ...ir.cell import Node
from .kernel import Phase

Chain = tuple[tuple[str, ...], tuple[str, ...]]      # the reductions, and the other terms


def chains(p: Phase, nodes: Mapping[str, Node], reads: Mapping[str, str]) -> dict[str, Chain]:
    """Values that a phase stores and that are sums of reductions of its one group, which nothing else uses, and of
    terms that do not depend on reductions."""
    if p.sweep or p.rows != "map" or p.lane != "par" or len(p.groups) != 1:
        return {}
    grouped = {n for n in p.groups[0].nodes
               if nodes[n].attr("fn", nodes[n].attr("semiring")) == "sum" and nodes[n].type.kind == "real"}
    if len(grouped) < len(p.groups[0].nodes):
        return {}
    own = p.written(reads)
    stored = {s.node: None for s in p.stores if s.node in own}
    users, late = _uses(stored, grouped, lambda n: n in reads and n not in own, nodes)
    out: dict[str, Chain] = {}
    for name in stored:
        terms, todo = [], [name]
        while todo:
            node = nodes[n := todo.pop()]
            inner = n == name or users[n] == 1 and n in late and n not in stored
            if inner and node.op == "add" and node.type.kind == "real":
                todo += reversed(node.args)
            else:
                terms.append(n)
        sums = tuple(t for t in terms if t in grouped and users[t] == 1 and t not in stored)
        rest = tuple(t for t in terms if t not in sums)
        if sums and not late & {*rest}:
            out[name] = sums, rest
    return out


def _uses(stored: Iterable[str], grouped: set[str], known: Callable[[str], bool],
          nodes: Mapping[str, Node]) -> tuple[Counter[str], set[str]]:
    """How often each value is an operand of what the phase computes after its reductions, and the values there that
    depend on them (these included)."""
    users: Counter[str] = Counter()
    late = set(grouped)
    seen: set[str] = set()

    def visit(n: str) -> None:
        if n in seen:
            return
        seen.add(n)
        if n in grouped or known(n):
            return
        for a in nodes[n].args:
            users[a] += 1
            visit(a)
        if any(a in late for a in nodes[n].args):
            late.add(n)

    for n in stored:
        visit(n)
    return users, late
