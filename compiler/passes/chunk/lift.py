"""The body of a cell over all steps of a chunk at once: every value that varies gets one more axis.

The new axis is the first one, or the second after the heads (so that heads stay separable), also where a grouped
input becomes one value per head later. Values that depend on parameters only keep their shape, and are broadcast
where they meet others.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.build import Builder
from ....ir.cell import Cell, Node
from ....ir.ops import OPS, spec_parts
from ....ir.types import Dim, Type

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def place(n: Node) -> str:
    """Where a value is written, for messages."""
    return f"line {n.span.line}" if n.span else n.name


class Unchunkable(Exception):
    """The cell has no chunk form: says why, in words for `explain`."""


@dataclass(frozen=True, slots=True)
class Lift:
    """`dim`: the chunk's axis. `firsts`: first axes that it comes after."""

    b: Builder
    dim: Dim
    firsts: frozenset[Dim]

    def at(self, shape: tuple[Dim, ...]) -> int:
        """Where the chunk's axis goes in a value that has `shape` at one step."""
        return 1 if shape and shape[0] in self.firsts else 0

    def shape(self, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        at = self.at(shape)
        return (*shape[:at], self.dim, *shape[at:])

    def spread(self, x: str) -> str:
        """A value without the chunk's axis, the same at all its steps."""
        shape = self.b.type(x).shape
        at = self.at(shape)
        return self.b.broadcast(x, self.shape(shape), tuple(i + (i >= at) for i in range(len(shape))))

    def moved(self, x: str, to: int, at: int) -> str:
        """`x` with the chunk's axis, at position `at`, at position `to`."""
        shape = list(self.b.type(x).shape)
        order = [i for i in range(len(shape)) if i != at]
        order.insert(to, at)                        # order[position in the result] = position in x
        return self.b.broadcast(x, tuple(shape[i] for i in order), tuple(order.index(i) for i in range(len(shape))))

    def node(self, n: Node, args: list[str], lifted: list[bool], types: list[Type]) -> str:
        """`n` over the chunk; `args`: its operands' values, of which those `lifted` have the axis; `types`: the
        operands' at one step."""
        group = OPS[n.op].group
        if n.op == "random":
            raise Unchunkable("it draws random numbers, which are counted step by step")
        if n.op == "contract":
            return self._contract(n, args, lifted, types)
        if n.op in ("gather", "scatter"):
            return self._gather(n, args, lifted, types)
        args = [x if y else self.spread(x) for x, y in zip(args, lifted)]
        if group in ("pointwise", "complex"):
            return self.b.add(n.op, tuple(args), Type(n.type.kind, self.shape(n.type.shape)), n.name, **dict(n.attrs))
        if n.op == "broadcast":
            return self._broadcast(n, args[0], types[0])
        if n.op == "reduce":
            at, axes = self.at(types[0].shape), n.attr("axes")
            now = at - sum(a < at for a in axes)
            return self._made(n, args, now, axes=tuple(a + (a >= at) for a in axes), fn=n.attr("fn"))
        if group == "linalg":
            if any(t.rank - 2 < self.at(t.shape) for t in types[:1]):
                raise Unchunkable(f"{n.op} of a matrix over the heads")
            to = self.at(types[0].shape)
            args = [args[0], *(self.moved(x, to, self.at(t.shape)) for x, t in zip(args[1:], types[1:]))]
            return self._made(n, args, to, **dict(n.attrs))
        return self._structure(n, args, types[0].shape)

    def _made(self, n: Node, args: list[str], now: int, **attrs) -> str:
        """The node with the chunk's axis where the operation leaves it, then where it belongs."""
        shape = n.type.shape
        t = Type(n.type.kind, (*shape[:now], self.dim, *shape[now:]))
        return self.moved(self.b.add(n.op, tuple(args), t, n.name, **attrs), self.at(shape), now)

    def _broadcast(self, n: Node, x: str, t: Type) -> str:
        here, there = self.at(t.shape), self.at(n.type.shape)
        axes = [a + (a >= there) for a in n.attr("axes")]
        return self.b.broadcast(x, self.shape(n.type.shape), (*axes[:here], there, *axes[here:]))

    def _structure(self, n: Node, args: list[str], shape: tuple[Dim, ...]) -> str:
        at, axis = self.at(shape), n.attr("axis")
        attrs = dict(n.attrs)
        if n.op in ("place", "stack"):                  # a new axis, at `axis`
            now = at + (axis < at)
            attrs["axis"] = axis + (axis >= at)
        else:
            now = at - (n.op == "index" and axis < at)
            attrs["axis"] = axis + (axis >= at)
        return self._made(n, args, now, **attrs)

    def _gather(self, n: Node, args: list[str], lifted: list[bool], types: list[Type]) -> str:
        """Step by step, the chunk's axis one of those that values and positions share; a table that is the same at
        all steps is read at more places."""
        batch, axis, places = n.attr("batch"), n.attr("axis"), n.attr("places")
        x, at = (self.moved(x if y else self.spread(x), batch, self.at(t.shape))
                 for x, y, t in zip(args, lifted, types))
        if n.op == "gather" and not lifted[0]:
            return self._made(n, [args[0], at], axis, axis=axis, batch=batch, places=places + 1)
        return self._made(n, [x, at], batch, axis=axis + 1, batch=batch + 1, places=places)

    def _contract(self, n: Node, args: list[str], lifted: list[bool], types: list[Type]) -> str:
        sa, sb, so = spec_parts(n.attr("spec"))
        c = next(x for x in LETTERS if x not in sa + sb)
        parts = [s[:self.at(t.shape)] + c + s[self.at(t.shape):] if y else s
                 for s, y, t in zip((sa, sb), lifted, types)]
        at = self.at(n.type.shape)
        return self.b.contract(*args, f"{parts[0]},{parts[1]}->{so[:at]}{c}{so[at:]}", n.attr("semiring"), n.name)


def first_axes(cell: Cell) -> frozenset[Dim]:
    """The heads, and the groups that become heads."""
    if cell.heads is None:
        return frozenset()
    nodes = cell.nodes()
    groups = {nodes[n.args[0]].type.shape[0] for n in cell.body
              if n.op == "interleave" and n.attr("axis") == 0 and n.type.shape[0] == cell.heads}
    return frozenset({cell.heads, *groups})
