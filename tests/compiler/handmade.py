"""Cells built by hand: the shapes of recurrence that the passes have to handle."""

from __future__ import annotations

import math
from collections.abc import Callable

from ostinato.ir.build import Builder
from ostinato.ir.cell import Cell, Input, Output, Param, State
from ostinato.ir.types import Dim, Type

I, H, K, V, N = Dim("I", 3), Dim("H", 4), Dim("K", 3), Dim("V", 2), Dim("N", 2)


def real(*shape: Dim) -> Type:
    return Type("real", shape)


class Make:
    """Collects the ports of a cell while its body is built with `b`."""

    def __init__(self, name: str):
        self.name, self.b = name, Builder()
        self.inputs, self.params, self.states, self.outputs = [], [], [], []

    def input(self, name: str, *shape: Dim, default: float = 0.0) -> str:
        self.inputs.append(Input(name, real(*shape), default))
        return self.b.read("input", name, real(*shape))

    def param(self, name: str, *shape: Dim, trainable: bool = True) -> str:
        self.params.append(Param(name, real(*shape), trainable=trainable))
        return self.b.read("param", name, real(*shape))

    def state(self, name: str, *shape: Dim, init: float = 0.0, kind: str = "real") -> str:
        t = Type(kind, shape)
        self.states.append((name, t, self.b.full(init, t)))
        return self.b.read("state", name, t)

    def output(self, name: str, value: str) -> None:
        self.outputs.append(Output(name, value))

    def cell(self, **nexts: str) -> Cell:
        states = tuple(State(n, t, init, nexts[n]) for n, t, init in self.states)
        dims = tuple(dict.fromkeys(d for t in (*self.inputs, *self.params) for d in t.type.shape))
        return Cell(self.name, dims, None, tuple(self.inputs), tuple(self.params), states, tuple(self.outputs),
                    body=tuple(self.b.nodes))


def elman() -> Cell:
    m = Make("elman")
    b, x, W, R, bias = m.b, m.input("x", I), m.param("W", H, I), m.param("R", H, H), m.param("b", H)
    h = m.state("h", H)
    pre = b.op("add", b.op("add", b.contract(W, x, "ij,j->i"), b.contract(R, h, "ij,j->i")), bias)
    h1 = b.op("tanh", pre)
    m.output("h", h1)
    return m.cell(h=h1)


def lstm() -> Cell:
    m = Make("lstm")
    G = Dim("4*H", 16)
    b, x, W, R, bias = m.b, m.input("x", I), m.param("W", G, I), m.param("R", G, H), m.param("b", G)
    h, c = m.state("h", H), m.state("c", H)
    pre = b.op("add", b.op("add", b.contract(W, x, "ij,j->i"), b.contract(R, h, "ij,j->i")), bias)
    i, f, g, o = (b.slice(pre, 0, 4 * k, H) for k in range(4))
    i, f, g, o = b.op("sigmoid", i), b.op("sigmoid", f), b.op("tanh", g), b.op("sigmoid", o)
    c1 = b.op("add", b.op("mul", f, c), b.op("mul", i, g))
    h1 = b.op("mul", o, b.op("tanh", c1))
    m.output("h", h1)
    return m.cell(h=h1, c=c1)


def gru() -> Cell:
    m = Make("gru")
    G = Dim("3*H", 12)
    b, x, W, R, bias = m.b, m.input("x", I), m.param("W", G, I), m.param("R", G, H), m.param("b", G)
    h = m.state("h", H)
    a, r = b.op("add", b.contract(W, x, "ij,j->i"), bias), b.contract(R, h, "ij,j->i")
    ar, az, an = (b.slice(a, 0, 4 * k, H) for k in range(3))
    rr, rz, rn = (b.slice(r, 0, 4 * k, H) for k in range(3))
    reset, z = b.op("sigmoid", b.op("add", ar, rr)), b.op("sigmoid", b.op("add", az, rz))
    n = b.op("tanh", b.op("add", an, b.op("mul", reset, rn)))
    h1 = b.op("add", b.op("mul", b.op("sub", b.literal(1.0), z), n), b.op("mul", z, h))
    m.output("y", h1)
    return m.cell(h=h1)


