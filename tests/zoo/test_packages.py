"""Cells against the published packages that define them: same numbers in, same values and gradients out.

Each test writes the package's weights as functions of the compiled layer's own parameters, so that
autograd through the package gives gradients that the layer's can be compared with, name by name.
Everything is float64; the tolerance is on the RMS of the error relative to the package's RMS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ostinato
import pandas
import pytest
import snntorch.surrogate
import torch
from minGRU_pytorch.minGRU import minGRU
from minGRU_pytorch.minLSTM import minLSTM
from ncps.torch import LTCCell
from ncps.wirings import FullyConnected
from scipy.signal import cont2discrete
from torch import Tensor, einsum
from torch.func import functional_call
from zoo_data import assert_close, data, detached, leaves, path, shake

Values = dict[str, Tensor]
TIGHT = 1e-12


@pytest.fixture(params=["interpreter", "llvm"])
def backend(request) -> str:
    return request.param


def build(name: str, backend: str, text: str | None = None, **sizes):
    layer = ostinato.compile(text or path(name), backend=backend, dtype=torch.float64, **sizes)
    shake(layer)
    return layer


def agree(layer, theirs: Callable[[Values, Values, Values], Values], xs: Values, states: Values | None,
          where: Values | None = None, tolerance: float = TIGHT) -> Values:
    """Compare `theirs(xs, params, states)` and its gradients by all three with the layer's.

    States given as None start as declared, and `theirs` sees none. `where`: for a parameter, the
    entries that exist in the package; the gradients of others are left out. Gives the values.
    """
    xs, states = leaves(xs), None if states is None else leaves(states)
    params = dict(layer.named_parameters())
    want = theirs(xs, params, states or {})
    y, finals = layer(**xs, state=states)
    ours = dict(zip(layer.output_names, (y,) if isinstance(y, Tensor) else y))
    ours |= {f"final.{k}": v for k, v in finals.items()}
    got = {k: ours[k] for k in want}
    wrt, g = xs | (states or {}) | params, torch.Generator().manual_seed(7)
    # of few bits: snntorch casts the gradient of a spike to float32, which keeps sums of these exactly
    cotangents = [torch.randn(v.shape, generator=g).bfloat16().to(v.dtype) for v in want.values()]
    result = detached(want)
    for values in (got, want):
        loss = sum((v * ct).sum() for v, ct in zip(list(values.values()), cotangents))
        d = torch.autograd.grad(loss, list(wrt.values()), allow_unused=True, materialize_grads=True)
        values |= {f"d.{k}": v * (where or {}).get(k, 1) for k, v in zip(wrt, d)}
    assert_close(detached(got), detached(want), tolerance, layer.cell.name)
    return result


@pytest.mark.parametrize("n, dt", [(6, 1.0), (3, 0.5)])
def test_ltc_agrees_with_ncps(backend, n, dt):
    """ncps sums one sigmoid per synapse, the cell has one sigmoid of the sum: they are the same
    network when each neuron has one synapse, from an input or from a neuron. Then sigma is the
    weight, mu = -bias / weight, w = 1, erev = A, gleak = 1 / tau, vleak = 0 and cm = 1."""
    I, H = 3, 6
    layer = build("ltc", backend, I=I, H=H, n=n, dt=dt)
    W, R = torch.zeros(H, I, dtype=torch.float64), torch.zeros(H, H, dtype=torch.float64)
    W[[0, 1], [2, 0]] = 1                                # neuron 0 hears input 2
    R[[2, 3, 4, 5], [3, 0, 4, 2]] = 1                    # neuron 2 hears neuron 3, neuron 4 itself
    with torch.no_grad():
        for p, exists in ((layer.W, W), (layer.R, R)):
            p.copy_(exists * (p.sign() + p))             # away from 0, where mu has its pole
    wiring = FullyConnected(H)
    module = LTCCell(wiring, I, input_mapping=None, output_mapping=None, ode_unfolds=n, epsilon=0.0)

    def synapses(weight, exists, p):
        real = torch.where(exists.T > 0, weight.T, 1.0)
        return {"sigma": weight.T, "mu": -p["b"] / real, "w": exists.T, "erev": p["A"].expand_as(weight.T)}

    def theirs(xs, p, states):
        sensory = {f"sensory_{k}": v for k, v in synapses(p["W"], W, p).items()}
        # The module computes from this table of its parameters, which functional_call does not reach.
        module._params.update(sensory | synapses(p["R"], R, p) | {
            "gleak": torch.exp(-p["log_tau"]), "vleak": torch.zeros_like(p["A"]), "cm": torch.ones_like(p["A"])})
        h, ys = states["h"], []
        for x in xs["x"].unbind(1):
            y, h = module(x, h, elapsed_time=dt)
            ys.append(y)
        return {"h": torch.stack(ys, 1), "final.h": h}

    agree(layer, theirs, *data(layer, B=3, T=17), where={"W": W, "R": R})


SURROGATES = {"fast_sigmoid": (25, "1 / (1 + slope * abs(v))^2"),
              "atan": (2, "slope / 2 / (1 + (pi / 2 * slope * v)^2)")}


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_lif_agrees_with_snntorch(backend, surrogate):
    """Leaky with reset by subtraction; the membrane, the spikes, and the surrogate gradient."""
    slope, derivative = SURROGATES[surrogate]
    text = Path(path("lif")).read_text()
    assert SURROGATES["fast_sigmoid"][1] in text
    text = text.replace(SURROGATES["fast_sigmoid"][1], derivative)
    layer = build("lif", backend, text, D=5, slope=slope)
    beta, theta = (torch.tensor(v, dtype=torch.float64) for v in (0.9, 1.0))
    spike = getattr(snntorch.surrogate, surrogate)(slope)
    module = snntorch.Leaky(beta, theta, spike_grad=spike, reset_mechanism="subtract")

    def theirs(xs, p, states):
        v, spikes, vs = states["v"], [], []
        for x in xs["x"].unbind(1):
            s, v = module(x, v)
            spikes.append(s.double())
            vs.append(v)
        return {"s": torch.stack(spikes, 1), "v": torch.stack(vs, 1), "final.v": v, "final.s": spikes[-1]}

    xs, states = data(layer, B=3, T=40)
    states["s"] = (states["v"] > theta).double()         # the package reads the last spike off the membrane
    values = agree(layer, theirs, xs, states)
    assert 0.05 < values["s"].mean() < 0.95


@pytest.mark.parametrize("start", ["declared", "given"])
def test_slstm_agrees_with_xlstm(backend, start):
    """The package's cell on a CPU (`vanilla`). It starts from m = 0 and ignores that m; ours from m = -inf.

    Not in the `test` extra, as it asks for mlstm_kernels (a licence of its own), matplotlib and ninja,
    none of which this cell loads: `pip install --no-deps -c constraints.txt xlstm` is enough."""
    xlstm = pytest.importorskip("xlstm.blocks.slstm.cell")
    I, H, N = 3, 5, 2
    layer = build("slstm", backend, I=I, H=H, N=N)
    config = xlstm.sLSTMCellConfig(hidden_size=N * H, num_heads=N, backend="vanilla", dtype="float32")
    module = xlstm.sLSTMCell_vanilla(config)

    def theirs(xs, p, states):
        x = xs["x"]
        B, T, _ = x.shape
        gates = einsum("ngoi,bti->btgno", p["W"].view(N, 4, H, I), x).reshape(B, T, -1)
        state = torch.stack([states[k].reshape(B, -1) for k in "hcnm"]) if states else None
        weights = {"_recurrent_kernel_": p["R"], "_bias_": module._bias_ext2int(p["b"])}
        y, final = functional_call(module, weights, (gates, state))
        return {"h": y.transpose(1, 2)} | {f"final.{k}": v.view(B, N, H) for k, v in zip("hcnm", final)}

    xs, states = data(layer, B=3, T=17)
    agree(layer, theirs, xs, states if start == "given" else None)


MIN = {"mingru": (minGRU, "to_hidden_and_gate.weight", (1, 0)),       # their order of blocks, by ours
       "minlstm": (minLSTM, "to_hidden_and_f_i_gate.weight", (2, 0, 1))}


@pytest.mark.parametrize("mode", ["parallel", "parallel from a state", "steps"])
@pytest.mark.parametrize("name", MIN)
def test_min_cells_agree_with_mingru_pytorch(backend, name, mode):
    """Its scan in log space and its steps. It has no bias: ours is its weight of an input that is 1."""
    package, key, order = MIN[name]
    I, H = 3, 6
    layer = build(name, backend, I=I, H=H)
    module = package(I + 1, expansion_factor=H / (I + 1), proj_out=False)

    def theirs(xs, p, states):
        weight = torch.cat([p["W"], p["b"][:, None]], 1).view(len(order), H, I + 1)[list(order)].flatten(0, 1)
        x = torch.cat([xs["x"], torch.ones_like(xs["x"][..., :1])], -1)
        state = states["h"][:, None] if states else None
        if mode != "steps":
            y = functional_call(module, {key: weight}, (x,), {"prev_hidden": state})
            return {"h": y, "final.h": y[:, -1]}
        ys = []
        for x_t in x.split(1, 1):
            state = functional_call(module, {key: weight}, (x_t,), {"prev_hidden": state})
            ys.append(state)
        return {"h": torch.cat(ys, 1), "final.h": state[:, 0]}

    def through_g(xs, p, states):
        """minLSTM's scan (not its step) starts from g(prev_hidden); g(h - 0.5) = h for h >= 0.5."""
        return theirs(xs, p, {"h": states["h"] - 0.5})

    xs, states = data(layer, B=3, T=17)
    states = {"h": states["h"].abs() + 0.5}              # a logarithm is taken of it
    scan_from_state = mode == "parallel from a state"
    agree(layer, through_g if scan_from_state and name == "minlstm" else theirs, xs,
          None if mode == "parallel" else states)


