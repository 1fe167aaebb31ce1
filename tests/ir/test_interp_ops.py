"""Every operation's value against torch or plain Python, and its gradient against finite differences."""

import itertools
import math

import pytest
import torch
from ostinato.ir.build import Builder
from ostinato.ir.errors import EvaluationError
from ostinato.ir.interp import evaluate
from ostinato.ir.ops import OPS
from ostinato.ir.types import Dim, Type

F64 = torch.float64
A, C, N = Dim("A", 4), Dim("C", 3), Dim("N", 2)
REAL, INT, BOOL = (Type(k, (N, A)) for k in ("real", "int", "bool"))


def call(op, *xs, types=None, out=None, **attrs):
    """One operation on tensors; `types`: of the operands (default: real[N, A] each)."""
    b = Builder()
    types = types or [REAL] * len(xs)
    args = tuple(b.read("param", f"p{i}", t) for i, t in enumerate(types))
    name = b.add(op, args, out or types[0], "out", **attrs)
    return evaluate(b.nodes, reads={("param", f"p{i}"): x for i, x in enumerate(xs)}, dtype=F64)[name]


def data(*shape, seed=0, low=-1.4, high=1.4):
    g = torch.Generator().manual_seed(seed)
    return (low + (high - low) * torch.rand(shape, generator=g, dtype=F64)).requires_grad_()


POSITIVE = {"log", "sqrt", "rsqrt"}
REFERENCE = {
    "neg": lambda x: -x, "round": round, "sign": lambda x: (x > 0) - (x < 0), "abs": abs,
    "rsqrt": lambda x: 1 / math.sqrt(x), "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)), "logsigmoid": lambda x: -math.log1p(math.exp(-x)),
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "max": max, "min": min, "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b,
    "logaddexp": lambda a, b: math.log(math.exp(a) + math.exp(b)),
}
UNARY = [o.name for o in OPS.values() if o.group == "pointwise" and o.arity == 1 and o.kinds != ("bool",)
         and o.name not in ("real", "int", "stop_gradient")]
BINARY = [o.name for o in OPS.values() if o.group == "pointwise" and o.arity == 2 and o.result == "same"
          and o.kinds != ("bool",)]


@pytest.mark.parametrize("op", UNARY)
def test_unary(op):
    low = 0.2 if op in POSITIVE else -0.8 if op == "log1p" else -1.4
    x = data(2, 4, low=low)
    reference = REFERENCE.get(op) or getattr(math, op)
    expected = torch.tensor([[reference(v) for v in row] for row in x.tolist()], dtype=F64)
    torch.testing.assert_close(call(op, x), expected, rtol=1e-14, atol=1e-15)
    assert torch.autograd.gradcheck(lambda x: call(op, x), x)


@pytest.mark.parametrize("op", BINARY)
def test_binary(op):
    a, b = data(2, 4, seed=1, low=0.1 if op == "pow" else -1.4), data(2, 4, seed=2)
    reference = REFERENCE.get(op) or getattr(math, op)
    expected = torch.tensor([reference(p, q) for p, q in zip(a.flatten().tolist(), b.flatten().tolist())], dtype=F64)
    torch.testing.assert_close(call(op, a, b).flatten(), expected, rtol=1e-14, atol=1e-15)
    assert torch.autograd.gradcheck(lambda a, b: call(op, a, b), (a, b))


def test_a_static_operand_meets_one_over_the_batch():
    a, b = data(2, 4), data(5, 2, 4, seed=1)
    torch.testing.assert_close(call("mul", a, b), a * b)
    assert torch.autograd.gradcheck(lambda a, b: call("div", a, b), (a, 2 + b.abs().detach().requires_grad_()))


def test_stable_far_from_zero():
    x = torch.tensor([-800.0, -40.0, 40.0, 800.0], dtype=F64)
    t = [Type("real", (A,))]
    assert call("sigmoid", x, types=t).tolist() == pytest.approx([0.0, math.exp(-40), 1.0, 1.0], rel=1e-14, abs=0)
    assert call("softplus", x, types=t).tolist() == pytest.approx([0.0, math.exp(-40), 40.0, 800.0], rel=1e-14, abs=0)
    assert call("logsigmoid", x, types=t).tolist() == pytest.approx([-800, -40, -math.exp(-40), 0.0], rel=1e-14, abs=0)


