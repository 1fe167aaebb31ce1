"""Kernels of the sequential schedule: forward, step, backward.

Backward either reads what forward kept (`recompute=False`), or keeps only the
states at the starts of tiles and runs the forward cell again over each tile
before going back over it (cells whose states are large and cheap to step).
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.cell import Cell, Output
from ...ir.types import Dim
from ..analysis.domains import has_weights
from ..passes.again import grams_to_keep, repeated, sums_to_keep
from ..passes.dce import live
from ..passes.lower import Lower
from .alike import alike, unread
from .heads import strip
from .kernel import Buffer, Kernel, Run, Scratch
from .lanes import common
from .sequential import build_run
from .strides import free_rows


def recomputes(cell: Cell) -> bool:
    """Whether running the steps again is cheaper than keeping their values:
    no product with a parameter is needed to get from state to state."""
    nodes = cell.nodes()
    needed = live(cell.body, [s.next for s in cell.states])
    return bool(cell.states) and not any(has_weights(nodes[n], nodes) for n in needed)


def sums_kept(forward: Cell, own: int) -> tuple[Output, ...]:
    """What forward keeps at every step besides its first `own` outputs, for running it again: what comes of sums over
    states (`passes.again`), if its steps then take fewer loop nests. Where they do not (the sweep that updates a state
    may make the next step's sums in passing), keeping it costs more than it saves. And Gram matrices of chunks."""
    sums = sums_to_keep(forward, own)
    nodes = forward.nodes()
    tape = [o for o in forward.outputs[own:] if nodes[o.value].op != "state"]

    def nests(kept: tuple[Output, ...]) -> int:
        again = repeated(forward, kept, (o for o in tape if o not in kept))
        return len(forward_kernel(again, "again").runs[0].steps.phases)

    kept = sums if sums and nests(sums) < nests(()) else ()
    return (*kept, *(o for o in grams_to_keep(forward, own) if o not in kept))


def forward_kernel(cell: Cell, name: str, *, packing: bool = True, checkpoint: bool = False) -> Kernel:
    """Inputs, params, first states -> outputs, final states (and, with
    `checkpoint`, the states at the starts of tiles)."""
    cell, heads, ports, groups = _stripped(cell)
    scratch = Scratch("")
    run = build_run(cell, scratch, *_bind(cell), packing=packing)
    made = _ports(cell, heads, ports, groups, "input", "output")
    if checkpoint:
        made += tuple(replace(p, name=p.name.replace("first.", "check.", 1), space="check")
                      for p in made if p.space == "first")
    kernel = Kernel(name, heads, made, _used(scratch, run), (run,), cell.reverse, "save" if checkpoint else None,
                    packing=packing)
    return free_rows(replace(kernel, lanes=common(kernel, cell)))


def backward_kernel(forward: Cell, backward: Cell, name: str, *, recompute: bool,
                    sums: tuple[Output, ...] = ()) -> Kernel:
    """Inputs, kept values (or checkpoints, and `sums` that were kept: see `passes.again`), cotangents of outputs and
    final states -> gradients of inputs, params and first states."""
    if not recompute:
        return forward_kernel(backward, name)
    kept = {p.name for p in backward.inputs} & {o.name for o in forward.outputs if "." in o.name}
    kept -= {o.name for o in sums}
    cells = backward, repeated(forward, sums, (o for o in forward.outputs if o.name in kept))
    (back, heads, ports, groups), (again, heads_f, ports_f, groups_f) = map(_stripped, cells)
    if heads != heads_f:                        # heads meet in one of the two: keep the axis in both
        (back, heads, ports, groups), (again, heads_f, ports_f, groups_f) = (_lowered(cell) for cell in cells)
    scratch_f, scratch_b = Scratch("f."), Scratch("b.")
    types = {p.name: p.type for p in back.inputs}
    trails = {} if again.reverse else _trails(again)
    tapes = {name: scratch_b.add(f"again.{name}", "trail" if name in trails.values() else "tile", types[name])
             for name in sorted(kept)}
    ins, pars, _, _ = _bind(again)
    first = build_run(again, scratch_f, ins, pars, {o.name: tapes[o.name] for o in again.outputs}, {},
                      trails={s: tapes[name] for s, name in trails.items()})
    ins, pars, outs, sums = _bind(back)
    second = build_run(back, scratch_b, {**ins, **tapes}, pars, outs, sums,
                       made=alike(first, back, {o.name: o.value for o in again.outputs}))
    first = unread(first, second, set(tapes.values()) - set(first.trails.values()))
    made = _ports(back, heads, ports, groups, "input", "output")
    made = tuple(p for p in made if p.name not in {f"in.{k}" for k in kept})
    names = {p.name for p in made}
    more = _ports(again, heads_f, ports_f, groups_f, "input", "output")
    made += tuple(p for p in more if p.space in ("input", "param") and p.name not in names)
    made += tuple(
        replace(p, name=p.name.replace("first.", "check.", 1), space="check") for p in more if p.space == "first"
    )
    used = _used(scratch_f, first) + _used(scratch_b, second, first)
    kernel = Kernel(name, heads, made, used, (first, second), backward.reverse, "load")
    return free_rows(replace(kernel, lanes=common(kernel, again, back)))


def _trails(cell: Cell) -> dict[str, str]:
    """States of which the old value is an output, and that output."""
    nodes = cell.nodes()
    return {nodes[o.value].attr("name"): o.name for o in reversed(cell.outputs) if nodes[o.value].op == "state"}


Stripped = tuple[Cell, Dim | None, frozenset[str], dict[str, int]]      # what `heads.strip` gives


def _lowered(cell: Cell) -> Stripped:
    return Lower()(cell), None, frozenset(), {}


def _stripped(cell: Cell) -> Stripped:
    whole = _lowered(cell)
    h = strip(whole[0])
    return (h.cell, cell.heads, h.ports, h.groups) if h else whole


def _bind(cell: Cell):
    return ({p.name: f"in.{p.name}" for p in cell.inputs}, {p.name: f"par.{p.name}" for p in cell.params},
            {o.name: f"out.{o.name}" for o in cell.outputs}, {o.name: f"sum.{o.name}" for o in cell.sums})


def _ports(cell: Cell, heads: Dim | None, split: frozenset[str], groups: dict[str, int], *_) -> tuple[Buffer, ...]:
    """The tensors that the host passes: inputs, params, first states; then outputs, final states, sums."""
    nodes = cell.nodes()

    def port(key: str, name: str, space: str, kind: str, axes, always: bool = False) -> Buffer:
        on = heads is not None and (always or key in split)
        return Buffer(name, space, kind, axes, heads if on else None, groups.get(name[3:], 1))

    def ends(which: str) -> list[Buffer]:
        return [port(f"state.{s.name}", f"{which}.{s.name}", which, s.type.kind, s.type.shape) for s in cell.states]

    def made(prefix: str, space: str, some) -> list[Buffer]:
        return [port("", f"{prefix}.{o.name}", space, nodes[o.value].type.kind, nodes[o.value].type.shape, True)
                for o in some]

    ins = [port(f"in.{p.name}", f"in.{p.name}", "input", p.type.kind, p.type.shape) for p in cell.inputs]
    pars = [port(f"par.{p.name}", f"par.{p.name}", "param", p.type.kind, p.type.shape) for p in cell.params]
    return (*ins, *pars, *ends("first"), *made("out", "output", cell.outputs), *ends("final"),
            *made("sum", "sum", cell.sums))


def _used(scratch: Scratch, run: Run, *others: Run) -> tuple[Buffer, ...]:
    """A run's scratch without the second buffers of states that are updated in place, and what nobody stores."""
    single = {f"{run.prefix}next.{s}" for s in run.states if s not in run.doubled}
    stored = {s.buffer for r in (run, *others) for part in r.parts for p in part.phases for s in p.stores}
    return tuple(b for b in scratch.buffers
                 if b.name not in single and (b.space not in ("step", "tile") or b.name in stored))
