"""What a workload cannot do without: the operations of its products, the bytes of its inputs and outputs."""

from __future__ import annotations


def product_flops(cell) -> int:
    """Floating-point operations of the products of one step of one sequence (gradients need twice as many again)."""
    total = 0
    nodes = cell.nodes()
    for n in cell.body:
        if n.op == "contract":
            spec = n.attr("spec").split("->")[0].split(",")
            size = {c: d.size for part, a in zip(spec, n.args) for c, d in zip(part, nodes[a].type.shape)}
            flops = 2
            for s in size.values():
                flops *= s
            if below := n.attr("below", ""):        # only rows with earlier ones
                flops = flops * (size[below[0]] - 1) // (2 * size[below[0]])
            total += flops
    return total


def floor_bytes(cell, B: int, T: int) -> tuple[int, int]:
    """Bytes that must move, (forward, forward and backward), in float32: inputs and outputs once; for the
    gradients also the outputs' cotangents, the inputs again and their gradients."""
    nodes = cell.nodes()
    xs = 4 * B * T * sum(p.type.numel for p in cell.inputs)
    ys = 4 * B * T * sum(nodes[o.value].type.numel for o in cell.outputs)
    return xs + ys, 3 * xs + 2 * ys
