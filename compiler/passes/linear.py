"""Rules for nodes that depend on a cotangent, and only for them.

They reassociate sums and products, to have fewer contractions with a large
operand (a matrix state S, its cotangent) and no large temporaries. In the
forward pass that could change what overflows; a cotangent enters linearly.
"""

from __future__ import annotations

from ...ir.cell import Cell, Node
from ...ir.ops import spec_parts
from .algebra import inner, is_op, negated_broadcast
from .dce import Dce
from .rewrite import Rewriter, Rules, rename_roots

COTANGENT = "∂"     # names of reads of a cotangent start with this in a joint body


def reads_cotangent(n: Node) -> bool:
    return n.op in ("input", "state") and n.attr("name").startswith(COTANGENT)


class LinearRewriter(Rewriter):
    """A rewriter that knows which nodes depend on a cotangent."""

    def __init__(self, *args, **kwargs):
        self.linear: set[str] = set()
        super().__init__(*args, **kwargs)

    def append(self, node: Node) -> str:
        if reads_cotangent(node) or any(a in self.linear for a in node.args):
            self.linear.add(node.name)
        return super().append(node)


def _if_linear(rule):
    return lambda b, n: rule(b, n) if isinstance(b, LinearRewriter) and any(a in b.linear for a in n.args) else None


# -- contractions with a large operand ------------------------------------------
def _is_large(b: Rewriter, x: str, y: str, n: Node) -> bool:
    return b.type(x).rank > max(b.type(y).rank, n.type.rank)


def scaled(b: Rewriter, n: Node) -> str | None:
    """(X * broadcast p) . y = p * (X . y), or X . (p * y), whichever axes p has"""
    if n.attr("semiring") != "sum":
        return None
    for first in (True, False):
        x, y = n.args if first else n.args[::-1]
        if not _is_large(b, x, y, n) or not is_op(b, x, "mul"):
            continue
        sx, sy, so = _specs(n, first)
        for X, q in (b.node(x).args, b.node(x).args[::-1]):
            if not is_op(b, q, "broadcast"):
                continue
            letters = "".join(sx[i] for i in b.node(q).attr("axes"))
            p = inner(b, q)
            if set(letters) <= set(so):
                z = _contract(b, X, y, n, first)
                return b.op("mul", z, b.broadcast(p, n.type.shape, tuple(so.index(c) for c in letters)), hint=n.name)
            if set(letters) <= set(sy):
                y = b.op("mul", y, b.broadcast(p, b.type(y).shape, tuple(sy.index(c) for c in letters)))
                return _contract(b, X, y, n, first)
    return None


def distributed(b: Rewriter, n: Node) -> str | None:
    """(X + outer(p, q)) . y = X . y + p * (q . y): the sum is not made"""
    if n.attr("semiring") != "sum":
        return None
    for first in (True, False):
        x, y = n.args if first else n.args[::-1]
        if _is_large(b, x, y, n) and b.node(x).op in ("add", "sub") and any(_is_outer(b, a) for a in b.node(x).args):
            u, v = (_contract(b, a, y, n, first) for a in b.node(x).args)
            return b.op(b.node(x).op, u, v, hint=n.name)
        if _is_large(b, x, y, n) and is_op(b, x, "neg"):
            return b.op("neg", _contract(b, inner(b, x), y, n, first), hint=n.name)
    return None


def _specs(n: Node, first: bool) -> tuple[str, str, str]:
    sx, sy, so = spec_parts(n.attr("spec"))
    return (sx, sy, so) if first else (sy, sx, so)


def _contract(b: Rewriter, x: str, y: str, n: Node, first: bool) -> str:
    return b.contract(*((x, y) if first else (y, x)), n.attr("spec"), hint=n.name)


def _is_outer(b: Rewriter, x: str) -> bool:
    """A product of two broadcasts (times more of them)."""
    n = b.node(x)
    return n.op == "mul" and all(is_op(b, a, "broadcast") or _is_outer(b, a) for a in n.args)


