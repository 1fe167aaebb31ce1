"""Plans: a cell made ready to run by one back end, in one dtype.

Plans live in a registry of this process under a key made of their content, so
that the key (a string) can stand for the plan in an operator's arguments, in
traced graphs and after unpickling.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor

from .. import backends
from ..backends.base import Executable
from ..frontend.diagnostics import did_you_mean
from ..ir.cell import Cell, Node
from ..ir.interp import evaluate
from ..ir.types import Type
from .ports import fail, torch_dtype


@dataclass(frozen=True)
class Static:
    """The part of a cell that depends on parameters only."""

    params: tuple[str, ...]                 # of the program, in declared order
    wanted: tuple[str, ...]                 # of the executable, in its order
    nodes: tuple[Node, ...]                 # compute those that are not the program's
    init_nodes: tuple[Node, ...]            # compute the states' initial values
    inits: tuple[str, ...]                  # nodes, one per state

    @property
    def direct(self) -> bool:
        """Nothing to compute: the executable takes the program's parameters."""
        return self.params == self.wanted

    @property
    def fixed(self) -> bool:
        """The states' initial values are numbers of the text."""
        return all(n.op != "param" for n in self.init_nodes)

    def executable_params(self, params: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Values [*shape] for the executable from those of the program; differentiable."""
        if self.direct:
            return list(params)
        values = dict(zip(self.params, params))
        reads = {("param", name): x for name, x in values.items()}
        values = values | evaluate(self.nodes, reads=reads, types={n.name: n.type for n in self.nodes}, dtype=dtype,
                                   device=params[0].device if params else None)
        return [values[name] for name in self.wanted]

    def initial_states(self, params: Sequence[Tensor], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """Initial values [*shape], one per state, from the executable's parameters; differentiable."""
        reads = {("param", name): x for name, x in zip(self.wanted, params)}
        values = evaluate(self.init_nodes, reads=reads, types={n.name: n.type for n in self.init_nodes}, dtype=dtype,
                          device=device)
        return [values[name] for name in self.inits]


@dataclass(frozen=True, eq=False)
class Plan:
    """`lowered` is what the pipeline made of a cell, `cell` what the executable
    runs; `reals` says which of its inputs, params and states have gradients."""

    key: str
    backend: str
    schedule: str
    dtype: torch.dtype
    cell: Cell
    static: Static
    executable: Executable
    lowered: object
    reals: tuple[tuple[bool, ...], tuple[bool, ...], tuple[bool, ...]]
    output_meta: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    state_meta: tuple[tuple[tuple[int, ...], torch.dtype], ...]


_plans: dict[str, Plan] = {}
_lock = threading.RLock()


def plan_key(cell: Cell, backend: str, schedule: str, dtype: torch.dtype) -> str:
    """The content key of a plan: the same in every process for the same cell and options."""
    text = "\n".join((backend, schedule, str(dtype), repr(cell)))
    return f"{cell.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def find(key: str) -> Plan:
    """The plan registered under `key` (KeyError: no layer of this process has made it)."""
    return _plans[key]


def get(cell: Cell, backend: str, schedule: str, dtype: torch.dtype) -> Plan:
    """The plan for a cell, built at the first call. Raises OstinatoError for
    back ends, schedules and dtypes that do not exist or cannot run the cell."""
    backend, schedule = choose(cell, backend, schedule)
    if dtype not in (torch.float32, torch.float64):
        fail("option_value", option="dtype", expected="torch.float32 or torch.float64", actual=dtype)
    key = plan_key(cell, backend, schedule, dtype)
    with _lock:
        if key not in _plans:
            _plans[key] = _build(key, cell, backend, schedule, dtype)
        return _plans[key]


def choose(cell: Cell, backend: str, schedule: str) -> tuple[str, str]:
    """Resolve "auto". Raises OstinatoError for unknown names."""
    have = backends.available()
    if backend not in (*backends.NAMES, "auto"):
        fail("unknown_backend", did_you_mean(backend, backends.NAMES), name=backend,
             backends=", ".join(("auto", *backends.NAMES)))
    name = have[0] if backend == "auto" else backend
    if name not in have:
        fail("backend_unavailable", f"back ends here are {', '.join(have)}", name=name,
             reason="it is not part of this version")
    schedules = backends.module(name).SCHEDULES
    if schedule == "auto":
        return name, schedules[0]
    if schedule not in schedules:
        fail("unknown_schedule", did_you_mean(schedule, schedules), name=schedule,
             schedules=", ".join(("auto", *schedules)))
    return name, schedule


def _build(key: str, cell: Cell, backend: str, schedule: str, dtype: torch.dtype) -> Plan:
    module = backends.module(backend)
    lowered = module.prepare(cell)
    run = lowered.cell
    static = Static(tuple(p.name for p in cell.params), tuple(p.name for p in run.params), lowered.static,
                    _closure(run, [s.init for s in run.states]), tuple(s.init for s in run.states))
    types = run.nodes()

    def meta(t: Type) -> tuple[tuple[int, ...], torch.dtype]:
        return t.sizes, torch_dtype(t.kind, dtype)

    return Plan(key, backend, schedule, dtype, run, static, module.build(lowered, dtype), lowered,
                (tuple(p.type.kind == "real" for p in run.inputs),
                 tuple(p.type.kind == "real" and p.trainable for p in run.params),
                 tuple(s.type.kind == "real" for s in run.states)),
                tuple(meta(types[o.value].type) for o in run.outputs), tuple(meta(s.type) for s in run.states))


def _closure(cell: Cell, roots: Sequence[str]) -> tuple[Node, ...]:
    """The nodes of the body that `roots` need, in order."""
    nodes, need, stack = cell.nodes(), set(), list(roots)
    while stack:
        name = stack.pop()
        if name not in need:
            need.add(name)
            stack.extend(nodes[name].args)
    return tuple(n for n in cell.body if n.name in need)
