"""Plans: a cell made ready to run by one back end, in one dtype.

Plans live in a registry of this process under a key made of their content, so
that the key (a string) can stand for the plan in an operator's arguments, in
traced graphs and after unpickling.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from .. import backends
from ..backends.base import Executable
from ..compiler.passes.masked import RESET, VALID, Masked
from ..compiler.passes.realify import realify
from ..frontend.diagnostics import OstinatoError, did_you_mean
from ..ir.cell import Cell, Node
from ..ir.interp import evaluate
from ..ir.printer import print_cell
from ..ir.types import Type
from . import forms
from .forms import auto
from .ports import fail, torch_dtype

SAVE = ("auto", "all", "none")
MASKS = {RESET: "`reset`", VALID: "`lengths` or `cu_seqlens`"}      # inputs of masked cells, and what a call says
Meta = tuple[tuple[int, ...], torch.dtype]      # sizes (without B and T) and dtype


@dataclass(frozen=True)
class Static:
    """What a cell computes from parameters only, once per call: the
    parameters that the executable wants beyond the program's, and the states'
    initial values where they depend on parameters."""

    params: tuple[str, ...]                 # of the program, in declared order
    wanted: tuple[str, ...]                 # of the executable, in its order
    extra: tuple[str, ...]                  # those of `wanted` that are computed
    nodes: tuple[Node, ...]                 # compute `extra`
    init_nodes: tuple[Node, ...]            # compute `inits`
    inits: tuple[str, ...]                  # nodes, one per state
    meta: tuple[Meta, ...]                  # of what `compute` gives

    @cached_property
    def fixed(self) -> bool:
        """The states' initial values are numbers of the text."""
        return all(n.op != "param" for n in self.init_nodes)

    @cached_property
    def idle(self) -> bool:
        """There is nothing to compute."""
        return not self.extra and self.fixed

    def compute(self, params: Sequence[Tensor], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """Values of `extra`, then (unless `fixed`) of `inits`, [*shape] each; differentiable."""
        reads = {("param", name): x for name, x in zip(self.params, params)}
        values = evaluate(self.nodes, reads=reads, types=_types(self.nodes), dtype=dtype, device=device)
        found = [values[name] for name in self.extra]
        if self.fixed:
            return found
        reads |= {("param", name): x for name, x in zip(self.extra, found)}
        values = evaluate(self.init_nodes, reads=reads, types=_types(self.init_nodes), dtype=dtype, device=device)
        return found + [values[name] for name in self.inits]

    def constants(self, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """The states' initial values, if `fixed`."""
        values = evaluate(self.init_nodes, types=_types(self.init_nodes), dtype=dtype, device=device)
        return [values[name].contiguous() for name in self.inits]

    def arrange(self, params: Sequence[Tensor], computed: Sequence[Tensor]) -> list[Tensor]:
        """The executable's parameters, in its order."""
        if self.params == self.wanted:
            return list(params)
        values = dict(zip(self.params, params)) | dict(zip(self.extra, computed))
        return [values[name] for name in self.wanted]


def _types(nodes: Sequence[Node]) -> dict[str, Type]:
    return {n.name: n.type for n in nodes}


@dataclass(frozen=True, eq=False)
class Plan:
    """`source` is the program's cell, `lowered` what the pipeline made of it, `cell` what the executable
    runs, on `devices` (types); `reals` says which of its inputs, params and states have gradients."""

    key: str
    backend: str
    schedule: str
    dtype: torch.dtype
    save: str
    source: Cell
    cell: Cell
    static: Static
    executable: Executable
    lowered: object
    reals: tuple[tuple[bool, ...], tuple[bool, ...], tuple[bool, ...]]
    output_meta: tuple[Meta, ...]
    state_meta: tuple[Meta, ...]
    devices: tuple[str, ...]


LAYOUT = 4      # of what `recur` gives; another number when it changes, or code cached by torch.compile misreads it
_plans: dict[str, Plan] = {}
_lock = threading.RLock()


def plan_key(cell: Cell, backend: str, schedule: str, dtype: torch.dtype, save: str) -> str:
    """The content key of a plan: the same in every process for the same cell and options."""
    text = "\n".join((str(LAYOUT), backend, schedule, str(dtype), save, print_cell(cell)))
    return f"{cell.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def find(key: str) -> Plan:
    """The plan registered under `key` (KeyError: no layer of this process has made it)."""
    return _plans[key]


def get(cell: Cell, backend: str, schedule: str, dtype: torch.dtype, save: str = "auto") -> Plan:
    """The plan for a cell, built at the first call. Raises OstinatoError for
    back ends, schedules and dtypes that do not exist or cannot run the cell."""
    backend, schedule = choose(cell, backend, schedule)
    if dtype not in (torch.float32, torch.float64):
        fail("option_value", option="dtype", expected="torch.float32 or torch.float64", actual=dtype)
    if save not in SAVE:
        fail("option_value", did_you_mean(str(save), SAVE), option="save", expected=" or ".join(SAVE),
             actual=repr(save))
    key = plan_key(cell, backend, schedule, dtype, save)
    with _lock:
        if key not in _plans:
            _plans[key] = _build(key, cell, backend, schedule, dtype, save)
        return _plans[key]


@cache
def masked_schedule(key: str, reset: bool, valid: bool) -> str:
    """What schedule="auto" runs the masked cell of a plan by: a choice of its own where the plan's is one of chunks,
    since a restart may add what chunks cannot."""
    plan = find(key)
    if "chunk" not in plan.schedule:
        return plan.schedule
    return choose(Masked(reset, valid, False)(plan.source), plan.backend, "auto")[1]


@cache
def masked(key: str, reset: bool, valid: bool, reverse: bool, schedule: str) -> str:
    """The key of the plan of `Masked(reset, valid, reverse)` of a plan's cell, made at the first call."""
    plan = find(key)
    made = get(Masked(reset, valid, reverse)(plan.source), plan.backend, schedule, plan.dtype, plan.save)
    _ = made.static.fixed, made.static.idle     # torch.compile cannot trace a cached_property's first use
    return made.key


def choose(cell: Cell, backend: str, schedule: str) -> tuple[str, str]:
    """Resolve "auto". Raises OstinatoError for unknown names."""
    have = backends.available()
    if backend not in (*backends.NAMES, "auto"):
        fail("unknown_backend", did_you_mean(str(backend), backends.NAMES), name=backend,
             backends=", ".join(("auto", *backends.NAMES)))
    name = have[0] if backend == "auto" else backend
    if name not in have:
        fail("backend_unavailable", f"back ends here are {', '.join(have)}", name=name,
             reason="it is not part of this version")
    if schedule == "auto":
        return name, auto.choose(realify(cell)).schedule if name == "llvm" else "sequential"
    try:
        forms.each(str(schedule))
    except ValueError:
        fail("unknown_schedule", did_you_mean(str(schedule), forms.MODULES), name=schedule,
             schedules=", ".join(("auto", *forms.MODULES)))
    return name, schedule


def _build(key: str, cell: Cell, backend: str, schedule: str, dtype: torch.dtype, save: str) -> Plan:
    module, cell = backends.module(backend), realify(cell)
    lowered = module.prepare(cell, save)
    run = lowered.cell
    types = run.nodes()

    def meta(t: Type) -> Meta:
        return t.sizes, torch_dtype(t.kind, dtype)

    given, inits = {p.name for p in cell.params}, _closure(run, [s.init for s in run.states])
    extra = [p for p in run.params if p.name not in given]
    state_meta = tuple(meta(s.type) for s in run.states)
    computed = tuple(meta(p.type) for p in extra) + (state_meta if any(n.op == "param" for n in inits) else ())
    static = Static(tuple(p.name for p in cell.params), tuple(p.name for p in run.params),
                    tuple(p.name for p in extra), lowered.static, inits, tuple(s.init for s in run.states), computed)
    reals = (tuple(p.type.kind == "real" for p in run.inputs),
             tuple(p.type.kind == "real" and p.trainable for p in run.params),
             tuple(s.type.kind == "real" for s in run.states))
    try:
        executable = forms.build(schedule, forms.Source(module, lowered, dtype))
    except forms.Unsuitable as why:
        masks = [said for name, said in MASKS.items() if any(p.name == name for p in cell.inputs)]
        fail("unsuitable_schedule", f"it has {', '.join(_others(schedule, forms.Source(module, lowered, dtype)))}; "
             "\"auto\" chooses", name=cell.name, schedule=schedule,
             reason=f"{why} (in a call with {' and '.join(masks)})" if masks else why)
    return Plan(key, backend, schedule, dtype, save, cell, run, static, executable, lowered, reals,
                tuple(meta(types[o.value].type) for o in run.outputs), state_meta, module.DEVICES)


def _others(schedule: str, source: forms.Source) -> Iterator[str]:
    """The schedules that a cell has beside the one that was refused."""
    for other in forms.MODULES:
        with suppress(forms.Unsuitable, OstinatoError):
            if other != forms.each(schedule)[0].partition("(")[0]:
                forms.build(other, source)
                yield f'"{other}"'


def _closure(cell: Cell, roots: Sequence[str]) -> tuple[Node, ...]:
    """The nodes of the body that `roots` need, in order."""
    nodes, need, stack = cell.nodes(), set(), list(roots)
    while stack:
        name = stack.pop()
        if name not in need:
            need.add(name)
            stack.extend(nodes[name].args)
    return tuple(n for n in cell.body if n.name in need)
