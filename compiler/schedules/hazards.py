"""Which states need two buffers: those whose old value is read at another
point, or later, than where the new value is written."""

from __future__ import annotations

from ...ir.cell import Cell, Node
from .kernel import Phase
from .views import operand_indices, reduced_dims


def doubled(cell: Cell, phases: tuple[Phase, ...], nodes: dict[str, Node], reads: dict[str, str]) -> tuple[str, ...]:
    """Names of the states that cannot be updated in place."""
    out = []
    for s in cell.states:
        old = {n.name for n in cell.body if n.op == "state" and n.attr("name") == s.name}
        suffix = f"next.{s.name}"
        for i, p in enumerate(phases):
            stores = [st for st in p.stores if st.buffer.endswith(suffix)]
            points = [tuple((p.along(st.shape)[a] if a is not None else None, o) for a, o in st.index)
                      for st in stores]
            # A sum along the lanes, or over all points, is stored while other lanes of its row are still to be read.
            sums = any(f"p{len(p.shape) - 1}" not in p.along(st.shape) for st in stores if p.shape)
            if points and (any(read_points(q, nodes, reads, old) for q in phases[i + 1:]) or any(
                    at not in points or len(points) > 1 or sums for at in read_points(p, nodes, reads, old))):
                out.append(s.name)
                break
    return tuple(out)


def read_points(p: Phase, nodes: dict[str, Node], reads: dict[str, str], names: set[str]) -> list[tuple]:
    """Indices at which the phase reads any of `names`."""
    found: list[tuple] = []
    grouped = {n for g in p.groups for n in g.nodes} | {*p.across}
    own = p.written(reads)
    seen: set[tuple[str, tuple]] = set()

    def here(name: str) -> tuple:
        return tuple((v, 0) for v in p.along(nodes[name].type.shape))

    def visit(name: str, idx: tuple) -> None:
        if (name, idx) in seen:
            return
        seen.add((name, idx))
        if name in names:
            found.append(idx)
        elif name not in grouped and (name in own or name not in reads):
            for arg, at in operand_indices(nodes[name], idx) if nodes[name].args else ():
                visit(arg, at)

    for g in p.groups:
        for n in g.nodes:
            red = tuple((v, 0) for v in p.reducing(reduced_dims(nodes[n], nodes)))
            for arg, at in operand_indices(nodes[n], here(n), red):
                visit(arg, at)
    for n in p.across:
        red = tuple((f"p{i}", 0) for i in range(nodes[n].type.rank, len(p.shape)))
        for arg, at in operand_indices(nodes[n], here(n), red):
            visit(arg, at)
    for s in p.stores:
        if s.node and s.node not in grouped:
            visit(s.node, here(s.node))
    return found