# -- sums of products that share a factor -----------------------------------------
def factored(b: Rewriter, n: Node) -> str | None:
    """X . p + X . q = X . (p + q), X * p + X * q = X * (p + q), for smaller p and q;
    the partner may be deeper in a chain of sums: (X . p + r) + X . q"""
    u, v = n.args
    if (positive := _negated(b, v)) is not None:                # u + p * (-q) = u - p * q
        return b.op("sub" if n.op == "add" else "add", u, positive, hint=n.name)
    if (z := _join(b, n.op, u, v)) is not None:
        return z
    m = b.node(u)
    if m.op in ("add", "sub"):
        p, r = m.args
        if (z := _join(b, n.op, p, v)) is not None:             # (p op r) + v = (p + v) op r
            return b.op(m.op, z, r, hint=n.name)
        signs = "add" if m.op == n.op else "sub"                # (p + r) + v = p + (r + v), (p - r) + v = p - (r - v)
        if (z := _join(b, signs, r, v)) is not None:
            return b.op(m.op, p, z, hint=n.name)
    return None


def _negated(b: Rewriter, v: str) -> str | None:
    """p * q for v = p * broadcast(-q)"""
    if is_op(b, v, "mul"):
        for p, q in (b.node(v).args, b.node(v).args[::-1]):
            if (positive := negated_broadcast(b, q)) is not None:
                return b.op("mul", p, positive)
    return None


def _join(b: Rewriter, op: str, u: str, v: str) -> str | None:
    """u op v as one product, if they share the large factor."""
    m, k = b.node(u), b.node(v)
    if m.op != k.op or m.attrs != k.attrs or m.op not in ("contract", "mul") or u == v:
        return None
    for i in (0, 1):
        j = 1 - i
        pairs = ((i, i),) if m.op == "contract" else ((i, 0), (i, 1))
        for a, c in pairs:
            if m.args[a] != k.args[c]:
                continue
            x, p, q = m.args[a], m.args[1 - a], k.args[1 - c]
            if m.op == "contract" and m.attr("semiring") == "sum" and b.type(p).rank < b.type(x).rank:
                s = b.op(op, p, q)
                return b.contract(*((x, s) if j else (s, x)), m.attr("spec"), hint=u)
            if m.op == "mul" and is_op(b, p, "broadcast") and is_op(b, q, "broadcast") and (
                    b.node(p).attr("axes") == b.node(q).attr("axes")):
                return b.op("mul", x, b.op(op, p, q), hint=u)
    return None


RULES: Rules = {"contract": (_if_linear(scaled), _if_linear(distributed)),
                "add": (_if_linear(factored),), "sub": (_if_linear(factored),)}


# -- gradients of parameters ------------------------------------------------------------
def outer_products(joint: Cell) -> Cell:
    """Outer products under a sum of the joint cell become contractions, spec 'i,j->ij': over batch
    and time they are matrix products, which the back end should see."""
    nodes = joint.nodes()
    users: dict[str, set[str]] = {}
    for n in joint.body:
        for a in n.args:
            users.setdefault(a, set()).add(n.name)
    summed = {o.value for o in joint.sums} - {o.value for o in joint.outputs}
    for n in reversed(joint.body):
        if users.get(n.name) and all(u in summed and nodes[u].op in _LINEAR for u in users[n.name]):
            summed.add(n.name)
    b = Rewriter({}, taken=nodes)
    names: dict[str, str] = {}
    for n in joint.body:
        got = _as_contraction(b, n, names) if n.name in summed and n.op == "mul" else None
        names[n.name] = got or b.emit(n, names)
    return Dce()(rename_roots(joint, names).with_body(b.nodes))


_LINEAR = frozenset("add sub neg concat stack pad place".split())


def _as_contraction(b: Rewriter, n: Node, names: dict[str, str]) -> str | None:
    x, y = (names[a] for a in n.args)
    if not (is_op(b, x, "broadcast") and is_op(b, y, "broadcast")):
        return None
    axes = [b.node(a).attr("axes") for a in (x, y)]
    if set(axes[0]) <= set(axes[1]) or set(axes[1]) <= set(axes[0]):
        return None
    letters = "abcdefghijklmnopqrstuvwxyz"
    sx, sy = ("".join(letters[i] for i in a) for a in axes)
    b.span = n.span
    return b.contract(inner(b, x), inner(b, y), f"{sx},{sy}->{letters[:n.type.rank]}", hint=n.name)