def test_integer_division_is_pythons():
    a, b = [7, -7, 7, -7, 5, -5, 0, 3], [2, 2, -2, -2, 5, 0, 3, 0]
    x, y = (torch.tensor(v).reshape(2, 4) for v in (a, b))
    quotient = call("floordiv", x, y, types=[INT, INT]).flatten().tolist()
    rest = call("mod", x, y, types=[INT, INT]).flatten().tolist()
    assert quotient == [p // q if q else 0 for p, q in zip(a, b)]
    assert rest == [p % q if q else p for p, q in zip(a, b)]


def test_comparisons_logic_and_casts():
    x, y = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]]), torch.tensor([[1, 3, 2, 4], [0, 3, 5, 1]])
    for op in ("eq", "ne", "lt", "le", "gt", "ge"):
        assert torch.equal(call(op, x, y, types=[INT, INT], out=BOOL), getattr(torch, op)(x, y))
    p, q = x > 2, y > 2
    assert torch.equal(call("and", p, q, types=[BOOL, BOOL]), p & q)
    assert torch.equal(call("or", p, q, types=[BOOL, BOOL]), p | q)
    assert torch.equal(call("not", p, types=[BOOL]), ~p)
    assert call("real", p, types=[BOOL], out=REAL).tolist() == p.double().tolist()
    assert call("int", data(2, 4) * 9, out=INT).tolist() == [[int(v) for v in r] for r in (data(2, 4) * 9).tolist()]


@pytest.mark.parametrize("axes", [(0, 2), (2, 0), (1, 3), (3, 1)])
def test_broadcast_places_and_transposes(axes):
    shape = [Dim("P", 1), Dim("Q", 1), Dim("R", 1), Dim("S", 1)]
    free = iter((Dim("U", 5), Dim("V", 6)))
    for i in range(4):
        shape[i] = (N, A)[axes.index(i)] if i in axes else next(free)
    for lead in ((), (7,)):
        x = data(*lead, 2, 4)
        y = call("broadcast", x, out=Type("real", tuple(shape)), axes=axes)
        unused = iter("uv")
        letters = "".join("na"[axes.index(i)] if i in axes else next(unused) for i in range(4))
        ones = [torch.ones(shape[i].size, dtype=F64) for i in range(4) if i not in axes]
        spec = ",".join(c for c in letters if c in "uv")
        torch.testing.assert_close(y, torch.einsum(f"...na,{spec}->...{letters}", x, *ones))


@pytest.mark.parametrize("lead", [(), (5,)])
def test_structure(lead):
    x = data(*lead, 2, 4)
    big = Dim("B", 8)

    def out(*shape):
        return Type("real", shape)

    assert torch.equal(call("slice", x, out=out(N, C), axis=1, start=1), x[..., 1:4])
    padded = call("pad", x, out=out(N, big), axis=1, start=3)
    assert torch.equal(padded[..., 3:7], x) and padded.count_nonzero() == x.count_nonzero()
    assert torch.equal(call("index", x, out=out(A), axis=0, at=1), x[..., 1, :])
    placed = call("place", x, out=out(N, C, A), axis=1, at=2)
    assert torch.equal(placed[..., 2, :], x) and placed.count_nonzero() == x.count_nonzero()
    y = data(2, 4, seed=3)  # without the batch
    both = call("concat", x, y, out=out(N, big), axis=1)
    assert torch.equal(both, torch.cat([x, y.expand_as(x)], -1))
    stacked = call("stack", x, y, out=out(N, Dim("2", 2), A), axis=1)
    assert torch.equal(stacked, torch.stack([x, y.expand_as(x)], -2))
    wide = call("interleave", x, out=out(N, big), axis=1, times=2)
    assert torch.equal(wide[..., ::2], x) and torch.equal(wide[..., 1::2], x)
    assert torch.equal(call("fold", wide, types=[out(N, big)], out=out(N, A), axis=1, times=2), 2 * x)
    assert torch.equal(call("cumsum", x, axis=1, reverse=False), x.cumsum(-1))
    back = call("cumsum", x, axis=1, reverse=True)
    torch.testing.assert_close(back, x.sum(-1, keepdim=True) - x.cumsum(-1) + x)
    for op, shape, attrs in (("slice", (N, C), dict(axis=1, start=1)), ("pad", (N, big), dict(axis=1, start=3)),
                             ("place", (N, C, A), dict(axis=1, at=2)), ("interleave", (N, big), dict(axis=1, times=2)),
                             ("cumsum", (N, A), dict(axis=1, reverse=True))):
        assert torch.autograd.gradcheck(lambda x: call(op, x, out=out(*shape), **attrs), x)


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1), ()])
@pytest.mark.parametrize("fn", ["sum", "prod", "max", "min", "lse"])
def test_reduce(fn, axes, lead):
    x = data(*lead, 2, 4)
    kept = tuple(d for i, d in enumerate((N, A)) if i not in axes)
    reference = {"sum": torch.sum, "prod": lambda x, d: x.prod(d[0]) if len(d) == 1 else x.prod(-1).prod(-1),
                 "max": torch.amax, "min": torch.amin, "lse": torch.logsumexp}[fn]
    expected = reference(x, tuple(a - 2 for a in axes)) if axes else x
    torch.testing.assert_close(call("reduce", x, out=Type("real", kept), fn=fn, axes=axes), expected)
    assert torch.autograd.gradcheck(lambda x: call("reduce", x, out=Type("real", kept), fn=fn, axes=axes), x)


