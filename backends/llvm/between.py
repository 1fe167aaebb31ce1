"""Asking for memory between the blocks of products.

A step of a chunk reads and writes rows of many ports, one per step of the sequence, which lie far from each other: more
lines than a core waits for at once, in an order that the hardware does not foresee. While a step's products run,
nothing else is asked of memory. So between blocks of their accumulators they ask for a few lines each of what will be
read and written next, all products alike: more at a time, and what they read of the second-level cache waits behind it.
Processors drop some of these requests (on one, always those of certain blocks): two products ask for each row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from llvmlite import ir

from ...compiler.schedules.kernel import Buffer, Kernel, Phase, Run
from ...compiler.schedules.leaves import for_later
from .ahead import LINE, ports, prefetch
from .frame import Frame
from .loops import Nest, i64
from .memory import I8, Index, memory_type, size_of

TERMS = 8               # of a sum, at most, between two turns
TIMES = 2               # products that ask for a row; of a state, which is as long as many rows, one asks
TURNS = 4               # a product of fewer asks for nothing

Place = tuple[int, str, int]    # a phase: number of its run, name of the part, number there


@dataclass(frozen=True, slots=True)
class Wish:
    """The rows of a port at one step of a tile, or a step's part of a state kept at the tile's start, a part of which
    each turn of a product asks for. The step is the present one, the `next` or that of the next `tile`."""

    port: Buffer
    when: str

    @property
    def rows(self) -> int:
        """Stretches of memory."""
        many = self.port.rows or len(self.port.axes) > 1 and self.port.space != "check"
        return self.port.axes[0].size if many else 1

    def numel(self, real: ir.Type) -> int:
        """Lines, of a whole tile where a state is kept."""
        return self.rows * self.lines(real)

    def lines(self, real: ir.Type) -> int:
        """Of each stretch."""
        return -(-self.port.numel // self.rows * size_of(memory_type(self.port.kind, real)) // LINE)


def asking(kernel: Kernel, width: int) -> dict[Place, int]:
    """The products that ask for memory, and how often; none where no step has one."""
    number = {}
    for r, name in _parts(kernel):
        for i, p in enumerate(_phases(kernel, (r, name)) if name != "after" else ()):
            if (n := turns(p, width)) >= TURNS and not for_later(kernel, kernel.runs[r], p):
                number[r, name, i] = n
    return number if any(name == "steps" for _, name, _ in number) else {}


def wishes(kernel: Kernel, real: ir.Type, width: int) -> dict[Place, list[Wish]]:
    """What each product asks for; nothing where no step has one. Ports are dealt out whole, in the order in which they
    are used, each to the product that then has the least to ask for in its time. What is used later in the tile is
    asked for now, the rest for the tile (or step) that comes next."""
    number, parts = asking(kernel, width), _parts(kernel)
    if not number:
        return {}
    out: dict[Place, list[Wish]] = {place: [] for place in number}
    load = dict.fromkeys(number, 0)
    work = {p: _work(_phases(kernel, p[:2])[p[2]]) for p in number}
    for port, used in _used(kernel, parts).items():
        lines = Wish(port, "").numel(real)
        places = [p for p in number if p[1] == "steps" or used]
        for _ in range(min(len(places), 1 if port.space == "check" else TIMES)):
            place = min(places, key=lambda p: (load[p] + lines) / work[p])
            places.remove(place)
            load[place] += lines
            out[place].append(Wish(port, _when(place, used, parts)))
    return out


def _work(p: Phase) -> float:
    """Multiply-adds of a product."""
    (g, *_), half = p.groups, 2 if p.triangle else 1
    return prod(d.size for d in (*p.shape, *g.dims)) * len(g.nodes) / half


def _when(place: Place, used: tuple[int, str] | None, parts: list[tuple[int, str]]) -> str:
    """Of which step a product asks for a port's rows that are first used in that part."""
    if used and parts.index(place[:2]) < parts.index(used):
        return "present"
    return "next" if place[:2] == used and used[1] == "steps" else "tile"


def _parts(kernel: Kernel) -> list[tuple[int, str]]:
    """In the order in which they run."""
    return [(r, name) for r in range(len(kernel.runs)) for name in ("before", "steps", "after")]


def _phases(kernel: Kernel, part: tuple[int, str]) -> tuple[Phase, ...]:
    return getattr(kernel.runs[part[0]], part[1]).phases


def _used(kernel: Kernel, parts: list[tuple[int, str]]) -> dict[Buffer, tuple[int, str] | None]:
    """Ports, and the part that uses them first; None: the tile's start."""
    buffers = {b.name: b for b in kernel.ports}
    out = {buffers[f"check.{s}"]: None for s in kernel.runs[0].states if kernel.checkpoint}
    for r, name in parts:
        for port in ports(kernel.runs[r], getattr(kernel.runs[r], name)):
            if port in buffers and buffers[port].space in ("input", "output"):
                out.setdefault(buffers[port], (r, name))
    return out


