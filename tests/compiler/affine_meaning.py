"""What an `Affine` says, computed: the next values of its states from its terms and offsets."""

from pathlib import Path

import strategies
import torch
from ostinato.compiler.analysis.affine import Affine, Apply, Dense, LowRank, Mix, Outer, Scale
from ostinato.ir import interp, meaning
from ostinato.runtime import sources
from ostinato.runtime.files import declared_sizes

ZOO = sorted((Path(__file__).parents[2] / "examples" / "zoo").glob("*.ost"))

PLUS = {kind: meaning.POINTWISE[op] for kind, op in (("sum", "add"), ("max", "max"), ("lse", "logaddexp"))}


def elaborate(path):
    """A cell of the zoo at the sizes of its header."""
    return sources.elaborate(path, None, declared_sizes(path.read_text())).cell


def reads(cell, seed=0, B=2, state=None):
    """Random values of one step, [B, *shape] (params [*shape]), by (op, name)."""
    g = torch.Generator().manual_seed(seed)

    def values(t, lead, g):
        if t.kind == "complex":
            return torch.complex(*(strategies.values(t.with_kind("real"), lead, g) for _ in range(2)))
        return strategies.values(t, lead, g)
    out = {("input", p.name): values(p.type, (B,), g) for p in cell.inputs}
    out |= {("param", p.name): values(p.type, (), g) for p in cell.params}
    return out | {("state", s.name): values(s.type, (B,), g) for s in cell.states} | (state or {})


def evaluate(cell, given, B=2):
    """All body values of one step, each [B, *shape]."""
    types = {n.name: n.type for n in cell.body}
    found = interp.evaluate(cell.body, reads=given, types=types, batch=(B,))
    return {k: v.expand(B, *types[k].sizes) for k, v in found.items()}


def next_values(c: Affine, given, B=2):
    """The next value of each state of the component."""
    v = evaluate(c.cell, given, B)
    return {s: _next(c, s, v, given, B) for s in c.states}


def _next(c, s, v, given, B):
    t, plus = c.cell.state(s).type, PLUS[c.semiring]
    found = []
    for term in c.terms[s]:
        x = given["state", term.of]
        for m in term.maps:
            x = _mapped(c, m, x, v, t)
        found.append(x)
    for o in c.offsets[s]:
        match o:
            case Dense(value):
                found.append(v[value])
            case Outer(write, value):
                found.append(v[write].unsqueeze(-1) * v[value].unsqueeze(-2))
    total = torch.zeros(()) if c.semiring == "sum" else None
    for x in found:
        total = x if total is None else plus(total, x)
    return total.expand(B, *t.sizes)


def _mapped(c, m, x, v, t):
    r, times = x.dim() - 1, torch.mul if c.semiring == "sum" else torch.add

    def spread(f, axes, rank=r):
        """[B, axes...] to [B, ...] of `rank` axes."""
        order = sorted(range(len(axes)), key=lambda i: axes[i])
        f = f.permute(0, *(1 + i for i in order))
        for p in range(rank):
            if p not in axes:
                f = f.unsqueeze(1 + p)
        return f

    def total(y, axis):
        return meaning.reduce(y, y.dim(), c.semiring, (axis,))
    match m:
        case Scale(factor, axes):
            return times(x, spread(v[factor], axes))
        case LowRank(read, write, axis, lead):
            y = total(times(x, spread(v[read], (*lead, axis))), 1 + axis).unsqueeze(1 + axis)
            return times(y, spread(v[write], (*lead, axis)))
        case Apply(matrix, axis, lead):         # the new axis before the old one
            shifted = tuple(a + (a > axis) for a in lead)
            return total(times(x.unsqueeze(1 + axis), spread(v[matrix], (*shifted, axis, axis + 1), r + 1)), 2 + axis)
        case Mix(factors, spec):
            parts, out = spec.split("->")
            first, *rest = parts.split(",")
            values = [*(v[f] for f in factors), x]
            acc, letters = values[0], first
            for y, s in zip(values[1:], rest):      # products first, the sum last
                wide = "".join(sorted(set(letters + s)))
                acc = times(_letters(acc, letters, wide), _letters(y, s, wide))
                letters = wide
            for i in reversed(range(len(letters))):
                if letters[i] not in out:
                    acc = total(acc, 1 + i)
            kept = "".join(a for a in letters if a in out)
            return acc.permute(0, *(1 + kept.index(a) for a in out)).expand(x.shape[0], *t.sizes)
    raise AssertionError(m)


def _letters(x, own, wide):
    order = sorted(range(len(own)), key=lambda i: own[i])
    x = x.permute(0, *(1 + i for i in order))
    for i, a in enumerate(wide):
        if a not in own:
            x = x.unsqueeze(1 + i)
    return x


