"""Positions computed from data: values and gradients (a scatter-add), compiled and interpreted."""

import ostinato
import pytest
import torch
from ostinato.ir import interp, meaning
from ostinato.ir.build import Builder
from ostinato.ir.types import Dim, Type

B, T = 2, 6
CELLS = {
    "embedding": """cell a(V, D) {
      input  i: int [], w: [D]
      param  E: [V, D]  ~ normal(0, 1)
      state  h: [D] = 0
      h[t] = 0.5 * h[t-1] + w[t] * E[i[t]]
      output h
    }""",
    "permutation": """cell a(V, D) {
      input  p: int [V], x: [V]
      state  s: [V] = 0
      s[t] = 0.9 * s[t-1][p[t]] + x[t]
      output s
    }""",
    "columns": """cell a(V, D, M) {
      input  i: int [M], x: [D, V], j: int []
      state  S: [D, V] = 0
      S[t] = 0.5 * S[t-1] + x[t]
      output y: [D, M] = S[t][:, i[t]], z: [] = S[t-1][j[t], j[t]], w: [M, V] = tanh(S[t])[i[t]]
    }""",
    "chain": """cell a(V, D) {
      input  i: int [], x: [V]
      param  E: [V, V]  ~ normal(0, 1)
      repeat j in 3 {
        state u: [V] = x[t]
        u[j] = u[j-1] + E[i[t]][argmax(u[j-1])] * E[argmax(u[j-1])]
      }
      output y: [V] = u
    }""",
    "heads": """cell a(V, D) heads N {
      input  i: int [], k: int [D] shared, x: [V], z: [V, D] shared
      param  E: [V, D] shared, F: [D, V]  ~ normal(0, 1)
      state  h: [D] = 0
      h[t] = 0.5 * h[t-1] + E[i[t]] + F[:, i[t]] + F[k[t], i[t]] + E[:, k[t]][i[t]]
      output h, y: [D] = x[t][k[t]], u: [V] = z[t][:, i[t]]
    }""",
    "kinds": """cell a(V, D) {
      input  i: int [D], x: int [V], b: bool [V]
      output y: int [D] = x[t][i[t]], z: bool [D] = b[t][i[t]], w: int [D] = iota(V)[i[t]]
    }""",
}
SIZES = {"V": 7, "D": 5, "M": 4, "N": 2}


def compiled(name, backend, **more):
    sizes = {**SIZES, **more}
    return ostinato.compile(CELLS[name], backend=backend, dtype=torch.float64,
                            **{k: v for k, v in sizes.items() if f"{k})" in CELLS[name] or f"{k}," in CELLS[name]
                               or f"heads {k}" in CELLS[name]})


def inputs(layer, seed=0):
    """Positions go from -2 to 2 beyond the largest size."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    for p in layer.cell.inputs:
        shape = (B, T, *p.type.sizes)
        match p.type.kind:
            case "int":
                out[p.name] = torch.randint(-2, 9, shape, generator=g)
            case "bool":
                out[p.name] = torch.rand(shape, generator=g) > 0.5
            case _:
                out[p.name] = torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()
    return out


def results(call, layer, xs):
    y, finals = call(**xs)
    ys = [*((y,) if isinstance(y, torch.Tensor) else y), *finals.values()]
    real = [y for y in ys if y.is_floating_point()]
    g = torch.Generator().manual_seed(1)
    loss = sum((y * torch.randn(y.shape, generator=g, dtype=torch.float64)).sum() for y in real)
    leaves = [x for x in (*xs.values(), *layer.parameters()) if x.requires_grad]
    return ys, list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)) if leaves else []


@pytest.mark.parametrize("more", [{}, {"V": 19, "D": 18, "M": 9, "N": 3}], ids=["small", "wide"])
@pytest.mark.parametrize("name", CELLS)
def test_compiled_agrees_with_interpreter(name, more):
    layer = compiled(name, "llvm", **more)
    xs = inputs(layer)
    got, want = results(layer, layer, xs), results(layer.reference, layer, xs)
    for a, b in zip([*got[0], *got[1]], [*want[0], *want[1]]):
        torch.testing.assert_close(a.detach(), b.detach())


def at(x, i, axis=0):
    """The definition, by Python's indices: x of one sequence."""
    rows = [x.select(axis, int(k)) if 0 <= k < x.shape[axis] else torch.zeros_like(x.select(axis, 0))
            for k in i.reshape(-1)]
    return torch.stack(rows, axis).unflatten(axis, i.shape) if i.dim() else rows[0]


@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
def test_oracle(backend):
    layer = compiled("embedding", backend)
    xs = inputs(layer)
    E, h, rows = layer.get_parameter("E"), torch.zeros(B, 5, dtype=torch.float64), []
    for t in range(T):
        h = 0.5 * h + xs["w"][:, t] * torch.stack([at(E, i) for i in xs["i"][:, t]])
        rows.append(h)
    want = torch.stack(rows, 1)
    got = layer(**xs)[0]
    torch.testing.assert_close(got, want)
    for a, b in zip(*(torch.autograd.grad(y.sin().sum(), [xs["w"], E]) for y in (got, want))):
        torch.testing.assert_close(a, b)
    layer = compiled("columns", backend)
    xs = inputs(layer)
    S, rows = torch.zeros(B, 5, 7, dtype=torch.float64), []
    for t in range(T):
        old, S = S, 0.5 * S + xs["x"][:, t]
        i, j = xs["i"][:, t], xs["j"][:, t]
        rows.append([torch.stack(v) for v in zip(*((at(S[b], i[b], 1), at(at(old[b], j[b]), j[b]), at(S[b].tanh(), i[b]))
                                                   for b in range(B)))])
    for a, b in zip(layer(**xs)[0], (torch.stack(r, 1) for r in zip(*rows))):
        torch.testing.assert_close(a, b)


def test_scatter_is_the_adjoint_of_gather():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 4, 5, 6, generator=g, dtype=torch.float64, requires_grad=True)
    i = torch.randint(-1, 7, (3, 2, 7), generator=g)
    y = meaning.gather(x, 4, i, 2, 2, 1)
    assert y.shape == (3, 2, 4, 7, 6)
    ct = torch.randn(y.shape, generator=g, dtype=torch.float64)
    want, = torch.autograd.grad(y, x, ct)
    torch.testing.assert_close(meaning.scatter(ct, 4, i, 2, 2, 1, 5), want)


def test_an_empty_axis_reads_zero():
    b, V = Builder(), Dim("V", 0)
    x, i = b.full(1.0, Type("real", (V,))), b.literal(0, "int")
    y = b.gather(x, i, 0)
    assert interp.evaluate(b.nodes)[y] == 0


def test_indices_are_whole():
    for kind, found in (("", "real"), ("bool", "bool")):
        with pytest.raises(Exception, match=f"an index must be int, got {found}"):
            ostinato.compile(f"cell a(H) {{ input x: [H], i: {kind} []\n output y: [] = x[t][i[t]] }}", H=3)
