"""One token at a time: microseconds per step of every zoo cell, beside torch's cells."""

from __future__ import annotations

from pathlib import Path

import ostinato
import torch
from ostinato.runtime.files import declared_sizes
from torch import nn

from .data import inputs
from .measure import side_by_side

ZOO = Path(__file__).parents[1] / "examples" / "zoo"
DIMS = {"I": 64, "H": 256, "D": 64, "K": 64, "V": 64, "N": 4, "M": 16, "n": 2}
TORCH = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "elman": nn.RNNCell}
INNER = 20                                             # steps per timed call


def step_rows(names: list[str], budget: float) -> list[dict[str, object]]:
    """Rows with the medians of `layer.step` (and of torch's cell) for B = 1 and 16, in microseconds."""
    return [_row(name, B, budget) for name in names for B in (1, 16)]


def _row(name: str, B: int, budget: float) -> dict[str, object]:
    path = ZOO / f"{name}.ost"
    dims = {k: DIMS[k] for k in declared_sizes(path.read_text())}
    if "N" in dims and "H" in dims:                    # the same width altogether
        dims["H"] //= dims["N"]
    layer = ostinato.compile(str(path), **dims)
    xs = {k: v[:, 0] for k, v in inputs(layer.cell, B, 1).items()}

    def run():
        with torch.no_grad():
            state = start
            for _ in range(INNER):
                _, state = layer.step(**xs, state=state)

    start = layer.initial_state(B)
    calls = [(run, 1 / INNER)]
    if name in TORCH:
        cell, h = TORCH[name](dims["I"], dims["H"]), torch.zeros(B, dims["H"])

        def theirs():
            with torch.no_grad():
                s = (h, h) if name == "lstm" else h
                for _ in range(INNER):
                    s = cell(xs["x"], s)

        calls.append((theirs, 1 / INNER))
    times = side_by_side(calls, budget)
    row: dict[str, object] = {"cell": name, "B": B, "dims": dims}
    for who, t in zip(("ostinato", f"torch.nn.{TORCH[name].__name__}" if name in TORCH else ""), times):
        row[who] = {k: 1e3 * v if k != "rounds" else v for k, v in t.items()}
    return row
