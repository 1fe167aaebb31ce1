"""Register blocking and packing, from a model of the host's registers.

A product with a parameter keeps `unroll x members x vectors` accumulators:
`unroll` rows share every load of a weight, `vectors` share every load of a
state. Its parameter is packed into the order of the loops unless it is
contiguous along the lanes already (and small enough to stay in cache).
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.ops import spec_parts
from .chains import chains
from .kernel import Kernel, Pack, Part, Phase, Run
from .triangle import triangle
from .units import EXPENSIVE
from .views import is_product, param_view, reduced_letters

ACCUMULATORS = 24     # of the host's 32 vector registers (16 on hosts without AVX-512)


POINTS = 512          # operations of the body of a sweep's loop, at most: code size
LARGE = 64 * 1024     # elements from which a parameter is packed even if its lanes are contiguous: it is streamed


def tune(kernel: Kernel, width: int, registers: int = 32) -> Kernel:
    """`width`: lanes of a register. Chooses blocks and packs for every phase."""
    budget = ACCUMULATORS if registers >= 32 else 12
    packs: dict[str, Pack] = {}
    packed: dict[tuple[str, int], tuple[str, int]] = {}
    per_head = {b.name.removeprefix("par.") for b in kernel.ports if b.space == "param" and b.heads}

    def part(run: Run, p: Part) -> Part:
        return replace(p, phases=tuple(
            _sweep(q, run, p, width, budget, kernel) if q.sweep else
            _halved(_phase(q, run, p, width, budget, kernel.packing, per_head, packs, packed), run) for q in p.phases))

    runs = tuple(replace(r, before=part(r, r.before), first=part(r, r.first), steps=part(r, r.steps),
                         after=part(r, r.after)) for r in kernel.runs)
    if kernel.strip:                            # the runs share their blocks of lanes
        least = min(r.steps.phases[0].vectors for r in runs)
        runs = tuple(replace(r, steps=replace(r.steps, phases=(replace(r.steps.phases[0], vectors=least),)))
                     for r in runs)
    return replace(kernel, runs=runs, packs=tuple(packs.values()), packed=packed)


def _halved(p: Phase, run: Run) -> Phase:
    return replace(p, triangle=triangle(p, run.nodes))


def _vectors(size: int, width: int, most: int) -> int:
    """How many vectors per block: the largest divisor (<= most) of the axis's full vectors."""
    full = size // width
    return max((v for v in range(1, max(1, most) + 1) if full % v == 0), default=1) if full else 1


