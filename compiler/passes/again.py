"""Running the forward cell again: which of its values are given to it then.

A backward pass that keeps the states at the starts of tiles only gets the others by running the steps again. Where the
next states need sums over the old ones (`k . S` of a matrix S), the values made of these sums are few, but going over
the states for them takes about as long as the update itself. Forward has made them already: `sums_to_keep` says which
of them it could keep, at every step, so that `repeated`, the cell that runs again, goes from state to state without
sums. Whether that saves loop nests is for the schedule to say (`schedules.build.sums_kept`).

What is kept is a minimum cut (of elements per step) between the sums over states and what the cell that runs again must
make; of equal cuts the one that the backward pass reads anyway, or else that lies latest. No value of more than 1 / FEW
of its state's elements is kept; where that leaves a sum, nothing is: the states would be gone over all the same.

`grams_to_keep` are products between the rows of chunks, decayed from channel to channel, and sums that states have no
part in, which the backward pass reads: a few values per step, each of which takes longer to compute than to keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...ir.cell import Cell, Input, Node, Output
from ...ir.ops import OPS, spec_parts
from ...ir.types import Type
from .dce import Dce, live
from .lower import WHOLE
from .tape import INF, REDUCED, SAVE, Flow, work

FEW = 2         # where they are half, in chunks of delta rules, a training step takes 2 to 4 % less time


def sums_to_keep(forward: Cell, own: int) -> tuple[Output, ...]:
    """Outputs that `forward` could keep besides its first `own`. Those that the backward pass needs itself are among
    its other outputs and have their names; `prev.STATE` stand for the states that are at hand when it runs again."""
    nodes = forward.nodes()
    tape = [o for o in forward.outputs[own:] if nodes[o.value].op != "state"]
    over = _largest_state(forward.body)
    sums = _sums(live(forward.body, [s.next for s in forward.states]), nodes, over)
    if not sums:
        return ()
    wanted = {o.value for o in tape}
    graph = Flow()
    for root in (*(s.next for s in forward.states), *wanted):
        graph.edge("source", ("made", root), INF)
    for n in forward.body:
        if over[n.name]:
            few = n.type.numel * FEW <= over[n.name]
            graph.edge(("made", n.name), ("given", n.name), 2 * n.type.numel - (n.name in wanted) if few else INF)
            for a in n.args:
                graph.edge(("given", n.name), ("made", a), INF)
    for name in sums:
        graph.edge(("given", name), "sink", INF)
    side = graph.cut("source", "sink")
    kept = [n for n in forward.body if over[n.name] and ("made", n.name) in side and ("given", n.name) not in side]
    if any(n.type.numel * FEW > over[n.name] for n in kept):
        return ()
    names = {o.value: o for o in reversed(tape)}
    return tuple(names.get(n.name) or Output(f"kept.{n.name}", n.name, n.span) for n in kept)


def grams_to_keep(forward: Cell, own: int) -> tuple[Output, ...]:
    """Outputs of `forward` beyond its first `own` (what the backward pass needs) that are point by point made of Gram
    matrices with decays and of sums that states have no part in, and take longer to make than to keep, by the costs of
    `tape`."""
    nodes = forward.nodes()
    types = {n.name: n.type for n in forward.body}
    over = _largest_state(forward.body)
    grams: dict[str, frozenset[str]] = {}       # of which a value is made, through pointwise operations and views
    for n in forward.body:
        several = n.type.rank > (n.type.shape[:1] == (forward.heads,))     # one value takes a line of memory, too
        if n.op == "decayed" or n.op == "reduce" and n.attr("fn") == "sum" and several and not over[n.name]:
            grams[n.name] = frozenset({n.name})
        elif OPS[n.op].group in ("pointwise", "structure") and n.op not in WHOLE:
            grams[n.name] = frozenset().union(*(grams[a] for a in n.args))
        else:
            grams[n.name] = frozenset()
    return tuple(o for o in forward.outputs[own:]
                 if SAVE * types[o.value].numel < sum(_pairs(nodes[g], types, o.value) for g in grams[o.value]))


def _pairs(n: Node, types: dict[str, Type], of: str) -> int:
    """Operations of sums or Gram matrices, of which a value `of` is made: of these per pair of rows and column a decay
    for every reader and a product for every pair of operands, and the sums. Its share, if it is made of a part."""
    if n.op == "reduce":
        return work(n, types)
    rows, readers = types[n.args[0]], n.attr("readers")
    ways = readers * (len(n.args) - readers)            # 1 + the writers
    whole = ways * rows.numel * (rows.sizes[-2] - 1) // 2 + REDUCED * n.type.numel
    return whole * types[of].numel // max(types[of].numel, n.type.numel)


def keeping(forward: Cell, own: int, kept: Sequence[Output]) -> Cell:
    """The cell with its first `own` outputs, and those kept."""
    return Dce()(replace(forward, outputs=(*forward.outputs[:own], *kept)))


def repeated(forward: Cell, kept: Sequence[Output], outputs: Iterable[Output]) -> Cell:
    """The cell that reads what was kept, an input each, and makes these outputs."""
    nodes = forward.nodes()
    reads = {o.value: Node(o.value, "input", (), (("name", o.name),), nodes[o.value].type) for o in kept}
    inputs = tuple(Input(o.name, nodes[o.value].type) for o in kept)
    return Dce()(replace(forward, inputs=(*forward.inputs, *inputs), outputs=tuple(outputs),
                         body=tuple(reads.get(n.name, n) for n in forward.body)))


def _largest_state(body: Iterable[Node]) -> dict[str, int]:
    """Elements of the largest old state that each value is made of; 0 where it is of none."""
    out: dict[str, int] = {}
    for n in body:
        out[n.name] = n.type.numel if n.op == "state" else max((out[a] for a in n.args), default=0)
    return out


def _sums(among: Iterable[str], nodes: dict[str, Node], over: dict[str, int]) -> list[str]:
    """Reductions of values that are made of a state and have its size."""
    return [name for name in among if _reduces(nodes[name])
            and any(over[a] and nodes[a].type.numel >= over[a] for a in nodes[name].args)]


def _reduces(n: Node) -> bool:
    if n.op == "contract":
        a, b, out = spec_parts(n.attr("spec"))
        return not {*a, *b} <= {*out}
    return n.op == "reduce"
