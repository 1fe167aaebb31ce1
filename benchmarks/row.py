"""One workload: checked, then timed side by side; times, ratios to each peer, the floors."""

from __future__ import annotations

import time

from .case import ours
from .check import Disagreement, Reference
from .floors import floor_bytes, product_flops
from .measure import product, ratios, side_by_side, summary
from .workloads import Maker, Workload

KINDS = ("forward", "both")


def measure(w: Workload, makers: list[Maker], here: dict, budget: float) -> dict:
    """A row of JSON: times in ms, `ratio` (theirs over ours, round by round), `floor`, `fails` (which peer has no
    figure and why). Raises Disagreement if ours is not the reference's."""
    began, case = time.perf_counter(), w.case()
    reference = Reference(w, case)
    variants, fails = [ours(case)], {}
    checked = {variants[0].name: reference.compare(variants[0])}
    for make in makers:
        try:
            v = make(case)
            if v.output:
                checked[v.name] = reference.compare(v)
        except (Disagreement, RuntimeError, ValueError, TypeError) as e:
            fails[make.__name__] = f"{type(e).__name__}: {str(e).splitlines()[0]}"
        else:
            variants.append(v)
    times: dict[str, dict] = {v.name: {"steps": v.steps} for v in variants}
    ratio, floor = {}, {}
    cell = case.layer.cell
    flops, moved = product_flops(cell) * w.B * w.T, dict(zip(KINDS, floor_bytes(cell, w.B, w.T)))
    probe, probe_flops = product()
    for kind in KINDS:
        able = [v for v in variants if getattr(v, kind)]
        calls = [(getattr(v, kind), w.T / v.steps) for v in able]
        # The first turns of the probe find the caches full of others' data.
        *found, _, _, by_probe = side_by_side([*calls, *[(probe, 1.0)] * 3], budget * w.share)
        for v, t in zip(able, found):
            times[v.name][kind] = summary(t) | {"rounds": len(t)}
        ratio[kind] = {v.name: ratios(t, found[0]) for v, t in zip(able[1:], found[1:])}
        # Operations per ms; a busy minute must not lift the floor.
        rate = max(probe_flops / min(by_probe), here["gemm_gflops"] * 1e6)
        products = (1 if kind == "forward" else 3) * flops / rate
        bytes_ms = moved[kind] / (here["copy_gbytes_per_s"] * 1e6)
        median = times["ostinato"][kind]["median"]
        floor[kind] = {"products_ms": products, "bytes_ms": bytes_ms, "gemm_gflops": rate / 1e6,
                       "share_of_gemm_rate": products / median, "share": max(products, bytes_ms) / median}
    return {"workload": w.name, "cell": w.cell, "B": w.B, "T": w.T, "dims": w.dims,
            "check": {"reference": reference.by, **checked}, "times": times, "ratio": ratio, "fails": fails,
            "floor": floor, "took_s": time.perf_counter() - began}
