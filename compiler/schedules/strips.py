"""Strips: a few rows of a matrix state go through all steps of a tile before the next few do.

A backward sweep reads the old states beside the one it updates: too much for
the first-level cache, through which all of it comes at every step. Where a
step is one sweep, and nothing of it waits for what the sweep sums up over the
rows, the loop over the rows may as well be the outer one: a strip's states
then stay in registers, and its old ones of the whole tile in the cache.

Sums over the rows add up strip by strip, in buffers of the tile; what follows
from them is done after the steps, a tile at a time. The runs of a kernel all
go through one strip before the next, so that a trail has only a strip's rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.cell import Node
from ...ir.ops import spec_parts
from ...ir.types import Dim
from .kernel import Buffer, Group, Kernel, Part, Phase, Run, Store
from .leaves import leaves, uses
from .views import reduced_dims

LARGE = 6 * 1024       # elements of states and old states that a step touches, from which on strips pay
HEIGHTS = 8, 4         # rows of a strip; fewer do not pay


@dataclass(frozen=True)
class Striped:
    """A run for strips: the buffers that its sweep reads, those that it writes row by row, those that are complete
    only after the last strip, and those that are new."""

    run: Run
    read: set[str]
    rowwise: set[str]
    late: set[str]
    sums: tuple[Buffer, ...]


def striped(kernel: Kernel, width: int, registers: int) -> Kernel:
    """The kernel with its steps made strip by strip, if that can be and pays; else as it is. A strip's states take at
    most half of the host's `registers`, of `width` lanes, and fill them: else sums of a row are sums of blocks."""
    touched = sum(b.numel for b in kernel.scratch if len(b.axes) > 1 and b.space in ("state", "trail"))
    trails = {b for r in kernel.runs for b in r.trails.values()}
    if not trails or touched < LARGE:
        return kernel
    rowwise, late, made, shapes = set(trails), set(), [], set()
    for run in kernel.runs:
        it = _run(run, rowwise | late, trails, {b.name for b in kernel.scratch})
        if it is None or it.read & (late | it.late):
            return kernel
        made.append(it)
        rowwise |= it.rowwise
        late |= it.late
        shapes.add(it.run.steps.phases[0].shape)
    (rows, lanes), *others = shapes
    height = next((h for h in HEIGHTS if h * lanes.size <= registers // 2 * width), 0)
    if others or lanes.size % width or not 0 < height <= rows.size:
        return kernel
    strip = Dim("strip", height)
    scratch = [replace(b, axes=(strip, *b.axes[1:])) if b.name in trails else
               replace(b, space="tile") if b.space == "step" else b for b in kernel.scratch]
    return replace(kernel, runs=tuple(x.run for x in made), strip=height,
                   scratch=(*scratch, *(b for x in made for b in x.sums)))


def _run(run: Run, late: set[str], trails: set[str], scratch: set[str]) -> Striped | None:
    """The run with one sweep for its steps, and all else before or after them. None if its steps are more than
    that. `late`: what is not complete before the steps."""
    sweep, *rest = run.steps.phases or (None,)
    if sweep is None or not sweep.sweep or len(sweep.shape) != 2 or any(p.sweep or p.call for p in rest):
        return None
    if run.first.phases:                        # the sweep reads what the step before has summed up
        return None
    run, totals = _whole(run, sweep)
    sweep, nodes, states = run.steps.phases[0], run.nodes, {f"{run.prefix}next.{s}" for s in run.states}
    over = {n: reduced_dims(nodes[n], nodes) for g in sweep.groups for n in g.nodes}
    rows = {n for n, dims in over.items() if dims == sweep.shape[:1]}
    points = [s for s in sweep.stores if s.shape == sweep.shape]
    ends = [s for s in sweep.stores if s not in points and (s.node in rows or s.node not in over)]
    if not states or run.doubled or not all(_sum(nodes[n]) for n in over) or not states <= {s.buffer for s in points}:
        return None

    # sums over the rows go to scratch memory, what follows from them comes after the steps
    raw = {s.node: s for s in ends if s.node in rows and s.buffer in scratch}
    sums = tuple(Buffer(f"{run.prefix}rows.{n}", "tile", "real", sweep.shape[1:]) for n in sorted(rows - raw.keys()))
    raw |= {n: Store(n, b.name, ((0, 0),), b.axes) for n, b in zip(sorted(rows - raw.keys()), sums)}
    sweep = replace(sweep, stores=(*(s for s in sweep.stores if s not in ends), *raw.values()))
    ends = [s for s in ends if s not in raw.values()]
    reads = {n: b for n, b in run.steps.reads.items() if nodes[n].op != "state"} | {n: s.buffer for n, s in raw.items()}
    reads = {**run.before.reads, **run.after.reads, **reads}

    # what waits for earlier runs' sums is done after the steps too
    early, waiting = [], set(late)
    moved: list[Phase] = []
    for p in run.before.phases:
        if uses(p, run.nodes, run.before.reads) & waiting:
            moved.append(p)
            waiting |= {s.buffer for s in p.stores}
        else:
            early.append(p)
    after = (*moved, *totals, *_ends(ends), *(replace(p, domain="tile") for p in rest), *run.after.phases)
    if any(uses(p, run.nodes, reads) & (trails | states) or _old(p, run, reads) for p in after):
        return None
    clear = (Phase("tile", "map", s.shape, stores=(replace(s, node=None),), lane="par" if s.shape else None)
             for s in raw.values())
    changed = replace(run, before=replace(run.before, phases=(*early, *clear)),
                      steps=replace(run.steps, phases=(sweep,)), after=Part(after, reads))
    done = {s.buffer for p in after for s in p.stores} | {s.buffer for s in raw.values()}
    return Striped(changed, uses(sweep, run.nodes, run.steps.reads), {s.buffer for s in sweep.stores}, done, sums)


def _whole(run: Run, sweep: Phase) -> tuple[Run, tuple[Phase, ...]]:
    """The run with sums over all points made over the rows only, and phases that add up the rest."""
    nodes, lanes = dict(run.nodes), sweep.shape[1:]
    names = [n for g in sweep.groups for n in g.nodes
             if set(reduced_dims(nodes[n], nodes)) == set(sweep.shape) and _sum(nodes[n])]
    totals = []
    for n in names:
        node = nodes[n]
        if node.op == "reduce":
            attrs = {**dict(node.attrs), "axes": (nodes[node.args[0]].type.shape.index(sweep.shape[0]),)}
        else:
            specs = spec_parts(node.attr("spec"))
            letter = next(c for a, spec in zip(node.args, specs) for c, d in zip(spec, nodes[a].type.shape)
                          if d == lanes[0])
            attrs = {**dict(node.attrs), "spec": f"{specs[0]},{specs[1]}->{letter}"}
        part = replace(node, name=f"{n}.rows", attrs=tuple(sorted(attrs.items())), type=node.type.with_shape(lanes))
        total = Node(f"{n}.total", "reduce", (part.name,), (("axes", (0,)), ("fn", "sum")), node.type)
        nodes |= {part.name: part, total.name: total}
        stores = tuple(replace(s, node=total.name) for s in sweep.stores if s.node == n)
        totals.append(Phase("tile", "map", (), (Group(lanes, (total.name,)),), stores, lane="red"))
    left = (Group(g.dims, tuple(n for n in g.nodes if n not in names)) for g in sweep.groups)
    more = (Group(sweep.shape[:1], tuple(f"{n}.rows" for n in names)),) if names else ()
    sweep = replace(sweep, groups=(*(g for g in left if g.nodes), *more),
                    stores=tuple(s for s in sweep.stores if s.node not in names))
    steps = replace(run.steps, phases=(sweep, *run.steps.phases[1:]))
    return replace(run, nodes=nodes, steps=steps), tuple(totals)


def _sum(node: Node) -> bool:
    return node.attr("fn", node.attr("semiring")) == "sum" and node.type.kind == "real"


def _ends(stores: list[Store]) -> list[Phase]:
    """What a sweep stores after its last row, as phases of their own; those of one shape together."""
    return [Phase("tile", "map", d, stores=tuple(s for s in stores if s.shape == d), lane="par" if d else None)
            for d in dict.fromkeys(s.shape for s in stores)]


def _old(p: Phase, run: Run, reads: dict[str, str]) -> bool:
    """Whether a phase reads an old state."""
    return any(run.nodes[n].op == "state" for n in leaves(p, run.nodes, reads))