def test_reductions_to_other_kinds():
    x = torch.tensor([[1.0, 3.0, 3.0, 0.0], [5.0, 5.0, 5.0, 5.0]], dtype=F64)
    assert call("reduce", x, out=Type("int", (N,)), fn="argmax", axes=(1,)).tolist() == [1, 0]
    for fn, expected in (("any", [True, True]), ("all", [False, True])):
        assert call("reduce", x > 2, types=[BOOL], out=Type("bool", (N,)), fn=fn, axes=(1,)).tolist() == expected


@pytest.mark.parametrize("fn, kind, expected", [
    ("sum", "real", 0.0), ("prod", "real", 1.0), ("max", "real", -math.inf), ("min", "real", math.inf),
    ("lse", "real", -math.inf), ("any", "bool", False), ("all", "bool", True)])
def test_reduce_of_an_empty_axis(fn, kind, expected):
    t = Type(kind, (N, Dim("Z", 0)))
    x = torch.zeros(2, 0, dtype=F64 if kind == "real" else torch.bool)
    assert call("reduce", x, types=[t], out=Type(kind, (N,)), fn=fn, axes=(1,)).tolist() == [expected] * 2


CONTRACTIONS = [("ij,j->i", (A, C), (C,)), ("j,ij->i", (C,), (A, C)), ("i,j->ij", (A,), (C,)), ("i,i->", (A,), (A,)),
                ("nij,nj->ni", (N, A, C), (N, C)), ("nij,j->ni", (N, A, C), (C,)), ("nk,nkv->nv", (N, A), (N, A, C)),
                ("ij,k->kj", (N, A), (C,)), ("ij,ij->ji", (A, C), (A, C)), ("ij,jk->", (N, A), (A, C))]


@pytest.mark.parametrize("leads", [((), ()), ((3,), ()), ((), (3,)), ((3,), (3,))])
@pytest.mark.parametrize("semiring", ["sum", "max", "min", "lse", "argmax"])
@pytest.mark.parametrize("spec, sa, sb", CONTRACTIONS)
def test_contract(spec, sa, sb, semiring, leads):
    """Against explicit loops over every index."""
    ins, out = spec.split("->")
    la, lb = ins.split(",")
    dims = dict(zip(la + lb, sa + sb))
    gone = [c for c in dims if c not in out]
    if semiring == "argmax" and len(gone) != 1:
        return
    a = data(*leads[0], *(d.size for d in sa), seed=1)
    b = data(*leads[1], *(d.size for d in sb), seed=2)
    types = [Type("real", sa), Type("real", sb)]
    result = Type("int" if semiring == "argmax" else "real", tuple(dims[c] for c in out))

    def f(a, b):
        return call("contract", a, b, types=types, out=result, spec=spec, semiring=semiring)

    batch = (3,) if leads != ((), ()) else ()
    a_, b_ = a.detach().expand(*batch, *a.shape[len(leads[0]):]), b.detach().expand(*batch, *b.shape[len(leads[1]):])
    fold = {"sum": sum, "max": max, "min": min, "lse": lambda v: math.log(sum(map(math.exp, v))),
            "argmax": lambda v: v.index(max(v))}[semiring]
    y = f(a, b)
    assert y.shape == (*batch, *result.sizes)
    for l in itertools.product(*(range(n) for n in batch)):
        for o in itertools.product(*(range(dims[c].size) for c in out)):
            terms = []
            for g in itertools.product(*(range(dims[c].size) for c in gone)):
                at = dict(zip(out, o)) | dict(zip(gone, g))
                p, q = a_[*l, *(at[c] for c in la)].item(), b_[*l, *(at[c] for c in lb)].item()
                terms.append(p * q if semiring == "sum" else p + q)
            assert y[*l, *o].item() == pytest.approx(fold(terms), rel=1e-13, abs=1e-13)
    if semiring in ("sum", "lse") and leads[0] == ():
        assert torch.autograd.gradcheck(f, (a, b))


