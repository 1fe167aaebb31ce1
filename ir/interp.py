"""The interpreter: the definition of what a cell means.

Slow and obvious, in torch, float64 unless told otherwise. Its gradients are
torch autograd's, an independent route from the compiler's adjoint. `meaning`
says what each operation computes, `evaluate` what a node is worth; here are
time and batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .cell import Cell, Node
from .errors import EvaluationError
from .evaluate import Context, evaluate
from .initial import initial_params
from .sweeps import sweeps
from .types import Type

__all__ = ["Result", "evaluate", "initial_params", "run", "static_names"]


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
