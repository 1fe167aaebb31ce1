"""Random cells with matrix states, whose steps become sweeps, rotated sweeps and strips, against the interpreter."""

from __future__ import annotations

import random

import ostinato
import pytest
import torch
from ostinato.runtime.sample import sample_inputs

SIZES = [(4, 3), (5, 19), (99, 64), (200, 32), (16, 16), (60, 100), (64, 128), (8, 72)]
LENGTHS = [(1, 40), (2, 67), (3, 1), (2, 2), (20, 5)]


# a state that is a bare sum of S, with what S reads of it: of its rows, its columns, all of it
SUMS = [("e: [K] = 0.1", ["S[t-1] @ v[t]", "sum[V](S[t-1])", "S[t] @ tanh(v[t])"], "outer(tanh(e[t-1]), v[t])"),
        ("e: [V] = 0.1", ["q[t] @ S[t-1]", "sum[K](S[t-1])"], "outer(k[t], tanh(e[t-1]))"),
        ("e: [] = 0.1", ["sum[K, V](S[t-1])", "sum[K, V](S[t])"], "tanh(e[t-1]) * outer(k[t], v[t])"),
        ("e: [K] = 0.1", ["sum[V](S[t-1])"], "sigmoid(e[t-1]) * S[t-1]"),
        ("e: [] = 0.1", ["sum[K, V](S[t-1])"], "tanh(e[t-1]) * S[t-1]")]


def text(r: random.Random, sums: random.Random) -> str:
    """A cell: one or two matrix states, perhaps a vector, written through reads of old states or not, perhaps a sum."""
    heads, vector, second = r.random() < 0.4, r.random() < 0.3, r.random() < 0.25
    old = r.choice(["S[t-1]", "exp(-g[t]^2) * S[t-1]", "exp(-b[t]^2) * S[t-1]", "sigmoid(w) * S[t-1]",
                    "sigmoid(v[t]) * S[t-1]"])
    old = "S[t-1] * exp(-g[t]^2)" if "g[t]" in old else old
    lines = [f"kk = {r.choice(['k[t]', 'tanh(k[t])', 'k[t] / (1 + sum(k[t] * k[t]))'])}"]
    lines += r.choice([
        [f"S[t] = {old} + outer(kk, v[t])"],
        [f"u = v[t] - kk @ ({old})", f"S[t] = {old} + 0.3 * outer(kk, u)"],
        ["u = (v[t] - kk @ S[t-1]) * sigmoid(b[t])", f"S[t] = {old} + outer(kk, u) * sigmoid(b[t])"],
        ["u = kk @ S[t-1]", "z = tanh(q[t]) @ S[t-1]",
         f"S[t] = {old} - 0.2 * outer(kk, u) + outer(kk, v[t] + 0.1 * z)"],
        ["u = S[t-1] @ tanh(v[t])", f"S[t] = {old} - 0.1 * outer(u, v[t]) + outer(kk, v[t])"],
        ["u = kk @ S[t-1]", "y = S[t-1] @ tanh(v[t])",
         f"S[t] = {old} - 0.1 * outer(kk, u) + outer(k[t] + 0.05 * y, v[t])"]])
    further = ""
    if sums.random() < 0.5:
        state, values, read = sums.choice(SUMS)
        lines = [f"{x} + 0.1 * {read}" if x.startswith("S[t] =") else x for x in lines]
        lines, further = [*lines, f"e[t] = {sums.choice(values)}"], f", {state}"
    lines += ["n[t] = 0.9 * n[t-1] + k[t]"] * vector
    if second:
        lines.append(r.choice(["C[t] = 0.9 * C[t-1] + S[t]", "C[t] = exp(-b[t]^2) * C[t-1] + outer(k[t], q[t] @ S[t])"]))
    of = "C" if second and r.random() < 0.6 else "S"
    reads = [f"o: [V] = q[t] @ {of}[t]", f"p: [K] = {of}[t] @ v[t]", "r: [V] = q[t] @ S[t-1] + v[t]",
             f"s: [V] = tanh(q[t] @ {of}[t])", "h: [V] = (q[t] @ S[t]) / max(1, abs(sum(k[t] * q[t])))"]
    reads += ["m: [K] = n[t] * k[t]", "d: [V] = (q[t] @ S[t]) / (1 + sum(n[t] * n[t]))"] if vector else []
    lines += [f"output {x}" for x in r.sample(reads, r.choice([1, 2]))]
    states = "S: [K, V] = 0" + ", C: [K, V] = 0" * second + ", n: [K] = 0" * vector + further
    return "\n".join([f"cell c(K, V){' heads N' * heads} {{", "  input q: [K], k: [K], v: [V], g: [K], b: []",
                      "  param w: [] ~ uniform(-1, 1)", f"  state {states}", "", *(f"  {x}" for x in lines), "}\n"])


def masks(r: random.Random, B: int, T: int) -> dict:
    return r.choice([{}, {}, {}, {"reverse": True}, {"lengths": torch.tensor([r.randint(0, T) for _ in range(B)])},
                     {"reset": torch.tensor([[r.random() < 0.15 for _ in range(T)] for _ in range(B)])}])


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(n, marks=pytest.mark.slow) for n in range(12, 500))])
def test_values_and_gradients(seed):
    r = random.Random(seed)
    source, (K, V), (B, T) = text(r, random.Random(seed + 1000)), r.choice(SIZES), r.choice(LENGTHS)
    sizes = {"K": K, "V": V} | ({"N": r.choice([1, 2, 3])} if "heads N" in source else {})
    layer = ostinato.compile(source, schedule="sequential", dtype=torch.float64, **sizes)
    asked, results = masks(r, B, T), []
    for f in (layer, layer.reference):
        g = torch.Generator().manual_seed(seed)
        xs = {k: (x.double() / 3).requires_grad_() for k, x in sample_inputs(layer.cell, B, T, seed).items()}
        first = {s.name: (torch.randn(B, *s.type.sizes, generator=g, dtype=torch.float64) / 5).requires_grad_()
                 for s in layer.cell.states}
        y, last = f(**xs, state=first, **asked)
        ys = [*(y if isinstance(y, tuple) else y.values() if isinstance(y, dict) else [y]), *last.values()]
        loss = sum((x * torch.randn(x.shape, generator=g, dtype=torch.float64)).sum() for x in ys)
        of = [*xs.values(), *first.values(), *layer.parameters()]
        results.append([*ys, *torch.autograd.grad(loss, of, materialize_grads=True)])
    for found, wanted in zip(*results):
        assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max().clamp(min=1e-9), source
