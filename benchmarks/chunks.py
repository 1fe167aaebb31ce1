"""How near chunks come to the rate of a large matrix product, by the operations of the chunk algorithm itself."""

from __future__ import annotations

from math import prod

import ostinato
import torch
from ostinato.compiler.passes.chunk import chunk
from ostinato.compiler.pipeline import lower

from .data import inputs
from .floors import product_flops
from .measure import product, side_by_side, summary
from .workloads import ZOO

CELLS = ("simple_gla", "gla", "deltanet", "gated_deltanet", "rwkv7")
SIZES = ((2, 4, 1024, 64), (1, 8, 4096, 128))            # B, N, T, K = V


def chunk_flops(cell, C: int) -> tuple[float, float]:
    """Floating-point operations per step of one sequence in chunks of C steps, (forward, forward and backward): what
    the chunk cell and its adjoint multiply and add up, and solve. What is computed again for the backward pass does
    not count, nor does what products may leave out (`below`), and nothing pointwise does. `cell`: through the
    pipeline."""
    made = lower(chunk(cell, C))
    forward = whole_flops(made.cell)
    return forward / C, (forward + whole_flops(made.adjoint.backward)) / C


def whole_flops(cell) -> int:
    """Of the products of a cell, of its triangular solves, and of its products with the decays between rows."""
    nodes, total = cell.nodes(), product_flops(cell)
    for n in cell.body:
        if n.op == "solve_lower":
            total += n.type.numel * nodes[n.args[0]].type.sizes[-1]
        elif n.op.startswith("decayed"):                # per pair of rows: decays, multiply and add
            *lead, rows, k = nodes[n.args[-1]].type.sizes
            readers, operands = n.attr("readers", 1), len(n.args) - (n.op == "decayed_back")
            operands = (operands + 1) // 2 if n.attr("ends", False) else operands
            ways = readers * (operands - readers - 1) if n.op != "decayed_sum" else 1
            each = 4 * (ways + readers) if n.op == "decayed_back" else 2 * ways + readers
            total += prod(lead) * rows * (rows - 1) // 2 * k * each
    return total


def chunk_rows(quick: bool, budget: float) -> list[dict[str, object]]:
    """Per cell and shape: ms, and the share of the rate of `measure.product`, timed in turns with it."""
    rows, C = [], 16
    for name in CELLS[:1] if quick else CELLS:
        for B, N, T, K in SIZES[:1] if quick else SIZES:
            layer = ostinato.compile(str(ZOO / f"{name}.ost"), K=K, V=K, N=N, schedule=f"chunk({C})")
            flops = chunk_flops(layer._plan.lowered.split, C)
            leaves = {k: x.requires_grad_() for k, x in inputs(layer.cell, B, T).items()}
            d = torch.randn_like(layer(**leaves)[0])
            probe, probe_flops = product()

            def forward():
                with torch.no_grad():
                    layer(**leaves)

            def both():
                torch.autograd.grad(layer(**leaves)[0], list(leaves.values()), d)

            *found, by_probe = side_by_side([(forward, 1.0), (both, 1.0), (probe, 1.0)], budget)
            rate = probe_flops / min(by_probe)
            times = {k: summary(t) for k, t in zip(("forward", "both"), found)}
            rows.append({"cell": name, "dims": {"K": K, "V": K, "N": N}, "B": B, "T": T, "C": C, "times": times,
                         "share": {k: f * B * T / rate / times[k]["median"] for k, f in zip(times, flops)}})
    return rows
