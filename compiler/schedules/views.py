"""Symbolic indices: at which element a value is read, as far as the text says.

An index is `(variable, offset)`, or `(None, constant)`; `OPAQUE` where it is
computed. `operand_indices` is the one place that knows how structure
operations move indices.
"""

from __future__ import annotations

from ...ir.cell import Node
from ...ir.ops import OPS, spec_parts
from ..passes.lower import WHOLE

Ix = tuple[str | None, int]
OPAQUE: Ix = ("?", 0)
ASSEMBLED = ("concat", "stack", "pad", "place")
COMPUTED = ("interleave", "fold", "gather")     # read their first operand at computed places: it needs a buffer
CALLS = WHOLE                                   # computed as a whole, from buffers to a buffer


def is_reduction(node: Node) -> bool:
    if node.op == "reduce":
        return True
    return node.op == "contract" and bool(reduced_letters(node))


def is_product(node: Node) -> bool:
    """A product of matrices: the last two axes come one from each operand."""
    if node.op != "contract" or node.type.rank < 2:
        return False
    a, b, out = spec_parts(node.attr("spec"))
    return any(out[-2] not in x and out[-1] not in y for x, y in ((a, b), (b, a)))


def reduced_letters(node: Node) -> str:
    a, b, out = spec_parts(node.attr("spec"))
    return "".join(dict.fromkeys(c for c in a + b if c not in out))


def reduced_dims(node: Node, nodes: dict[str, Node]):
    """Dimensions summed over by a reduce or contract node, in loop order."""
    if node.op == "reduce":
        shape = nodes[node.args[0]].type.shape
        return tuple(shape[i] for i in sorted(node.attr("axes")))
    a, b, _ = spec_parts(node.attr("spec"))
    dims = dict(zip(a, nodes[node.args[0]].type.shape)) | dict(zip(b, nodes[node.args[1]].type.shape))
    return tuple(dims[c] for c in reduced_letters(node))


def operand_indices(node: Node, idx: tuple, red: tuple = ()) -> list[tuple[str, tuple]]:
    """(operand, its indices) when `node` is read at `idx`; `red` are the
    indices of the reduced axes for reductions."""
    op = node.op
    if op == "custom_grad":
        return [(node.args[0], idx)]
    if OPS[op].group == "pointwise":
        return [(a, idx) for a in node.args]
    match op:
        case "broadcast":
            return [(node.args[0], tuple(idx[p] for p in node.attr("axes")))]
        case "slice":
            axis, start = node.attr("axis"), node.attr("start")
            return [(node.args[0], tuple(shift(ix, start) if i == axis else ix for i, ix in enumerate(idx)))]
        case "index":
            axis, at = node.attr("axis"), node.attr("at")
            return [(node.args[0], (*idx[:axis], (None, at), *idx[axis:]))]
        case "gather":
            (x, i), axis, batch = node.args, node.attr("axis"), node.attr("batch")
            end = axis + node.attr("places")
            return [(x, (*idx[:axis], OPAQUE, *idx[end:])), (i, (*idx[:batch], *idx[axis:end]))]
        case "interleave" | "fold":
            axis = node.attr("axis")
            return [(node.args[0], tuple(OPAQUE if i == axis else ix for i, ix in enumerate(idx)))]
        case "contract":
            a, b, out = spec_parts(node.attr("spec"))
            at = dict(zip(out, idx)) | dict(zip(reduced_letters(node), red))
            return [(node.args[0], tuple(at[c] for c in a)), (node.args[1], tuple(at[c] for c in b))]
        case "reduce":
            axes, full, rest, r = sorted(node.attr("axes")), [], list(idx), list(red)
            for i in range(len(idx) + len(axes)):
                full.append(r.pop(0) if i in axes else rest.pop(0))
            return [(node.args[0], tuple(full))]
        case _ if op in CALLS:                   # every element, whichever is asked for
            return [(a, (OPAQUE,)) for a in node.args]
        case "random":
            return [(node.args[0], ())]
        case "literal" | "iota" | "training" | "input" | "next" | "param" | "state":
            return []
    raise NotImplementedError(op)


def shift(ix, by: int):
    return ix if by == 0 else (ix[0], ix[1] + by)


def param_view(name: str, idx: tuple, nodes: dict[str, Node]) -> tuple[str, tuple[Ix, ...]] | None:
    """The parameter and indices that `name` read at `idx` comes down to, if it
    is a view (slices, indices, transposes of a parameter)."""
    node = nodes[name]
    if node.op == "param":
        return None if OPAQUE in idx else (node.attr("name"), idx)
    if node.op in ("slice", "index", "broadcast"):
        (arg, at), = operand_indices(node, idx)
        return param_view(arg, at, nodes)
    return None
