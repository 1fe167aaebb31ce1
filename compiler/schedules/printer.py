"""Kernels as text, for `layer.ir("schedule")`: buffers, then loop nests with
the operations that each evaluates inside its loops."""

from __future__ import annotations

from ...ir.cell import Node
from ...ir.types import Dim
from .kernel import Buffer, Kernel, Part, Phase, Run
from .views import is_reduction

LEAVES = ("input", "next", "state", "param", "literal", "iota", "training")


def print_kernel(k: Kernel) -> str:
    """Readable text of a kernel (not parsed back)."""
    lines = [f"kernel {k.name}" + (f" heads {k.heads}" if k.heads else "") + (" reverse" if k.reverse else "")
             + (f" checkpoints {k.checkpoint}" if k.checkpoint else "")
             + (f" strips of {k.strip} rows" if k.strip else "") + " {"]
    for title, buffers in (("port", k.ports), ("scratch", k.scratch)):
        lines += [f"  {title:8}{_buffer(b)}" for b in buffers]
    for p in k.packs:
        views = ", ".join(f"{n}[{', '.join(str(o) if v is None else f'{v}+{o}' if o else v for v, o in ix)}]"
                          for n, ix in p.members)
        axes = "".join(f"{c}:{n} " for c, n in p.letters)
        lines.append(
            f"  pack    {p.name} [{axes}{p.lane[0]}/{p.lanes} {p.reduced[0]} {len(p.members)} {p.lanes}] of {views}"
        )
    for run in k.runs:
        lines.append(
            f"  for tile{' down' if k.reverse else ''}: run {run.prefix}{'' if not run.doubled else ''}".rstrip()
        )
        for title, part in (
            ("before", run.before),
            ("first step", run.first),
            ("steps" + (" down" if run.reverse else ""), run.steps),
            ("after", run.after),
        ):
            if part.phases:
                lines.append(f"    {title}{', step by step' * part.stepwise}:")
                for p in part.phases:
                    lines += [f"      {x}" for x in _phase(p, run, part)]
        lines += [f"    {s} runs along {buffer}" for s, buffer in run.trails.items()]
        if run.doubled:
            lines.append(f"    two buffers: {', '.join(sorted(run.doubled))}")
    return "\n".join((*lines, "}")) + "\n"


def _dims(dims: tuple[Dim, ...]) -> str:
    return ", ".join(f"{d.name}={d.size}" if d.name != str(d.size) else d.name for d in dims)


def _buffer(b: Buffer) -> str:
    heads = f" per {b.heads}" + (f"/{b.groups}" if b.groups > 1 else "") if b.heads else ""
    return f"{b.space:7}{b.name}: {b.kind}[{_dims(b.axes)}]{heads}"


def _phase(p: Phase, run: Run, part: Part) -> list[str]:
    how = [f"lanes {p.lane}" if p.lane else "scalar"]
    beside = p.lane == "red" and p.block == "par" and p.vectors > 1
    how += [f"{p.vectors} vectors"] if p.vectors > 1 and not beside else []
    how += [f"{p.block} by {p.vectors} x {p.unroll}" if beside else f"{p.block} by {p.unroll}"] \
        if p.block and (beside or p.unroll > 1) else []
    how += ["rows innermost"] if p.weights else []
    how += [str(p.triangle)] if p.triangle else []
    rows = {"tile": "rows x steps", "step": "rows"}[p.domain]
    if p.call:
        node = run.nodes[p.call]
        to = ", ".join(s.buffer for s in p.stores)
        return [f"for {rows}: {to} = {node.op}({', '.join(part.reads[a] for a in node.args)})"]
    what = "sum over" if p.rows == "sum" else "sweep" if p.sweep else "for"
    lines = [f"{what} {rows} [{_dims(p.shape)}] ({', '.join(how)}):"]
    own = {n for g in p.groups for n in g.nodes}
    if p.rows == "map":                         # a sum reads what has a buffer
        own |= p.written(part.reads)
    seen: set[str] = set()
    for g in p.groups:
        lines.append(f"  reduce [{_dims(g.dims)}]:")
        for n in g.nodes:
            lines += _inline(n, run.nodes, part.reads, own, seen, "    ", {x for x in g.nodes})
    for n in p.across:
        lines.append(f"  in passing, over [{_dims(p.shape[run.nodes[n].type.rank:])}]:")
        lines += _inline(n, run.nodes, part.reads, own, seen, "    ", {n})
    for s in p.stores:
        if s.node:
            lines += _inline(s.node, run.nodes, part.reads, own, seen, "  ", set())
        at = ", ".join(str(o) if a is None else f"{o}:" if o else ":" for a, o in s.index)
        lines.append(f"  {'add' if p.rows == 'sum' else 'store'} {s.buffer}[{at}] = {s.node or 0}")
    return lines


def _inline(name: str, nodes: dict[str, Node], reads, own, seen: set[str], indent: str, group: set[str]) -> list[str]:
    """The operations evaluated here to get `name`, operands first."""
    node = nodes[name]
    if name in seen or (name in reads and (name not in own or not node.args)):
        return []
    if is_reduction(node) and name not in group:
        return []
    seen.add(name)
    out = [line for a in node.args for line in _inline(a, nodes, reads, own, seen, indent, group)]
    if node.op in LEAVES:
        return out
    args = ", ".join(_leaf(nodes[a], reads) for a in node.args)
    attrs = "".join(f" {k}={v}" for k, v in node.attrs if k not in ("axes", "semiring"))
    return [*out, f"{indent}{name}: {node.type} = {node.op}({args}){attrs}"]


def _leaf(n: Node, reads) -> str:
    if n.op == "literal":
        return str(n.attr("value"))
    if n.op == "next":
        return f"{reads[n.name]}@next"
    return reads.get(n.name, n.name) if n.op in LEAVES else n.name
