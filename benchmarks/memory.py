"""Peak memory of one forward and backward pass beyond what was held before it, each in a process of its own.

Beside it, where T grows: what cannot be avoided (outputs, gradients of inputs and parameters) with what the forward
pass keeps (`tape`: states at the starts of chunks or tiles), so that the rest, which must not grow, is seen.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKLOADS = ("lstm B16 T512 I256 H256", "gru B16 T512 I256 H256", "lem B16 T512 I256 H256",
             "mingru_gates B8 T2048 D512", "gated_deltanet B2 T1024 K64 V64 N4")
GROWING = [f"{cell} B1 T{T} K64 V64 N2" for cell in ("simple_gla", "gated_deltanet") for T in (1024, 4096, 16384)]


def memory_rows(quick: bool) -> list[dict[str, object]]:
    """MiB per workload and peer (Linux only; an empty list elsewhere)."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    rows = []
    for name in WORKLOADS[:1] if quick else WORKLOADS:
        row: dict[str, object] = {"workload": name}
        for maker in ("ours", "torch_nn", "eager"):
            if maker == "torch_nn" and name.split()[0] not in ("lstm", "gru"):
                continue
            row[maker] = _apart(name, maker)
        rows.append(row)
    for name in GROWING[:1] if quick else GROWING:
        rows.append({"workload": name} | {what: _apart(name, what) for what in ("ours", "results", "tape")})
    return rows


def _apart(name: str, what: str) -> float:
    out = subprocess.run([sys.executable, "-m", "benchmarks.memory", name, what], cwd=ROOT, check=True,
                         stdout=subprocess.PIPE, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def _status(field: str) -> float:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def _workload(name: str):
    from . import workloads

    if name not in GROWING:
        return next(w for w in workloads.WORKLOADS if w.name == name)
    cell, B, T, *dims = name.split()
    return workloads.Workload("memory", cell, int(B[1:]), int(T[1:]), {d[0]: int(d[1:]) for d in dims}, ())


def _measure(name: str, maker: str) -> float:
    from . import peers
    from .case import ours

    case = _workload(name).case()
    if maker == "results":
        return sum(x.nbytes for x in (*case.inputs.values(), *case.params.values(), *case.cotangents)) / 2**20
    if maker == "tape":
        meta = case.layer._plan.executable.tape_meta(*case.shape)
        return sum(prod(shape) * dtype.itemsize for shape, dtype in meta) / 2**20
    options = {"longest": case.shape[1]} if maker == "eager" else {}
    variant = ours(case) if maker == "ours" else getattr(peers, maker)(case, **options)
    if maker == "ours":                              # compiles at the first call, whose shape does not matter
        few = {k: v[:1, :8] for k, v in case.inputs.items()}
        ours(replace(case, inputs=few, cotangents=tuple(c[:1, :8] for c in case.cotangents))).both()
    Path("/proc/self/clear_refs").write_text("5")    # forget the peak so far
    before = _status("VmRSS")
    variant.both()
    return _status("VmHWM") - before


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
