"""The fused sequential schedule: a cell becomes one run over tiles of time.

Work that depends on inputs only is done before the steps of a tile, what only
reads the steps' values after them; both see `rows x tile` points at once.
Gradients of parameters are sums over the rows of a tile.
"""

from __future__ import annotations

from ...ir.cell import Cell, Node
from ...ir.types import Dim
from ..analysis.domains import domains, has_weights
from ..passes.dce import live
from .hazards import doubled
from .kernel import Part, Phase, Run, Scratch
from .order import check_order
from .phases import Planner
from .rotate import Rotation
from .sums import SumPlanner
from .units import inline_leaves
from .views import ASSEMBLED, CALLS, is_reduction, reduced_dims

STRUCTURE = ("broadcast", "slice", "index", "interleave")


def _delayed(cell: Cell, part: dict[str, str]) -> dict[str, Node]:
    """The nodes in order, but products that are larger than their factors, and that only steps read, come where they
    are read first, as a part of the steps: the update of a matrix state then stays in registers."""
    nodes = cell.nodes()
    users: dict[str, list[str]] = {n: [] for n in nodes}
    for n in cell.body:
        for a in n.args:
            users[a].append(n.name)
    stored = {o.value for o in (*cell.outputs, *cell.sums)}
    late: dict[str, list[str]] = {}
    for name, n in nodes.items():
        if part[name] == "pre" and n.op == "contract" and is_reduction(n) and not has_weights(n, nodes) and \
                n.type.numel > sum(nodes[a].type.numel for a in n.args) and name not in stored and users[name] and \
                all(part[u] == "step" for u in users[name]):
            late.setdefault(users[name][0], []).append(name)
    for name in (n for group in late.values() for n in group):
        part[name] = "step"
    moved = {n for group in late.values() for n in group}
    order = [n for name in nodes if name not in moved for n in (*late.get(name, ()), name)]
    return {n: nodes[n] for n in order}


def build_run(cell: Cell, scratch: Scratch, inputs: dict[str, str], params: dict[str, str],
              outputs: dict[str, str], sums: dict[str, str], *, packing: bool = True,
              shared: frozenset[str] = frozenset(), trails: dict[str, str] | None = None,
              made: dict[str, str] | None = None) -> Run:
    """Plan a cell. The dictionaries say which buffer each port is bound to.
    Without `packing` products read parameters in the order they lie in memory
    (one step for few sequences, where packing would cost more than the step).
    `shared`: expensive values that steps take from the part before even where
    they read them only once, as that part needs them itself. `trails`: states
    that run along a buffer instead of being copied to it. `made`: values that an
    earlier run leaves in buffers of the tile."""
    trails, made = trails or {}, made or {}
    mark = len(scratch.buffers)
    part = with_sweeps(cell, {n: "pre" if d == "static" else d for n, d in domains(cell).items()})
    nodes = _delayed(cell, part)
    reads = {n.name: (inputs if n.op == "input" else params)[n.attr("name")]
             for n in cell.body if n.op in ("input", "param")} | made
    state_reads = {n.name: f"{scratch.prefix}state.{n.attr('name')}" for n in cell.body if n.op == "state"}

    def tile(node: str) -> str:
        return scratch.add(f"tile.{node}", "tile", nodes[node].type)

    before = Planner(nodes, dict(reads), "tile", tile, lambda n, often, dear=False: False, packing)
    given: dict[str, str] = {}
    own: set[str] = set()

    def from_before(n: str, often: bool, dear: bool = False) -> bool:
        """Steps ask the part before for what is worth computing a tile at a time. Not for a pointwise value that
        they read at its own points only: through the registers it costs the same, through memory twice its size."""
        if part[n] != "pre" or nodes[n].op in STRUCTURE:
            return False
        leaves, costly = inline_leaves(n, nodes, lambda m: m in reads)
        if costly and not often and n not in shared:
            own.add(n)
        pays = (costly or dear) and nodes[n].type.numel <= 2 * sum(nodes[m].type.numel for m in leaves)
        if not (is_reduction(nodes[n]) or nodes[n].op in ASSEMBLED + CALLS or pays and (often or n in shared)):
            return False
        if n not in given:
            given[n] = tile(n)
            before.store(n, given[n])
        steps.reads[n] = given[n]
        return True

    steps = Planner(nodes, {**reads, **state_reads}, "step",
                    lambda n: scratch.add(f"step.{n}", "step", nodes[n].type), from_before, packing)
    kept: dict[str, str] = {}

    def from_steps(n: str, often: bool, dear: bool = False) -> bool:
        if nodes[n].op in STRUCTURE:
            return False
        if part[n] == "pre":
            costly = inline_leaves(n, nodes, lambda m: is_reduction(nodes[m]) or m in reads)[1]
            if from_before(n, often or costly, dear):
                after.reads[n] = given[n]
                return True
            return False
        if part[n] != "step":
            return False
        leaves, _ = inline_leaves(n, nodes, lambda m: m in after.reads or part[m] == "step" and m != n)
        if nodes[n].args and not is_reduction(nodes[n]) and nodes[n].op not in ASSEMBLED + CALLS and \
                nodes[n].type.numel > sum(nodes[m].type.numel for m in leaves):
            return False
        keep(n)
        after.reads[n] = kept[n]
        return True

    def keep(n: str) -> None:
        if n not in kept:
            kept[n] = next((b for b in steps.targets.get(n, ()) if b in outputs.values()), None) or tile(n)
            if kept[n] not in steps.targets.get(n, ()):
                steps.store(n, kept[n])

    after = Planner(nodes, dict(reads), "tile", tile, from_steps, packing)

    for s in cell.states:
        steps.store(s.next, f"{scratch.prefix}next.{s.name}")
        if s.name not in trails:
            for role in ("next", "state"):
                scratch.add(f"{role}.{s.name}", "state", s.type)
    where = {"pre": before, "step": steps, "post": after}
    for o in cell.outputs:
        if outputs[o.name] not in trails.values():
            where[part[o.value]].store(o.value, outputs[o.name])
    sums_of = SumPlanner(nodes, part, reads, before_or_kept=from_steps, after=after, steps=steps, tile=tile)
    for o in cell.sums:
        sums_of.plan(o.value, sums[o.name])

    late = after.plan()
    during = steps.plan() + tuple(sums_of.in_steps)
    early = before.plan()
    if twice := own & before.costly:
        del scratch.buffers[mark:]
        return build_run(cell, scratch, inputs, params, outputs, sums, packing=packing, shared=shared | twice,
                         trails=trails, made=made)
    steps.reads.update(state_reads)
    first: tuple[Phase, ...] = ()
    if packing:                                 # else for a step or a few: those ahead would not pay
        known = frozenset((*inputs.values(), *given.values(), *made.values()))
        first, during = Rotation(nodes, steps.reads, known, scratch).rotate(during)
    run = Run(scratch.prefix, cell.reverse, nodes, Part(early, before.reads), Part(first, steps.reads),
              Part(during, steps.reads), Part(late + tuple(sums_of.afterwards), after.reads),
              tuple(s.name for s in cell.states),
              tuple(s for s in doubled(cell, during, nodes, steps.reads) if s not in trails), trails)
    check_order(run)
    return run


