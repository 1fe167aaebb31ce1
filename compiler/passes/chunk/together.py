"""Gram matrices with the same decays between rows, made by one operation.

The decays multiplied up on the way from row to row are the same for every reader and every writer, and what a reader
has become on the way to a row serves all writers there: of several pairs, `decayed` is a fraction of the work of one
after another, and so is its derivative, which then adds up what all pairs give one operand.
"""

from __future__ import annotations

from itertools import islice

from ....ir.build import Builder
from ....ir.cell import Cell, Node
from ..dce import live

PAIRS = 8           # at most: sums of all of them are in registers
READERS = 4         # so are their rows


def together(cell: Cell) -> Cell:
    """The same cell with `decayed` of several readers and writers where it had one for each pair."""
    while (some := _some(cell)) is not None:
        cell = _joined(cell, *some)
    return cell


def _some(cell: Cell) -> tuple[list[str], list[str], dict[tuple[str, str], Node]] | None:
    """Readers and writers with a Gram matrix for each pair, none of which another one's rows depend on."""
    by_decays: dict[str, dict[tuple[str, str], Node]] = {}
    for n in cell.body:
        if n.op == "decayed" and len(n.args) == 3:
            a, d, x = n.args
            by_decays.setdefault(d, {})[a, x] = n
    for decays, found in by_decays.items():
        writers: dict[str, list[str]] = {}
        for a, x in found:
            writers.setdefault(a, []).append(x)
        alike: dict[frozenset[str], list[str]] = {}
        for a, xs in writers.items():
            alike.setdefault(frozenset(xs), []).append(a)
        for readers in alike.values():
            few = writers[readers[0]][:PAIRS]
            some = [*islice(readers, min(READERS, PAIRS // len(few)))]
            pairs = {(a, x): found[a, x] for a in some for x in few}
            before = live(cell.body, [decays, *some, *few])
            if len(pairs) > 1 and not any(n.name in before for n in pairs.values()):
                return some, few, pairs
    return None


def _joined(cell: Cell, readers: list[str], writers: list[str], pairs: dict[tuple[str, str], Node]) -> Cell:
    """With one operation for these pairs as soon as all rows are known, and then what is one of its results."""
    decays = next(iter(pairs.values())).args[1]
    rows = live(cell.body, [decays, *readers, *writers])
    b = Builder((n for n in cell.body if n.name in rows), taken=(n.name for n in cell.body))
    made = b.decayed(tuple(readers), decays, tuple(writers))
    axis = b.type(decays).rank - 2
    results = {pairs[a, x].name: r * len(writers) + w for r, a in enumerate(readers) for w, x in enumerate(writers)}
    for n in cell.body:
        if n.name in results:
            b.append(Node(n.name, "index", (made,), (("at", results[n.name]), ("axis", axis)), n.type, n.span))
        elif n.name not in rows:
            b.append(n)
    return cell.with_body(b.nodes)
