"""Loop nests with scopes: a value is emitted in the outermost loop that binds
all the variables it depends on, so that nothing is computed twice and nothing
is left to loop-invariant code motion (which memory stores would stop)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from llvmlite import ir

I64 = ir.IntType(64)
Parts = list[tuple[int, int]]           # offset and lanes (0: a scalar) of the registers of one block of columns


@lru_cache(maxsize=1 << 14)                     # one object for all uses, as its text takes long to write
def i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


@dataclass(slots=True)
class Scope:
    """One open loop (or the function): where to append, and what is known there."""

    builder: ir.IRBuilder
    memo: dict = field(default_factory=dict)


class Nest:
    """A stack of open loops in one function."""

    def __init__(self, builder: ir.IRBuilder):
        self.scopes = [Scope(builder)]
        self.depth_of: dict[object, int] = {}    # loop variable -> depth that binds it
        self.base = 0                            # scope that values without variables go to

    @property
    def b(self) -> ir.IRBuilder:
        return self.scopes[-1].builder

    def depth(self, variables) -> int:
        """Depth of the outermost scope that binds all of `variables`."""
        return max((self.depth_of[v] for v in variables if v is not None), default=self.base)

    def enter(self, variable: object = None) -> None:
        """A scope without a loop: a new block that the current one falls into."""
        block = self.b.append_basic_block("block")
        terminator = self.b.branch(block)
        self.b.position_before(terminator)
        self._push(block, variable)

    def _push(self, block: ir.Block, variable: object) -> None:
        self.scopes.append(Scope(ir.IRBuilder(block)))
        if variable is not None:
            self.depth_of[variable] = len(self.scopes) - 1

    def leave(self) -> None:
        """End a scope made by `enter`."""
        inner = self.scopes.pop()
        self._forget()
        after = inner.builder.append_basic_block("after")
        inner.builder.branch(after)
        self.b.position_at_end(after)

    def _forget(self) -> None:
        self.depth_of = {v: d for v, d in self.depth_of.items() if d < len(self.scopes)}

    def loop(self, variable: object, start: ir.Value, stop: ir.Value, step: int, carried, body, *,
             down: bool = False) -> list[ir.Value]:
        """Emit `for i in range(start, stop, step)` (or from the last one down).
        `body(i, values) -> new values` of the loop-carried `carried`; returns
        their values after the loop. A loop that runs zero times costs one branch."""
        outer = self.b
        pre = outer.block
        block, exit_ = outer.append_basic_block("loop"), outer.append_basic_block("exit")
        never = isinstance(start, ir.Constant) and isinstance(stop, ir.Constant) and start.constant < stop.constant
        terminator = outer.branch(block) if never else outer.cbranch(outer.icmp_signed("<", start, stop), block, exit_)
        if down:
            outer.position_before(terminator)
            first = outer.sub(stop, i64(1))      # `down` loops have step 1
        else:
            first = start
        outer.position_before(terminator)
        self._push(block, variable)
        i = self.b.phi(I64, "i")
        i.add_incoming(first, pre)
        phis = []
        for v in carried:
            phi = self.b.phi(v.type)
            phi.add_incoming(v, pre)
            phis.append(phi)
        new = body(i, phis)
        b = self.b
        following = b.sub(i, i64(1)) if down else b.add(i, i64(step))
        going = b.icmp_signed(">=", following, start) if down else b.icmp_signed("<", following, stop)
        latch = b.block
        b.cbranch(going, block, exit_)
        i.add_incoming(following, latch)
        for phi, v in zip(phis, new):
            phi.add_incoming(v, latch)
        self.scopes.pop()
        self._forget()
        outer.position_at_end(exit_)
        out = []
        for v, n in zip(carried, new):
            if never:
                out.append(n)
            else:
                phi = outer.phi(v.type)
                phi.add_incoming(v, pre)
                phi.add_incoming(n, latch)
                out.append(phi)
        return out


def columns(nest: Nest, m: int, width: int, vectors: int, body: Callable[[ir.Value, Parts], None]) -> None:
    """`body(first column, registers)` for blocks of `vectors` registers, then for what is left of `m` columns."""
    block = width * vectors
    whole_blocks = m - m % block

    def full(j, _):
        body(j, [(k * width, width) for k in range(vectors)])
        return []

    if whole_blocks:
        nest.loop("column", i64(0), i64(whole_blocks), block, [], full)
    left = m - whole_blocks
    rest = [(k * width, width) for k in range(left // width)]
    if left % width:
        rest.append((left // width * width, 0 if left % width == 1 else left % width))
    if rest:
        body(i64(whole_blocks), rest)