def layernorm(b: Builder, x: str, w: str) -> str:
    t = b.type(x)

    def mean(v: str) -> str:
        return b.op("div", b.reduce(v, "sum", (0,)), b.literal(t.numel))

    d = b.op("sub", x, mean(x))
    var = mean(b.op("pow", d, b.literal(2.0)))
    return b.op("mul", b.op("mul", w, d), b.op("rsqrt", b.op("add", var, b.literal(1e-5))))


def lstm_layernorm() -> Cell:
    m = Make("lstm_layernorm")
    G = Dim("4*H", 16)
    b, x, W, R = m.b, m.input("x", I), m.param("W", G, I), m.param("R", G, H)
    wx, wh, wc = m.param("wx", G), m.param("wh", G), m.param("wc", H)
    h, c = m.state("h", H), m.state("c", H)
    pre = b.op("add", layernorm(b, b.contract(W, x, "ij,j->i"), wx), layernorm(b, b.contract(R, h, "ij,j->i"), wh))
    i, g, f, o = (b.slice(pre, 0, 4 * k, H) for k in range(4))
    i, f, g, o = b.op("sigmoid", i), b.op("sigmoid", f), b.op("tanh", g), b.op("sigmoid", o)
    c1 = b.op("add", b.op("mul", f, c), b.op("mul", i, g))
    h1 = b.op("mul", o, b.op("tanh", layernorm(b, c1, wc)))
    m.output("h", h1)
    return m.cell(h=h1, c=c1)


def delta_rule(gated: bool = True) -> Cell:
    """S = a S + outer(k, beta (v - k @ (a S))), y = q @ S"""
    m = Make("gated_deltanet" if gated else "deltanet")
    b, q, k, v, beta, g = m.b, m.input("q", K), m.input("k", K), m.input("v", V), m.input("beta"), m.input("g")
    S = m.state("S", K, V)

    def outer(p: str, q: str) -> str:
        return b.op("mul", b.align(p, (K, V)), b.align(q, (K, V)))

    if gated:
        S = b.op("mul", b.op("exp", b.op("neg", b.op("softplus", g))), S)
    u = b.op("mul", beta, b.op("sub", v, b.contract(k, S, "k,kv->v")))
    S1 = b.op("add", S, outer(k, u))
    m.output("y", b.contract(q, S1, "k,kv->v"))
    return m.cell(S=S1)


def slstm() -> Cell:
    """Heads, a stabiliser that starts at -inf, a division."""
    m = Make("slstm")
    G = Dim("4*H", 16)
    b, x, W, R = m.b, m.input("x", I), m.param("W", N, G, I), m.param("R", N, G, H)
    h, c, n = m.state("h", N, H), m.state("c", N, H), m.state("n", N, H)
    s = m.state("m", N, H, init=-math.inf)
    pre = b.op("add", b.contract(W, x, "nij,j->ni"), b.contract(R, h, "nij,nj->ni"))
    i, f, z, o = (b.slice(pre, 1, 4 * k, H) for k in range(4))
    left = b.op("add", b.op("logsigmoid", f), s)
    m1 = b.op("max", i, left)
    keep, write = b.op("exp", b.op("sub", left, m1)), b.op("exp", b.op("sub", i, m1))
    c1 = b.op("add", b.op("mul", keep, c), b.op("mul", write, b.op("tanh", z)))
    n1 = b.op("add", b.op("mul", keep, n), write)
    h1 = b.op("div", b.op("mul", b.op("sigmoid", o), c1), n1)
    m.output("h", h1)
    return m.cell(h=h1, c=c1, n=n1, m=m1)


