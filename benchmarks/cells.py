"""The peers' cells: one text per cell for the eager PyTorch loop and for JAX's lax.scan.

`before` does the work that needs no state for all steps at once, as a careful
user would; `step` is one step on rows of what it returned. Arrays are torch's or
JAX's; `ops` has the functions under one set of names. Parameters and inputs have
the names of the zoo's files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace as NS
from typing import Any

Array = Any


@dataclass(frozen=True)
class Peer:
    before: Callable[[NS, NS, NS], tuple[Array, ...]]                          # (ops, inputs, params)
    step: Callable[[NS, tuple[Array, ...], NS, tuple[Array, ...]], tuple]      # -> (new states, output)
    states: tuple[str, ...]


def _project(ops, x, p):
    return (x.x @ p.W.T + p.b,)


def _elman(ops, a, p, s):
    h = ops.tanh(a[0] + s[0] @ p.R.T)
    return (h,), h


def _lstm(ops, a, p, s):
    i, f, g, o = ops.split(a[0] + s[0] @ p.R.T, 4)
    c = ops.sigmoid(f) * s[1] + ops.sigmoid(i) * ops.tanh(g)
    h = ops.sigmoid(o) * ops.tanh(c)
    return (h, c), h


def _gru(ops, a, p, s):
    xr, xz, xn = ops.split(a[0], 3)
    hr, hz, hn = ops.split(s[0] @ p.R.T + p.br, 3)
    z = ops.sigmoid(xz + hz)
    n = ops.tanh(xn + ops.sigmoid(xr + hr) * hn)
    h = n + z * (s[0] - n)
    return (h,), h


def _ligru(ops, a, p, s):
    z, n = ops.split(a[0] + s[0] @ p.R.T, 2)
    n = ops.relu(n)
    h = n + ops.sigmoid(z) * (s[0] - n)
    return (h,), h


def _cifg(ops, a, p, s):
    f, g, o = ops.split(a[0] + s[0] @ p.R.T, 3)
    g = ops.tanh(g)
    c = g + ops.sigmoid(f + p.wf * s[1]) * (s[1] - g)
    h = ops.sigmoid(o + p.wo * c) * ops.tanh(c)
    return (h, c), h


def _norm_before(ops, x, p):
    return (ops.layer_norm(x.x @ p.W.T) * p.wx + p.b,)


def _norm_lstm(ops, a, p, s):
    i, f, g, o = ops.split(a[0] + ops.layer_norm(s[0] @ p.R.T) * p.wh, 4)
    c = ops.sigmoid(f) * s[1] + ops.sigmoid(i) * ops.tanh(g)
    h = ops.sigmoid(o) * ops.tanh(ops.layer_norm(c) * p.wc + p.bc)
    return (h, c), h


def _slstm_before(ops, x, p):
    return (x.x @ p.W[0].T + p.b[0],)


def _slstm(ops, a, p, s):                # one head
    h, c, n, m = s
    i, f, z, o = ops.split(a[0] + h[:, 0] @ p.R[0].T, 4)
    keep = ops.log_sigmoid(f) + m[:, 0]
    top = ops.maximum(i, keep)
    c = ops.exp(keep - top) * c[:, 0] + ops.exp(i - top) * ops.tanh(z)
    n = ops.exp(keep - top) * n[:, 0] + ops.exp(i - top)
    h = (ops.sigmoid(o) * c / n)[:, None]
    return (h, c[:, None], n[:, None], top[:, None]), h


def _lem_before(ops, x, p):
    return (x.x @ p.V.T + p.b,)


def _lem(ops, a, p, s):
    y, z = s
    x1, x2, xz, xy = ops.split(a[0], 4)
    y1, y2, yz = ops.split(y @ p.W.T, 3)
    z = z + ops.sigmoid(x1 + y1) * (ops.tanh(xz + yz) - z)
    y = y + ops.sigmoid(x2 + y2) * (ops.tanh(xy + z @ p.Wy.T) - y)
    return (y, z), y


def _mingru(ops, x, p):
    z = ops.sigmoid(x.z)
    return 1 - z, z * x.n


def _hgrn(ops, x, p):
    return x.f, (1 - x.f) * x.i


def _rglru(ops, x, p):
    g = 8 * x.r * ops.log_sigmoid(getattr(p, "lambda"))
    return ops.exp(g), ops.sqrt(-ops.expm1(2 * g)) * (x.i * x.x)


def _paragru(ops, a, p, s):
    xz, xr, xh = ops.split(a[0], 3)
    z, r = ops.sigmoid(p.az * s[0] + xz), ops.sigmoid(p.ar * s[0] + xr)
    h = s[0] + z * (ops.tanh(p.ah * (s[0] * r) + xh) - s[0])
    return (h,), h


def _affine(ops, a, p, s):
    h = a[0] * s[0] + a[1]
    return (h,), h


def _outer(a, b):
    return a[..., :, None] * b[..., None, :]


def _read(q, S):
    return (q[..., None, :] @ S)[..., 0, :]


def _qkv(*more):
    def before(ops, x, p):
        return (x.q / x.q.shape[-1] ** 0.5, x.k, x.v, *(getattr(x, name) for name in more))
    return before


def _matrix(update):
    def step(ops, a, p, s):
        S = update(ops, a, s[0])
        return (S,), _read(a[0], S)
    return step


def _gla(ops, a, S):
    return ops.exp(a[3])[..., None] * S + _outer(a[1], a[2])


def _simple_gla(ops, a, S):
    return ops.exp(a[3])[..., None, None] * S + _outer(a[1], a[2])


def _deltanet(ops, a, S):
    return S + _outer(a[3][..., None] * a[1], a[2] - _read(a[1], S))


def _gated_deltanet(ops, a, S):
    return _deltanet(ops, (*a[:3], a[4]), ops.exp(a[3])[..., None, None] * S)


def _rwkv7_before(ops, x, p):
    return x.r, x.k, x.v, ops.exp(x.w), x.a, x.b


def _rwkv7(ops, a, S):
    return a[3][..., None] * S + _outer(a[5], _read(a[4], S)) + _outer(a[1], a[2])


def _gateloop_before(ops, x, p):
    size = ops.sigmoid(x.r)
    return x.q, x.k, x.v, size * ops.cos(x.phi) + 1j * (size * ops.sin(x.phi))


def _gateloop(ops, a, p, s):
    S = a[3][..., None] * s[0] + _outer(a[1], a[2])
    return (S,), _read(a[0], S.real)


PEERS = {
    "elman": Peer(_project, _elman, ("h",)),
    "lstm": Peer(_project, _lstm, ("h", "c")),
    "gru": Peer(_project, _gru, ("h",)),
    "ligru": Peer(_project, _ligru, ("h",)),
    "lstm_cifg_peephole": Peer(_project, _cifg, ("h", "c")),
    "lstm_layernorm": Peer(_norm_before, _norm_lstm, ("h", "c")),
    "slstm": Peer(_slstm_before, _slstm, ("h", "c", "n", "m")),
    "lem": Peer(_lem_before, _lem, ("y", "z")),
    "paragru": Peer(_project, _paragru, ("h",)),
    "mingru_gates": Peer(_mingru, _affine, ("h",)),
    "hgrn_gates": Peer(_hgrn, _affine, ("h",)),
    "rglru_gates": Peer(_rglru, _affine, ("h",)),
    "gla": Peer(_qkv("g"), _matrix(_gla), ("S",)),
    "simple_gla": Peer(_qkv("g"), _matrix(_simple_gla), ("S",)),
    "deltanet": Peer(_qkv("beta"), _matrix(_deltanet), ("S",)),
    "gated_deltanet": Peer(_qkv("g", "beta"), _matrix(_gated_deltanet), ("S",)),
    "rwkv7": Peer(_rwkv7_before, _matrix(_rwkv7), ("S",)),
    "gateloop": Peer(_gateloop_before, _gateloop, ("S",)),
}
