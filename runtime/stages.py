"""Looking inside a layer: the text of each stage, and why it runs as it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import backends
from ..compiler.passes.realify import realify
from ..compiler.pipeline import CANONICAL, Run, lower
from ..frontend.diagnostics import OstinatoError, did_you_mean
from ..ir.printer import print_cell
from . import forms
from .forms import auto
from .ports import fail

if TYPE_CHECKING:
    from .layer import Layer

STAGES = ("source", "cell", "split", "fused", "adjoint", "schedule", "llvm", "asm")


def stage(layer: Layer, name: str) -> str:
    """The text of stage `name`. Raises OstinatoError if there is none, or if
    this layer's back end does not have it."""
    if name not in STAGES:
        fail("unknown_stage", did_you_mean(name, STAGES), name=name, stages=", ".join(STAGES))
    if name == "source":
        return layer.source if layer.source is not None else print_cell(layer.cell)
    if name == "cell":
        return print_cell(layer.cell)
    lowered = layer._plan.lowered
    for part in (lowered if hasattr(lowered, "ir") else lower(layer.cell), layer._plan.executable):
        if hasattr(part, "ir") and (text := part.ir(name)) is not None:
            return text
    plan = layer._plan
    if plan.backend == "llvm":      # a form that torch evaluates, in one of the cell's parts at least
        fail("no_stage", name=name, what=f"the schedule `{plan.schedule}`", instead='schedule="sequential"')
    fail("no_stage", name=name, what=f"the back end `{plan.backend}`", instead='backend="llvm"')


def explain(layer: Layer, B: int | None, T: int | None) -> str:
    """Schedule, back end, reasons, rejected alternatives, memory kept for backward (bytes at B, T);
    then the recurrence as mathematics, component by component of the states."""
    plan = layer._plan
    lines = [f"cell       {layer.cell.name}({', '.join(f'{d.name}={d.size}' for d in layer.cell.dims)}), {plan.dtype}",
             f"back end   {plan.backend}" + ("" if layer.backend != "auto" else " (the fastest one here)"),
             f"schedule   {plan.schedule}"]
    lines += _schedules(layer)
    for other in backends.NAMES:
        if other != plan.backend:
            lines.append(f"rejected   back end {other}: {_rejected(other, layer.backend, plan.backend)}")
    if hasattr(plan.executable, "explain"):
        lines += str(plan.executable.explain(B, T)).splitlines()
    if B is not None and T is not None:
        kept = sum(_bytes(sizes, dtype) for sizes, dtype in plan.executable.tape_meta(B, T))
        inputs = sum(_bytes((B, T, *p.sizes), p.dtype) for p in layer._inputs)
        lines.append(f"memory     kept for the backward pass at B={B}, T={T}: {kept:,} bytes, "
                     f"and the inputs ({inputs:,} bytes)")
    from ..compiler.analysis.describe import describe  # the analysis is not imported where nobody asks

    return "\n".join((*lines, "", describe(Run()(CANONICAL, layer.cell))))


def _schedules(layer: Layer) -> list[str]:
    """Why this schedule, and why no other."""
    plan, cell = layer._plan, realify(layer.cell)
    asked = layer.schedule != "auto"
    lines = [] if asked or plan.backend != "llvm" else [f"           {auto.choose(cell).why}"]
    source = forms.Source(backends.module(plan.backend), plan.lowered, plan.dtype)
    for other in forms.MODULES:
        if all(other == forms.parse(one)[0] for one in forms.each(plan.schedule)):
            continue
        try:
            forms.build(other, source)
            why = f"{plan.schedule} was asked for" if asked else auto.REJECTED.get(other, "dearer by the model")
        except (forms.Unsuitable, OstinatoError) as refusal:
            why = str(refusal).splitlines()[0]
        lines.append(f"rejected   {other}: {why}")
    return lines


def _rejected(name: str, asked: str, chosen: str) -> str:
    if asked != "auto":
        return f"{asked} was asked for"
    if name not in backends.available():
        return "not part of this version"
    return "every operation in torch, step by step" if name == "interpreter" else f"{chosen} is preferred here"


def _bytes(sizes, dtype) -> int:
    n = dtype.itemsize
    for size in sizes:
        n *= size
    return n