def with_sweeps(cell: Cell, part: dict[str, str]) -> dict[str, str]:
    """The domains with sums over a matrix that the steps read anyway (an old state that the backward pass is given)
    made in the steps, where it is in registers, and not ahead of them; what only follows from them comes later. Nor
    after them: sums over a matrix that the steps compute, for a sum over time."""
    nodes = cell.nodes()
    shapes = {s.type.shape for s in cell.states if s.type.rank > 1}
    for n in cell.body:
        if part[n.name] == "post" and is_reduction(n) and any(nodes[a].type.shape in shapes for a in n.args):
            needed = [m for m in live(cell.body, [n.name]) if part[m] == "post"]
            if not any(has_weights(nodes[m], nodes) for m in needed):
                part = part | dict.fromkeys(needed, "step")
    read: dict[str, set[str]] = {}              # inputs of a state's shape that a value is made of, sums left out
    for n in cell.body:
        mine = {n.name} if n.op == "input" and n.type.shape in shapes else set()
        read[n.name] = mine | {m for a in n.args if not is_reduction(nodes[a]) for m in read[a]}
    swept = {m for n in cell.body if part[n.name] == "step" for m in read[n.name]}

    def joins(n: Node) -> bool:
        if not is_reduction(n) or has_weights(n, nodes):
            return False
        rank = n.type.rank + len(reduced_dims(n, nodes))          # a product of matrices is no sum of one's points
        return any(nodes[m].type.rank == rank for m in read[n.name] & swept)

    moved: set[str] = set()
    for n in cell.body:
        if part[n.name] == "pre" and (any(a in moved for a in n.args) or joins(n)):
            moved.add(n.name)
    needed = live(cell.body, [n.name for n in cell.body if part[n.name] == "step"])
    part = part | {n: "step" if n in needed or is_reduction(nodes[n]) else "post" for n in moved}
    return part | dict.fromkeys(_epilogue(cell, part, shapes), "post")


def _epilogue(cell: Cell, part: dict[str, str], shapes: set[tuple[Dim, ...]]) -> set[str]:
    """What the steps make of a matrix's sums for outputs only, and not where the sums are in registers: loops over a
    few values, for which a step would wait. Sums over rows end in registers, those along rows and of vectors do not."""
    nodes = cell.nodes()
    sums = {n.name: reduced_dims(n, nodes) for n in cell.body if part[n.name] == "step" and is_reduction(n)
            and any(nodes[a].type.shape in shapes for a in n.args)}
    needed = live(cell.body, [s.next for s in cell.states] + list(sums))
    lanes = {shape[-1] for shape in shapes}
    follows, late = set(sums), set()
    for n in cell.body:
        if part[n.name] == "step" and n.type.shape not in shapes and \
                all(part[a] in ("static", "pre") or a in follows for a in n.args):
            follows.add(n.name)
            if n.name not in needed and (is_reduction(n) or any(a in late or lanes & {*sums.get(a, ())}
                                                                for a in n.args)):
                late.add(n.name)
    for n in reversed(cell.body):               # what reads a late value is late
        if n.name not in late and part[n.name] != "post":
            late -= {*n.args}
    return late
