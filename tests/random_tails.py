"""Random pointwise, reducing and structural ends of a block of a random cell: each
takes a bounded vector and gives one of the same type."""

from __future__ import annotations

from ostinato.ir.types import Dim, Type


class Tails:
    """A mixin of the maker in `random_cells`, which has the builder `b`, the
    random source `rng`, the `knobs`, the heads' axis `lead` and the shorthands
    `k` (literal), `op` (pointwise), `param` and `chance`."""

    def tail(self, v: str) -> str:
        tails = [self.smooth, self.kinks, self.normalised, self.reduced, self.shuffled, self.softmax]
        if self.knobs["semirings"]:
            tails.append(self.tropical)
        for _ in range(self.rng.choice((0, 0, 1, 1, 2))):
            v = self.rng.choice(tails)(v)
        return v

    def smooth(self, v: str) -> str:
        square = self.op("mul", v, v)
        one = self.k(1.0)
        match self.rng.randrange(8):
            case 0:
                return self.op("div", v, self.op("add", one, square))
            case 1:
                return self.op("mul", v, self.op("rsqrt", self.op("add", one, square)))
            case 2:
                return self.op("log", self.op("add", self.k(1.5), self.op("tanh", v)))
            case 3:
                return self.op("sub", self.op("softplus", v), self.op("exp", self.op("neg", square)))
            case 4:
                return self.op("erf", self.op("logaddexp", v, self.op("cos", v)))
            case 5:
                return self.op("expm1", self.op("tanh", self.op("log1p", square)))
            case 6:
                return self.op("pow", self.op("add", self.k(1.2), self.op("sigmoid", v)), self.k(-1.5))
        return self.op("sqrt", self.op("add", self.op("atan2", v, self.k(1.3)), self.k(2.0)))

    def kinks(self, v: str) -> str:
        match self.rng.randrange(6):
            case 0:
                return self.op("max", v, self.k(0.1371))
            case 1:
                return self.op("min", v, self.op("add", self.op("neg", v), self.k(0.0713)))
            case 2:
                apart = self.op("sub", v, self.k(0.0319))
                return self.op("abs", apart) if self.chance(0.6) else self.op("mul", v, self.op("sign", apart))
            case 3:
                scaled = self.op("add", self.op("mul", v, self.k(2.3)), self.k(0.217))
                step = self.op(self.rng.choice(("floor", "ceil", "round")), scaled)
                return self.op("tanh", self.op("add", v, step))
            case 4:
                hard = self.op("real", self.op("gt", v, self.k(0.0571)))
                soft = self.op("sub", v, self.op("tanh", v))
                return self.op("sub", hard, self.op("stop_gradient", soft)) if self.chance(0.5) else \
                    self.b.add("custom_grad", (hard, v, self.op("sigmoid", soft)), self.b.type(v), "surrogate")
        cond = self.op(self.rng.choice(("lt", "le")), v, self.k(0.2113))
        if self.knobs["ints"]:
            cond = self.op("and", cond, self.op("not", self.op("gt", self.op("tanh", v), self.k(0.9137))))
        return self.op("select", cond, self.op("sin", v), self.op("mul", v, self.k(0.5)))

    def reduced(self, v: str) -> str:
        """The value against a reduction of it over one or all axes."""
        t = self.b.type(v)
        axes = (t.rank - 1,) if self.chance(0.7) else tuple(range(t.rank))
        fn = self.rng.choice(("sum", "max", "min", "lse", "prod"))
        spread = self.op("tanh", v) if fn == "prod" else self.op("add", v, self.offsets(t))
        r = self.op("tanh", self.b.reduce(spread, fn, axes))
        kept = tuple(i for i in range(t.rank) if i not in axes)
        return self.op("mul", v, self.b.broadcast(r, t.shape, kept))

    def offsets(self, t: Type) -> str:
        """Different for each element of the last axis, so that no maximum is tied."""
        i = self.b.add("iota", (), Type("int", t.shape[-1:]), "iota")
        return self.b.broadcast(self.op("mul", self.op("real", i), self.k(0.0137)), t.shape, (t.rank - 1,))

    def normalised(self, v: str) -> str:
        t = self.b.type(v)
        last, kept = (t.rank - 1,), tuple(range(t.rank - 1))
        n = self.k(1 / t.shape[-1].size)
        centred = self.op("sub", v, self.b.broadcast(self.op("mul", self.b.reduce(v, "sum", last), n), t.shape, kept))
        var = self.op("mul", self.b.reduce(self.op("mul", centred, centred), "sum", last), n)
        return self.op("mul", centred, self.b.broadcast(self.op("rsqrt", self.op("add", var, self.k(0.3))),
                                                        t.shape, kept))

    def softmax(self, v: str) -> str:
        t = self.b.type(v)
        top = self.b.reduce(v, "lse", (t.rank - 1,))
        p = self.op("exp", self.op("sub", v, self.b.broadcast(top, t.shape, tuple(range(t.rank - 1)))))
        return self.op("mul", p, v) if self.chance(0.5) else p

    def shuffled(self, v: str) -> str:
        """Structure only: the elements come back, in some other way."""
        t, b = self.b.type(v), self.b
        axis, d = t.rank - 1, t.shape[-1]
        twice = Dim(f"2*{d.name}", 2 * d.size)
        match self.rng.randrange(6):
            case 0:
                both = b.concat((v, self.op("neg", v)), axis, twice)
                return b.slice(both, axis, self.rng.randint(0, d.size), d)
            case 1:
                two = Dim("2", 2)
                return b.index(b.stack((v, self.op("sin", v)), axis, two), axis, self.rng.randint(0, 1))
            case 2:
                wide = b.add("interleave", (v,), t.with_shape(t.shape[:-1] + (twice,)), "wide", axis=axis, times=2)
                return b.add("fold", (wide,), t, "fold", axis=axis, times=2)
            case 3:
                s = b.add("cumsum", (v,), t, "cumsum", axis=axis, reverse=self.chance(0.5))
                return self.op("mul", s, self.k(1 / max(1, d.size)))
            case 4:
                return b.slice(b.pad(v, axis, self.rng.randint(0, d.size), twice), axis, self.rng.randint(0, d.size), d)
        at = self.rng.randrange(d.size)
        return self.op("add", v, b.place(b.index(v, axis, at), axis, at, d))

    def tropical(self, v: str) -> str:
        t = self.b.type(v)
        n, d = "n" if t.rank == 2 else "", t.shape[-1]
        semiring = self.rng.choice(("max", "min", "lse"))
        return self.op("tanh", self.b.contract(self.param(*self.lead, d, d), v, f"{n}ij,{n}j->{n}i", semiring))
