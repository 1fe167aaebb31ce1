"""Cells built by hand, so that these tests need no front end."""

import pytest
import torch
from ostinato import backends
from ostinato.ir.build import Builder
from ostinato.ir.cell import Cell, Input, Node, Output, Param, State
from ostinato.ir.types import INT, Dim, Type
from ostinato.runtime.layer import Layer


def uniform_inits(params: dict[str, Type], bound: float) -> tuple[tuple[Node, ...], tuple[Param, ...]]:
    b = Builder()
    lo, hi = b.literal(-bound), b.literal(bound)
    made = []
    for name, type in params.items():
        node = b.append(Node(f"init.{name}", "draw", (lo, hi), (("dist", "uniform"),), type))
        made.append(Param(name, type, node))
    return tuple(b.nodes), tuple(made)


def make_lstm(I: int = 3, H: int = 5, prefix: str = "") -> Cell:
    i, h, g = Dim("I", I), Dim("H", H), Dim("4*H", 4 * H)
    init, params = uniform_inits({f"{prefix}W": Type("real", (g, i)), f"{prefix}R": Type("real", (g, h)),
                                  f"{prefix}b": Type("real", (g,))}, H ** -0.5)
    b = Builder()
    read = {p.name.removeprefix(prefix): b.read("param", p.name, p.type) for p in params}
    x = b.read("input", "x", Type("real", (i,)))
    h0, c0 = (b.read("state", s, Type("real", (h,))) for s in "hc")
    z = b.op("add", b.op("add", b.contract(read["W"], x, "gi,i->g"), b.contract(read["R"], h0, "gh,h->g")), read["b"])
    gi, gf, gg, go = (b.slice(z, 0, k * H, h) for k in range(4))
    c = b.op("add", b.op("mul", b.op("sigmoid", gf), c0), b.op("mul", b.op("sigmoid", gi), b.op("tanh", gg)))
    out = b.op("mul", b.op("sigmoid", go), b.op("tanh", c))
    zero = b.full(0.0, Type("real", (h,)))
    vector = Type("real", (h,))
    return Cell("lstm", (i, h), None, (Input("x", Type("real", (i,))),), params,
                (State("h", vector, zero, out), State("c", vector, zero, c)), (Output("h", out),), (), init,
                tuple(b.nodes))


def make_counter(D: int = 3) -> Cell:
    """Two inputs (one int), a learned initial state, a const, a step index, three outputs (one int)."""
    d = Dim("D", D)
    vec = Type("real", (d,))
    init, params = uniform_inits({"s0": vec, "step": vec}, 1.0)
    params += (Param("scale", vec, None, trainable=False),)
    b = Builder()
    read = {p.name: b.read("param", p.name, p.type) for p in params}
    x, k = b.read("input", "x", vec), b.read("input", "k", INT)
    s, t = b.read("state", "s", vec), b.read("state", "t", INT)
    decay = b.op("sigmoid", read["step"], hint="decay")
    new = b.op("add", b.op("mul", decay, s), b.op("mul", read["scale"], x), hint="new")
    count = b.op("add", t, k, hint="count")
    total = b.op("add", b.reduce(new, "sum", (0,)), b.op("real", count), hint="total")
    return Cell("counter", (d,), None, (Input("x", vec), Input("k", INT)), params,
                (State("s", vec, read["s0"], new),
                 State("t", INT, b.literal(0, "int"), b.op("add", t, b.literal(1, "int")))),
                (Output("s", new), Output("count", count), Output("total", total)), (), init, tuple(b.nodes))


def make_noise(D: int = 4) -> Cell:
    """Adds a random number at every step."""
    d = Dim("D", D)
    vec = Type("real", (d,))
    b = Builder()
    x, s, t = b.read("input", "x", vec), b.read("state", "s", vec), b.read("state", "t", INT)
    z = b.add("random", (t,), vec, "z", site=1, dist="normal")
    new = b.op("add", b.op("add", s, x), z)
    return Cell("noise", (d,), None, (Input("x", vec),), (),
                (State("s", vec, b.full(0.0, vec), new),
                 State("t", INT, b.literal(0, "int"), b.op("add", t, b.literal(1, "int")))),
                (Output("s", new),), (), (), tuple(b.nodes))


@pytest.fixture(params=backends.available())
def backend(request):
    """Every back end that is here."""
    return request.param


@pytest.fixture
def build(backend):
    """A float64 layer (unless told otherwise) on each back end."""
    return lambda cell, **options: Layer.from_cell(cell, **{"backend": backend, "dtype": torch.float64} | options)


@pytest.fixture
def lstm_cell():
    return make_lstm()


@pytest.fixture
def counter_cell():
    return make_counter()


@pytest.fixture
def noise_cell():
    return make_noise()


@pytest.fixture
def make_cell():
    """The builders by name, for other sizes and prefixes."""
    return {"lstm": make_lstm, "counter": make_counter, "noise": make_noise}
