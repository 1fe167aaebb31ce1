"""The type of a node from its operands' types and its attributes.

Where an operation makes a new axis (slice, pad, place, concat, stack,
interleave, fold, leaves) the axis's name is the node's own choice; its size is
checked against the operands instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from .cell import Node
from .ops import NUM, OPS, ORD
from .types import Dim, Type

SEMIRINGS = ("sum", "max", "min", "lse", "argmax")
REDUCE_KINDS = {"sum": NUM, "prod": NUM, "max": ORD, "min": ORD, "argmax": ORD, "lse": ("real",),
                "any": ("bool",), "all": ("bool",)}
RUNNING_KINDS = {"sum": NUM, "max": ORD, "lse": ("real",)}
SEMIRING_KINDS = {"sum": ("real", "int", "complex", "bool"), "max": ORD, "min": ORD, "lse": ("real",), "argmax": ORD}
DRAWS = {"uniform": (2,), "normal": (2,), "bernoulli": (1,), "orthogonal": (0, 1)}
_LITERALS = {"real": float, "int": int, "bool": bool}


class TypeRule(Exception):
    """Operands or attributes that the operation does not allow."""

    def __init__(self, rule: str, message: str):
        super().__init__(message)
        self.rule = rule


def _need(condition: bool, rule: str, message: str) -> None:
    if not condition:
        raise TypeRule(rule, message)


def _integer(n: Node, key: str, low: int, high: int) -> int:
    """The attribute, an int (not a bool) in [low, high]."""
    v = n.attr(key)
    _need(type(v) is int and low <= v <= high, "attrs", f"{key}={v!r}, but {n.op} needs an int in [{low}, {high}] here")
    return v


def _positions(n: Node, rank: int, count: int | None) -> tuple[int, ...]:
    axes = n.attr("axes")
    ok = isinstance(axes, tuple) and all(type(a) is int and 0 <= a < rank for a in axes)
    _need(ok and len(set(axes)) == len(axes), "attrs", f"axes={axes!r} are not different positions below {rank}")
    _need(count is None or len(axes) == count, "attrs", f"axes={axes!r} for an operand of rank {count}")
    return axes


def infer(n: Node, operands: list[Type]) -> Type:
    """The type that `n` must have. Raises TypeRule where an attribute or an
    operand is not allowed. Reads (input, param, state) are checked against the
    cell's ports, not here."""
    match OPS[n.op].group:
        case "pointwise" | "complex":
            return _pointwise(n, operands)
        case "leaf":
            return _leaf(n, operands)
        case "structure":
            return _structure(n, operands)
        case "reduce":
            return _reduce(n, *operands) if n.op == "reduce" else _contract(n, *operands)
    return _decayed(n, *operands) if n.op.startswith(("decayed", "ends")) else _linalg(n, *operands)


def _pointwise(n: Node, operands: list[Type]) -> Type:
    if n.op == "select":
        _need(operands[0].kind == "bool", "kind", f"the condition is {operands[0].kind}, not bool")
    if n.op == "custom_grad":
        _need(len(operands) % 2 == 1, "arity", "custom_grad takes a value and pairs (x, d)")
    values = operands[1:] if n.op == "select" else operands
    kinds = {t.kind for t in values}
    _need(len(kinds) == 1, "kind", f"operands of different kinds {sorted(kinds)}; cast them")
    for t in operands:
        _need(t.shape == n.type.shape, "shape", f"operand {t} of a pointwise operation with result {n.type}")
    result = OPS[n.op].result
    return Type(values[0].kind if result == "same" else result, n.type.shape)


def _leaf(n: Node, operands: list[Type]) -> Type:
    for t in operands:
        _need(t.rank == 0, "shape", f"operand {t} of {n.op} must have rank 0")
    match n.op:
        case "literal":
            _need(type(n.attr("value")) is _LITERALS.get(n.type.kind), "attrs",
                  f"value={n.attr('value')!r} is not a {n.type.kind}")
            return Type(n.type.kind)
        case "iota":
            _need(n.type.rank == 1, "shape", "iota has exactly one axis")
            return n.type.with_kind("int")
        case "training":
            return Type("bool")
        case "random":
            _need(n.attr("dist") in ("uniform", "normal"), "attrs", f"random has no dist {n.attr('dist')!r}")
            _integer(n, "site", 0, 2**32 - 1)
        case "draw":
            dist = n.attr("dist")
            _need(dist in DRAWS, "attrs", f"draw has no dist {dist!r}")
            _need(len(operands) in DRAWS[dist], "arity", f"{dist} takes {DRAWS[dist]} operands, not {len(operands)}")
            _need(dist != "orthogonal" or n.type.rank >= 2, "shape", "orthogonal needs two axes")
    return n.type.with_kind("real")


