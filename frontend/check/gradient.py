"""`grad(loss, S[t-1], ...)`: the derivative of a scalar by values of the cell, as equations of its own."""

from __future__ import annotations

from ...compiler.passes.inner import Across, Complex, Independent, differentiate
from .. import tree as t
from .brackets import submember
from .calls import Call
from .scope import Entity
from .values import Many, Val, Value, show


def grad(c: Call) -> Value:
    """One gradient per leaf, of the leaf's shape."""
    cx = c.cx
    if cx.init_region:
        c.fail("not_yet", what="grad(...) in an initial value", instead="write the derivative out")
    loss = c.tensor(0)
    if loss.shape or loss.kind != "real":
        cx.fail("grad_loss", c.args[0].span, actual=f"{loss.kind} {show(loss.shape)}")
    if len(c.args) < 2:
        c.fail("argument_count", name="grad", expected="a loss and one or more values to differentiate by", actual=1)
    leaves = [_leaf(c, e) for e in c.args[1:]]
    for e, leaf in zip(c.args[1:], leaves):
        if loss.heads > leaf.heads:
            cx.fail("grad_heads", e.span, what=f"{written(e)} is shared by all of them", heads=loss.lead[-1].name)
    facts = {name: port.facts for name, port in cx.ports.items()}
    try:
        nodes = differentiate(cx.b, loss.node, [x.node for x in leaves], lambda state: cx.states[state].init(), facts,
                              loss.lead)
    except Independent as e:
        found = c.args[1 + e.leaf]
        cx.fail("grad_independent", found.span, leaf=written(found))
    except Across:
        c.fail("grad_heads", what="its value of one head depends on other heads", heads=loss.lead[-1].name)
    except Complex:
        c.fail("not_yet", what="grad(...) of complex values", instead="write the derivative out")
    out = tuple([Val(node, x.type, x.heads) for node, x in zip(nodes, leaves)])
    return out[0] if len(out) == 1 else Many(out, "grad")


def _leaf(c: Call, e: t.Expr) -> Val:
    """A value with a name: a local, a parameter, `x[t]`, `S[t-1]`, `f.h[t-1]`; not a part of one."""
    cx = c.cx
    match e:
        case t.Name():
            named = True
        case t.Index(t.Name(id), (_,)):
            found = c.scope.find(id)
            named = isinstance(found, Entity) and found.timed
        case t.Index(t.Attr(), (_,)):
            named = submember(cx, c.scope, e.base) is not None
        case _:
            named = False
    x = c.cx.single(c.value(c.args.index(e)), e.span) if named else None
    if not isinstance(x, Val):
        cx.fail("grad_leaf", e.span)
    if x.kind != "real":
        cx.fail("kind_mismatch", e.span, what=f"{written(e)} of `grad`", expected="real", actual=x.kind)
    return x


def written(e: t.Expr) -> str:
    """A leaf as the text has it, roughly: without what is in its brackets."""
    match e:
        case t.Name(id):
            return f"`{id}`"
        case t.Index(t.Name(id), _):
            return f"`{id}[...]`"
        case t.Index(t.Attr(t.Name(id), name), _):
            return f"`{id}.{name}[...]`"
    return "the value"
