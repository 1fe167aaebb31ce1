"""Values at a point: from registers, from buffers, or computed on demand.

`value(node, idx, c)` emits code for one element (or the lanes of one
register) of a node, recursing through everything that has no buffer. What is
emitted lands in the outermost loop that binds the variables it depends on,
and is remembered there.
"""

from __future__ import annotations

from llvmlite import ir

from ...compiler.schedules.kernel import Buffer, Kernel, Pack, Part, Phase, Run, Store
from ...compiler.schedules.views import operand_indices
from ...ir.cell import Node
from ...ir.ops import OPS, spec_parts
from . import math, random
from .ahead import fetched, prefetch
from .loops import I64, Nest, i64
from .memory import BIT, Index, lane_stride, load, memory_type, offset_of, size_of, store
from .vector import fma, splat

PREFETCH_FROM = 512 * 1024     # packs larger than this are streamed from beyond the second-level cache
PREFETCH_AHEAD = 8 * 1024      # bytes
BACK_AHEAD, BACK_MOST = 4 * 1024, 16 * 1024   # bytes ahead, and of a row, where steps go back in time
CONSTANTS = frozenset(("literal", "iota", "training"))      # leaves that live in no buffer but one they are stored in


class Evaluator:
    """Shared by all phases of one part: knows buffers, rows and packs.

    `frame` gives, per buffer, its pointer and row strides (see `kernel.py`)."""

    def __init__(self, kernel: Kernel, run: Run, part: Part, frame, nest: Nest, real: ir.Type, width: int,
                 rows_b: ir.Value, rows_t: ir.Value | None, step: ir.Value | None):
        self.kernel, self.run, self.part, self.frame, self.nest = kernel, run, part, frame, nest
        self.nodes: dict[str, Node] = run.nodes
        self.real, self.width = real, width
        self.rows_b, self.rows_t, self.step = rows_b, rows_t, step
        self.at: dict[str, list[Index]] = {}
        self.results: dict[tuple, ir.Value] = {}
        self.own: set[str] = set()
        self.phase: Phase | None = None
        self.lane_block: tuple = (i64(0), 0)
        self.asked = False                      # whether what is read is asked for elsewhere
        self._static: dict[str, bool] = {}
        self._below_memo: dict[str, set[str]] = {}

    def buffer(self, name: str) -> Buffer:
        return self.frame.buffers[name]

    # -- computing ------------------------------------------------------
    def value(self, name: str, idx: tuple[Index, ...], c: dict[str, Index]) -> ir.Value:
        """The node's value at `idx` for the row (and copy) of `c`."""
        held = self.results.get((name, tuple(ix.key for ix in c.values())))
        if held is not None and all(ix is c.get(f"p{i}") for i, ix in enumerate(idx)):
            return held
        node = self.nodes[name]
        rows = () if self.is_static(name) else tuple(c[r].key for r in ("b", "t") if r in c)
        key = (self.run.prefix, name, tuple(ix.key for ix in idx), rows)    # runs may share names, not values
        variables = [ix.var for ix in idx] + ([] if self.is_static(name) else [c[r].var for r in ("b", "t") if r in c])
        if self._below(name):
            variables += [ix.var for ix in c.values()]
        scope = self.nest.scopes[self.nest.depth(variables)]
        if key not in scope.memo:
            scope.memo[key] = self._compute(node, idx, c, scope.builder)
        return scope.memo[key]

    def _below(self, name: str) -> set[str]:
        """Reduction results of this phase that an inline evaluation would use."""
        if name in self._below_memo:
            return self._below_memo[name]
        grouped = {n for g in self.phase.groups for n in g.nodes}
        if not grouped or self.phase.rows == "sum" or not self.results:
            return set()
        found, todo = set(), [name]
        while todo:
            n = todo.pop()
            if n in grouped:
                found.add(n)
            elif n in self.own or n not in self.part.reads:
                todo += self.nodes[n].args
        self._below_memo[name] = found
        return found

    def is_static(self, name: str) -> bool:
        """Does not depend on the row: parameters and literals only."""
        if name not in self._static:
            node = self.nodes[name]
            leaf = not node.args or (name in self.part.reads)
            free = node.op in ("literal", "iota", "training") and name not in self.part.reads   # in a buffer: the row's
            self._static[name] = (free or node.op == "param") if leaf else \
                node.op != "random" and all(self.is_static(a) for a in node.args)
        return self._static[name]

    def _compute(self, node: Node, idx, c, b: ir.IRBuilder) -> ir.Value:
        written = node.name in self.own and (node.args or node.op in CONSTANTS)
        if node.name in self.part.reads and not written:
            step = self._next(b) if node.op == "next" else self.step
            return self.get(self.part.reads[node.name], idx, c, b, step)
        match node.op:
            case "literal":
                t = {"real": self.real, "int": I64, "bool": BIT}[node.type.kind]
                return ir.Constant(t, node.attr("value"))
            case "iota":
                return self._lane_numbers(idx[0], b)
            case "training":
                return b.trunc(self.frame.training, BIT)
            case "random":
                return self._random(node, idx, c, b)
            case "gather":
                return self._gather(node, idx, c, b)
            case "fold":
                return self._fold(node, idx, c, b)
            case "interleave":
                axis, times = node.attr("axis"), node.attr("times")
                return self._spread(node, idx, axis, lambda v: b.sdiv(v, i64(times)), c, b)
        args = [self.value(a, tuple(at), c) for a, at in operand_indices_at(node, idx)]
        if node.op in ("broadcast", "slice", "index", "custom_grad"):
            return args[0]
        width = max((a.type.count for a in args if isinstance(a.type, ir.VectorType)), default=0)
        args = [splat(b, a, width) for a in args]
        if node.op == "contract":
            return b.fmul(*args) if node.type.kind == "real" else math.emit(b, "mul", *args)
        if OPS[node.op].group != "pointwise":
            raise NotImplementedError(f"operation {node.op!r} on the llvm back end: use backend=\"interpreter\"")
        return math.emit(b, node.op, *args, to=self.real)

    def _lane_numbers(self, ix: Index, b) -> ir.Value:
        base = ix.value(b)
        if not ix.width:
            return base
        steps = ir.Constant(ir.VectorType(I64, ix.width), list(range(ix.width)))
        return b.add(splat(b, base, ix.width), steps)

    def _random(self, node: Node, idx, c, b) -> ir.Value:
        t = self.value(node.args[0], (), c)
        at, stride = self.frame.sequence(b, c), 1
        number = b.mul(at, i64(node.type.numel))
        for d, ix in zip(reversed(node.type.shape), reversed(idx)):
            v = self._lane_numbers(ix, b)
            v = b.mul(v, splat(b, i64(stride), ix.width)) if stride > 1 else v
            width = max(x.type.count if isinstance(x.type, ir.VectorType) else 0 for x in (number, v))
            number = b.add(splat(b, number, width), splat(b, v, width))
            stride *= d.size
        draw = random.uniform if node.attr("dist") == "uniform" else random.normal
        return draw(b, self.frame.seed, node.attr("site"), t, number, self.real)

    def _spread(self, node: Node, idx, axis: int, move, c, b) -> ir.Value:
        """Read at computed positions along `axis`, lane by lane if it is the lanes'."""
        ix = idx[axis]
        moved = [(*idx[:axis], Index(("moved", ix.var), ix.copy, move(b.add(ix.value(b), i64(k)))), *idx[axis + 1:])
                 for k in range(max(1, ix.width))]
        values = [self._leaf(node.args[0], at, c, b) for at in moved]
        if not ix.width:
            return values[0]
        out = ir.Constant(ir.VectorType(values[0].type, ix.width), ir.Undefined)
        for k, v in enumerate(values):
            out = b.insert_element(out, v, ir.Constant(ir.IntType(32), k))
        return out

    def _leaf(self, name: str, idx, c, b) -> ir.Value:
        if name not in self.part.reads:
            raise NotImplementedError(f"{name}: a value without a buffer is read at computed places")
        return self.get(self.part.reads[name], idx, c, b, self.step)

    def _fold(self, node: Node, idx, c, b) -> ir.Value:
        axis, times, total = node.attr("axis"), node.attr("times"), None
        for k in range(times):
            x = self._spread(node, idx, axis, lambda v: b.add(b.mul(v, i64(times)), i64(k)), c, b)
            total = x if total is None else math.emit(b, "add", total, x)
        return total

    def _gather(self, node: Node, idx, c, b) -> ir.Value:
        """One element where the position says, or 0; lane by lane if positions or batch differ between lanes."""
        (x, i), axis, batch = node.args, node.attr("axis"), node.attr("batch")
        end = axis + node.attr("places")
        at = self.value(i, (*idx[:batch], *idx[axis:end]), c)
        before, after = idx[:axis], idx[end:]
        n = self.nodes[x].type.shape[axis].size

        def one(at: ir.Value, before, after) -> ir.Value:
            inside = b.icmp_unsigned("<", at, i64(n))
            place = Index(("gathered", id(at)), 0, b.select(inside, at, i64(0)))
            found = self._leaf(x, (*before, place, *after), c, b)
            return b.select(inside, found, ir.Constant(found.type, None))

        if n == 0:
            t = {"real": self.real, "int": I64, "bool": BIT}[node.type.kind]
            return ir.Constant(t, None)
        if not isinstance(at.type, ir.VectorType):
            return one(at, before, after)
        out = None
        for k in range(at.type.count):
            place = ir.Constant(ir.IntType(32), k)
            v = one(b.extract_element(at, place), _lane(b, before, k), _lane(b, after, k))
            out = ir.Constant(ir.VectorType(v.type, at.type.count), ir.Undefined) if out is None else out
            out = b.insert_element(out, v, place)
        return out

    # -- accumulating ---------------------------------------------------
    def accumulate(self, name: str, acc: ir.Value, c: dict[str, Index], idx: tuple[Index, ...],
                   red: tuple[Index, ...]) -> ir.Value:
        """`acc` combined with the next term of the reduction at `idx`."""
        node, b = self.nodes[name], self.nest.b
        if node.op == "contract" and node.attr("semiring") == "sum":
            return self.add_product(name, acc, c, idx, red)
        if node.op == "contract":
            raise NotImplementedError(f"semiring {node.attr('semiring')!r} on the llvm back end")
        (arg, at), = operand_indices_at(node, idx, red)
        width, term = acc.type.count if isinstance(acc.type, ir.VectorType) else 0, self.nodes[arg]
        if node.attr("fn") == "sum" and term.op == "mul" and term.type.kind == "real" and arg not in self.part.reads:
            return fma(b, *(splat(b, self.value(a, i, c), width) for a, i in operand_indices_at(term, at)), acc)
        return self._combine(name, acc, splat(b, self.value(arg, at, c), width))

    def add_product(self, name: str, acc: ir.Value, c, idx, red) -> ir.Value:
        """acc + term, with a fused multiply-add where the term is a product."""
        node, b = self.nodes[name], self.nest.b
        width = acc.type.count if isinstance(acc.type, ir.VectorType) else 0
        if node.op == "contract" and (red or name not in self.part.reads):
            pair = [self._operand(node, k, a, at, c) for k, (a, at) in enumerate(operand_indices_at(node, idx, red))]
            return fma(b, *(splat(b, x, width) for x in pair), acc)
        return b.fadd(acc, splat(b, self.value(name, idx, c), width))

    def _operand(self, node: Node, k: int, arg: str, at, c) -> ir.Value:
        """A factor: from its pack if it has one."""
        packed = self.kernel.packed.get((self.run.prefix + node.name, k))
        if packed is None or self.phase.rows == "sum":
            return self.value(arg, at, c)
        pack = next(p for p in self.kernel.packs if p.name == packed[0])
        spec = dict(zip(spec_parts(node.attr("spec"))[k], at))
        key = (packed, tuple(ix.key for ix in at))
        scope = self.nest.scopes[self.nest.depth([ix.var for ix in at])]
        if key not in scope.memo:
            b, members = scope.builder, len(pack.members)
            block, first = self.lane_block
            lane = spec[pack.lane[0]]
            offset = i64(0)
            for letter, size in pack.letters:
                offset = b.add(b.mul(offset, i64(size)), spec[letter].value(b))
            offset = b.add(b.mul(offset, i64(-(-pack.lane[1] // pack.lanes))), block)
            offset = b.add(b.mul(offset, i64(pack.reduced[1])), spec[pack.reduced[0]].value(b))
            offset = b.add(b.mul(offset, i64(members * pack.lanes)), i64(packed[1] * pack.lanes + first + lane.offset))
            scope.memo[key] = load(b, self.frame.packs[pack.name], offset, "real", self.real, lane.width, 1)
            if pack_bytes(pack, self.real) > PREFETCH_FROM and lane.width == self.width:
                ahead = b.add(offset, i64(PREFETCH_AHEAD // size_of(self.real)))
                prefetch(b, b.gep(self.frame.packs[pack.name], [ahead]))
        return scope.memo[key]

    # -- memory ---------------------------------------------------------
    def _next(self, b: ir.IRBuilder) -> ir.Value:
        """The step of the tile that comes next; at the last one, that one."""
        if self.run.reverse:
            return b.select(b.icmp_signed(">", self.step, i64(0)), b.sub(self.step, i64(1)), i64(0))
        return self.frame.least(b, b.add(self.step, i64(1)), b.sub(self.rows_t, i64(1)))

    def get(self, name: str, idx: tuple[Index, ...], c, b: ir.IRBuilder, step: ir.Value | None) -> ir.Value:
        buffer = self.buffer(name)
        width = max((ix.width for ix in idx), default=0)
        start, rows = self.frame.row(b, buffer, c, step), self.frame.rows.get(name)
        self._ahead(b, buffer, idx, start, rows)
        return load(b, self.frame.pointer(b, name), offset_of(b, buffer, idx, start, rows), buffer.kind, self.real,
                    width, lane_stride(b, buffer, idx, rows))

    def _ahead(self, b: ir.IRBuilder, buffer: Buffer, idx: tuple[Index, ...], start: ir.Value,
               rows: ir.Value | None) -> None:
        """Steps that go back in time ask for what they will need: processors follow addresses that rise, not rows
        that rise while the rows themselves go down. What another run over the tile has just read is there: that
        run will need the tile before it. Not where products ask for memory between their blocks (`between.py`)."""
        row = buffer.numel * size_of(memory_type(buffer.kind, self.real))
        spaces = ("input", "check") if self.frame.streaming else ("input", "output", "check")
        if self.asked or not (self.run.reverse and self.step is not None and buffer.space in spaces
                and idx and idx[-1].width == self.width and row <= BACK_MOST) or fetched(self.run, buffer) \
                or self.part.stepwise:
            return
        again = any(buffer.name in r.steps.reads.values() for r in self.kernel.runs if r is not self.run)
        by = b.mul(self.frame.strides[buffer.name][1],
                   self.frame.words["tile"] if again else i64(max(1, BACK_AHEAD // row)))
        at = b.sub(offset_of(b, buffer, idx, start, rows), by)
        prefetch(b, b.gep(self.frame.pointer(b, buffer.name), [at]))

    def put(self, s: Store, idx: tuple[Index, ...], value: ir.Value, c, add: bool = False) -> None:
        """Store (or add) a value computed at `idx`; the store's index map places it."""
        b, buffer = self.nest.b, self.buffer(s.buffer)
        at = tuple(Index(None, 0, o) if a is None else idx[a].plus(o) for a, o in s.index)
        width = max((ix.width for ix in at), default=0)
        pointer, start = self.frame.pointer(b, s.buffer), self.frame.row(b, buffer, c, self.step)
        rows = self.frame.rows.get(s.buffer)
        offset, stride = offset_of(b, buffer, at, start, rows), lane_stride(b, buffer, at, rows)
        value = splat(b, value, width)
        self._ahead(b, buffer, at, start, rows)
        if add:
            value = b.fadd(value, load(b, pointer, offset, buffer.kind, self.real, width, stride))
        whole = width == self.width and buffer.axes[-1].size % width == 0 and at[-1].offset % width == 0
        store(b, value, pointer, offset, buffer.kind, self.real, width, stride,
              streaming=self.frame.streaming and buffer.space == "output" and buffer.kind == "real" and whole)


def _lane(b: ir.IRBuilder, idx: tuple[Index, ...], k: int) -> tuple[Index, ...]:
    """Indices of one of the lanes."""
    return tuple(Index(("lane", ix.var, k), ix.copy, b.add(ix.value(b), i64(k))) if ix.width else ix for ix in idx)


def pack_bytes(pack: Pack, real: ir.Type) -> int:
    """Memory of one head's pack."""
    n = -(-pack.lane[1] // pack.lanes) * pack.lanes * pack.reduced[1] * len(pack.members)
    for _, size in pack.letters:
        n *= size
    return n * size_of(real)


def operand_indices_at(node: Node, idx: tuple[Index, ...], red: tuple[Index, ...] = ()):
    """`views.operand_indices` with run-time indices."""
    match node.op:
        case "slice":
            axis, start = node.attr("axis"), node.attr("start")
            return [(node.args[0], tuple(ix.plus(start) if i == axis else ix for i, ix in enumerate(idx)))]
        case "index":
            axis = node.attr("axis")
            return [(node.args[0], (*idx[:axis], Index(None, 0, node.attr("at")), *idx[axis:]))]
    return operand_indices(node, idx, red)