def test_ema_agrees_with_pandas(backend):
    """`ewm(adjust=False)` starts from the first sample. It is linear: its matrix is its answer to impulses."""
    B, T = 2, 60
    layer = build("ema", backend, D=5)

    def mean(x, alpha):
        return torch.from_numpy(pandas.DataFrame(x.numpy()).ewm(alpha=alpha, adjust=False).mean().to_numpy().copy())

    xs, _ = data(layer, B, T)
    x, alphas = xs["x"].requires_grad_(), layer.alpha.detach()
    y, _ = layer(x, state={"y": x[:, 0]})
    want = torch.stack([mean(x.detach()[..., d].T, a.item()).T for d, a in enumerate(alphas)], -1)
    ct = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    (dx,) = torch.autograd.grad((y * ct).sum(), x)
    matrices = torch.stack([mean(torch.eye(T, dtype=torch.float64), a.item()) for a in alphas])
    assert_close({"y": y.detach(), "d.x": dx}, {"y": want, "d.x": einsum("dts,btd->bsd", matrices, ct)}, TIGHT)


def test_legs_agrees_with_scipy(backend):
    """At each time, HiPPO-LegS divided by that time and discretised by `cont2discrete`, bilinear."""
    layer = build("legs", backend, D=5)
    n = torch.arange(5, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    A = -(torch.tril(root[:, None] * root, -1) + torch.diag(n + 1)).numpy()

    def theirs(xs, p, states):
        c, cs = torch.zeros(xs["u"].shape[0], 5, dtype=torch.float64), []
        for t, u in enumerate(xs["u"].unbind(1), 1):
            system = A / t, root[:, None].numpy() / t, A[:1], A[:1, :1]
            Ad, Bd = map(torch.from_numpy, cont2discrete(system, 1.0, "bilinear")[:2])
            c = c @ Ad.T + u[:, None] * Bd[:, 0]
            cs.append(c)
        return {"c": torch.stack(cs, 1), "final.c": c}

    agree(layer, theirs, data(layer, B=3, T=17)[0], None)


def test_aaren_agrees_with_torch_attention(backend):
    """Softmax attention of the same query over every prefix is causal attention of a repeated query."""
    layer = build("aaren", backend, K=3, V=4, N=2)

    def theirs(xs, p, states):
        k, v = (xs[name].transpose(1, 2) for name in "kv")
        q = p["q"][:, None].expand_as(k)
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return {"o": o.transpose(1, 2)}

    agree(layer, theirs, data(layer, B=3, T=17)[0], None)
