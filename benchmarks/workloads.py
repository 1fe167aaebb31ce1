"""The table of workloads: which cells at which shapes beside whom (CPU, float32)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ostinato
import torch

from . import libraries, peers
from .case import Case, Variant
from .chunkwise import FORMS
from .data import inputs

ZOO = Path(__file__).parents[1] / "examples" / "zoo"
Maker = Callable[[Case], Variant]
# Parameters that are not left as drawn. scipy's filter has one constant for all channels. With gains of 1 the
# layer-norm LSTM is chaotic: rounding grows to 10 % of the gradients in 256 steps, in any float32 program.
SET = {"ema": {"alpha": 0.1}, "lstm_layernorm": {"wx": 0.25, "wh": 0.25}}


@dataclass(frozen=True)
class Workload:
    """One row; `quick`: also part of `--quick`; `extra`: only with `--full`; `share` of the time for measuring that
    a row gets."""

    group: str
    cell: str
    B: int
    T: int
    dims: dict[str, int]
    peers: tuple[Maker, ...]
    quick: bool = False
    extra: bool = False
    share: float = 1.0

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
    with_torch = (peers.torch_nn, libraries.jax_scan, peers.eager)
    out = [Workload(cell, cell, B, T, {"I": H, "H": H}, with_torch, quick=H == 128, extra=B == 64)
           for cell in ("lstm", "gru", "elman")
           for B, T, H in ((1, 1024, 64), (16, 256, 128), (16, 512, 256), (64, 256, 256), (8, 512, 512))]
    for cell in ("slstm", "lem", "ligru", "lstm_cifg_peephole", "lstm_layernorm"):
        for B, T, H in ((16, 256, 128), (16, 512, 256)):
            dims = {"I": H, "H": H} | ({"N": 1} if cell == "slstm" else {})
            out.append(Workload("unshipped", cell, B, T, dims, (libraries.jax_scan, peers.eager, peers.torchscript),
                                quick=H == 128, extra=H == 256 and cell != "slstm"))
    return out


SCANS = (libraries.jax_scan, libraries.jax_associative, peers.torch_associative)


def _lanes() -> list[Workload]:
    out = []
    for cell in ("mingru_gates", "hgrn_gates", "rglru_gates"):
        for B, T, D in ((8, 2048, 512), (1, 16384, 64), (1, 131072, 16)):
            scans = SCANS if cell == "mingru_gates" else SCANS[:1]        # they run the same scan of (a, b)
            out.append(Workload("elementwise", cell, B, T, {"D": D}, (peers.torch_add, *scans, peers.eager),
                                quick=cell == "mingru_gates" and D == 512, extra=cell != "mingru_gates"))
    for cell, others in (("iir", ()), ("ema", (libraries.pandas_ewm,))):
        out.append(Workload("filters", cell, 1, 480_000, {"D": 32}, (libraries.scipy_lfilter, *others), quick=True))
    return out


def _diagonal() -> list[Workload]:
    """A nonlinear recurrence without products; one input, so that the lanes are the work."""
    return [Workload("diagonal", "paragru", 1, T, {"I": 1, "H": lanes}, (libraries.jax_scan, peers.eager),
                     quick=lanes == 64 and T == 1024, extra=lanes in (4, 16) or lanes * T > 2**20, share=0.5)
            for lanes in (1, 4, 16, 64, 1024) for T in (1024, 16384)]


def _matrix() -> list[Workload]:
    def who(cell: str, K: int) -> tuple[Callable[[Case], Variant], ...]:
        scan, chunks = ((libraries.jax_short, peers.chunkwise_short) if K == 128 else
                        (libraries.jax_scan, peers.chunkwise))
        return (scan, chunks, peers.eager) if cell in FORMS else (scan, peers.eager)

    return [Workload("matrix", cell, B, T, {"K": K, "V": K, "N": N}, who(cell, K),
                     quick=cell == "gated_deltanet" and K == 64, extra=K == 128)
            for cell in ("gla", "simple_gla", "deltanet", "gated_deltanet", "rwkv7", "gateloop")
            for B, T, N, K in ((2, 1024, 4, 64), (1, 4096, 8, 128))]


def _growth() -> list[Workload]:
    """How times grow with T at B = 1 and with B at T = 256."""
    shapes = [(1, T) for T in (64, 256, 1024, 4096, 16384)] + [(B, 256) for B in (4, 16, 64, 256)]
    return [Workload("growth", cell, B, T, dims, who, quick=(B, T) in ((1, 256), (16, 256)),
                     extra=B in (4, 256), share=0.5)
            for cell, dims, who in (("lstm", {"I": 64, "H": 64}, (peers.torch_nn, libraries.jax_scan)),
                                    ("mingru_gates", {"D": 64}, (libraries.jax_scan, peers.torch_associative)))
            for B, T in shapes]


WORKLOADS = (*_dense(), *_lanes(), *_diagonal(), *_matrix(), *_growth())
