"""Random well-typed cells with states, whose values and gradients stay bounded.

`random_cell(random.Random(7), blocks=2)` is a plain function of its random
source, so that a failure can be made again outside any test framework. A cell is
a few blocks (each a way to carry state: dense, gated, element-wise, matrix,
delta rule, stabilised, ...), fed with inputs and with each other's results, and
random pointwise tails. Comparisons are against odd thresholds, so that a value
within rounding of one does not occur.
"""

from __future__ import annotations

import math
import random

from ostinato.ir.build import Builder
from ostinato.ir.cell import Cell, Input, Node, Output, Param, State
from ostinato.ir.types import Dim, Type
from random_tails import Tails

SIZES = (1, 2, 3, 4, 5, 6, 7)
LARGE = (8, 11, 16, 17, 20)


def random_cell(rng: random.Random, *, blocks: int | None = None, heads: bool | None = None, large: bool = False,
                ints: bool = True, noise: bool = True, sums: bool = False, reverse: bool = False,
                semirings: bool = False, linalg: bool = False, name: str = "cell") -> Cell:
    """A random cell. `blocks`: how many (default 1 to 3); `heads`: None is either;
    `large`: sizes up to 20, too; `ints`: int and bool values, inputs and states;
    `noise`: random draws and `training`; `sums`: values summed over time and batch;
    `reverse`: may run backwards; `semirings`, `linalg`: those operations as well."""
    knobs = dict(large=large, ints=ints, noise=noise, semirings=semirings, linalg=linalg)
    heads = rng.random() < 0.3 if heads is None else heads
    m = _Maker(rng, heads, knobs)
    pool = [m.input() for _ in range(rng.randint(1, 2))]
    for _ in range(blocks or rng.randint(1, 3)):
        block = rng.choice(m.blocks())
        pool.append(m.tail(block(rng.choice(pool))))
    for v in {pool[-1]: 0, **{v: 0 for v in pool[:-1] if rng.random() < 0.5}}:
        m.output(v)
    if rng.random() < 0.3:
        m.output(m.b.reduce(v, "sum", tuple(range(m.b.type(v).rank))))
    sum_ports = tuple(Output(f"total{i}", v) for i, v in enumerate(rng.sample(pool, 1))) if sums else ()
    return m.cell(name, sum_ports, reverse and rng.random() < 0.5)


