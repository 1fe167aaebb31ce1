"""Runs cells and their adjoints in the interpreter and compares."""

from __future__ import annotations

import torch
from ostinato.compiler.passes.adjoint import Adjoint
from ostinato.ir import interp
from ostinato.ir.cell import Cell

B, T = 2, 4


def values(cell: Cell, seed: int = 0, scale: float = 1.0) -> tuple[dict, dict, dict]:
    """Random inputs, params and initial states; int and bool states start as declared."""
    g = torch.Generator().manual_seed(seed)

    def rand(type, *lead):
        if type.kind == "real":
            return scale * torch.randn((*lead, *type.sizes), generator=g, dtype=torch.float64)
        x = torch.randint(0, 2, (*lead, *type.sizes), generator=g)
        return x.bool() if type.kind == "bool" else x

    inputs = {p.name: rand(p.type, B, T) for p in cell.inputs}
    params = {p.name: rand(p.type) for p in cell.params}
    return inputs, params, {}


def initial(cell: Cell, params: dict) -> dict:
    """The declared initial states, perturbed where finite."""
    zeros = {p.name: torch.zeros(B, 0, *p.type.sizes, dtype=torch.float64) for p in cell.inputs}
    state = interp.run(cell, zeros, params, batch=B, steps=0).state
    g = torch.Generator().manual_seed(1)
    return {k: v + torch.randn(v.shape, generator=g, dtype=v.dtype).abs() if v.is_floating_point() else v
            for k, v in state.items()}


def leaf(x: torch.Tensor) -> torch.Tensor:
    return x.detach().clone().requires_grad_() if x.is_floating_point() else x


def reference(cell: Cell, inputs: dict, params: dict, state: dict, seed: int = 7, training: bool = False):
    """Outputs and finals of the interpreter, random cotangents, and torch's gradients."""
    inputs, params, state = ({k: leaf(v) for k, v in d.items()} for d in (inputs, params, state))
    out = interp.run(cell, inputs, params, state, batch=B, steps=T, training=training)
    g = torch.Generator().manual_seed(seed)
    pairs = {}
    for kind, values_ in (("output", out.outputs), ("state", out.state)):
        for name, v in values_.items():
            if v.is_floating_point():
                pairs[kind, name] = v, torch.randn(v.shape, generator=g, dtype=torch.float64)
    leaves = [x for d in (inputs, params, state) for x in d.values() if x.is_floating_point()]
    live = [(v, ct) for v, ct in pairs.values() if v.requires_grad]
    grads = torch.autograd.grad([v for v, _ in live], leaves, [ct for _, ct in live], allow_unused=True)
    flat = iter(torch.zeros_like(x) if d is None else d for x, d in zip(leaves, grads))
    named = [{k: next(flat) for k, v in d.items() if v.is_floating_point()} for d in (inputs, params, state)]
    return out, {k: ct for k, (_, ct) in pairs.items()}, named


def assert_adjoint(cell: Cell, adj: Adjoint, given=None, tolerance: float = 1e-10, training: bool = False) -> None:
    """Forward values, and all gradients, agree with the interpreter and torch autograd."""
    inputs, params, state = given or values(cell)
    state = state or initial(cell, params)
    out, cts, (d_inputs, d_params, d_state) = reference(cell, inputs, params, state, training=training)
    with torch.no_grad():
        forward = interp.run(adj.forward, inputs, params, state, batch=B, steps=T, training=training)
        for name, v in out.outputs.items():
            close(forward.outputs[name], v.detach(), name, tolerance)
        given_back = {}
        for p in adj.backward.inputs:
            if p.name in inputs and not p.name.startswith("d."):
                given_back[p.name] = inputs[p.name]
            elif p.name.startswith(("tape.", "prev.")):
                given_back[p.name] = forward.outputs[p.name]
            else:
                given_back[p.name] = cts["output", p.name.removeprefix("d.")]
        finals = {f"d.{s}": ct for (kind, s), ct in cts.items() if kind == "state"}
        back = interp.run(adj.backward, given_back, params, finals, batch=B, steps=T, training=training)
    trained = {p.name for p in cell.params if p.trainable}
    assert set(back.sums) == {f"d.{k}" for k in d_params if k in trained}
    assert set(back.outputs) == {f"d.{k}" for k in d_inputs}
    for name, d in d_inputs.items():
        close(back.outputs[f"d.{name}"], d, f"d.{name}", tolerance)
    for name, d in d_params.items():
        if name in trained:
            close(back.sums[f"d.{name}"], d, f"d.{name}", tolerance)
    for name, d in d_state.items():
        close(back.state[f"d.{name}"], d, f"initial d.{name}", tolerance)


def close(got: torch.Tensor, want: torch.Tensor, what: str, tolerance: float) -> None:
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m: f"{what}: {m}")
