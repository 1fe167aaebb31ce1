"""Brings a cell to canonical form: constants folded, rules of `algebra`, `shapes`
and `products` applied until nothing changes."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.cell import Cell
from . import algebra, fold, products, shapes
from .rewrite import Rules, rebuild


def merge(*tables: Rules) -> Rules:
    """One table that applies the rules of each in turn."""
    ops = {op for t in tables for op in t}
    return {op: tuple(rule for t in tables for rule in t.get(op, ())) for op in ops}


RULES: Rules = merge(fold.RULES, algebra.RULES, shapes.RULES, products.RULES)


@dataclass(frozen=True, slots=True)
class Canonicalise:
    """`limit`: rounds after which it stops; one or two do in practice, since
    every node is rebuilt from canonical operands."""

    limit: int = 8

    def __call__(self, cell: Cell) -> Cell:
        for _ in range(self.limit):
            new = rebuild(cell, RULES)
            if new.body == cell.body:
                return new
            cell = new
        return cell
