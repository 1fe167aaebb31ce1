"""Gradients inside a cell, against loops that call torch.autograd.grad with create_graph."""

import ostinato
import pytest
import torch
from torch import einsum
from torch.nn.functional import silu

B, T, K, V, M, N = 2, 5, 3, 4, 5, 2


def grad(loss, *leaves):
    """Per sequence and head nothing mixes, so one sum serves all; the result can be differentiated again."""
    out = torch.autograd.grad(loss.sum(), leaves, create_graph=True)
    return out[0] if len(out) == 1 else out


def outer(a, b):
    return a[..., :, None] * b[..., None, :]


CASES = {}


def case(text, **dims):
    def add(step):
        CASES[step.__name__] = text, dims, step
        return step
    return add


@case("""cell a(K, V) heads N {
  input  k: [K], v: [V], eta: [] in (0, 1)
  param  S0: [K, V]  ~ normal(0, 1)
  state  S: [K, V] = S0, P: [K, V] = 0
  P[t] = eta[t] * P[t-1] - 0.3 * grad(sum((k[t] @ S[t-1] - v[t])^2), S[t-1])
  S[t] = 0.9 * S[t-1] + P[t]
  output o: [V] = k[t] @ S[t]
}""", K=K, V=V, N=N)
def linear_memory(x, p, s):
    S = s.S + 0
    P = x.eta[..., None, None] * s.P - 0.3 * grad((einsum("bnk,bnkv->bnv", x.k, S) - x.v) ** 2, S)
    S = 0.9 * S + P
    return {"o": einsum("bnk,bnkv->bnv", x.k, S)}, {"S": S, "P": P}


@case("""fn memory(A: [M, K], B: [V, M], k: [K]) = B @ silu(A @ k)
fn update(A: [M, K], B: [V, M], k: [K], v: [V]) {
  e = memory(A, B, k) - v
  return grad(sum(e^2) + 0.1 * norm(e), A, B)
}
cell a(K, V, M) {
  input  k: [K], v: [V]
  param  A0: [M, K], B0: [V, M]  ~ normal(0, 1)
  state  A: [M, K] = A0, B: [V, M] = B0
  dA, dB = update(A[t-1], B[t-1], k[t], v[t])
  A[t] = A[t-1] - 0.1 * dA
  B[t] = B[t-1] - 0.1 * dB
  output o: [V] = memory(A[t], B[t], k[t])
}""", K=K, V=V, M=M)
def two_layers_in_a_function(x, p, s):
    def memory(A, B):
        return einsum("bvm,bm->bv", B, silu(einsum("bmk,bk->bm", A, x.k)))
    A, B = s.A + 0, s.B + 0
    e = memory(A, B) - x.v
    dA, dB = grad((e ** 2).sum(-1) + 0.1 * e.norm(dim=-1), A, B)
    A, B = A - 0.1 * dA, B - 0.1 * dB
    return {"o": memory(A, B)}, {"A": A, "B": B}


@case("""cell a(K) {
  input  x: [K]
  param  W: [K, K]  ~ normal(0, 1)
  state  h: [K] = 0
  y    = tanh(W @ h[t-1]) * h[t-1]
  l    = sum(exp(y) * h[t-1]) + sum(W @ x[t])^2
  dh, dy, dW, dx = grad(l, h[t-1], y, W, x[t])
  h[t] = 0.3 * dh + 0.1 * dy + 0.01 * (dW @ x[t]) + 0.01 * dx
  output h
}""", K=K)
def independent_leaves(x, p, s):
    """Locals, inputs and parameters too; nothing goes through y to h."""
    def loss(h, y, W, x):
        return ((y.exp() * h).sum(-1) + einsum("bij,bj->bi", W, x).sum(-1) ** 2).sum()

    W = p.W.expand(B, K, K)
    y = torch.tanh(einsum("bij,bj->bi", W, s.h)) * s.h
    dh, dy, dW, dx = torch.func.grad(loss, (0, 1, 2, 3))(s.h, y, W, x.x)
    h = 0.3 * dh + 0.1 * dy + 0.01 * einsum("bij,bj->bi", dW, x.x) + 0.01 * dx
    return {"h": h}, {"h": h}


@case("""cell a(K, V) {
  input  k: [K], v: [V]
  state  S: [K, V] = 0
  repeat j in 3 {
    state M: [K, V] = S[t-1]
    l    = sum((k[t] @ M[j-1] - v[t])^2) + 0.5 * sum[K, V]((M[j-1] - S[t-1])^2)
    M[j] = M[j-1] - 0.1 * grad(l, M[j-1])
  }
  S[t] = 0.9 * M
  output S
}""", K=K, V=V)
def steps_back_to_the_start(x, p, s):
    """The first iteration's M is not the S[t-1] that it is held to."""
    M = s.S + 0
    for _ in range(3):
        loss = ((einsum("bk,bkv->bv", x.k, M) - x.v) ** 2).sum(-1) + 0.5 * ((M - s.S) ** 2).sum((-2, -1))
        M = M - 0.1 * grad(loss, M)
    return {"S": 0.9 * M}, {"S": 0.9 * M}


