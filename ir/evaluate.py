"""One step of the interpreter: the values of nodes, each from those of its operands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import decayed, draws, meaning, rng
from .cell import Node
from .errors import EvaluationError
from .types import Type

Reads = Mapping[tuple[str, str], Tensor]


@dataclass(frozen=True, slots=True)
class Context:
    """What a node may see besides its operands. `batch`: leading sizes of random draws."""

    reads: Reads
    dtype: torch.dtype = torch.float64
    seed: int = 0
    training: bool = False
    batch: tuple[int, ...] = ()
    device: torch.device | None = None
    generator: torch.Generator | None = field(default=None, compare=False)

    def torch_dtype(self, kind: str) -> torch.dtype:
        match kind:
            case "real":
                return self.dtype
            case "int":
                return torch.int64
            case "bool":
                return torch.bool
        return self.dtype.to_complex()


Rule = Callable[[Node, list[Tensor], Context], Tensor]


def _read(n: Node, _: list[Tensor], c: Context) -> Tensor:
    key = (n.op, n.attr("name"))
    if key not in c.reads:
        raise EvaluationError(f"no value given for {key[0]} {key[1]}")
    return c.reads[key]


def _random(n: Node, xs: list[Tensor], c: Context) -> Tensor:
    t = xs[0].expand(*c.batch) if c.batch else xs[0]
    return rng.draw(n.attr("dist"), c.seed, n.attr("site"), t, n.type.sizes, c.dtype)


def _axis(n: Node, x_rank: int) -> int:
    """The node's axis attribute, counted from the right of a value of `x_rank` axes."""
    return n.attr("axis") - x_rank


def _join(n: Node, xs: list[Tensor], how: Callable, rank: int) -> Tensor:
    return meaning.join(xs, [rank] * len(xs), _axis(n, n.type.rank), how)


LEAVES: dict[str, Rule] = {
    "literal": lambda n, xs, c: torch.tensor(n.attr("value"), dtype=c.torch_dtype(n.type.kind), device=c.device),
    "input": _read, "param": _read, "state": _read,
    "iota": lambda n, xs, c: torch.arange(n.type.sizes[0], device=c.device),
    "training": lambda n, xs, c: torch.tensor(c.training, device=c.device),
    "random": _random, "draw": lambda n, xs, c: draws.draw(n, xs, c.generator),
    "real": lambda n, xs, c: xs[0].to(c.dtype), "int": lambda n, xs, c: xs[0].to(torch.int64),
}


def _structure(n: Node, xs: list[Tensor], ranks: list[int]) -> Tensor:
    x, r = xs[0], ranks[0]
    match n.op:
        case "broadcast":
            return meaning.broadcast(x, r, n.type.sizes, n.attr("axes"))
        case "slice":
            return x.narrow(_axis(n, r), n.attr("start"), n.type.sizes[n.attr("axis")])
        case "index":
            return x.select(_axis(n, r), n.attr("at"))
        case "pad":
            return meaning.pad(x, _axis(n, r), n.attr("start"), n.type.sizes[n.attr("axis")])
        case "place":
            return meaning.place(x, _axis(n, r + 1), n.attr("at"), n.type.sizes[n.attr("axis")])
        case "concat":
            return _join(n, xs, torch.cat, r)
        case "stack":
            return _join(n, xs, torch.stack, r)
        case "interleave":
            return x.repeat_interleave(n.attr("times"), _axis(n, r))
        case "fold":
            return meaning.fold(x, _axis(n, r), n.attr("times"))
        case "gather":
            return meaning.gather(x, r, xs[1], ranks[1], n.attr("axis"), n.attr("batch"))
        case "scatter":
            return meaning.scatter(x, r, xs[1], ranks[1], n.attr("axis"), n.attr("batch"), n.type.sizes[n.attr("axis")])
        case "cumsum":
            return meaning.cumsum(x, _axis(n, r), n.attr("reverse"))
        case "reduce":
            return meaning.reduce(x, r, n.attr("fn"), n.attr("axes"))
        case "contract":
            return meaning.contract(x, xs[1], n.attr("spec"), n.attr("semiring"))
        case "running":
            return meaning.running(x, xs[1], _axis(n, r), n.attr("reverse"), n.attr("semiring"))
        case "cumprod":
            return meaning.cumprod(x, _axis(n, r), n.attr("reverse"))
        case "cumprod_back":
            return meaning.cumprod_back(x, xs[1], _axis(n, r), n.attr("reverse"))
        case "solve_lower":
            return meaning.solve_lower(x, xs[1], n.attr("transposed"), vector=ranks[1] == r - 1)
        case "solve":
            return meaning.solve(x, xs[1], vector=ranks[1] == r - 1)
        case "logdet":
            return meaning.logdet(x)
        case "decayed":
            return decayed.decayed(xs, n.attr("readers"))
        case "decayed_sum":
            return decayed.decayed_sum(*xs, n.attr("transposed"))
        case "decayed_back":
            return decayed.decayed_back(x, xs[1:], n.attr("readers"), n.attr("ends"))
        case "ends":
            return decayed.ends(xs, n.attr("readers"))
        case "ends_back":
            return decayed.ends_back(xs, n.attr("readers"))
    raise EvaluationError(f"{n.name}: the interpreter does not know the operation {n.op}")


def evaluate(nodes: Iterable[Node], env: Mapping[str, Tensor] | None = None, *, reads: Reads | None = None,
             types: Mapping[str, Type] | None = None, dtype: torch.dtype = torch.float64, seed: int = 0,
             training: bool = False, batch: tuple[int, ...] = (), device: torch.device | None = None,
             generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """The values of `nodes` (in topological order) by name, with those of `env`.

    `env`: values known already, with their `types` (by node name).
    `reads`: ("input" | "param" | "state", name) -> value. Each value has the
    axes of its type last and any leading axes, which broadcast, before them:
    none for static values, [B] over a batch. A static value stays without.
    `batch`: the leading sizes of random draws. Differentiable by torch.
    Raises EvaluationError for a read without a value.
    """
    context = Context(reads or {}, dtype, seed, training, batch, device, generator)
    values = dict(env or {})
    rank = {name: t.rank for name, t in (types or {}).items()}
    for n in nodes:
        xs = [values[a] for a in n.args]
        if fn := meaning.POINTWISE.get(n.op):
            values[n.name] = fn(*xs)
        elif rule := LEAVES.get(n.op):
            values[n.name] = rule(n, xs, context)
        else:
            values[n.name] = _structure(n, xs, [rank[a] for a in n.args])
        rank[n.name] = n.type.rank
    return values
