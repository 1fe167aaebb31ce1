"""The benchmark's peers compute what we compute, wrong ones get no time, and its floors count what they say."""

from __future__ import annotations

from dataclasses import replace

import ostinato
import pytest
import torch

from benchmarks import peers, segments
from benchmarks.case import Case, Variant, ours
from benchmarks.cells import PEERS
from benchmarks.check import Disagreement, Reference
from benchmarks.chunks import chunk_flops
from benchmarks.chunkwise import CHUNK, FORMS
from benchmarks.data import inputs
from benchmarks.floors import floor_bytes, product_flops
from benchmarks.libraries import pandas_ewm, scipy_lfilter
from benchmarks.markdown import page
from benchmarks.measure import geometric_mean, ratios, summary
from benchmarks.workloads import WORKLOADS, ZOO, Workload

DIMS = {"I": 3, "H": 5, "D": 5, "K": 3, "V": 4, "N": 2}


def small(name: str, T: int = 7, B: int = 2) -> tuple[Reference, Case]:
    dims = {k: DIMS[k] for w in WORKLOADS if w.cell == name for k in w.dims} or {k: DIMS[k] for k in "KVN"}
    if name == "slstm":
        dims["N"] = 1
    layer = ostinato.compile(str(ZOO / f"{name}.ost"), backend="interpreter", **dims)
    xs = inputs(layer.cell, B, T)
    y = layer(**xs)[0].detach()
    case = Case(name, layer, xs, (torch.randn(y.shape, generator=torch.Generator().manual_seed(2)),))
    return Reference(Workload("", name, B, T, dims, ()), case), case


def agrees(reference: Reference, v: Variant) -> None:
    assert set(reference.compare(v)) == ({"output", "gradients"} if v.both else {"output"})


@pytest.mark.parametrize("name", PEERS)
def test_loops_agree(name):
    reference, case = small(name)
    agrees(reference, peers.eager(case))
    agrees(reference, peers.eager(case, 5))
    assert len(peers.eager(case).both()) == len(case.inputs) + len(case.params)


@pytest.mark.parametrize("name", sorted({w.cell for w in WORKLOADS if peers.torchscript in w.peers}))
def test_torchscript_agrees(name):
    reference, case = small(name)
    agrees(reference, peers.torchscript(case))


@pytest.mark.parametrize("name", peers.MODULES)
def test_modules_agree(name):
    reference, case = small(name)
    agrees(reference, peers.torch_nn(case))


@pytest.mark.parametrize("name", ["mingru_gates", "hgrn_gates", "rglru_gates"])
def test_associative_scan_agrees(name):
    reference, case = small(name)
    agrees(reference, peers.torch_associative(case))


@pytest.mark.parametrize("name", FORMS)
def test_chunkwise_agrees(name):
    reference, case = small(name, T=3 * CHUNK)
    agrees(reference, peers.chunkwise(case))


@pytest.mark.parametrize("name", ["gla", "kda", "rwkv7"])
def test_chunkwise_decays_do_not_overflow(name):
    reference, case = small(name, T=2 * CHUNK)
    g = "w" if name == "rwkv7" else "g"
    agrees(Reference(reference.workload, strong := replace(case, inputs=case.inputs | {g: 40 * case.inputs[g]})),
           peers.chunkwise(strong))


def test_filters_agree():
    reference, case = small("iir", T=50)
    agrees(reference, scipy_lfilter(case))
    reference, case = small("ema", T=50, B=1)
    with torch.no_grad():
        case.params["alpha"].fill_(0.1)                  # the peers have one for all lanes
    agrees(reference, scipy_lfilter(case))
    pytest.importorskip("pandas")
    agrees(reference, pandas_ewm(case))


def test_wrong_variants_are_refused():
    reference, case = small("lstm")
    mine = ours(case)
    agrees(reference, mine)
    with pytest.raises(Disagreement):
        reference.compare(replace(mine, output=lambda ys: ys[0] + 1e-3))
    with pytest.raises(Disagreement):
        reference.compare(replace(mine, gradients=lambda grads: {"W": grads[1] * 1.01}))
    with pytest.raises(Disagreement):
        reference.compare(replace(mine, output=lambda ys: ys[0] * float("nan")))


def test_operations_of_chunks():
    """Of retnet by hand: reads, Gram matrices of rows with earlier ones, what they read, the next state; three times with
    the adjoint."""
    K, V, C = 8, 12, 4
    pairs = C * (C - 1) / 2
    layer = ostinato.compile(str(ZOO / "retnet.ost"), K=K, V=V, N=1, schedule=f"chunk({C})")
    forward, both = chunk_flops(layer._plan.lowered.split, C)
    assert forward == 2 * (C * K * V + pairs * K + pairs * V + C * K * V) / C
    assert both == 3 * forward


def test_floors_of_lstm():
    cell = small("lstm")[1].layer.cell
    assert product_flops(cell) == 2 * 4 * 5 * (3 + 5)
    assert floor_bytes(cell, 2, 7) == (4 * 2 * 7 * (3 + 5), 4 * 2 * 7 * (3 * 3 + 2 * 5))


def test_summaries():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    s = summary([1.0, 2.0, 3.0, 4.0, 5.0])
    assert s["median"] == 3.0 and s["p10"] < s["median"] < s["p90"]
    assert ratios([2.0, 6.0, 4.0], [1.0, 2.0, 4.0])["median"] == 2.0


def test_rows_of_segments(monkeypatch):
    """Every way of saying where sequences end, over the same steps."""
    monkeypatch.setattr(segments, "SHAPES", (("mingru_gates", 2, 40, {"D": 3}),))
    row, = segments.segment_rows(False, 0.0)
    assert list(row["ratio"]) == ["reset", "lengths", "packed, one length", "packed, random"]
    assert "| mingru_gates, sequential | 2 | 40 |" in page({"segments": {"machine": dict(
        cpu="", threads=1, torch="", gemm_gflops=1, copy_gbytes_per_s=1), "rows": [row]}})
