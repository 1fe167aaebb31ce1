"""Take the heads axis out of a cell whose heads never meet.

Each task of the kernel then works on one head with the state of one head: the
axis becomes part of the grid. A cell that mixes heads keeps the axis, as one
more loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.cell import Cell, Node
from ...ir.ops import OPS, spec_parts


@dataclass(frozen=True)
class Heads:
    """A cell for one head. `ports`: for every input, param, state, output and
    sum whether it has the axis; `groups`: heads per element of a grouped input."""

    cell: Cell
    ports: frozenset[str]
    groups: dict[str, int]


class Mixed(Exception):
    """The heads meet; said by `strip` to itself."""


def strip(cell: Cell) -> Heads | None:
    """The cell for one head, or None if its heads mix (or it has none)."""
    if cell.heads is None or cell.heads.size < 2:
        return None
    try:
        return _strip(cell)
    except Mixed:
        return None


def _strip(cell: Cell) -> Heads:
    head, nodes = cell.heads, cell.nodes()
    at: dict[str, int | None] = {}             # position of the axis in every value
    groups: dict[str, int] = {}
    body: list[Node] = []
    for n in cell.body:
        at[n.name], node = follow(n, at, nodes, head, groups)
        body.append(node)
    grouped = {nodes[name].attr("name"): times for name, times in groups.items()}
    for s in cell.states:
        if at[s.next] != (0 if s.type.shape[:1] == (head,) else None):
            raise Mixed
    ports = {"in." + p.name for p in cell.inputs if p.name in grouped or p.type.shape[:1] == (head,)}
    ports |= {"par." + p.name for p in cell.params if p.type.shape[:1] == (head,)}
    ports |= {"state." + s.name for s in cell.states if s.type.shape[:1] == (head,)}
    for o in (*cell.outputs, *cell.sums):
        if at[o.value] != 0:
            raise Mixed                         # the same for all heads, or an axis moved

    def less(t):
        return t.with_shape(t.shape[1:])

    return Heads(
        replace(
            cell,
            heads=None,
            body=tuple(body),
            inputs=tuple(replace(p, type=less(p.type)) if "in." + p.name in ports else p for p in cell.inputs),
            params=tuple(replace(p, type=less(p.type)) if "par." + p.name in ports else p for p in cell.params),
            states=tuple(replace(s, type=less(s.type)) if "state." + s.name in ports else s for s in cell.states),
        ),
        frozenset(ports),
        grouped,
    )


def follow(n: Node, at, nodes, head, groups) -> tuple[int | None, Node]:
    """Where the axis `head` is in a node's value (`at`: in the values before), and the node without it."""
    t = n.type
    out = {"input": 0, "param": 0, "state": 0}.get(n.op)
    if n.op in ("input", "param", "state"):
        if t.shape[:1] == (head,):
            return 0, replace(n, type=t.with_shape(t.shape[1:]))
        return None, n
    where = [at[a] for a in n.args]
    moved = {k: v for k, v in n.attrs}
    if OPS[n.op].group == "pointwise":
        if len(set(where)) > 1 or (where[0] is None and head in t.shape):
            raise Mixed
        out = where[0]
    elif n.op == "broadcast":
        axes = n.attr("axes")
        if where[0] is not None:
            out = axes[where[0]]
            axes = tuple(p for i, p in enumerate(axes) if i != where[0])
        else:
            new = [i for i, d in enumerate(t.shape) if d == head and i not in axes]
            out = new[0] if len(new) == 1 else None
        if out is not None:
            moved["axes"] = tuple(p - (p > out) for p in axes)
    elif n.op == "interleave" and n.attr("axis") == 0 and t.shape[:1] == (head,) and nodes[n.args[0]].op == "input" \
            and where[0] is None:
        src = nodes[n.args[0]]
        groups[src.name] = n.attr("times")
        return 0, replace(src, name=n.name, type=t.with_shape(t.shape[1:]))
    elif n.op in ("slice", "pad", "index", "place", "concat", "stack", "cumsum", "running", "cumprod", "cumprod_back",
                  "interleave", "fold"):
        if len(set(where)) > 1:
            raise Mixed
        p, axis = where[0], n.attr("axis")
        if p is not None:
            if n.op in ("place", "stack"):
                out = p + (axis <= p)
            elif axis == p:
                raise Mixed
            else:
                out = p - (n.op == "index" and axis < p)
            moved["axis"] = axis - (axis > p if n.op not in ("place", "stack") else axis > out)
    elif n.op == "reduce":
        p, axes = where[0], n.attr("axes")
        if p is not None:
            if p in axes:
                raise Mixed
            out = p - sum(a < p for a in axes)
            moved["axes"] = tuple(a - (a > p) for a in axes)
    elif n.op == "contract":
        a, b, o = spec_parts(n.attr("spec"))
        letters = {s[p] for s, p in ((a, where[0]), (b, where[1])) if p is not None}
        if len(letters) > 1:
            raise Mixed
        if letters:
            c, = letters
            if c not in o or any(c in s and p is None for s, p in ((a, where[0]), (b, where[1]))):
                raise Mixed
            out = o.index(c)
            moved["spec"] = f"{a.replace(c, '')},{b.replace(c, '')}->{o.replace(c, '')}"
    elif OPS[n.op].group == "linalg":
        if any(p not in (0, None) for p in where) or len(set(where)) > 1:
            raise Mixed
        out = where[0]
    elif n.op in ("iota", "literal", "training"):
        return None, n
    else:
        raise Mixed                             # random: element numbers include the head
    if out is None:
        return None, n
    return out, replace(n, type=t.with_shape(t.shape[:out] + t.shape[out + 1:]), attrs=tuple(sorted(moved.items())))
