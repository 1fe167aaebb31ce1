"""Schedule IR: what a back end sees of a cell.

A `Kernel` runs one or several cell runs over tiles of time for a block of
sequences. Each run is a list of phases; a phase is one loop nest over the
rows (sequences, and steps of the tile) and the axes of `shape`, with
reduction loops inside, whose results stay in registers for the pointwise
epilogue and are stored to named buffers. Values that several phases need pass
through buffers with a named space; nothing slices or joins a register tile.

Appear here: loops, lanes, blocks, buffers. Gone: concat, stack, pad, place
(they are stores of several pieces), draws of parameters, the static part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...ir.cell import Node
from ...ir.types import Dim, Type
from .triangle import Triangle

# spaces: input/output [B,T,*]; param [*]; first/final [B,*] (states at the ends);
# state [rows,*] (the running value; `next` is its second buffer where needed);
# step [rows,*]; tile [rows,tile,*]; trail [rows,tile+1,*] (a state before every step
# and after the last); sum [*] (accumulated over rows and time);
# check [B, tiles, *] (states at the starts of tiles)
SPACES = ("input", "output", "param", "first", "final", "state", "step", "tile", "trail", "sum", "check")
PER_STEP = ("tile", "trail")


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory with a name: `axes` in layout order, the last one contiguous.
    `heads`: the tensor has one more leading axis, of which this task works on
    one element; `groups` neighbours share it. `rows`: how far apart elements of
    the first axis are is known when running."""

    name: str
    space: str
    kind: str
    axes: tuple[Dim, ...]
    heads: Dim | None = None
    groups: int = 1
    rows: bool = False

    @property
    def numel(self) -> int:
        n = 1
        for d in self.axes:
            n *= d.size
        return n


@dataclass
class Scratch:
    """Names and collects the buffers of a kernel that live per task."""

    prefix: str
    buffers: list[Buffer] = field(default_factory=list)

    def add(self, name: str, space: str, node_type: Type) -> str:
        name = f"{self.prefix}{name}"
        self.buffers.append(Buffer(name, space, node_type.kind, node_type.shape))
        return name

    @property
    def steps(self) -> set[str]:
        """Buffers that one phase of a step hands to another."""
        return {b.name for b in self.buffers if b.space == "step"}


@dataclass(frozen=True, slots=True)
class Pack:
    """A parameter copied into the order in which a product reads it:
    `[others..., lane blocks, reduced axis, members, lanes]`, zero-padded.
    A member is a view of a parameter: per axis of it (letter, offset) or
    (None, constant)."""

    name: str
    members: tuple[tuple[str, tuple[tuple[str | None, int], ...]], ...]
    letters: tuple[tuple[str, int], ...]      # other letters and their sizes, in order
    lane: tuple[str, int]
    reduced: tuple[str, int]
    lanes: int                                # lanes per block


@dataclass(frozen=True, slots=True)
class Store:
    """Store a node's value. Per axis of the buffer: (axis of the node, offset)
    or (None, constant). node None: zeros of the given shape."""

    node: str | None
    buffer: str
    index: tuple[tuple[int | None, int], ...]
    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Reductions that share their loops over `dims` (and their operands)."""

    dims: tuple[Dim, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """One loop nest. `rows` is "map" (each row on its own) or "sum" (rows are
    reduced, the stores accumulate). `lane` is the vectorised axis: "par" the
    last of `shape`, "red" the last reduced one, None for scalars. `block` is
    what is unrolled in registers: "rows", "par" (last or last but one of
    `shape`) or None. `vectors`: registers along the lanes, or, beside `unroll`
    copies along the last axis, so many along the one before it (sums along lanes).
    `triangle`: of the products half matters, and blocks leave out most of the other (with `block="par"`).
    `across`: sums along the lanes, or over all rows and lanes, of what is at the points before they are stored (of a
    product). A `sweep` visits the points of `shape` (leading axes, rows, lanes): its groups
    are sums of these points over rows, lanes or both, what it
    stores has all or some of the axes (all dimensions of `shape` differ)."""

    domain: str
    rows: str
    shape: tuple[Dim, ...]
    groups: tuple[Group, ...] = ()
    stores: tuple[Store, ...] = ()
    lane: str | None = None
    block: str | None = None
    unroll: int = 1
    vectors: int = 1
    weights: bool = False                     # a product with a parameter: rows innermost
    call: str | None = None                   # a node computed as a whole, per row and leading axes (views.CALLS)
    sweep: bool = False
    triangle: Triangle | None = None
    across: tuple[str, ...] = ()

    def written(self, reads: Mapping[str, str]) -> set[str]:
        """Values that are computed here to be stored. Not those that `reads` finds in a buffer of another phase: here
        they are copied from there."""
        places: dict[str | None, set[str]] = {}
        for s in self.stores:
            places.setdefault(s.node, set()).add(s.buffer)
        return {n for n, at in places.items() if n is not None and reads.get(n, next(iter(at))) in at}

    def along(self, dims: tuple[Dim, ...]) -> tuple[str, ...]:
        """Loop variables of the axes of a value computed here that has these dimensions."""
        return tuple(f"p{self.shape.index(d) if self.sweep else i}" for i, d in enumerate(dims))

    def reducing(self, dims: tuple[Dim, ...]) -> tuple[str, ...]:
        """Loop variables of the axes that a reduction here is over."""
        return self.along(dims) if self.sweep else tuple(f"r{i}" for i in range(len(dims)))


@dataclass(frozen=True, slots=True)
class Part:
    """Phases in order, and where values live that they do not compute. `stepwise`: not at every step, but all of them
    at one step of the tile before the next."""

    phases: tuple[Phase, ...]
    reads: dict[str, str]
    stepwise: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One cell over the tile: phases before the steps, before the first one (as
    a part of it), at every step, and after the steps. A node `next` is what the
    step that comes next reads of a buffer (at a tile's last step, what that one
    reads). States live in buffers `PREFIXstate.NAME` and are written to
    `PREFIXnext.NAME`, the same memory unless the state is in `doubled` or has a
    trail (state -> buffer): then they are neighbours there."""

    prefix: str
    reverse: bool
    nodes: dict[str, Node]
    before: Part
    first: Part
    steps: Part
    after: Part
    states: tuple[str, ...]
    doubled: tuple[str, ...]
    trails: dict[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.before, self.first, self.steps, self.after


@dataclass(frozen=True, slots=True)
class Kernel:
    """A host-callable kernel. `ports` are the tensors the host passes, in
    order; `scratch` lives per task. With `checkpoint` = "save" the first run's
    states are stored at the starts of tiles (buffers `check.NAME`), with
    "load" the first run starts every tile from there. `packed` says which
    operands are read from a pack: (node, operand) -> (pack, member); without
    `packing` none is, however large (one step, where packing costs more)."""

    name: str
    heads: Dim | None
    ports: tuple[Buffer, ...]
    scratch: tuple[Buffer, ...]
    runs: tuple[Run, ...]
    reverse: bool
    checkpoint: str | None = None
    lanes: Dim | None = None                  # the axis that work items may take a stretch of
    packs: tuple[Pack, ...] = ()
    packed: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    packing: bool = True
    strip: int = 0                            # rows of the states that go through all steps of a tile together (0: all)

    @property
    def elementwise(self) -> bool:
        """Whether nothing is summed but over rows: what a call costs is then the memory it reads and writes."""
        phases = [p for r in self.runs for part in r.parts for p in part.phases]
        return not any(p.call or p.groups for p in phases if p.rows == "map")
