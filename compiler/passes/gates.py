"""Gates: slices and indices move to the leaves.

`split(W @ x + R @ h + b, 4)` computes one long vector and cuts it; a kernel
wants four products that share their vector operand, each with its own epilogue.
So a slice or index passes through pointwise operations, reductions and free
axes of contractions, down to the parameter, where it is a view:

    (a + b)[p:q] = a[p:q] + b[p:q]          (W @ x)[p:q] = W[p:q] @ x

This is done only where every use of the sliced value is a slice (so nothing is
computed twice) and the slices do not overlap. Afterwards concat and slice have
cancelled, and slices are left on leaves or on values that are needed whole.

A parameter times a joined vector is cut at the joint, so that the part that
depends on inputs only can leave the recurrence:

    W @ concat(x, h) = W[:, :I] @ x + W[:, I:] @ h
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ...ir.cell import Cell, Node
from ...ir.ops import OPS, spec_parts
from . import shapes
from .dce import Dce
from .rewrite import Rewriter, rename_roots

Piece = tuple[int, int, int]    # axis, start, size (an index has size 1)


@dataclass(frozen=True, slots=True)
class Gates:
    def __call__(self, cell: Cell) -> Cell:
        cell = Dce()(cell)
        dissolved = _dissolved(cell)
        b = _Pusher(taken=(n.name for n in cell.body))
        names: dict[str, str] = {}
        for n in cell.body:
            names[n.name] = b.emit(n, names)
            if n.name in dissolved:
                b.dissolved.add(names[n.name])
        return Dce()(rename_roots(cell, names).with_body(b.nodes))


# -- which nodes dissolve into their pieces -----------------------------------------
def _dissolved(cell: Cell) -> set[str]:
    """Nodes of which only disjoint pieces are used, all cut along one axis."""
    users: dict[str, list[Node]] = defaultdict(list)
    for n in cell.body:
        for a in dict.fromkeys(n.args):
            users[a].append(n)
    roots, pieces = set(cell.roots()), {}
    for n in reversed(cell.body):
        if n.name in roots or not users[n.name]:
            continue
        found: set[Piece] = set()
        for u in users[n.name]:
            part = _pieces_of_operand(u, n, pieces)
            if part is None:
                break
            found |= part
        else:
            if _pushable(n) and _disjoint(found):
                pieces[n.name] = found
    return set(pieces)


def _pushable(n: Node) -> bool:
    return (OPS[n.op].group == "pointwise" or n.op == "broadcast"
            or n.op in ("contract", "reduce") and "argmax" not in (n.attr("semiring"), n.attr("fn")))


def _disjoint(found: set[Piece]) -> bool:
    if len({axis for axis, _, _ in found}) != 1:
        return False
    end = 0
    for _, start, size in sorted(found):
        if start < end:
            return False
        end = start + size
    return True


def _pieces_of_operand(u: Node, n: Node, pieces: dict[str, set[Piece]]) -> set[Piece] | None:
    """The pieces of operand `n` that the user `u` reads; None if it reads all of it."""
    match u.op:
        case "slice":
            return {(u.attr("axis"), u.attr("start"), u.type.shape[u.attr("axis")].size)}
        case "index":
            return {(u.attr("axis"), u.attr("at"), 1)}
    if u.name not in pieces:
        return None
    out: set[Piece] = set()
    for i, a in enumerate(u.args):
        if a == n.name:
            for axis, start, size in pieces[u.name]:
                at = operand_axis(u, i, axis)
                if at is None:
                    return None
                out.add((at, start, size))
    return out


def operand_axis(u: Node, i: int, axis: int) -> int | None:
    """The axis of operand `i` that becomes the result's `axis`; None if it has none."""
    match u.op:
        case "broadcast":
            axes = u.attr("axes")
            return axes.index(axis) if axis in axes else None
        case "contract":
            *operands, out = spec_parts(u.attr("spec"))
            return operands[i].index(out[axis]) if out[axis] in operands[i] else None
        case "reduce":
            return [k for k in range(u.type.rank + len(u.attr("axes"))) if k not in u.attr("axes")][axis]
    return axis


# -- pushing -----------------------------------------------------------------------------
class _Pusher(Rewriter):
    """A rewriter whose slices pass through the nodes in `dissolved`."""

    def __init__(self, taken):
        super().__init__({**shapes.RULES, "slice": (*shapes.RULES["slice"], _push_slice),
                          "index": (*shapes.RULES["index"], _push_index), "contract": (_cut_at_joints,)}, taken=taken)
        self.dissolved: set[str] = set()


def _push_slice(b: _Pusher, n: Node) -> str | None:
    if n.args[0] not in b.dissolved:
        return None
    m, axis, start, dim = b.node(n.args[0]), n.attr("axis"), n.attr("start"), n.type.shape[n.attr("axis")]
    args = tuple(a if (at := operand_axis(m, i, axis)) is None else b.slice(a, at, start, dim, a)
                 for i, a in enumerate(m.args))
    return b.add(m.op, args, n.type, n.name, **_attrs(m, axis))


def _push_index(b: _Pusher, n: Node) -> str | None:
    if n.args[0] not in b.dissolved:
        return None
    m, axis, at = b.node(n.args[0]), n.attr("axis"), n.attr("at")
    args = tuple(a if (k := operand_axis(m, i, axis)) is None else b.index(a, k, at, a) for i, a in enumerate(m.args))
    attrs = _attrs(m, axis)
    match m.op:
        case "contract":
            out = spec_parts(m.attr("spec"))[2]
            attrs["spec"] = m.attr("spec").replace(out[axis], "")
        case "reduce":
            gone = operand_axis(m, 0, axis)
            attrs["axes"] = tuple(k - (k > gone) for k in m.attr("axes"))
        case "broadcast":
            attrs["axes"] = tuple(k - (k > axis) for k in m.attr("axes") if k != axis)
    return b.add(m.op, args, n.type, n.name, **attrs)


def _attrs(m: Node, axis: int) -> dict:
    """Of a node whose result is cut along an axis. From there on the axis has other places: of a half that is left out
    is not said what it is now."""
    attrs = dict(m.attrs)
    if m.op == "contract" and spec_parts(m.attr("spec"))[2][axis] in m.attr("below", ""):
        del attrs["below"]
    return attrs


def _cut_at_joints(b: _Pusher, n: Node) -> str | None:
    specs = spec_parts(n.attr("spec"))
    for vector, weight in ((0, 1), (1, 0)):
        cat = b.node(n.args[vector])
        if cat.op != "concat" or n.attr("semiring") != "sum" or not is_weight(b, n.args[weight]):
            continue
        letter = specs[vector][cat.attr("axis")]
        if letter in specs[2] or letter not in specs[weight]:
            continue
        axis, at, total = specs[weight].index(letter), 0, None
        for piece in cat.args:
            dim = b.type(piece).shape[cat.attr("axis")]
            w = b.slice(n.args[weight], axis, at, dim, n.args[weight])
            part = b.contract(*((piece, w) if vector == 0 else (w, piece)), n.attr("spec"), hint=n.name)
            total, at = part if total is None else b.op("add", total, part, hint=n.name), at + dim.size
        return total
    return None


def is_weight(b: Rewriter, name: str) -> bool:
    """Whether a value is a parameter or a view of one."""
    while b.node(name).op in ("slice", "index", "broadcast", "interleave"):
        name = b.node(name).args[0]
    return b.node(name).op == "param"