def _structure(n: Node, operands: list[Type]) -> Type:
    _need(bool(operands), "arity", f"{n.op} needs an operand")
    x, out = operands[0], n.type
    sizes, shape = x.sizes, list(x.shape)
    if n.op == "broadcast":
        axes = _positions(n, out.rank, x.rank)
        want = list(out.shape)
        for i, at in enumerate(axes):
            want[at] = x.shape[i]
        return x.with_shape(tuple(want))
    if n.op in ("gather", "scatter"):
        return _gather(n, x, operands[1])
    new_axis = n.op in ("place", "stack")
    axis = _integer(n, "axis", 0, x.rank - (0 if new_axis else 1))
    if n.op == "index":
        _integer(n, "at", 0, sizes[axis] - 1)
        return x.with_shape(x.shape[:axis] + x.shape[axis + 1:])
    if n.op in ("cumsum", "running", "cumprod", "cumprod_back"):
        _need(type(n.attr("reverse")) is bool, "attrs", f"reverse={n.attr('reverse')!r} is not a bool")
        if n.op == "running":
            semiring = n.attr("semiring")
            _need(semiring in RUNNING_KINDS, "attrs", f"running has no semiring {semiring!r}")
            _need(x.kind in RUNNING_KINDS[semiring], "kind", f"running {semiring} does not take {x.kind}")
            _need(operands[1].kind == x.kind, "kind", f"running of {x} and {operands[1]}")
        for other in operands[1:]:
            _need(other == x, "shape", f"{n.op} of {x} and {other}")
        return x
    _need(out.rank == x.rank + new_axis, "shape", f"{n.op} of {x} cannot have rank {out.rank}")
    dim = out.shape[axis]  # its name is free, its size is not
    match n.op:
        case "slice":
            _integer(n, "start", 0, sizes[axis] - dim.size)
        case "pad":
            _integer(n, "start", 0, dim.size - sizes[axis])
        case "place":
            _integer(n, "at", 0, dim.size - 1)
        case "concat" | "stack":
            for t in operands:
                same = t.shape[:axis] + t.shape[axis + 1:] == x.shape[:axis] + x.shape[axis + 1:]
                _need(t.kind == x.kind, "kind", f"{n.op} of {x} and {t}")
                _need(t.rank == x.rank and (same if n.op == "concat" else t.shape == x.shape), "shape",
                      f"{n.op} of {x} and {t}")
            total = sum(t.sizes[axis] for t in operands) if n.op == "concat" else len(operands)
            _need(dim.size == total, "shape", f"axis {dim.name} has size {dim.size}, its parts {total}")
        case "interleave":
            times = _integer(n, "times", 1, 2**31)
            _need(dim.size == sizes[axis] * times, "shape", f"axis {dim.name} is {dim.size}, not {sizes[axis]}*{times}")
        case "fold":
            times = _integer(n, "times", 1, 2**31)
            _need(sizes[axis] == dim.size * times, "shape", f"axis {dim.name} is {dim.size}, not {sizes[axis]}/{times}")
    if new_axis:
        shape.insert(axis, dim)
    else:
        shape[axis] = dim
    return x.with_shape(tuple(shape))


def _gather(n: Node, x: Type, at: Type) -> Type:
    """gather: x [batch, other, n, rest], at [batch, places] -> [batch, other, places, rest]; scatter: back."""
    back = n.op == "scatter"
    batch = _integer(n, "batch", 0, at.rank)
    _integer(n, "places", at.rank - batch, at.rank - batch)
    places = at.shape[batch:]
    axis = _integer(n, "axis", batch, x.rank - (len(places) if back else 1))
    _need(at.kind == "int", "kind", f"the positions of {n.op} are {at.kind}, not int")
    _need(at.shape[:batch] == x.shape[:batch], "shape", f"{n.op} of {x} at {at} with {batch} axes in common")
    if not back:
        return x.with_shape(x.shape[:axis] + places + x.shape[axis + 1:])
    _need(x.shape[axis:axis + len(places)] == places, "shape", f"scatter of {x} at {at}")
    _need(n.type.rank == x.rank - len(places) + 1, "shape", f"scatter of {x} at {at} cannot have rank {n.type.rank}")
    return x.with_shape(x.shape[:axis] + (n.type.shape[axis],) + x.shape[axis + len(places):])


def _reduce(n: Node, x: Type) -> Type:
    fn, axes = n.attr("fn"), _positions(n, x.rank, None)
    _need(fn in REDUCE_KINDS, "attrs", f"reduce has no fn {fn!r}")
    _need(x.kind in REDUCE_KINDS[fn], "kind", f"reduce {fn} does not take {x.kind}")
    _need(fn != "argmax" or len(axes) == 1, "attrs", "argmax reduces exactly one axis")
    return Type("int" if fn == "argmax" else x.kind, tuple(d for i, d in enumerate(x.shape) if i not in axes))