class _Maker(Tails):
    def __init__(self, rng: random.Random, heads: bool, knobs: dict[str, bool]):
        self.rng, self.knobs = rng, knobs
        self.b, self.init = Builder(), Builder()
        self.dims: list[Dim] = []
        self.inputs, self.params, self.states, self.outputs = [], [], [], []
        self.lead = (self.dim("N", (1, 2, 3)),) if heads else ()
        self.sites = 0

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    # -- ports ----------------------------------------------------------
    def dim(self, hint: str, sizes: tuple[int, ...] | None = None) -> Dim:
        sizes = sizes or (SIZES + LARGE if self.knobs["large"] else SIZES)
        d = Dim(f"{hint}{len(self.dims)}", self.rng.choice(sizes))
        self.dims.append(d)
        return d

    def input(self) -> str:
        """A real vector, with or without heads; an int or bool one cast to it."""
        shape = (self.lead if self.chance(0.5) else ()) + (self.dim("I"),)
        kind = self.rng.choice(("int", "bool")) if self.knobs["ints"] and self.chance(0.15) else "real"
        name = f"x{len(self.inputs)}"
        self.inputs.append(Input(name, Type(kind, shape)))
        v = self.b.read("input", name, Type(kind, shape))
        return v if kind == "real" else self.b.op("mul", self.b.op("real", v), self.k(0.3))

    def param(self, *shape: Dim) -> str:
        """Initially uniform in +-1/sqrt(last axis)."""
        name, t = f"P{len(self.params)}", Type("real", shape)
        bound = 1 / math.sqrt(max(1, shape[-1].size)) if shape else 1.0
        lo, hi = (self.init.literal(s * bound) for s in (-1, 1))
        # the port's name keeps equal draws apart
        init = self.init.append(Node(f"{name}.0", "draw", (lo, hi), (("dist", "uniform"),), t))
        self.params.append(Param(name, t, init, trainable=not self.chance(0.1)))
        return self.b.read("param", name, t)

    def state(self, *shape: Dim, kind: str = "real", init: float | None = None) -> tuple[str, int]:
        """Its old value, and the handle to give its next value to `set`."""
        t = Type(kind, shape)
        if init is None and kind == "real" and self.chance(0.3):
            start = self.b.op("tanh", self.param(*shape))
        else:
            start = self.b.full(0 if init is None and kind != "real" else init or 0.0, t)
        name = f"s{len(self.states)}"
        self.states.append((name, t, start, None))
        return self.b.read("state", name, t), len(self.states) - 1

    def set(self, handle: int, value: str) -> str:
        name, t, start, _ = self.states[handle]
        self.states[handle] = (name, t, start, value)
        return value

    def output(self, v: str) -> None:
        self.outputs.append(Output(f"y{len(self.outputs)}", v))

    def cell(self, name: str, sums: tuple[Output, ...], reverse: bool) -> Cell:
        heads = self.lead[0] if self.lead else None
        return Cell(name, tuple(self.dims), heads, tuple(self.inputs), tuple(self.params),
                    tuple(State(*s) for s in self.states), tuple(self.outputs), sums, tuple(self.init.nodes),
                    tuple(self.b.nodes), reverse)

    # -- pieces ---------------------------------------------------------
    def k(self, value: float) -> str:
        return self.b.literal(value)

    def op(self, name: str, *args: str) -> str:
        return self.b.op(name, *args)

    def mix(self, gate: str, a: str, c: str) -> str:
        """gate * a + (1 - gate) * c"""
        return self.op("add", self.op("mul", gate, a), self.op("mul", self.op("sub", self.k(1.0), gate), c))

    def linear(self, v: str, out: Dim) -> str:
        """A product with a parameter, per head if there are heads."""
        t, b = self.b.type(v), self.b
        n = "n" if self.lead else ""
        vn = "n" if t.rank == 2 else ""
        shared = vn and self.chance(0.3)
        wn, lead = ("", ()) if shared else (n, self.lead)
        if self.chance(0.3):
            return b.contract(v, self.param(*lead, t.shape[-1], out), f"{vn}j,{wn}ji->{n}i")
        return b.contract(self.param(*lead, out, t.shape[-1]), v, f"{wn}ij,{vn}j->{n}i")

    def bias(self, v: str) -> str:
        shape = self.b.type(v).shape
        if self.lead and self.chance(0.5):
            return self.op("add", v, self.b.broadcast(self.param(shape[-1]), shape, (1,)))
        return self.op("add", v, self.param(*shape))

    def scalar_per_head(self, v: str) -> str:
        """sigmoid of a weighted sum over the last axis: [N] or []."""
        t = self.b.type(v)
        w = self.param(t.shape[-1])
        n = "n" if t.rank == 2 else ""
        s = self.op("sigmoid", self.b.contract(v, w, f"{n}j,j->{n}"))
        return s if n or not self.lead else self.b.broadcast(s, self.lead, ())

    def scale_rows(self, s: str, shape: tuple[Dim, ...]) -> str:
        """A value per head, or per head and row, spread over a matrix state."""
        return self.b.broadcast(s, shape, tuple(range(self.b.type(s).rank)))

    def outer(self, k: str, v: str) -> str:
        n = "n" if self.lead else ""
        return self.b.contract(k, v, f"{n}k,{n}v->{n}kv")

    def read_rows(self, q: str, S: str) -> str:
        n = "n" if self.lead else ""
        return self.b.contract(q, S, f"{n}k,{n}kv->{n}v")

    def unit(self, x: str, d: Dim) -> str:
        return self.op("mul", self.op("tanh", self.linear(x, d)), self.k(1 / math.sqrt(d.size)))

    def split(self, v: str, parts: int, d: Dim) -> list[str]:
        return [self.b.slice(v, self.b.type(v).rank - 1, i * d.size, d) for i in range(parts)]

    # -- blocks: a vector in, a vector [N, H] or [H] out -------------------
    def blocks(self):
        out = [self.dense, self.gated, self.lanes, self.attention, self.delta, self.reset, self.lagged,
               self.stabilised, self.two_step]
        if self.knobs["ints"]:
            out += [self.counting, self.latch]
        if self.knobs["noise"]:
            out += [self.noisy]
        if self.knobs["linalg"]:
            out += [self.solved]
        return out

    def dense(self, x: str) -> str:
        d = self.dim("H")
        h, handle = self.state(*self.lead, d)
        pre = self.bias(self.op("add", self.linear(x, d), self.linear(h, d)))
        new = self.op(self.rng.choice(("tanh", "sin", "sigmoid", "atan")), pre)
        return self.set(handle, self.mix(self.op("sigmoid", self.param(*self.lead, d)), h, new)
                        if self.chance(0.4) else new)

    def gated(self, x: str) -> str:
        d = self.dim("H")
        wide = Dim(f"4*{d.name}", 4 * d.size)
        h, hh = self.state(*self.lead, d)
        c, hc = self.state(*self.lead, d)
        pre = self.bias(self.op("add", self.linear(x, wide), self.linear(h, wide)))
        i, f, g, o = self.split(pre, 4, d)
        if self.chance(0.3):
            f = self.op("add", f, self.op("mul", self.param(*self.lead, d), c))
        c1 = self.set(hc, self.op("add", self.op("mul", self.op("sigmoid", f), c),
                                  self.op("mul", self.op("sigmoid", i), self.op("tanh", g))))
        return self.set(hh, self.op("mul", self.op("sigmoid", o), self.op("tanh", c1)))

    def lanes(self, x: str) -> str:
        d = self.dim("D")
        h, handle = self.state(*self.lead, d)
        a = self.op("sigmoid", self.bias(self.linear(x, d)))
        return self.set(handle, self.mix(a, h, self.op("tanh", self.linear(x, d))))

    def attention(self, x: str) -> str:
        k, v = self.dim("K"), self.dim("V")
        S, handle = self.state(*self.lead, k, v)
        shape = self.b.type(S).shape
        decay = self.scalar_per_head(x) if self.chance(0.5) else self.op("sigmoid", self.linear(x, k))
        kept = self.op("mul", self.scale_rows(decay, shape), S)
        new = self.op("add", kept, self.outer(self.unit(x, k), self.op("tanh", self.linear(x, v))))
        return self.op("tanh", self.read_rows(self.unit(x, k), self.set(handle, new)))

    def delta(self, x: str) -> str:
        k, v = self.dim("K"), self.dim("V")
        S, handle = self.state(*self.lead, k, v)
        key = self.unit(x, k)
        old = self.op("mul", self.scale_rows(self.scalar_per_head(x), self.b.type(S).shape), S)
        error = self.op("sub", self.op("tanh", self.linear(x, v)), self.read_rows(key, old))
        step = self.scale_rows(self.scalar_per_head(x), self.b.type(error).shape)
        new = self.set(handle, self.op("add", old, self.outer(key, self.op("mul", step, error))))
        return self.read_rows(self.unit(x, k), new if self.chance(0.7) else S)

    def reset(self, x: str) -> str:
        d = self.dim("H")
        h, handle = self.state(*self.lead, d)
        z, r = (self.op("sigmoid", self.op("add", self.linear(x, d), self.linear(h, d))) for _ in range(2))
        new = self.op("tanh", self.op("add", self.linear(x, d), self.linear(self.op("mul", r, h), d)))
        return self.set(handle, self.mix(z, h, new))

    def lagged(self, x: str) -> str:
        """Reads x[t-1], its own h[t-1] and h[t-2]."""
        d, shape = self.dim("H"), self.b.type(x).shape
        x1, hx = self.state(*shape, init=0.0)
        h, hh = self.state(*self.lead, d)
        h2, hh2 = self.state(*self.lead, d)
        self.set(hx, x)
        self.set(hh2, h)
        pre = self.op("add", self.linear(x1, d), self.op("sub", self.linear(h2, d), self.op("mul", h, self.k(0.5))))
        return self.set(hh, self.op("tanh", self.op("add", pre, self.linear(x, d))))

    def stabilised(self, x: str) -> str:
        d = self.dim("H")
        (c, hc), (n, hn) = self.state(*self.lead, d, init=0.0), self.state(*self.lead, d, init=0.0)
        m, hm = self.state(*self.lead, d, init=-math.inf)
        i, f, z = self.linear(x, d), self.linear(x, d), self.op("tanh", self.linear(x, d))
        left = self.op("add", self.op("logsigmoid", f), m)
        top = self.set(hm, self.op("max", i, left))
        a, e = self.op("exp", self.op("sub", left, top)), self.op("exp", self.op("sub", i, top))
        c1 = self.set(hc, self.op("add", self.op("mul", a, c), self.op("mul", e, z)))
        return self.op("div", c1, self.set(hn, self.op("add", self.op("mul", a, n), e)))

    def two_step(self, x: str) -> str:
        """Two states of one component: the second sees the first's new value."""
        d, e = self.dim("H"), self.dim("H")
        (y, hy), (z, hz) = self.state(*self.lead, d), self.state(*self.lead, e)
        y1 = self.set(hy, self.op("tanh", self.op("add", self.linear(x, d), self.linear(z, d))))
        gate = self.op("sigmoid", self.linear(y, e))
        return self.set(hz, self.mix(gate, z, self.op("tanh", self.linear(y1, e))))

    def counting(self, x: str) -> str:
        """Uses the step index; some steps, in threes, are different."""
        t, handle = self.state(kind="int")
        self.set(handle, self.op("add", t, self.b.literal(1, "int")))
        h = self.dense(x)
        phase = self.op(self.rng.choice(("mod", "floordiv")), t, self.b.literal(3, "int"))
        third = self.op(self.rng.choice(("eq", "ne")), phase, self.b.literal(1, "int"))
        wave = self.op("sin", self.op("mul", self.op("real", t), self.k(0.37)))
        shape = self.b.type(h).shape
        return self.op("select", self.b.broadcast(third, shape, ()), self.op("mul", h, wave), h)

    def latch(self, x: str) -> str:
        """A bool state that remembers, an int state that counts."""
        h = self.dense(x)
        shape = self.b.type(h).shape
        (seen, hs), (count, hc) = self.state(*shape, kind="bool"), self.state(*shape, kind="int")
        high = self.op(self.rng.choice(("gt", "ge")), h, self.k(0.1237))
        seen1 = self.set(hs, self.op("or", seen, high))
        count1 = self.set(hc, self.op("add", count, self.op("int", high)))
        scaled = self.op("mul", h, self.op("tanh", self.op("mul", self.op("real", count1), self.k(0.21))))
        return self.op("select", seen1, scaled, self.op("neg", h))

    def noisy(self, x: str) -> str:
        """Randomness in training, its mean otherwise."""
        t, handle = self.state(kind="int")
        self.set(handle, self.op("add", t, self.b.literal(1, "int")))
        h = self.lanes(x)
        shape = self.b.type(h).shape
        self.sites += 1
        u = self.b.add("random", (t,), Type("real", shape), "u", site=self.sites,
                       dist=self.rng.choice(("uniform", "normal")))
        training = self.b.add("training", (), Type("bool"), "training")
        mask = self.op("real", self.op("gt", u, self.k(0.3)))
        return self.op("select", self.b.broadcast(training, shape, ()), self.op("mul", h, mask),
                       self.op("mul", h, self.k(0.7)))

    def solved(self, x: str) -> str:
        """(3 I + tanh) y = h, and the matrix's log determinant."""
        h = self.dense(x)
        shape = self.b.type(h).shape
        d = shape[-1]
        square = shape + (d,)
        rows = self.op("mul", self.op("tanh", self.outer_self(h)), self.k(1 / d.size))
        i = self.b.add("iota", (), Type("int", (d,)), "iota")
        axis = len(shape) - 1
        eye = self.op("eq", self.b.broadcast(i, square, (axis,)), self.b.broadcast(i, square, (axis + 1,)))
        a = self.op("add", rows, self.op("mul", self.op("real", eye), self.k(3.0)))
        y = self.b.add("solve", (a, h), self.b.type(h), "solve")
        det = self.b.add("logdet", (a,), Type("real", shape[:-1]), "logdet")
        return self.op("tanh", self.op("add", y, self.b.broadcast(det, shape, tuple(range(axis)))))

    def outer_self(self, h: str) -> str:
        """h_i h_j in a matrix whose two axes have the same name."""
        d, shape = self.b.type(h).shape[-1], self.b.type(h).shape
        n = "n" if len(shape) == 2 else ""
        return self.b.contract(h, self.linear(h, d), f"{n}i,{n}j->{n}ij")
