"""Building bodies: fresh names, shape arithmetic, and shorthand for every op.

Used by the front end, by passes and by the adjoint; it computes result types
so that callers cannot get them wrong.
"""

from __future__ import annotations

from typing import Iterable

from .cell import Attr, Node
from .infer import beside, grams
from .ops import OPS, spec_parts
from .types import Dim, Span, Type


class Builder:
    """Appends nodes to `nodes`; identical (op, args, attrs, type) give the
    same node back, so that building is also common-subexpression elimination
    (draws are kept apart by their site attribute)."""

    def __init__(self, nodes: Iterable[Node] = (), taken: Iterable[str] = ()):
        self.nodes: list[Node] = []
        self.by_name: dict[str, Node] = {}
        self._seen: dict[tuple, str] = {}
        self._taken: set[str] = set(taken)
        self._numbers: dict[str, int] = {}      # by hint: where to look for a free number
        self.span: Span | None = None
        for n in nodes:
            self.append(n)

    def append(self, node: Node) -> str:
        """Add a ready node under its own name."""
        self.nodes.append(node)
        self.by_name[node.name] = node
        self._taken.add(node.name)
        self._seen.setdefault((node.op, node.args, node.attrs, node.type), node.name)
        return node.name

    def fresh(self, hint: str = "v") -> str:
        if hint not in self._taken:
            return hint
        i = self._numbers.get(hint, 1)
        while f"{hint}.{i}" in self._taken:
            i += 1
        self._numbers[hint] = i
        return f"{hint}.{i}"

    def add(self, op: str, args: tuple[str, ...], type: Type, hint: str = "v", **attrs: Attr) -> str:
        assert op in OPS, op
        items = tuple(sorted(attrs.items()))
        key = (op, tuple(args), items, type)
        if key in self._seen:
            return self._seen[key]
        return self.append(Node(self.fresh(hint), op, tuple(args), items, type, self.span))

    def type(self, name: str) -> Type:
        return self.by_name[name].type

    # -- leaves ---------------------------------------------------------
    def literal(self, value: float | int | bool | complex, kind: str = "real") -> str:
        if kind == "complex":       # a pair of real literals
            return self.op("complex", self.literal(complex(value).real), self.literal(complex(value).imag))
        value = {"real": float, "int": int, "bool": bool}[kind](value)
        return self.add("literal", (), Type(kind), "k", value=value)

    def full(self, value: float | int | bool, type: Type) -> str:
        """A constant of any shape."""
        return self.broadcast(self.literal(value, type.kind), type.shape, ())

    def read(self, op: str, name: str, type: Type) -> str:
        """op: input | param | state."""
        return self.add(op, (), type, name, name=name)

    # -- pointwise ------------------------------------------------------
    def op(self, op: str, *args: str, hint: str | None = None) -> str:
        """A pointwise operation; operands of rank 0 are broadcast to the others' shape."""
        o = OPS[op]
        assert o.group in ("pointwise", "complex"), op
        shape = max((self.type(a).shape for a in args), key=len)
        args = tuple(a if self.type(a).shape == shape else self.broadcast(a, shape, ()) for a in args)
        kind = self.type(args[1 if op == "select" else 0]).kind
        return self.add(op, args, Type(kind if o.result == "same" else o.result, shape), hint or op)

    # -- structure ------------------------------------------------------
    def broadcast(self, x: str, shape: tuple[Dim, ...], axes: tuple[int, ...]) -> str:
        """Result of shape `shape`, the operand's axis i at position axes[i]."""
        t = self.type(x)
        if t.shape == tuple(shape) and axes == tuple(range(len(shape))):
            return x
        return self.add("broadcast", (x,), t.with_shape(tuple(shape)), "bc", axes=tuple(axes))

    def align(self, x: str, shape: tuple[Dim, ...]) -> str:
        """Broadcast by the names of the axes (each must occur once in `shape`)."""
        return self.broadcast(x, shape, tuple(shape.index(d) for d in self.type(x).shape))

    def slice(self, x: str, axis: int, start: int, dim: Dim, hint: str = "sl") -> str:
        t = self.type(x)
        shape = t.shape[:axis] + (dim,) + t.shape[axis + 1:]
        return self.add("slice", (x,), t.with_shape(shape), hint, axis=axis, start=start)

    def pad(self, x: str, axis: int, start: int, dim: Dim) -> str:
        t = self.type(x)
        shape = t.shape[:axis] + (dim,) + t.shape[axis + 1:]
        return self.add("pad", (x,), t.with_shape(shape), "pad", axis=axis, start=start)

    def index(self, x: str, axis: int, at: int, hint: str = "ix") -> str:
        t = self.type(x)
        return self.add("index", (x,), t.with_shape(t.shape[:axis] + t.shape[axis + 1:]), hint, axis=axis, at=at)

    def place(self, x: str, axis: int, at: int, dim: Dim) -> str:
        t = self.type(x)
        return self.add(
            "place", (x,), t.with_shape(t.shape[:axis] + (dim,) + t.shape[axis:]), "place", axis=axis, at=at
        )

    def concat(self, xs: tuple[str, ...], axis: int, dim: Dim) -> str:
        t = self.type(xs[0])
        return self.add(
            "concat", tuple(xs), t.with_shape(t.shape[:axis] + (dim,) + t.shape[axis + 1 :]), "cat", axis=axis
        )

    def stack(self, xs: tuple[str, ...], axis: int, dim: Dim) -> str:
        t = self.type(xs[0])
        return self.add("stack", tuple(xs), t.with_shape(t.shape[:axis] + (dim,) + t.shape[axis:]), "stack", axis=axis)

    def running(self, a: str, b: str, axis: int, semiring: str = "sum", reverse: bool = False) -> str:
        """y[i] = a[i] (x) y[i-1] (+) b[i] along an axis, y = b where it starts."""
        return self.add("running", (a, b), self.type(b), "running", axis=axis, reverse=reverse, semiring=semiring)

    def cumprod(self, a: str, axis: int, reverse: bool = False) -> str:
        """The product of what comes before (or after) each place of an axis."""
        return self.add("cumprod", (a,), self.type(a), "cumprod", axis=axis, reverse=reverse)

    def solve_lower(self, low: str, b: str, transposed: bool = False) -> str:
        """(I + the part of `low` below its diagonal)^-1 b, or its transpose's."""
        return self.add("solve_lower", (low, b), self.type(b), "solve", transposed=transposed)

    def decayed(self, readers: tuple[str, ...], d: str, writers: tuple[str, ...]) -> str:
        """Products of rows [..., n, k] of every reader and every writer with the decays d between them, below the
        diagonal: [..., n, n], of several pairs [..., pairs, n, n]."""
        made = grams(self.type(d), len(readers) * len(writers))
        return self.add("decayed", (*readers, d, *writers), made, "decayed", readers=len(readers))

    def ends(self, readers: tuple[str, ...], d: str, writers: tuple[str, ...]) -> str:
        """Rows [..., n, k] of readers times the decays before them, of writers times those after them, side by side:
        [..., readers + writers, n, k]."""
        made = beside(self.type(d), len(readers) + len(writers))
        return self.add("ends", (*readers, d, *writers), made, "ends", readers=len(readers))

    def decayed_back(self, g: str, readers: tuple[str, ...], d: str, writers: tuple[str, ...],
                     factors: tuple[str, ...] = ()) -> str:
        """The derivatives of the sum over pairs of g[i, j] reader[i] D(i, j) writer[j] by all of these rows, side by
        side: [..., operands, n, k]. With factors of what `ends` gives (and then one of the product of all decays, or
        not), those of their products' sums, too."""
        args = (*readers, d, *writers)
        return self.add("decayed_back", (g, *factors, *args), beside(self.type(d), len(args)), "back",
                        readers=len(readers), ends=bool(factors))

    def ends_back(self, factors: tuple[str, ...], readers: tuple[str, ...], d: str, writers: tuple[str, ...]) -> str:
        """The derivatives of the sum of factors times what `ends` gives (and then, or not, of one [..., k] times the
        product of all decays): [..., operands, n, k]."""
        args = (*readers, d, *writers)
        return self.add("ends_back", (*factors, *args), beside(self.type(d), len(args)), "back", readers=len(readers))

    def decayed_sum(self, g: str, d: str, x: str, transposed: bool = False) -> str:
        """Sums of rows [..., n, k] of x with factors g [..., n, n] and the decays between them."""
        return self.add("decayed_sum", (g, d, x), self.type(x), "decayed", transposed=transposed)

    def gather(self, x: str, i: str, axis: int, batch: int = 0) -> str:
        """x at the positions `i` along an axis; their first `batch` axes are the same."""
        t, at = self.type(x), self.type(i)
        shape = t.shape[:axis] + at.shape[batch:] + t.shape[axis + 1:]
        return self.add("gather", (x, i), t.with_shape(shape), "gather", axis=axis, batch=batch,
                        places=at.rank - batch)

    # -- reductions -----------------------------------------------------
    def reduce(self, x: str, fn: str, axes: tuple[int, ...]) -> str:
        t = self.type(x)
        kind = {"argmax": "int", "any": "bool", "all": "bool"}.get(fn, t.kind)
        shape = tuple(d for i, d in enumerate(t.shape) if i not in axes)
        return self.add("reduce", (x,), Type(kind, shape), fn, fn=fn, axes=tuple(axes))

    def contract(self, a: str, b: str, spec: str, semiring: str = "sum", hint: str = "dot", below: str = "") -> str:
        sa, sb, so = spec_parts(spec)
        dims = dict(zip(sa, self.type(a).shape)) | dict(zip(sb, self.type(b).shape))
        kind = "int" if semiring == "argmax" else self.type(a).kind
        return self.add("contract", (a, b), Type(kind, tuple(dims[c] for c in so)), hint, spec=spec, semiring=semiring,
                        **({"below": below} if below else {}))
