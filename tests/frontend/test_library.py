"""Built-in functions, functions of a text, initial values and consts."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from elaborated import B, cell_of, close, design, errors, outputs
from ostinato.frontend.load import elaborate, load
from ostinato.ir.interp import initial_params, run
from ostinato.ir.types import Dim

X = torch.tensor([[0.3, -1.2, 2.0], [0.5, 0.1, -0.4]], dtype=torch.float64)


@pytest.mark.parametrize("text, expected", [
    ("sum[K](x[t])", lambda x: x.sum(-1)), ("sum[A](x[t])", lambda x: x.sum(-2)), ("sum[A, K](x[t])", lambda x: x.sum((-1, -2))),
    ("mean[K](x[t])", lambda x: x.mean(-1)), ("max[K](x[t])", lambda x: x.amax(-1)), ("min[A](x[t])", lambda x: x.amin(-2)),
    ("prod[K](x[t])", lambda x: x.prod(-1)), ("logsumexp[K](x[t])", lambda x: x.logsumexp(-1)),
    ("var[K](x[t])", lambda x: x.var(-1, correction=0)), ("norm[K](x[t])", lambda x: x.norm(dim=-1)),
    ("softmax(x[t])", lambda x: x.softmax(-1)), ("softmax[A](x[t])", lambda x: x.softmax(-2)),
    ("log_softmax[K](x[t])", lambda x: x.log_softmax(-1)), ("cumsum[A](x[t])", lambda x: x.cumsum(-2)),
    ("l2norm(x[t])", lambda x: x * (x.pow(2).sum(-1, True) + 1e-6).rsqrt()),
    ("argmax[K](x[t])", lambda x: x.argmax(-1)), ("any[K](x[t] > 1)", lambda x: (x > 1).any(-1)),
    ("all[K](x[t] > -2)", lambda x: (x > -2).all(-1)), ("sum[K](x[t] > 0)", lambda x: (x > 0).sum(-1)),
    ("relu(x[t])", torch.relu), ("silu(x[t])", F.silu), ("gelu(x[t])", F.gelu), ("elu(x[t])", F.elu),
    ("softplus_inverse(softplus(x[t]))", lambda x: x), ("sign(x[t])", torch.sign), ("clamp(x[t], -1, 0.4)", lambda x: x.clamp(-1, 0.4)),
    ("x[t]^2", lambda x: x ** 2), ("x[t]^3", lambda x: x ** 3), ("x[t]^-1", lambda x: 1 / x), ("abs(x[t])^0.5", lambda x: x.abs().sqrt()),
    ("abs(x[t])^1.7", lambda x: x.abs() ** 1.7), ("pow(2, x[t])", lambda x: 2 ** x), ("x[t] // 0.3", lambda x: x // 0.3),
    ("x[t] % 0.3", lambda x: x % 0.3), ("max(x[t], 0.2)", lambda x: x.clamp(min=0.2)), ("min(1, x[t], 0.2)", lambda x: x.clamp(max=0.2)),
    ("x[t].T", lambda x: x.mT), ("x[t][1]", lambda x: x[..., 1, :]), ("x[t][1, 2]", lambda x: x[..., 1, 2]), ("x[t][:, 1:]", lambda x: x[..., 1:]),
    ("x[t][:1, 0]", lambda x: x[..., :1, 0]), ("x[t][0] @ x[t][1]", lambda x: (x[..., 0, :] * x[..., 1, :]).sum(-1)),
    ("x[t] @ x[t].T", lambda x: x @ x.mT), ("dot(x[t][0], x[t][1])", lambda x: (x[..., 0, :] * x[..., 1, :]).sum(-1)),
    ("outer(x[t][0], x[t][1])", lambda x: x[..., 0, :, None] * x[..., 1, None, :]), ("diag(x[t][0])", lambda x: torch.diag_embed(x[..., 0, :])),
    ("diag(x[t].T @ x[t])", lambda x: (x.mT @ x).diagonal(dim1=-2, dim2=-1)), ("concat(x[t], x[t][:1])", lambda x: torch.cat([x, x[..., :1, :]], -2)),
    ("concat(x[t][0], [1, 2])", lambda x: torch.cat([x[..., 0, :], torch.tensor([1.0, 2]).double().expand(*x.shape[:-2], 2)], -1)),
    ("stack(x[t][0], x[t][1])", lambda x: x), ("stack(x[t][a] for a in A)", lambda x: x), ("concat(x[t][a] for a in A)", lambda x: x.flatten(-2)),
    ("sum(x[t][a] for a in A)", lambda x: x.sum(-2)), ("mean(x[t][a] for a in A)", lambda x: x.mean(-2)), ("max(x[t][a] for a in A)", lambda x: x.amax(-2)),
    ("prod(x[t][a] for a in 0) + x[t]", lambda x: x + 1), ("any(x[t][a] > 1 for a in A)", lambda x: (x > 1).any(-2)),
    ("onehot(argmax[K](x[t]), K)", lambda x: F.one_hot(x.argmax(-1), 3).bool()), ("eye(K) + 0 * sum[A,K](x[t])", lambda x: torch.eye(3).double().expand(*x.shape[:-2], 3, 3)),
    ("ones(A, K) * x[t] + zeros(K) + full(3, A)", lambda x: x + 3), ("iota(K) * x[t]", lambda x: x * torch.arange(3)),
    ("x[t][0] * x[t]", lambda x: x[..., :1, :] * x), ("x[t][:, 0] * x[t]", lambda x: x[..., :1] * x), ("identity(x[t]) if sum[A, K](x[t]) > 0 else 0", lambda x: x),
    ("1 / 2 * x[t] if A == 2 else x[t]", lambda x: x / 2), ("K * x[t] / sqrt(A)", lambda x: 3 * x / 2 ** 0.5), ("x[t] if not training and true else 0", lambda x: x),
    ("real(int(x[t]))", torch.trunc), ("logaddexp(x[t], 0)", lambda x: torch.logaddexp(x, torch.zeros(()).double())), ("atan2(x[t], 1)", torch.atan),
    ("split(x[t], 2)", None),
])
def test_library(text, expected):
    source = f"cell c(A, K) {{\n input x: [A, K]\n output y: X = {text}\n}}".replace("y: X", "y")
    if expected is None:
        assert errors(source, A=2, K=3)
        return
    x = X.expand(1, 2, 2, 3) * torch.tensor([1.0, 0.7]).view(1, 2, 1, 1)
    cell = cell_of(source, A=2, K=3)
    close(run(cell, {"x": x}, {}).outputs["y"], expected(x.double()))


def test_solve_logdet_heads():
    cell, x, _, y = outputs("""cell c(K, M) heads N {
      input a: [K, K] shared, b: [K, M]
      output x: [K, M] = solve(a[t] + 3 * eye(K), b[t]), d: [] shared = logdet(a[t] + 3 * eye(K)), m: [K] shared = sum[N](b[t][:, 0])
    }""", K=3, M=2, N=4)
    a = x["a"] + 3 * torch.eye(3)
    close(y["x"], torch.linalg.solve(a[:, :, None], x["b"]))
    close(y["d"], torch.logdet(a))
    close(y["m"], x["b"][..., 0].sum(2))


def test_functions_patterns_defaults_blocks_and_function_arguments():
    _, x, _, y = outputs("""
    fn scaled(x: [A], w: [A] = 2, act=tanh, k=1) {
      z = act(w * x)
      return k * z, A * z
    }
    fn cube(x) = x * x * x
    cell c(H) {
      input x: [H]
      a, b = scaled(x[t], k=3)
      c, _d = scaled(x[t], act=cube)
      output a, b, c
    }""", H=3)
    v = x["x"]
    close(y["a"], 3 * (2 * v).tanh())
    close(y["b"], 3 * (2 * v).tanh())
    close(y["c"], (2 * v) ** 3)


def test_header_function_argument_and_numbers():
    source = "fn twice(x) = 2 * x\ncell c(H, act=tanh, k=2) {\n input x: [H]\n output y: [H] = k * act(x[t])\n}"
    _, x, _, y = outputs(source, H=2)
    close(y["y"], 2 * x["x"].tanh())
    cell = load(source).cells["c"].elaborate(H=2, act="twice", k=0.5)
    close(run(cell, x, {}).outputs["y"], x["x"])
    assert elaborate(load(source), "c", {"H": 2}, {"act": "relu"}).name == "c"


def test_integer_default_is_a_dimension():
    source = "cell c(W=3) {\n param w: [W] = 1\n input x: [W]\n output y: [W] = w * x[t]\n}"
    assert cell_of(source).dims == (Dim("W", 3),)
    assert cell_of(source, W=5).param("w").type.sizes == (5,)


def test_initial_values():
    cell = cell_of("""cell c(H, M) heads N {
      input x: [H]
      param b: [H] = log(a) + 1
      param a: [H] ~ exp(uniform(0, 1))
      param p: [H, M], q: [H, M] ~ normal(0, 0.1)
      param A[n, k]: [H, H] = n + 10 * k if n > k else 0
      param o: [H, M] shared ~ orthogonal(2)
      param v: [3] = [1, 0.5, M]
      state h: [H] = a * 2 + p @ ones(M)
      h[t] = h[t-1] + x[t]
      output h
    }""", H=3, M=2, N=2)
    p = initial_params(cell, 0)
    close(p["b"], p["a"].log() + 1)
    assert p["a"].shape == (2, 3) and (p["a"] >= 1).all() and p["a"].unique().numel() == 6
    assert not torch.equal(p["p"], p["q"])
    n, k = torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
    close(p["A"], torch.where(n > k, n + 10 * k, 0).double().expand(2, 3, 3))
    close(p["o"].mT @ p["o"], 4 * torch.eye(2).double())
    assert p["v"].tolist() == [[1, 0.5, 2]] * 2
    x = torch.zeros(B, 1, 2, 3).double()
    close(run(cell, {"x": x}, p).outputs["h"][:, 0], (2 * p["a"] + p["p"].sum(-1)).expand(B, 2, 3))


def test_supplied_const_is_a_frozen_parameter():
    cell = cell_of("cell c(H) {\n const m: int [H]\n input x: [H]\n output y: [H] = m * x[t]\n}", H=2)
    [p] = cell.params
    assert (p.name, p.init, p.trainable, p.type.kind) == ("m", None, False, "int")


def test_elaborated_cells_are_small_and_readable():
    cell = cell_of("examples/zoo/lstm.ost" if Path("examples/zoo/lstm.ost").exists() else design("zoneout"), I=3, H=4)
    names = set(cell.nodes())
    assert {"i", "f", "g", "o", "c.next", "h.next"} <= names
    assert all(n.span is not None for n in cell.body)
    cell = cell_of("cell c(H) {\n input x: [H]\n unused = exp(x[t])\n a = x[t] + x[t]\n b = x[t] + x[t]\n output y: [H] = a * b\n}", H=2)
    assert [n.op for n in cell.body] == ["input", "add", "mul"]


def test_same_size_is_not_same_dimension():
    program = load("cell c(K, V) {\n input k: [K], v: [V]\n output y: [K] = k[t]\n}")
    cell = program.cells["c"].elaborate(K=4, V=4)
    assert cell.input("k").type != cell.input("v").type
