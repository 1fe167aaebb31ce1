"""Complex values become pairs of reals; no complex operation is left.

Gone: the kind complex and the operations complex, re, im, conj, modulus, angle. A complex port X becomes the
two ports X.re and X.im, side by side in X's place, so a complex state is a pair of states of one
component: `pairs` finds them again. The runtime takes complex tensors apart at the boundary.

A part that is zero by construction (`complex(x, 0)`: a real value among complex ones) is None and
costs nothing. Gradients by both parts are what PyTorch's convention asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...ir.build import Builder
from ...ir.cell import Cell, Node, Output
from ...ir.ops import OPS
from ...ir.types import Type

Part = str | None       # a real node; None: zero
Pair = tuple[Part, Part]


def parts(name: str) -> tuple[str, str]:
    """The names of the two real ports that stand for the complex port `name`."""
    return f"{name}.re", f"{name}.im"


def pairs(cell: Cell) -> tuple[tuple[str, str], ...]:
    """(re, im) of the states that were one complex state each."""
    names = {s.name for s in cell.states}
    return tuple(parts(n[:-3]) for n in (s.name for s in cell.states) if n.endswith(".re") and n[:-3] + ".im" in names)


def named(states: Sequence[str]) -> str:
    """States in a message: the two parts of a complex one by its name."""
    whole = [n[:-3] for n in states if n.endswith(".re") and parts(n[:-3])[1] in states]
    if 2 * len(whole) == len(states):
        return f"the real and imaginary parts of {' and '.join(whole)}"
    return ", ".join(states)


def has_complex(cell: Cell) -> bool:
    return any(x.type.kind == "complex" for x in (*cell.body, *cell.inputs, *cell.params, *cell.states))


@dataclass(frozen=True, slots=True)
class Realify:
    def __call__(self, cell: Cell) -> Cell:
        return _Realify(cell).run() if has_complex(cell) else cell


def realify(cell: Cell) -> Cell:
    """See the module's text. A cell without complex values comes back as it is; the result of others has no
    init region, since the program's own cell draws parameters. Raises NotImplementedError for an operation
    that complex values do not have."""
    return Realify()(cell)


class _Realify:
    def __init__(self, cell: Cell):
        self.cell = cell
        self.types = {n.name: n.type for n in cell.body}
        self.b = Builder(taken=(n.name for n in cell.body))
        self.real: dict[str, str] = {}          # real (int, bool) nodes: their name now
        self.pair: dict[str, Pair] = {}         # complex nodes
        self.names: dict[str, str] = {}         # new nodes and what they are to be called
        self.own: set[str] = set()              # nodes that have their own name

    def run(self) -> Cell:
        for n in self.cell.body:
            self.b.span = n.span
            if n.type.kind == "complex":
                self.pair[n.name] = pair = self.complex(n)
                for part, name in zip(pair, parts(n.name)):
                    self.call(part, name)
            elif any(a in self.pair for a in n.args):
                self.real[n.name] = self.measured(n)
                self.call(self.real[n.name], n.name)
            else:
                self.real[n.name] = self.b.append(replace(n, args=tuple(self.real[a] for a in n.args)))
                self.own.add(n.name)
        return self.finished()

    def call(self, part: Part, name: str) -> None:
        """The first name that a new node could have is the one that it gets."""
        if part is not None and part not in self.own and OPS[self.b.by_name[part].op].group != "leaf":
            self.names.setdefault(part, name)

    def finished(self) -> Cell:
        c, b = self.cell, self.b
        inputs = [replace(p, name=x, type=t, default=d) for p in c.inputs
                  for x, t, d in self.port(p.name, p.type, p.default, 0.0)]
        params = [replace(p, name=x, type=t, init=None) for p in c.params for x, t in self.port(p.name, p.type)]
        states = [replace(s, name=x, type=t, init=init, next=new) for s in c.states
                  for (x, t), init, new in zip(self.port(s.name, s.type), self.both(s.init), self.both(s.next))]
        outputs, sums = ([Output(x, v, o.span) for o in ports for x, v in self.output(o)]
                         for ports in (c.outputs, c.sums))
        used = set(b.by_name)
        new = {old: name for old, name in self.names.items() if name not in used}
        at = lambda x: new.get(x, x)
        body = tuple(replace(n, name=at(n.name), args=tuple(map(at, n.args))) for n in b.nodes)
        states = [replace(s, init=at(s.init), next=at(s.next)) for s in states]
        outputs, sums = ([replace(o, value=at(o.value)) for o in ports] for ports in (outputs, sums))
        return replace(c, inputs=tuple(inputs), params=tuple(params), states=tuple(states), outputs=tuple(outputs),
                       sums=tuple(sums), init=(), body=body)

    # -- ports ----------------------------------------------------------------
    def port(self, name: str, type: Type, *defaults: float) -> list[tuple]:
        if type.kind != "complex":
            return [(name, type, *defaults[:1])]
        return [(part, type.with_kind("real"), *defaults[i:i + 1]) for i, part in enumerate(parts(name))]

    def both(self, name: str) -> list[str]:
        """The one node or the two nodes that stand for a node of the cell."""
        return [self.real[name]] if name in self.real else [self.filled(name, part) for part in self.pair[name]]

    def output(self, o: Output) -> list[tuple[str, str]]:
        return list(zip(parts(o.name) if o.value in self.pair else (o.name,), self.both(o.value)))

    def filled(self, name: str, part: Part) -> str:
        """A part as a node, zeros if it is none."""
        return self.zeros(self.types[name]) if part is None else part

    def zeros(self, type: Type) -> str:
        return self.b.full(0.0, type.with_kind("real"))

    # -- arithmetic on parts ----------------------------------------------------
    def op(self, op: str, *xs: str | float) -> str:
        shape = self.b.type(next(x for x in xs if isinstance(x, str))).shape
        return self.b.op(op, *(x if isinstance(x, str) else self.b.full(x, Type("real", shape)) for x in xs))

    def neg(self, x: Part) -> Part:
        return None if x is None else self.op("neg", x)

    def add(self, x: Part, y: Part) -> Part:
        return y if x is None else x if y is None else self.op("add", x, y)

    def sub(self, x: Part, y: Part) -> Part:
        return self.neg(y) if x is None else x if y is None else self.op("sub", x, y)

    def mul(self, x: Part, y: Part) -> Part:
        return None if x is None or y is None else self.op("mul", x, y)

    def div(self, x: Part, y: str) -> Part:
        return None if x is None else self.op("div", x, y)

    def product(self, x: Pair, y: Pair, mul: Callable[[Part, Part], Part]) -> Pair:
        """(a + bi) (c + di) for any bilinear product."""
        (a, b), (c, d) = x, y
        return self.sub(mul(a, c), mul(b, d)), self.add(mul(a, d), mul(b, c))

    # -- results that are complex -------------------------------------------------
    def complex(self, n: Node) -> Pair:
        args = [self.pair[a] for a in n.args if a in self.pair]
        match n.op:
            case "input" | "param" | "state":
                return tuple(self.b.read(n.op, x, n.type.with_kind("real")) for x in parts(n.attr("name")))
            case "complex":
                a, b = (None if self.is_zero(x) else self.real[x] for x in n.args)
                return a, b
            case "add" | "sub":
                do = getattr(self, n.op)
                return do(args[0][0], args[1][0]), do(args[0][1], args[1][1])
            case "neg":
                return self.neg(args[0][0]), self.neg(args[0][1])
            case "conj":
                return args[0][0], self.neg(args[0][1])
            case "mul":
                return self.product(*args, self.mul)
            case "div":
                return self.quotient(*args)
            case "exp" | "expm1" | "log" | "sqrt" | "sin" | "cos":
                return getattr(self, n.op)(*args[0], n)
            case "contract" if n.attr("semiring") == "sum":
                return self.product(*args, lambda x, y: None if x is None or y is None else self.again(n, (x, y)))
            case "reduce" if n.attr("fn") == "prod":
                return self.folded(n, args[0])
            case "reduce" if n.attr("fn") != "sum":
                raise NotImplementedError(f"{n.attr('fn')} of complex values")
        if OPS[n.op].group not in ("structure", "reduce") and n.op not in ("select", "stop_gradient"):
            raise NotImplementedError(f"{n.op} of complex values")
        return self.linear(n, 0), self.linear(n, 1)     # moves, selects or sums: part by part

    def again(self, n: Node, args: tuple[str, ...]) -> str:
        """The same operation on real operands."""
        return self.b.add(n.op, args, n.type.with_kind("real"), n.op, **dict(n.attrs))

    def linear(self, n: Node, i: int) -> Part:
        given = [self.pair[a][i] for a in n.args if a in self.pair]
        if all(x is None for x in given):
            return None
        return self.again(n, tuple(self.filled(a, self.pair[a][i]) if a in self.pair else self.real[a] for a in n.args))

    def is_zero(self, name: str) -> bool:
        n = self.b.by_name[self.real[name]]
        while n.op == "broadcast":
            n = self.b.by_name[n.args[0]]
        return n.op == "literal" and n.attr("value") == 0

    def quotient(self, x: Pair, y: Pair) -> Pair:
        """By the larger part of the divisor first, so that no square overflows (Smith 1962, without the
        case distinction). The scale has no influence on the value, so it needs no gradient."""
        (a, b), (c, d) = x, y
        if d is None:
            return self.div(a, c), self.div(b, c)
        if c is None:
            return self.div(b, d), self.neg(self.div(a, d))
        scale = self.op("stop_gradient", self.op("max", self.op("abs", c), self.op("abs", d)))
        e, f = self.op("div", c, scale), self.op("div", d, scale)
        size = self.op("add", self.op("mul", c, e), self.op("mul", d, f))
        re, im = self.product((a, b), (e, self.neg(f)), self.mul)
        return self.div(re, size), self.div(im, size)

    def exp(self, a: Part, b: Part, n: Node) -> Pair:
        if b is None:
            return self.op("exp", a), None
        turn = self.op("cos", b), self.op("sin", b)
        return turn if a is None else (self.mul(size := self.op("exp", a), turn[0]), self.mul(size, turn[1]))

    def expm1(self, a: Part, b: Part, n: Node) -> Pair:
        """expm1(a) cos b - 2 sin(b/2)^2, where exp(a) cos b - 1 would cancel."""
        if b is None:
            return self.op("expm1", a), None
        half = self.op("sin", self.op("mul", b, 0.5))
        less = self.op("mul", self.op("mul", half, half), -2.0)      # cos b - 1
        if a is None:
            return less, self.op("sin", b)
        re = self.op("add", self.op("mul", self.op("expm1", a), self.op("cos", b)), less)
        return re, self.op("mul", self.op("exp", a), self.op("sin", b))

    def log(self, a: Part, b: Part, n: Node) -> Pair:
        return self.op("log", self.modulus(a, b)), self.angle(a, b, n.type)

    def sqrt(self, a: Part, b: Part, n: Node) -> Pair:
        """The principal root, from the part in which nothing cancels."""
        a, b = a or self.zeros(n.type), b or self.zeros(n.type)
        right = self.op("ge", a, 0.0)
        up = self.op("select", right, a, self.op("neg", a))         # |a|, but with slope 1 at 0
        t = self.op("sqrt", self.op("mul", self.op("add", up, self.modulus(a, b)), 0.5))
        u = self.op("select", self.op("eq", t, 0.0), 0.0, self.op("div", self.op("mul", b, 0.5), t))
        above = self.op("ge", b, 0.0)
        left = self.op("select", above, u, self.op("neg", u)), self.op("select", above, t, self.op("neg", t))
        return self.op("select", right, t, left[0]), self.op("select", right, u, left[1])

    def sin(self, a: Part, b: Part, n: Node) -> Pair:
        if b is None:
            return self.op("sin", a), None
        cosh, sinh = self.hyperbolic(b)
        return (None, sinh) if a is None else (self.mul(self.op("sin", a), cosh), self.mul(self.op("cos", a), sinh))

    def cos(self, a: Part, b: Part, n: Node) -> Pair:
        if b is None:
            return self.op("cos", a), None
        cosh, sinh = self.hyperbolic(b)
        return (cosh, None) if a is None else (
            self.mul(self.op("cos", a), cosh), self.neg(self.mul(self.op("sin", a), sinh)))

    def hyperbolic(self, b: str) -> tuple[str, str]:
        down = self.op("neg", b)
        return (self.op("mul", self.op("add", self.op("exp", b), self.op("exp", down)), 0.5),
                self.op("mul", self.op("sub", self.op("expm1", b), self.op("expm1", down)), 0.5))

    def folded(self, n: Node, x: Pair) -> Pair:
        """The product over axes, element by element."""
        dims = list(self.types[n.args[0]].shape)
        for axis in sorted(n.attr("axes"), reverse=True):
            items = [tuple(None if p is None else self.b.index(p, axis, k) for p in x)
                     for k in range(dims.pop(axis).size)]
            x = (self.b.full(1.0, Type("real", tuple(dims))), None) if not items else items[0]
            for item in items[1:]:
                x = self.product(x, item, self.mul)
        return x

    # -- results that are real ------------------------------------------------------
    def measured(self, n: Node) -> str:
        a, b = self.pair[n.args[0]]
        match n.op:
            case "re":
                return self.filled(n.args[0], a)
            case "im":
                return self.filled(n.args[0], b)
            case "modulus":
                return self.filled(n.args[0], None) if a is None and b is None else self.modulus(a, b)
            case "angle":
                return self.angle(a, b, n.type)
        raise NotImplementedError(f"{n.op} of complex values")

    def angle(self, a: Part, b: Part, type: Type) -> str:
        """atan2, but pi where b is -0 and a negative."""
        zero = self.zeros(type)
        y = self.op("atan2", b or zero, a or zero)
        if b is None:
            return y
        below = self.op("and", self.op("eq", b, 0.0), self.op("lt", y, 0.0))
        return self.op("add", y, self.b.op("select", below, self.b.full(2 * math.pi, self.b.type(y)), zero))

    def modulus(self, a: Part, b: Part) -> str:
        """sqrt(a^2 + b^2) without overflow; gradient z / |z|, and 0 at 0, as torch has it."""
        if a is None or b is None:
            return self.op("abs", b if a is None else a)
        sizes = self.op("abs", a), self.op("abs", b)
        most, least = self.op("max", *sizes), self.op("min", *sizes)
        ratio = self.op("select", self.op("eq", least, most), 1.0, self.op("div", least, most))
        y = self.op("mul", most, self.op("sqrt", self.op("add", self.op("mul", ratio, ratio), 1.0)))
        slopes = (self.op("select", self.op("eq", y, 0.0), 0.0, self.op("div", x, y)) for x in (a, b))
        return self.b.op("custom_grad", y, a, next(slopes), b, next(slopes))
