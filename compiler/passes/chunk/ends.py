"""Rows decayed up to a chunk's ends: all that share their decays are made by one operation.

Readers of an old state are multiplied with the decays before each of their rows, what is written to the next one with
those after. `ends` makes all of these in one pass over the decays, and its derivative is part of that of the Gram
matrices of the same rows (`passes.joined`), which has the same decays in registers.
"""

from __future__ import annotations

from ....ir.build import Builder
from ....ir.cell import Cell, Node
from ..dce import Dce, live

Product = tuple[bool, str, str]         # whether decays come after the rows; the rows; their product with the decays


def ended(cell: Cell) -> Cell:
    """The same cell with `ends` in place of products with `cumprod` along the rows."""
    done: set[str] = set()
    while (some := _some(cell, done)) is not None:
        done.add(some[0])
        cell = _made(cell, *some)
    return Dce()(cell)


def _some(cell: Cell, done: set[str]) -> tuple[str, list[Product]] | None:
    """Decays, and the products with what comes before and after of several rows, none of which others are made of."""
    nodes, found = cell.nodes(), {}
    for n in cell.body:
        if n.op == "mul":
            for x, y in (n.args, n.args[::-1]):
                p = nodes[y]
                if p.op == "cumprod" and p.attr("axis") == p.type.rank - 2:
                    found.setdefault(p.args[0], []).append((p.attr("reverse"), x, n.name))
                    break
    for d, products in found.items():
        rows = live(cell.body, [d, *(x for _, x, _ in products)])
        if d not in done and len(products) > 1 and not any(name in rows for *_, name in products):
            return d, products
    return None


def _made(cell: Cell, d: str, products: list[Product]) -> Cell:
    """With one operation for these products as soon as all rows are known, in the order of their Gram matrices."""
    known: dict[str, int] = {}
    for n in cell.body:
        if n.op == "decayed" and n.args[n.attr("readers")] == d:
            known |= {x: i for i, x in enumerate(n.args)}
    readers, writers = (sorted(dict.fromkeys(x for late, x, _ in products if late == after),
                               key=lambda x: known.get(x, len(known))) for after in (False, True))
    rows = live(cell.body, [d, *readers, *writers])
    b = Builder((n for n in cell.body if n.name in rows), taken=(n.name for n in cell.body))
    made = b.ends(tuple(readers), d, tuple(writers))
    axis = b.type(d).rank - 2
    places = {name: len(readers) + writers.index(x) if late else readers.index(x) for late, x, name in products}
    for n in cell.body:
        if n.name in places:
            b.append(Node(n.name, "index", (made,), (("at", places[n.name]), ("axis", axis)), n.type, n.span))
        elif n.name not in rows:
            b.append(n)
    return cell.with_body(b.nodes)