def _contract(n: Node, a: Type, b: Type) -> Type:
    spec, semiring = n.attr("spec"), n.attr("semiring")
    _need(semiring in SEMIRINGS, "attrs", f"contract has no semiring {semiring!r}")
    _need(a.kind == b.kind, "kind", f"operands of different kinds {a.kind} and {b.kind}; cast them")
    _need(a.kind in SEMIRING_KINDS[semiring], "kind", f"contract over {semiring} does not take {a.kind}")
    left, arrow, so = spec.partition("->") if isinstance(spec, str) else ("", "", "")
    sa, comma, sb = left.partition(",")
    good = arrow and comma and all(p.isascii() and (p.isalpha() or not p) and len(set(p)) == len(p)
                                   for p in (sa, sb, so)) and set(so) <= set(sa + sb)
    _need(bool(good), "attrs", f"spec={spec!r} is not like 'ij,j->i' with each letter once per operand")
    _need((len(sa), len(sb)) == (a.rank, b.rank), "attrs", f"spec={spec!r} for operands {a} and {b}")
    dims = dict(zip(sa, a.shape))
    for c, d in zip(sb, b.shape):
        _need(dims.setdefault(c, d) == d, "shape", f"letter {c} is {dims[c].name} in {a} and {d.name} in {b}")
    _need(semiring != "argmax" or len(dims) == len(so) + 1, "attrs", "argmax contracts exactly one axis")
    below = n.attr("below", "")
    _need(isinstance(below, str) and len(below) == len(set(below)) in (0, 2) and set(below) <= set(dims)
          and (not below or semiring == "sum"), "attrs", f"below={below!r} is not two letters of the sum {spec!r}")
    return Type("int" if semiring == "argmax" else a.kind, tuple(dims[c] for c in so))


def _linalg(n: Node, a: Type, b: Type | None = None) -> Type:
    _need(a.rank >= 2 and a.shape[-1] == a.shape[-2], "shape", f"{n.op} needs a square matrix, not {a}")
    if b is None:
        return a.with_shape(a.shape[:-2])
    _need(b.rank in (a.rank, a.rank - 1) and b.shape[:a.rank - 1] == a.shape[:-1], "shape", f"{n.op} of {a} and {b}")
    if n.op == "solve_lower":
        _need(type(n.attr("transposed")) is bool, "attrs", f"transposed={n.attr('transposed')!r} is not a bool")
    return b


def grams(d: Type, pairs: int) -> Type:
    """Of so many Gram matrices with the decays d [..., n, k] between rows; one has no axis of pairs."""
    *lead, n, _ = d.shape
    return d.with_shape((*lead, *([Dim(str(pairs), pairs)] if pairs > 1 else []), n, n))


def beside(d: Type, operands: int) -> Type:
    """Of so many values like d [..., n, k], side by side."""
    return d.with_shape((*d.shape[:-2], Dim(str(operands), operands), *d.shape[-2:]))


def _decayed(n: Node, *operands: Type) -> Type:
    if n.op == "decayed_sum":
        _need(type(n.attr("transposed")) is bool, "attrs", f"transposed={n.attr('transposed')!r} is not a bool")
        *gram, d, x = operands
        return _rows(n, d, [x], gram, 1)
    readers = n.attr("readers")
    alone = n.op.startswith("ends")                     # without Gram matrices
    _need(type(readers) is int and readers >= (not alone), "attrs", f"readers={readers!r} is not how many there are")
    gram, rest = operands[:n.op == "decayed_back"], operands[n.op == "decayed_back":]
    factors = 0
    if n.op == "decayed_back":
        _need(type(n.attr("ends")) is bool, "attrs", f"ends={n.attr('ends')!r} is not a bool")
    if n.op == "ends_back" or n.attr("ends"):
        factors = len(rest) // 2
    rows = rest[factors:]
    writers = len(rows) - 1 - readers
    whole = factors == len(rows)                        # one of the product of all decays, too
    enough = writers >= 0 and len(rows) > 1 - whole if alone else writers > 0
    _need(enough and (whole or factors in (0, len(rows) - 1)), "arity",
          f"{n.op} of {readers} readers does not take {len(operands)} operands")
    d = rows[readers]
    if whole:
        product, rest = rest[factors - 1], (*rest[:factors - 1], *rows)
        _need(d.rank > 1 and product == d.with_shape((*d.shape[:-2], d.shape[-1])), "shape",
              f"{n.op}: {product} is not the product of the rows of {d}")
    _rows(n, d, rest, gram, readers * writers)
    return {"decayed": grams(d, readers * writers), "ends": beside(d, len(rows) - 1)}.get(n.op, beside(d, len(rows)))


def _rows(n: Node, d: Type, rows: Sequence[Type], gram: Sequence[Type], pairs: int) -> Type:
    """The type of the decays d, which all rows have, and which those of Gram matrices follow from."""
    _need(d.rank >= 2, "shape", f"{n.op} needs rows, not {d}")
    for t in rows:
        _need(t.shape == d.shape, "shape", f"{n.op} of {t} with decays {d}")
    for t in gram:
        _need(t.shape == grams(d, pairs).shape, "shape", f"{n.op} with factors {t} for {d}")
    return d
