"""One token at a time: microseconds per step of every zoo cell, beside torch's cells and the eager step."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as NS

import ostinato
import torch
from ostinato.runtime.files import declared_sizes
from torch import Tensor, nn

from .case import Case
from .cells import PEERS
from .check import TOLERANCE, Disagreement, relative_error
from .data import inputs
from .measure import ratios, side_by_side, summary
from .peers import OURS, TORCH, start
from .workloads import ZOO

DIMS = {"I": 64, "H": 256, "D": 64, "K": 64, "V": 64, "N": 4, "M": 16, "n": 2}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "elman": nn.RNNCell}
INNER = 20                                             # steps per timed call
CHECKED = 5                                            # moneta makes hundreds of a rounding error in 20
Run = Callable[[int], Tensor]                          # so many steps on one input; the last output [B, ...]


def step_row(name: str, B: int, budget: float) -> dict[str, object]:
    """Microseconds per `layer.step` of a zoo cell and per step of its peers. Raises Disagreement if one of the
    first CHECKED steps is not the interpreter's."""
    path = ZOO / f"{name}.ost"
    dims = {k: DIMS.get(k, size) for k, size in declared_sizes(path.read_text()).items()}
    if "N" in dims and "H" in dims:                    # the same width altogether
        dims["H"] //= dims["N"]
    layer = ostinato.compile(str(path), **dims)
    xs = inputs(layer.cell, B, 1)
    case = Case(name, layer, xs, ())
    runs = {"ostinato": _ours(case)}
    if name in CELLS:
        runs[f"torch.nn.{CELLS[name].__name__}"] = _torch(case)
    if name in PEERS and (name != "slstm" or dims["N"] == 1):      # the peer's sLSTM has one head
        runs["eager step"] = _eager(case)
    with torch.no_grad():
        y, _ = layer.reference(**{k: v.expand(B, CHECKED, *v.shape[2:]) for k, v in xs.items()})
        want = y if isinstance(y, Tensor) else y[0]
        errors = {who: max(relative_error(run(t + 1), want[:, t]) for t in range(CHECKED)) for who, run in runs.items()}
        if any(not e <= TOLERANCE["output"] for e in errors.values()):
            raise Disagreement(f"{name}, {CHECKED} steps, B={B}: {errors}")
        timed = [(lambda run=run: run(INNER), 1e3 / INNER) for run in runs.values()]
        times = dict(zip(runs, side_by_side(timed, budget)))
    return {"cell": name, "B": B, "dims": dims, "check": errors, "times": {k: summary(t) for k, t in times.items()},
            "ratio": {k: ratios(t, times["ostinato"]) for k, t in times.items() if k != "ostinato"}}


def _ours(case: Case) -> Run:
    now = {k: v[:, 0] for k, v in case.inputs.items()}
    first = case.layer.initial_state(case.shape[0])

    def run(steps: int) -> Tensor:
        state = first
        for _ in range(steps):
            y, state = case.layer.step(**now, state=state)
        return y if isinstance(y, Tensor) else y[0]

    return run


def _torch(case: Case) -> Run:
    x, params = case.inputs["x"][:, 0], case.params
    cell = CELLS[case.name](params["W"].shape[1], params["R"].shape[1])
    with torch.no_grad():
        for theirs, name in OURS.items():
            cell.get_parameter(theirs.removesuffix("_l0")).copy_(params.get(name, torch.zeros(())))
    states = start(case)

    def run(steps: int) -> Tensor:
        s = states if case.name == "lstm" else states[0]
        for _ in range(steps):
            s = cell(x, s)
        return s[0] if case.name == "lstm" else s

    return run


def _eager(case: Case) -> Run:
    peer, params, first = PEERS[case.name], NS(**case.params), start(case)
    now = NS(**{k: v[:, 0] for k, v in case.inputs.items()})

    def run(steps: int) -> Tensor:
        state = first
        for _ in range(steps):
            state, y = peer.step(TORCH, peer.before(TORCH, now, params), params, state)
        return y

    return run