@pytest.mark.parametrize("semiring", ["sum", "max", "lse"])
def test_contract_of_two_numbers(semiring):
    """No axes at all, as a product with one row of one number is left after simplification."""
    a, b = torch.tensor(2.0, dtype=F64, requires_grad=True), torch.tensor(math.inf, dtype=F64)
    y = call("contract", a, b, types=[Type("real", ())] * 2, out=Type("real", ()), spec=",->", semiring=semiring)
    assert y.shape == () and y.item() == math.inf


def test_contract_of_other_kinds():
    a, b = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([1, 0, 2])
    two = Dim("two", 2)
    kinds = lambda k: [Type(k, (two, C)), Type(k, (C,))]
    y = call("contract", a, b, types=kinds("int"), out=Type("int", (two,)), spec="ij,j->i", semiring="sum")
    assert y.tolist() == [7, 16]
    y = call("contract", a > 4, b > 0, types=kinds("bool"), out=Type("bool", (two,)), spec="ij,j->i", semiring="sum")
    assert y.tolist() == [False, True]


@pytest.mark.parametrize("lead", [(), (5,)])
@pytest.mark.parametrize("shape", [(C,), (C, A), (N, C), (N, C, A)])
def test_solve_and_logdet(shape, lead):
    heads = shape[:1] if shape[0] is N else ()
    a = (data(*lead, *(d.size for d in heads), 3, 3) + 3 * torch.eye(3, dtype=F64)).detach().requires_grad_()
    b = data(*(d.size for d in shape), seed=1)
    types = [Type("real", heads + (C, C)), Type("real", shape)]
    f = lambda a, b: call("solve", a, b, types=types, out=types[1])
    y = f(a, b)
    spec = "...ij,...j->...i" if len(shape) == len(heads) + 1 else "...ij,...jk->...ik"
    torch.testing.assert_close(torch.einsum(spec, a, y), b.expand_as(y))
    assert torch.autograd.gradcheck(f, (a, b))
    g = lambda a: call("logdet", a, types=types[:1], out=Type("real", heads))
    torch.testing.assert_close(g(a), torch.linalg.det(a).abs().log())
    assert torch.autograd.gradcheck(g, a)


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("axis, reverse", [(0, False), (1, False), (1, True)])
@pytest.mark.parametrize("semiring", ["sum", "max", "lse"])
def test_running(semiring, axis, reverse, lead):
    a, b = data(*lead, 2, 4), data(*lead, 2, 4, seed=1)
    attrs = dict(axis=axis, reverse=reverse, semiring=semiring)
    y = call("running", a, b, **attrs)
    times, plus = {"sum": (torch.mul, torch.add), "max": (torch.add, torch.maximum),
                   "lse": (torch.add, torch.logaddexp)}[semiring]
    at = list(range(b.shape[axis - 2]))[::-1 if reverse else 1]
    torch.testing.assert_close(y.select(axis - 2, at[0]), b.select(axis - 2, at[0]))
    for i, j in itertools.pairwise(at):
        want = plus(times(a.select(axis - 2, j), y.select(axis - 2, i)), b.select(axis - 2, j))
        torch.testing.assert_close(y.select(axis - 2, j), want)
    assert torch.autograd.gradcheck(lambda a, b: call("running", a, b, **attrs), (a, b))
    none = torch.zeros(2, 0, dtype=F64)
    empty = Type("real", (N, Dim("0", 0)))
    assert call("running", none, none, types=[empty] * 2, out=empty, **attrs | {"axis": 1}).shape == (2, 0)


