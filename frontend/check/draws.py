"""Random values: initial values of parameters, and draws in the body."""

from __future__ import annotations

import math

from ...ir.cell import Node
from ...ir.types import Type
from .calls import Call
from .context import NUMBERS
from .expr import binary
from .numbers import number
from .values import Num, Val, Value, show


def draw(c: Call) -> Value:
    """`~ uniform(a, b)`, `normal(mean, sd)`, `bernoulli(p)`, `orthogonal(gain)`; only inside `~`."""
    if c.cx.drawing is None:
        c.fail("random_here")
    args = [c.single(i) for i in range(len(c.args))]
    type = c.cx.drawing.type
    if c.name == "normal" and type is not None and type.kind == "complex":
        return _circular(c, *args)
    return _real(c, args)


def _real(c: Call, args: list[Num | Val]) -> Val:
    return _initial(c, args) if c.cx.init_region else _body(c, args)


def _circular(c: Call, mean: Num | Val, sd: Num | Val) -> Val:
    """Complex, E|z - mean|^2 = sd^2: two independent parts of half the variance, as torch.randn's."""
    half = binary(c.cx, "*", sd, Num(math.sqrt(0.5)), c.span)
    z = c.cx.op("complex", *(_real(c, [number(0), half]) for _ in range(2)), span=c.span)
    return binary(c.cx, "+", *c.cx.same_kind([mean, z], c.span, "`normal`", allowed=NUMBERS), c.span)


def _initial(c: Call, args: list[Num | Val]) -> Val:
    """Op `draw`, of the parameter's shape; each textual place draws for itself."""
    cx, b, drawing = c.cx, c.cx.b, c.cx.drawing
    for x in args:
        if x.kind == "complex":
            c.fail("complex_value", what=f"`{c.name}`")
    args = cx.same_kind(args, c.span, f"`{c.name}`", "real")
    for x in args:
        if x.type.rank:
            c.fail("rank", what=c.name, expected="numbers", actual=show(x.shape))
    if c.name == "orthogonal" and drawing.type.rank - len(drawing.lead) < 2:
        c.fail("rank", what="orthogonal", expected="a matrix", actual=show(drawing.type.shape))
    node = Node(b.fresh(c.name), "draw", tuple(x.node for x in args), (("dist", c.name),),
                drawing.type.with_kind("real"), c.span)
    return Val(b.append(node), node.type, len(drawing.lead))


def _body(c: Call, args: list[Num | Val]) -> Val:
    """Op `random`, counted by its site: mean + sd * normal, low + (high - low) * uniform, uniform < p."""
    cx, drawing = c.cx, c.cx.drawing
    if c.name == "orthogonal":
        c.fail("random_here")
    args = cx.same_kind(args, c.span, f"`{c.name}`", "real")
    lead = drawing.lead
    if drawing.type is not None:
        type = drawing.type.with_kind("real")
    else:
        type = Type("real", lead + cx.joint_shape(args, c.span, f"`{c.name}`"))
    args = [cx.spread(x, lead, type.shape[len(lead):]) if not x.shape or drawing.type is None else x for x in args]
    t = cx.time(c.scope.clock)
    dist = "normal" if c.name == "normal" else "uniform"
    site, cx.sites = cx.sites, cx.sites + 1
    u = cx.val(cx.b.add("random", (t.node,), type, c.name, site=site, dist=dist), len(lead))
    if c.name == "bernoulli":
        return cx.cast(binary(cx, "<", u, args[0], c.span), "real")
    low = args[0]
    scale = args[1] if c.name == "normal" else binary(cx, "-", args[1], args[0], c.span)
    return binary(cx, "+", low, binary(cx, "*", scale, u, c.span), c.span)