@case("""cell a(K, V) {
  input  k: [K], v: [V], i: int []
  state  S: [K, V] = 0
  z    = softmax[V](S[t-1])
  l    = logsumexp(k[t] @ S[t-1] - v[t]) + max(k[t] @lse S[t-1]) + sum(abs(S[t-1][i[t]])) +
         sum[K, V](relu(S[t-1]) * z) + sum(stop_gradient(k[t] @ S[t-1]) * (k[t] @ S[t-1]))
  S[t] = 0.9 * S[t-1] - 0.2 * grad(l, S[t-1]) + outer(k[t], v[t])
  output S
}""", K=K, V=V)
def many_operations(x, p, s):
    S = s.S + 0
    y = einsum("bk,bkv->bv", x.k, S)
    row = torch.stack([S[b, int(i)] if 0 <= i < K else 0 * S[b, 0] for b, i in enumerate(x.i)])
    loss = ((y - x.v).logsumexp(-1) + (x.k[..., None] + S).logsumexp(-2).amax(-1) + row.abs().sum(-1)
            + (S.relu() * S.softmax(-1)).sum((-2, -1)) + (y.detach() * y).sum(-1))
    S = 0.9 * S - 0.2 * grad(loss, S) + outer(x.k, x.v)
    return {"S": S}, {"S": S}


@case("""cell a(K) {
  input  x: [K]
  state  h: [K] = 0
  g    = grad(sum(sin(h[t-1]) * x[t]), h[t-1])
  h[t] = 0.5 * h[t-1] + grad(sum(g * g * h[t-1]), h[t-1])
  output h
}""", K=K)
def twice(x, p, s):
    h = s.h + 0
    g = grad(h.sin() * x.x, h)
    new = 0.5 * h + grad(g * g * h, h)
    return {"h": new}, {"h": new}


@case("""cell a(K) heads N {
  input  x: [K], k: [K]
  state  h: [K] = 0, c: [K] shared = 0
  l    = sum(sum[N](tanh(h[t-1]) * x[t])^2) + sum[N](c[t-1] @ k[t])^2
  dh, dc = grad(l, h[t-1], c[t-1])
  h[t] = 0.5 * h[t-1] - 0.2 * dh + x[t]
  c[t] = 0.5 * c[t-1] - 0.1 * dc + sum[N](x[t])
  output h
}""", K=K, N=N)
def heads_together(x, p, s):
    h, c = s.h + 0, s.c + 0
    loss = ((h.tanh() * x.x).sum(1) ** 2).sum(-1) + einsum("bk,bnk->b", c, x.k) ** 2
    dh, dc = grad(loss, h, c)
    h, c = 0.5 * h - 0.2 * dh + x.x, 0.5 * c - 0.1 * dc + x.x.sum(1)
    return {"h": h}, {"h": h, "c": c}


class Names(dict):
    __getattr__ = dict.__getitem__


def real(values):
    return [v for v in values.values() if v.is_floating_point()]


@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
@pytest.mark.parametrize("name", CASES)
def test_against_autograd(name, backend):
    """Outputs, final states, and gradients by inputs, parameters and initial states."""
    text, dims, step = CASES[name]
    layer = ostinato.compile(text, backend=backend, dtype=torch.float64, **dims)
    g = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float64)      # noqa: E731
    xs = {p.name: torch.randint(-1, 4, (B, T), generator=g) if p.type.kind == "int" else
          rand(B, T, *p.type.sizes).requires_grad_() for p in layer.cell.inputs}
    start = {s.name: rand(B, *s.type.sizes).requires_grad_() for s in layer.cell.states}
    params = Names(layer.named_parameters())
    y, finals = layer(**xs, state=start)
    got = dict(zip(layer.output_names, (y,) if isinstance(y, torch.Tensor) else y)) | {f"final.{k}": v for k, v in finals.items()}
    rows, s = [], Names(start)
    for t in range(T):
        out, new = step(Names({k: v[:, t] for k, v in xs.items()}), params, s)
        s = Names({**s, **new})
        rows.append(out)
    want = {k: torch.stack([r[k] for r in rows], 1) for k in rows[0]} | {f"final.{k}": v for k, v in s.items()}
    assert got.keys() == want.keys()
    cts = {k: rand(*v.shape) for k, v in want.items()}
    leaves = [*real(xs), *params.values(), *start.values()]
    grads = [torch.autograd.grad(sum((ys[k] * cts[k]).sum() for k in ys), leaves, allow_unused=True,
                                 materialize_grads=True) for ys in (got, want)]
    for k in want:
        torch.testing.assert_close(got[k], want[k], rtol=1e-9, atol=1e-9)
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_the_update_is_shown_as_equations():
    """A quadratic loss gives the delta rule: no guard, no other operation than the text's own."""
    text, dims, _ = CASES["linear_memory"]
    layer = ostinato.compile(text, backend="interpreter", **dims)
    assert {n.op for n in layer.cell.body} <= {"input", "state", "param", "contract", "sub", "add", "mul", "literal",
                                               "broadcast"}
    assert layer.ir("cell").count("contract") == 2