@pytest.mark.parametrize("axis, reverse", [(0, False), (1, False), (1, True)])
def test_cumprod(axis, reverse):
    """Products of what comes before, zeros among them; its derivative is torch's, 0 where nothing depends on it."""
    a, c = data(3, 4).detach(), data(3, 4, seed=1)
    a[1, 1] = a[2, 2] = a[0, 2] = 0.0
    a.requires_grad_()
    attrs, types = dict(axis=axis, reverse=reverse), [Type("real", (Dim("R", 3), A))] * 2
    y = call("cumprod", a, types=types[:1], **attrs)
    n = a.shape[axis]
    for i in range(n):
        others = a.narrow(axis, i + 1, n - 1 - i) if reverse else a.narrow(axis, 0, i)
        torch.testing.assert_close(y.select(axis, i), others.prod(axis))
    (want,) = torch.autograd.grad((y * c).sum(), a)
    torch.testing.assert_close(call("cumprod_back", a, c, types=types, **attrs), want)
    assert torch.autograd.gradcheck(lambda a: call("cumprod", a, types=types[:1], **attrs), a)
    wild = torch.tensor([[math.inf], [2.0], [3.0]], dtype=F64)
    one = [Type("real", (Dim("R", 3), Dim("1", 1)))] * 2
    assert not call("cumprod_back", wild, 0 * c[:, :1], types=one, out=one[0], axis=0, reverse=False)[1:].any()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(C,), (C, A), (N, C, A)])
def test_solve_lower(shape, transposed):
    heads = shape[:1] if shape[0] is N else ()
    low = data(5, *(d.size for d in heads), 3, 3)
    b = data(*(d.size for d in shape), seed=1)
    types = [Type("real", heads + (C, C)), Type("real", shape)]
    f = lambda low, b: call("solve_lower", low, b, types=types, out=types[1], transposed=transposed)
    matrix = low.tril(-1) + torch.eye(3, dtype=F64)
    spec = "...ij,...j->...i" if len(shape) == len(heads) + 1 else "...ij,...jk->...ik"
    y = f(low, b)
    torch.testing.assert_close(torch.einsum(spec, matrix.mT if transposed else matrix, y), b.expand_as(y))
    assert torch.autograd.gradcheck(f, (low, b))
    unread = torch.where(torch.ones(3, 3).triu().bool(), math.nan, low.detach()).requires_grad_()
    assert torch.equal(f(unread, b), y)
    assert torch.autograd.grad(f(unread, b).sum(), unread)[0].isfinite().all()


def test_custom_grad():
    y, x1, d1, x2, d2 = (data(2, 4, seed=i) for i in range(5))
    out = call("custom_grad", y, x1, d1, x2, d2)
    assert torch.equal(out, y)
    ct = data(2, 4, seed=9).detach()
    grads = torch.autograd.grad(out, (y, x1, d1, x2, d2), ct, allow_unused=True)
    assert torch.equal(grads[1], ct * d1) and torch.equal(grads[3], ct * d2)
    assert all(g is None or not g.any() for g in (grads[0], grads[2], grads[4]))


def test_leaves():
    b = Builder()
    k, i, t = b.literal(1.5), b.add("iota", (), Type("int", (A,))), b.add("training", (), Type("bool"))
    values = evaluate(b.nodes, training=True, dtype=torch.float32)
    assert values[k].dtype == torch.float32 and values[k].item() == 1.5
    assert values[i].tolist() == [0, 1, 2, 3] and values[t].item() is True


def test_a_read_without_a_value_is_refused():
    b = Builder()
    b.read("param", "W", REAL)
    with pytest.raises(EvaluationError, match="no value given for param W"):
        evaluate(b.nodes)


@pytest.mark.parametrize("op", ["exp", "expm1", "log", "sqrt", "sin", "cos", "mul", "div", "sub", "conj", "modulus", "re", "im"])
def test_complex_values_and_gradients_are_torchs(op):
    xs = [torch.complex(data(2, 4, seed=i), data(2, 4, seed=i + 5)).detach().requires_grad_()
          for i in range(OPS[op].arity)]
    kind = [Type("complex", (N, A))] * len(xs)
    assert torch.autograd.gradcheck(lambda *xs: call(op, *xs, types=kind), xs)


