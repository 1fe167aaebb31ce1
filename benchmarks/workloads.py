"""The table of workloads: which cells at which shapes beside whom (CPU, float32)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ostinato
import torch

from . import peers
from .data import inputs
from .peers import Case, Variant

ZOO = Path(__file__).parents[1] / "examples" / "zoo"
Maker = Callable[[Case], Variant]
# Parameters that are not left as drawn. scipy's filter has one constant for all channels. With gains of 1 the
# layer-norm LSTM is chaotic: rounding grows to 10 % of the gradients in 256 steps, in any float32 program.
SET = {"ema": {"alpha": 0.1}, "lstm_layernorm": {"wx": 0.25, "wh": 0.25}}


@dataclass(frozen=True)
class Workload:
    """One row; `quick`: also part of `--quick`."""

    group: str
    cell: str
    B: int
    T: int
    dims: dict[str, int]
    peers: tuple[Maker, ...]
    quick: bool = False

    @property
    def name(self) -> str:
        dims = " ".join(f"{k}{v}" for k, v in self.dims.items())
        return f"{self.cell} B{self.B} T{self.T} {dims}"

    def layer(self, dtype: torch.dtype = torch.float32, **options):
        made = ostinato.compile(str(ZOO / f"{self.cell}.ost"), dtype=dtype, **self.dims, **options)
        with torch.no_grad():
            for name, value in SET.get(self.cell, {}).items():
                made.get_parameter(name).fill_(value)
        return made

    def case(self) -> Case:
        layer = self.layer()
        xs = inputs(layer.cell, self.B, self.T)
        g = torch.Generator().manual_seed(1)
        nodes = layer.cell.nodes()
        cts = tuple(torch.randn(self.B, self.T, *nodes[o.value].type.sizes, generator=g) for o in layer.cell.outputs)
        return Case(self.cell, layer, xs, cts)


def _dense() -> list[Workload]:
    shapes = ((1, 1024, 64), (16, 256, 128), (16, 512, 256), (64, 256, 256), (8, 512, 512))
    with_torch = (peers.torch_nn, peers.jax_scan, peers.eager)
    out = [Workload(cell, cell, B, T, {"I": H, "H": H}, with_torch, quick=H == 128)
           for cell in ("lstm", "gru", "elman") for B, T, H in shapes]
    for cell in ("slstm", "lem", "ligru", "lstm_cifg_peephole", "lstm_layernorm"):
        for B, T, H in ((16, 256, 128), (16, 512, 256)):
            dims = {"I": H, "H": H} | ({"N": 1} if cell == "slstm" else {})
            out.append(Workload("unshipped", cell, B, T, dims, (peers.jax_scan, peers.eager), quick=H == 128))
    return out


def _lanes() -> list[Workload]:
    out = []
    for cell in ("mingru_gates", "hgrn_gates", "rglru_gates"):
        for B, T, D in ((8, 2048, 512), (1, 16384, 64), (1, 131072, 16)):
            scans = (peers.torch_add, peers.jax_scan, peers.jax_associative, peers.eager)
            out.append(Workload("elementwise", cell, B, T, {"D": D}, scans, quick=cell == "mingru_gates" and D == 512))
    for cell in ("iir", "ema"):
        out.append(Workload("filters", cell, 1, 480_000, {"D": 32}, (peers.scipy_lfilter,), quick=cell == "iir"))
    return out


def _matrix() -> list[Workload]:
    return [Workload("matrix", cell, B, T, {"K": K, "V": K, "N": N}, (peers.jax_short, peers.eager),
                     quick=cell == "gated_deltanet" and K == 64)
            for cell in ("gla", "simple_gla", "deltanet", "gated_deltanet", "rwkv7")
            for B, T, N, K in ((2, 1024, 4, 64), (1, 4096, 8, 128))]


WORKLOADS = (*_dense(), *_lanes(), *_matrix())