def turns(p: Phase, width: int) -> int:
    """How often a product can ask: once per block of accumulators and stretch of its sums; 0 for other phases."""
    if not p.groups or p.sweep or p.call or p.weights or p.rows != "map" or p.block != "par" or len(p.shape) < 2:
        return 0
    return prod(counts(p, width)) * stretches(p)


def stretches(p: Phase) -> int:
    """Parts of the sums, where those lie across the lanes; of sums of different lengths there are none."""
    sums = p.groups[0].dims
    across = p.lane == "par" and len(p.groups) == len(sums) == 1 and p.triangle is None
    return sums[0].size // TERMS if across and sums[0].size % TERMS == 0 else 1


def counts(p: Phase, width: int) -> list[int]:
    """Blocks of accumulators along each axis."""
    return [-(-d.size // n) for d, n in zip(p.shape, sizes(p, width))]


def sizes(p: Phase, width: int) -> list[int]:
    """Elements of a block of accumulators along each axis."""
    out = [1] * len(p.shape)
    if p.lane == "par":
        out[-1] = width * p.vectors
    if p.lane == "red":
        out[-2:] = [p.vectors, p.unroll]
    else:
        out[-2] = p.unroll
    return out


def ask(wish: Wish, kernel: Kernel, run: Run, frame: Frame, nest: Nest, row: Index, step: ir.Value, turn: ir.Value,
        number: int) -> None:
    """In turn `turn` of `number`, for the sequence `row`. A branch that is foreseen wrongly costs more than the turn:
    where it is known how many lines there are for it, there is none."""
    b, port = nest.b, wish.port
    lines, total = wish.lines(frame.real), wish.numel(frame.real)
    place = nest.scopes[nest.depth(v for v in ("tile", "step", "b", "t") if v in nest.depth_of)]
    if (key := ("wish", port.name, wish.when)) not in place.memo:
        place.memo[key] = _start(wish, kernel, run, frame, nest, place.builder, row, step, number)
    start, apart, first, each = place.memo[key]
    begin = b.mul(turn, each)
    begin = b.add(first, begin) if first is not None else begin

    def line(k: ir.Value, ahead: int = 1) -> None:
        b, at = nest.b, start
        if wish.rows > 1:
            at, k = b.add(at, b.mul(b.udiv(k, i64(lines)), apart)), b.urem(k, i64(lines))
        base = b.gep(b.bitcast(b.gep(frame.pointer(b, port.name), [at]), I8.as_pointer()), [b.mul(k, i64(LINE))])
        for n in range(ahead):
            prefetch(b, b.gep(base, [i64(n * LINE)]))

    def one(k, _):
        line(frame.least(nest.b, k, i64(total - 1)))
        return []

    if first is not None:
        nest.loop("ask", begin, b.add(begin, each), 1, [], one)
    elif lines % each.constant == 0:            # none of them in another row
        line(begin if number * each.constant == total else frame.least(b, begin, i64(total - each.constant)),
             each.constant)
    else:
        for k in range(each.constant):
            one(b.add(begin, i64(k)), ())


def _start(wish: Wish, kernel: Kernel, run: Run, frame: Frame, nest: Nest, b: ir.IRBuilder, row: Index, step: ir.Value,
           number: int) -> tuple[ir.Value, ir.Value, ir.Value | None, ir.Value]:
    """Where the port's rows are, how far apart; the first line to ask for (None: 0), and how many in a turn."""
    port, total = wish.port, wish.numel(frame.real)
    back = kernel.reverse if wish.when == "tile" else run.reverse
    if port.space == "check":                       # this step's part
        sb, st = frame.strides[port.name]
        later = b.add(frame.tile, i64(-1 if back else 1))
        part = _part(nest, frame, total)
        return (b.add(b.mul(row.value(b), sb), b.mul(later, st)), i64(0), b.mul(step, part),
                b.udiv(b.add(part, i64(number - 1)), i64(number)))
    by = {"present": i64(0), "next": i64(1), "tile": frame.words["tile"]}[wish.when]
    return (frame.row(b, port, {"b": row}, (b.sub if back else b.add)(step, by)),
            frame.rows.get(port.name, i64(port.numel // wish.rows)), None, i64(-(-total // number)))


def _part(nest: Nest, frame: Frame, lines: int) -> ir.Value:
    """Of so many lines, how many each of a tile's steps asks for."""
    scope = nest.scopes[nest.depth_of["tile"]]
    if ("part", lines) not in scope.memo:
        b, tile = scope.builder, frame.words["tile"]
        scope.memo["part", lines] = b.sdiv(b.add(i64(lines - 1), tile), tile)
    return scope.memo["part", lines]
