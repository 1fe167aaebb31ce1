"""Which ports may have rows at any distance: inputs and outputs of two axes or more, and those that have an axis of a
chunk's steps, unless a call works on them as a whole. A chunk's rows are steps: with this they are read and written
where they lie between the heads.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.types import STEPS
from .kernel import Buffer, Kernel


def free_rows(kernel: Kernel) -> Kernel:
    """The kernel with `rows` set on those ports."""
    whole: set[str] = set()
    for run in kernel.runs:
        for part in run.parts:
            for p in part.phases:
                if p.call:
                    whole |= {part.reads[a] for a in run.nodes[p.call].args if a in part.reads}
                    whole |= {s.buffer for s in p.stores}

    def port(p: Buffer) -> Buffer:
        several = len(p.axes) > 1 or any(d.name == STEPS for d in p.axes)
        return replace(p, rows=p.space in ("input", "output") and several and p.name not in whole)

    return replace(kernel, ports=tuple(port(p) for p in kernel.ports))
