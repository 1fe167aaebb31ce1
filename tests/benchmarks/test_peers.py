"""The benchmark's peers compute what we compute, and its floors count what they say."""

from __future__ import annotations

import ostinato
import pytest
import torch

from benchmarks import peers
from benchmarks.cells import PEERS
from benchmarks.data import inputs
from benchmarks.floors import floor_bytes, product_flops
from benchmarks.measure import geometric_mean, summary
from benchmarks.workloads import WORKLOADS, ZOO

DIMS = {"I": 3, "H": 5, "D": 5, "K": 3, "V": 4, "N": 2}


def small(name: str):
    used = {k: v for w in WORKLOADS if w.cell == name for k in w.dims for v in (DIMS[k],)}
    if name == "slstm":
        used["N"] = 1
    return ostinato.compile(str(ZOO / f"{name}.ost"), backend="interpreter", **used)


@pytest.mark.parametrize("name", PEERS)
def test_eager_loop_agrees(name):
    layer = small(name)
    xs = inputs(layer.cell, 2, 7)
    y = layer(**xs)[0].detach()
    case = peers.Case(name, layer, xs, (torch.ones_like(y),))
    loop = peers.eager(case)
    torch.testing.assert_close(loop.forward()[0], y, atol=2e-6, rtol=1e-4)
    assert len(loop.both()) == len(xs) + len(list(layer.parameters()))


def test_scipy_agrees():
    layer = small("iir")
    xs = inputs(layer.cell, 2, 50)
    y = layer(**xs)[0].detach()
    got = peers.scipy_lfilter(peers.Case("iir", layer, xs, (y,))).forward()
    torch.testing.assert_close(torch.tensor(got), y.permute(0, 2, 1).reshape(-1, 50), atol=1e-5, rtol=1e-4)


def test_floors_of_lstm():
    cell = small("lstm").cell
    assert product_flops(cell) == 2 * 4 * 5 * (3 + 5)
    assert floor_bytes(cell, 2, 7) == (4 * 2 * 7 * (3 + 5), 4 * 2 * 7 * (3 * 3 + 2 * 5))


def test_summaries():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    s = summary([1.0, 2.0, 3.0, 4.0, 5.0])
    assert s["median"] == 3.0 and s["p10"] < s["median"] < s["p90"] and s["rounds"] == 5