def test_complex_contraction():
    a, b = (torch.complex(data(*s, seed=1), data(*s, seed=2)).detach().requires_grad_() for s in ((4, 3), (3,)))
    types = [Type("complex", (A, C)), Type("complex", (C,))]
    f = lambda a, b: call("contract", a, b, types=types, out=Type("complex", (A,)), spec="ij,j->i", semiring="sum")
    torch.testing.assert_close(f(a, b), a @ b)
    assert torch.autograd.gradcheck(f, (a, b))


def test_decayed():
    """By its definition: the decays strictly between two rows, some of them 0; only what is below the diagonal is read."""
    n, rows = 5, Dim("R", 5)
    types = [Type("real", (N, rows, A))] * 3
    a, d, x = (data(2, 5, 4, seed=s) for s in range(3))
    with torch.no_grad():
        d[0, 2], d[1, 3, 1] = 0.0, 0.0
    between = torch.zeros(2, n, n, 4, dtype=F64)
    for i in range(n):
        for j in range(i):
            between[:, i, j] = d[:, j + 1:i].prod(1)
    square = types[0].with_shape((N, rows, rows))
    gram = lambda a, d, x: call("decayed", a, d, x, types=types, out=square, readers=1)
    torch.testing.assert_close(gram(a, d, x), torch.einsum("bik,bijk,bjk->bij", a, between, x))
    assert torch.autograd.gradcheck(gram, (a, d, x))
    g = data(2, 5, 5, seed=4)
    unread = torch.where(torch.ones(n, n).triu().bool(), math.nan, g.detach())
    for across, spec in ((False, "bij,bijk,bjk->bik"), (True, "bij,bijk,bik->bjk")):
        f = lambda g, d, x: call("decayed_sum", g, d, x, types=[square, *types[:2]], out=types[0], transposed=across)
        torch.testing.assert_close(f(g, d, x), torch.einsum(spec, g, between, x))
        torch.testing.assert_close(f(unread, d, x), f(g, d, x))
        assert torch.autograd.gradcheck(f, (g, d, x))
    want = torch.autograd.grad((gram(a, d, x) * g).sum(), (a, d, x))
    out = types[0].with_shape((N, Dim("3", 3), rows, A))
    back = call("decayed_back", g, a, d, x, types=[square, *types], out=out, readers=1, ends=False)
    torch.testing.assert_close(back, torch.stack(want, 1))
    before = torch.stack([d[:, :i].prod(1) for i in range(n)], 1)
    after = torch.stack([d[:, i + 1:].prod(1) for i in range(n)], 1)
    two = types[0].with_shape((N, Dim("2", 2), rows, A))
    ends = lambda a, d, x: call("ends", a, d, x, types=types, out=two, readers=1)
    torch.testing.assert_close(ends(a, d, x), torch.stack((a * before, x * after), 1))
    e, f = data(2, 5, 4, seed=5), data(2, 5, 4, seed=6)
    more = torch.autograd.grad((ends(a, d, x) * torch.stack((e, f), 1)).sum(), (a, d, x))
    of_ends = call("ends_back", e, f, a, d, x, types=[types[0]] * 5, out=out, readers=1)
    torch.testing.assert_close(of_ends, torch.stack(more, 1))
    both = call("decayed_back", g, e, f, a, d, x, types=[square, *[types[0]] * 5], out=out, readers=1, ends=True)
    torch.testing.assert_close(both, back + of_ends)
    c, product = data(2, 4, seed=7), types[0].with_shape((N, A))
    (others,) = torch.autograd.grad((d.prod(1) * c).sum(), (d,))
    of_all = call("ends_back", e, f, c, a, d, x, types=[*[types[0]] * 2, product, *types], out=out, readers=1)
    torch.testing.assert_close(of_all, of_ends + torch.stack((0 * a, others, 0 * x), 1))
    one = types[0].with_shape((N, Dim("1", 1), rows, A))
    torch.testing.assert_close(call("ends_back", c, d, types=[product, types[0]], out=one, readers=0)[:, 0], others)
    both = call("decayed_back", g, e, f, c, a, d, x, types=[square, *[types[0]] * 2, product, *types], out=out, readers=1,
                ends=True)
    torch.testing.assert_close(both, back + of_all)
