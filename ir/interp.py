"""The interpreter: the definition of what a cell means.

Slow and obvious, in torch, float64 unless told otherwise. Its gradients are
torch autograd's, an independent route from the compiler's adjoint. `meaning`
says what each operation computes; here are reads, time, batch and initial values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import decayed, meaning, rng
from .cell import Cell, Node
from .errors import EvaluationError
from .sweeps import sweeps
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


# -- one node ---------------------------------------------------------------
Rule = Callable[[Node, list[Tensor], Context], Tensor]


def _read(n: Node, _: list[Tensor], c: Context) -> Tensor:
    key = (n.op, n.attr("name"))
    if key not in c.reads:
        raise EvaluationError(f"no value given for {key[0]} {key[1]}")
    return c.reads[key]


def _random(n: Node, xs: list[Tensor], c: Context) -> Tensor:
    t = xs[0].expand(*c.batch) if c.batch else xs[0]
    return rng.draw(n.attr("dist"), c.seed, n.attr("site"), t, n.type.sizes, c.dtype)


def _draw(n: Node, xs: list[Tensor], c: Context) -> Tensor:
    if c.generator is None:
        raise EvaluationError(f"{n.name}: draw belongs to the init region")
    sizes, g = n.type.sizes, c.generator
    new = dict(generator=g, dtype=torch.float64)
    match n.attr("dist"):
        case "uniform":
            return xs[0] + (xs[1] - xs[0]) * torch.rand(sizes, **new)
        case "normal":
            return xs[0] + xs[1] * torch.randn(sizes, **new)
        case "bernoulli":
            return (torch.rand(sizes, **new) < xs[0]).to(torch.float64)
        case "orthogonal":
            return (xs[0] if xs else 1.0) * _orthogonal(torch.randn(sizes, **new))
        case other:
            raise EvaluationError(f"{n.name}: unknown distribution {other}")


def _orthogonal(x: Tensor) -> Tensor:
    """Rows (or columns, if fewer) orthonormal in the last two axes, Haar distributed:
    the Q of a Gaussian matrix, its signs fixed by R's diagonal (Mezzadri 2007)."""
    if x.dim() < 2:
        raise EvaluationError("orthogonal() needs a matrix; give the parameter two axes")
    wide = x.shape[-2] < x.shape[-1]
    q, r = torch.linalg.qr(x.mT if wide else x)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return q.mT if wide else q


def _axis(n: Node, x_rank: int) -> int:
    """The node's axis attribute, counted from the right of a value of `x_rank` axes."""
    return n.attr("axis") - x_rank


def _join(n: Node, xs: list[Tensor], how: Callable, rank: int) -> Tensor:
    return meaning.join(xs, [rank] * len(xs), _axis(n, n.type.rank), how)