def dead_branch() -> Cell:
    """A branch that is NaN or infinite where it is not selected."""
    m = Make("dead_branch")
    b, x, w = m.b, m.input("x", H), m.param("w", H)
    h = m.state("h", H)
    y = b.op("mul", w, b.op("sub", x, h))
    safe = b.op("select", b.op("gt", y, b.literal(0.0)), b.op("log", y), b.literal(0.0))
    root = b.op("select", b.op("gt", y, b.literal(0.0)), b.op("sqrt", y), b.op("div", y, b.op("sqrt", b.op("neg", y))))
    h1 = b.op("tanh", b.op("add", safe, root))
    m.output("y", h1)
    return m.cell(h=h1)


def clocked() -> Cell:
    """An int state, a random draw, a bool output, a decayed average."""
    m = Make("clocked")
    b, x, a = m.b, m.input("x", H), m.param("a", H)
    h, t = m.state("h", H), m.state("t", init=0, kind="int")
    drawn = b.add("random", (t,), real(H), "drawn", site=1, dist="uniform")
    keep = b.op("lt", drawn, b.literal(0.5))
    new = b.op("add", b.op("mul", b.op("sigmoid", a), h), x)
    h1 = b.op("select", keep, new, h)
    even = b.op("eq", b.op("mod", t, b.literal(2, "int")), b.literal(0, "int"))
    m.output("y", b.op("mul", h1, b.op("add", b.literal(1.0), b.add("real", (even,), real(), "real"))))
    m.output("even", even)
    return m.cell(h=h1, t=b.op("add", t, b.literal(1, "int")))


def static_part() -> Cell:
    """Work on parameters only, an initial state computed from them, constants, a fixed parameter."""
    m = Make("static_part")
    b, x, A, u = m.b, m.input("x", H), m.param("A", H), m.param("u", trainable=False)
    h0 = b.op("mul", A, b.op("exp", u))
    decay = b.op("exp", b.op("neg", b.op("softplus", A)))
    m.states.append(("h", real(H), h0))
    h = b.read("state", "h", real(H))
    k = b.op("add", b.literal(2.0), b.op("sqrt", b.literal(4.0)))
    h1 = b.op("add", b.op("mul", decay, h), b.op("mul", b.op("mul", k, u), x))
    m.output("y", b.op("mul", h1, b.op("mul", A, A)))
    return m.cell(h=h1)


def window() -> Cell:
    """Pieces of states and inputs: slices that tile, that overlap, that leave gaps; index and stack."""
    m = Make("window")
    b, x, w = m.b, m.input("x", H), m.param("w", H)
    h = m.state("h", H)
    P, Q = Dim("2", 2), Dim("3", 3)
    a, c = b.slice(x, 0, 0, P), b.slice(x, 0, 2, P)
    d, e = b.slice(h, 0, 0, Q), b.slice(h, 0, 1, Q)
    s = b.op("tanh", b.op("mul", b.op("mul", d, e), b.slice(w, 0, 1, Q)))
    first = b.op("mul", b.index(x, 0, 0), b.index(w, 0, 0))
    h1 = b.concat((s, b.stack((first,), 0, Dim("1", 1))), 0, H)
    swap = b.concat((b.op("sin", c), b.op("mul", a, a)), 0, H)
    m.output("y", b.op("add", swap, b.op("mul", h1, w)))
    return m.cell(h=h1)


def joined() -> Cell:
    """W @ concat(x, h)"""
    m = Make("joined")
    X = Dim("I+H", 7)
    b, x, W = m.b, m.input("x", I), m.param("W", H, X)
    h = m.state("h", H)
    h1 = b.op("tanh", b.contract(W, b.concat((x, h), 0, X), "ij,j->i"))
    m.output("h", h1)
    return m.cell(h=h1)


CELLS: dict[str, Callable[[], Cell]] = {f.__name__: f for f in (
    elman, lstm, gru, lstm_layernorm, delta_rule, slstm, dead_branch, clocked, static_part, window, joined)}
