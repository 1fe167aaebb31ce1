"""The zoo's files, test sizes, random data that respects declared facts, and comparisons."""

from __future__ import annotations

from pathlib import Path

import torch
from ostinato.ir.cell import Input
from ostinato.runtime.files import declared_sizes
from ostinato.runtime.sample import sample
from torch import Tensor

from benchmarks.data import inputs

FOLDER = Path(__file__).parents[2] / "examples" / "zoo"
NAMES = sorted(p.stem for p in FOLDER.glob("*.ost"))
POSITIVE = {"slstm": ["n"], "linear_attention": ["z"], "aaren": ["u"], "rwkv4": ["b"], "garch": ["v"],
            "jrt_rnn": ["z", "rest.z"], "lion": ["zf.S", "zb.S"]}   # denominators, variances


def path(name: str) -> str:
    return str(FOLDER / f"{name}.ost")


def sizes(name: str) -> dict[str, int]:
    """Small sizes from the file's second line, `# sizes: I=3 H=5`."""
    return declared_sizes(Path(path(name)).read_text())


def data(layer, B: int, T: int, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random inputs [B, T, ...] and initial states [B, ...] of a layer, in float64."""
    seed = 1000 * seed + 10 * B + T
    g = torch.Generator().manual_seed(seed)
    states = {}
    for s in layer.cell.states:
        facts = s.facts or ((">= 0.1",) if s.name in POSITIVE.get(layer.cell.name, ()) else ())
        states[s.name] = sample(Input(s.name, s.type, facts=facts), B, 1, g)[:, 0]
    return inputs(layer.cell, B, T, torch.float64, seed), states


def shake(layer, seed: int = 1) -> None:
    """Move parameters without facts off their initial values (many start at 0 or 1)."""
    g = torch.Generator().manual_seed(seed)
    facts = {p.name: p.facts for p in layer.cell.params}
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if not facts[name]:
                p += 0.2 * _randn(p.shape, g, p).to(p.dtype)


def _randn(shape, g, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.complex128 if like.is_complex() else torch.float64)


def _continuous(v: Tensor) -> bool:
    return v.is_floating_point() or v.is_complex()


def cast(values: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Reals to `dtype`, complex values to the complex dtype of that precision."""
    return {k: v.to(dtype.to_complex() if v.is_complex() else dtype) if _continuous(v) else v
            for k, v in values.items()}


def leaves(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies that autograd can differentiate by."""
    return {k: v.detach().clone().requires_grad_() if _continuous(v) else v for k, v in values.items()}


def gradients(results: dict[str, Tensor], wrt: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients by every real value of `wrt` for a fixed random cotangent of every real result."""
    g = torch.Generator().manual_seed(7)
    pairs = [(y, _randn(y.shape, g, y).to(y.dtype)) for y in results.values() if _continuous(y)]
    real = {k: v for k, v in wrt.items() if _continuous(v)}
    loss = sum((y * ct.conj()).real.sum() if y.is_complex() else (y * ct).sum() for y, ct in pairs)
    got = torch.autograd.grad(loss, list(real.values()), allow_unused=True, materialize_grads=True)
    return dict(zip((f"d.{k}" for k in real), got))


def evaluate(call, layer, xs: dict[str, Tensor], states: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, final states (`final.NAME`) and all gradients (`d.NAME`) of `layer` or its reference."""
    xs, states = leaves(xs), leaves(states)
    y, finals = call(**xs, state=states)
    outputs = (y,) if isinstance(y, Tensor) else tuple(y)
    results = dict(zip(layer.output_names, outputs)) | {f"final.{k}": v for k, v in finals.items()}
    return detached(results | gradients(results, xs | states | dict(layer.named_parameters())))


def detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach() for k, v in values.items()}


def assert_close(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float, what: str = "") -> None:
    """Same names, shapes, and RMS of the error at most `tolerance` of the reference's RMS."""
    assert got.keys() == want.keys(), what
    for k, b in want.items():
        a = got[k]
        assert a.shape == b.shape, f"{what} {k}: shape {tuple(a.shape)} instead of {tuple(b.shape)}"
        if b.is_complex():
            assert a.is_complex(), f"{what} {k}"
            a, b = torch.view_as_real(a), torch.view_as_real(b)
        if not b.is_floating_point():
            assert torch.equal(a, b), f"{what} {k}"
            continue
        if b.numel() == 0:
            continue
        error = (a.double() - b.double()).square().mean().sqrt().item()
        scale = max(b.double().square().mean().sqrt().item(), 1e-3)
        assert error <= tolerance * scale, f"{what} {k}: RMS error {error:.2e}, reference's RMS {scale:.2e}"