_LEAVES: dict[str, Rule] = {
    "literal": lambda n, xs, c: torch.tensor(n.attr("value"), dtype=c.torch_dtype(n.type.kind), device=c.device),
    "input": _read, "param": _read, "state": _read,
    "iota": lambda n, xs, c: torch.arange(n.type.sizes[0], device=c.device),
    "training": lambda n, xs, c: torch.tensor(c.training, device=c.device),
    "random": _random, "draw": _draw,
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
        case "solve_lower":
            return meaning.solve_lower(x, xs[1], n.attr("transposed"), vector=ranks[1] == r - 1)
        case "solve":
            return meaning.solve(x, xs[1], vector=ranks[1] == r - 1)
        case "logdet":
            return meaning.logdet(x)
        case "decayed":
            return decayed.decayed(*xs)
        case "decayed_sum":
            return decayed.decayed_sum(*xs, n.attr("transposed"))
        case "decayed_slope":
            return decayed.decayed_slope(*xs)
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
        elif rule := _LEAVES.get(n.op):
            values[n.name] = rule(n, xs, context)
        else:
            values[n.name] = _structure(n, xs, [rank[a] for a in n.args])
        rank[n.name] = n.type.rank
    return values


# -- initial values ---------------------------------------------------------
def initial_params(cell: Cell, seed: int = 0, dtype: torch.dtype = torch.float64,
                   given: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Initial values of the parameters, [*shape] each, by the cell's init region.

    Drawn in float64, in the order of the region, then cast: the same for every
    dtype. `given`: values of the parameters without an initialiser; those not
    given are left out of the result. Raises EvaluationError if one is read.
    """
    kinds = {p.name: p.type.kind for p in cell.params}
    wide = Context({}, torch.float64)
    given = {k: v.to(wide.torch_dtype(kinds[k])) if v.is_floating_point() or v.is_complex() else v
             for k, v in (given or {}).items()}
    source = {p.name: p.init for p in cell.params if p.init is not None}
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    types: dict[str, Type] = {}

    class Drawn(dict):  # a `param` read in the region sees values computed earlier in it
        def __missing__(self, key):
            raise EvaluationError(f"no value given for param {key[1]}, which an initial value reads")

    reads = Drawn({("param", k): v for k, v in given.items()})
    for n in cell.init:
        for name, node in source.items():
            if node in values:
                reads.setdefault(("param", name), values[node])
        values = evaluate([n], values, reads=reads, types=types, generator=generator)
        types[n.name] = n.type
    out = {}
    for p in cell.params:
        v = given[p.name] if p.name in given else values.get(p.init)
        if v is not None:
            out[p.name] = v.to(Context({}, dtype).torch_dtype(p.type.kind)).clone()
    return out


# -- over time --------------------------------------------------------------
@dataclass(frozen=True)
class Result:
    """outputs [B, T, *shape], final state [B, *shape], sums [*shape]."""

    outputs: dict[str, Tensor]
    state: dict[str, Tensor]
    sums: dict[str, Tensor]


def static_names(cell: Cell) -> set[str]:
    """Body nodes that depend on params and literals only."""
    known: set[str] = set()
    for n in cell.body:
        if n.op not in ("input", "state", "random") and all(a in known for a in n.args):
            known.add(n.name)
    return known


def run(cell: Cell, inputs: Mapping[str, Tensor], params: Mapping[str, Tensor],
        state: Mapping[str, Tensor] | None = None, *, seed: int = 0, training: bool = False,
        dtype: torch.dtype = torch.float64, batch: int | None = None, steps: int | None = None) -> Result:
    """Run a cell over time. inputs [B, T, *shape], params [*shape], state
    [B, *shape] each (missing states start from their declared initial value).

    Reals are cast to `dtype`. `batch` and `steps` say B and T where the cell
    has no inputs. Gradients flow from outputs, final states and sums to
    inputs, params and initial states. States that run the other way through
    time start after the last step and end after the first: time is swept over
    as often as it takes to know every state (`sweeps`). Raises EvaluationError
    for missing values and wrong shapes.
    """
    state = state or {}
    inputs = {p.name: _checked("input", p.name, p.type, inputs, 2, dtype) for p in cell.inputs}
    params = {p.name: _checked("param", p.name, p.type, params, 0, dtype) for p in cell.params}
    state = {s.name: _checked("state", s.name, s.type, state, 1, dtype) for s in cell.states if s.name in state}
    B, T = _extent(inputs, state, batch, steps)
    some = next(iter((*inputs.values(), *params.values(), *state.values())), None)
    options = dict(types={n.name: n.type for n in cell.body}, dtype=dtype, seed=seed, training=training,
                   device=None if some is None else some.device)

    static = static_names(cell)
    reads: dict[tuple[str, str], Tensor] = {("param", k): v for k, v in params.items()}
    fixed = evaluate([n for n in cell.body if n.name in static], reads=reads, **options)
    types = {n.name: n.type for n in cell.body}

    def batched(name: str, values: Mapping[str, Tensor]) -> Tensor:
        return values[name].expand(B, *types[name].sizes)

    finals = {s.name: state[s.name].clone() if s.name in state else batched(s.init, fixed).clone()
              for s in cell.states}
    rows: dict[str, list[Tensor]] = {o.name: [] for o in cell.outputs}
    sums = {o.name: torch.zeros(types[o.value].sizes, dtype=Context({}, dtype).torch_dtype(types[o.value].kind),
                                device=options["device"]) for o in cell.sums}
    known: dict[str, list[Tensor]] = {}     # old values by step, of the states that earlier sweeps have found
    *_, last = order = sweeps(cell)
    for sweep in order:
        wanted = [s for s in cell.states if s.name in sweep.states]
        over_batch = [n for n in cell.body if n.name not in static]
        if sweep is not last:
            over_batch = _beneath(over_batch, {s.next for s in wanted})
        found: dict[str, list[Tensor]] = {} if sweep is last else {s.name: [] for s in wanted}
        for t in reversed(range(T)) if sweep.reverse else range(T):
            reads.update({("input", name): x[:, t] for name, x in inputs.items()})
            reads.update({("state", name): old[t] for name, old in known.items()})
            reads.update({("state", s.name): finals[s.name] for s in wanted})
            values = evaluate(over_batch, fixed, reads=reads, batch=(B,), **options)
            for name, old in found.items():
                old.append(finals[name])
            finals |= {s.name: batched(s.next, values) for s in wanted}
            if sweep is last:
                for o in cell.outputs:
                    rows[o.name].append(batched(o.value, values))
                for o in cell.sums:
                    sums[o.name] = sums[o.name] + batched(o.value, values).sum(0)
        known |= {name: old[::-1] if sweep.reverse else old for name, old in found.items()}

    def over_time(o) -> Tensor:
        if rows[o.name]:
            return torch.stack(rows[o.name][::-1] if last.reverse else rows[o.name], 1)
        kind = types[o.value].kind
        return torch.zeros(B, 0, *types[o.value].sizes, dtype=Context({}, dtype).torch_dtype(kind),
                           device=options["device"])

    return Result({o.name: over_time(o) for o in cell.outputs}, finals, sums)


def _beneath(nodes: Iterable[Node], names: set[str]) -> list[Node]:
    """Those of `nodes` that `names` depend on."""
    found, needed = [], set(names)
    for n in reversed(list(nodes)):
        if n.name in needed:
            needed.update(n.args)
            found.append(n)
    return found[::-1]


def _checked(what: str, name: str, type: Type, given: Mapping[str, Tensor], lead: int, dtype: torch.dtype) -> Tensor:
    if name not in given:
        raise EvaluationError(f"no value given for {what} {name}: {type}")
    x = given[name]
    if x.dim() != lead + type.rank or tuple(x.shape[lead:]) != type.sizes:
        axes = ", ".join(("B", "T")[:lead] + tuple(f"{d.name}={d.size}" for d in type.shape))
        raise EvaluationError(f"{what} {name} has shape {list(x.shape)}, expected [{axes}]")
    return x.to(Context({}, dtype).torch_dtype(type.kind))


def _extent(inputs: Mapping[str, Tensor], state: Mapping[str, Tensor], batch: int | None,
            steps: int | None) -> tuple[int, int]:
    Bs = {x.shape[0] for x in (*inputs.values(), *state.values())} | ({batch} - {None})
    Ts = {x.shape[1] for x in inputs.values()} | ({steps} - {None})
    if len(Bs) != 1 or len(Ts) != 1:
        raise EvaluationError(f"batch sizes {sorted(Bs)} and lengths {sorted(Ts)}: need exactly one of each "
                              "(pass batch= and steps= for a cell without inputs)")
    return Bs.pop(), Ts.pop()