def _rows(size: int, most: int) -> int:
    """Rows per block: as many as there are registers for, none left over (half as many run as fast, in half the code)
    or else few."""
    if 2 * (most_even := max(u for u in range(1, most + 1) if size % u == 0)) >= most:
        return most_even
    return min(range(1, most + 1), key=lambda u: (-(-size // u) + size % u * 0.25, -u))


def _is_product(p: Phase, run: Run) -> bool:
    """Products of matrices that vary from step to step: columns share an operand, and rows the other."""
    return len(p.shape) > 1 and len(p.groups) == 1 and all(is_product(run.nodes[n]) for n in p.groups[0].nodes)


def _sweep(p: Phase, run: Run, part: Part, width: int, budget: int, kernel: Kernel) -> Phase:
    """A sweep: `vectors` registers of a row at a time, as many as leave sums over the rows in registers, so that
    sums of rows are rarely sums of blocks; `unroll` rows whose sums are added up together."""
    columns = sum(len(g.nodes) for g in p.groups if g.dims == p.shape[-2:-1])
    along = sum(len(g.nodes) for g in p.groups if g.dims == p.shape[-1:])
    work = _work(p, run, part)
    most = max(1, min(4 if p.shape[-1] == kernel.lanes else 8, budget * 2 // 3 // max(1, columns), POINTS // work))
    vectors = _vectors(p.shape[-1].size, width, most)
    if kernel.strip:
        return replace(p, vectors=vectors, unroll=kernel.strip)
    rows = next(u for u in (4, 2, 1) if u == 1 or u * vectors * work <= POINTS and u <= p.shape[-2].size and along)
    return replace(p, vectors=vectors, unroll=rows)


def _work(p: Phase, run: Run, part: Part) -> int:
    """Operations per point of a sweep; functions count for as many as they take."""
    own, seen, total = {n for g in p.groups for n in g.nodes} | {s.node for s in p.stores}, set(), 0
    todo = list(own)
    while todo:
        n = todo.pop()
        if n in seen or n in part.reads and n not in own:
            continue
        seen.add(n)
        total += 16 if run.nodes[n].op in EXPENSIVE else 1
        todo += run.nodes[n].args
    return max(1, total)


def _phase(p: Phase, run: Run, part: Part, width: int, budget: int, packing: bool, per_head: set[str], packs,
           packed) -> Phase:
    members = max((len(g.nodes) for g in p.groups), default=1)
    if p.rows == "sum":
        count = max(1, len(p.stores))
        if len(p.shape) < 2:
            return replace(p, vectors=_vectors(p.shape[-1].size, width, 4) if p.shape else 1)
        unroll = 4 if p.shape[-2].size >= 4 else 1
        return replace(p, block="par", unroll=unroll,
                       vectors=_vectors(p.shape[-1].size, width, min(4, budget // (unroll * count))))
    if p.weights and p.lane == "par":
        unroll = next(u for u in (4, 2, 1) if u * members <= budget)
        vectors = _vectors(p.shape[-1].size, width, min(4, budget // (unroll * members)))
        if unroll * members * vectors <= budget // 2 and unroll * 2 * members * vectors <= budget:
            unroll *= 2
        out = replace(p, block="rows", unroll=unroll, vectors=vectors)
        for g in p.groups if packing else ():
            _pack(g.nodes, out, run, width, per_head, packs, packed)
        return out
    if p.lane == "red":
        dims = p.groups[0].dims
        if p.shape:
            unroll, vectors = _sums(p, run, width, budget, members)
            return replace(p, block="par", unroll=unroll, vectors=vectors)
        return replace(p, vectors=_vectors(dims[-1].size, width, 4))
    if p.lane == "par" and _is_product(p, run):
        members -= sum(len(sums) - 1 for sums, _ in chains(p, run.nodes, part.reads).values())
        vectors = _vectors(p.shape[-1].size, width, min(4, budget // (2 * members)))
        most = min(8, (budget if members > 2 else budget * 2 // 3) // (vectors * members))   # some for what they add up
        return replace(p, block="par", vectors=vectors, unroll=_rows(p.shape[-2].size, most))
    if p.lane == "par":
        return replace(p, vectors=_vectors(p.shape[-1].size, width, max(1, 4 // members) if p.groups else 2))
    return p


def _sums(p: Phase, run: Run, width: int, budget: int, members: int) -> tuple[int, int]:
    """Copies along the last axis, and along the one before it, of sums along the lanes. In a block of copies along both
    each register loaded is a factor for several sums; sums that fill a register are added up side by side (`nests`)."""
    size, most = p.shape[-1].size, min(4, width)        # copies along the last axis come to lie in one register
    n, beside = max(1, min(most, 8 // members)) if size >= 4 else 1, 1
    if p.weights or any(run.nodes[m].op != "contract" for g in p.groups for m in g.nodes):
        return n, 1
    while n < most and 2 * n * members <= budget and size % (2 * n) == 0:
        n *= 2
    while len(p.shape) > 1 and 3 * beside * n * members <= budget and p.shape[-2].size % (2 * beside) == 0:
        beside *= 2
    while 2 * n <= width and 2 * n * beside * members <= budget and size % (2 * n) == 0:
        n *= 2
    return n, beside


def _pack(members: tuple[str, ...], p: Phase, run: Run, width: int, per_head: set[str], packs, packed) -> None:
    """Pack the parameters of products that share their loops, where it helps."""
    by_key: dict[tuple, list[tuple[str, int, str, tuple]]] = {}
    for name in members:
        node = run.nodes[name]
        lane = spec_parts(node.attr("spec"))[2][-1]
        letters = reduced_letters(node)
        for k, (arg, spec) in enumerate(zip(node.args, spec_parts(node.attr("spec")))):
            view = param_view(arg, tuple((c, 0) for c in spec), run.nodes)
            if view is None or lane not in spec or letters[-1] not in spec:
                continue
            if view[1][-1][0] == lane and run.nodes[arg].type.numel < LARGE:
                continue
            if sorted(v for v, _ in view[1] if v) != sorted(spec):
                continue
            sizes = dict(zip(spec, (d.size for d in run.nodes[arg].type.shape)))
            others = tuple((c, sizes[c]) for c in dict.fromkeys(spec) if c not in (lane, letters[-1]))
            key = (others, (lane, sizes[lane]), (letters[-1], sizes[letters[-1]]), view[0] in per_head)
            by_key.setdefault(key, []).append((name, k, *view))
    for (others, lane, reduced, _), views in by_key.items():
        pack = Pack(
            f"pack.{run.prefix}{views[0][0]}.{views[0][1]}",
            tuple((v[2], v[3]) for v in views),
            others,
            lane,
            reduced,
            p.vectors * width,
        )
        packs[pack.name] = pack
        for m, (name, k, _, _) in enumerate(views):
            packed[(run.prefix + name, k)] = (pack.name, m)
