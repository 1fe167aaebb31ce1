"""Inputs that need no gradient: the backward pass leaves out what only they would need, and gives the same to others."""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import ZOO
from ostinato.ir.verify import verify
from ostinato.runtime.sample import sample_inputs

CASES = [("lstm", "sequential", dict(I=5, H=4)), ("lem", "sequential", dict(I=5, H=4)), ("gru_heads", "sequential", dict(I=5, H=4, N=2)),
         ("rglru", "sequential", dict(D=6)), ("hgrn_gates", "sequential", dict(D=32)),
         ("mlstm", "sequential", dict(K=4, V=4, N=2)), ("gated_deltanet", "chunk(4)", dict(K=4, V=3, N=2)),
         ("mingru", "scan(2)", dict(I=3, H=4)), ("simple_gla", "quadratic", dict(K=3, V=4, N=2)),
         ("linear_rnn", "diagonalize", dict(I=3, H=4)), ("bilstm", "sequential", dict(I=3, H=4)),
         ("lstm", "interpreter", dict(I=3, H=4))]


@pytest.mark.parametrize("name, schedule, dims", CASES)
def test_the_others_get_the_same(name, schedule, dims):
    options = {"backend": "interpreter"} if schedule == "interpreter" else {"schedule": schedule}
    layer = ostinato.compile(str(ZOO / f"{name}.ost"), dtype=torch.float64, **dims, **options)
    xs = sample_inputs(layer.cell, 2, 9, 0, torch.float64)
    state = {k: x.requires_grad_() for k, x in layer.initial_state(2).items() if x.is_floating_point()}
    found = []
    for wanted in (False, True):
        given = {k: x.clone().requires_grad_(wanted and x.is_floating_point()) for k, x in xs.items()}
        y, ends = layer(**given, state=state)
        ys = [v for v in (*((y,) if isinstance(y, torch.Tensor) else y), *ends.values()) if v.requires_grad]
        g = torch.Generator().manual_seed(0)
        by = [*layer.parameters(), *state.values()]
        found.append(torch.autograd.grad(ys, by, [torch.randn(v.shape, generator=g, dtype=v.dtype) for v in ys],
                                         allow_unused=True))
    for a, b in zip(*found):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_one_of_several_inputs():
    layer = ostinato.compile(str(ZOO / "hgrn_gates.ost"), D=4, dtype=torch.float64)
    f, i = torch.rand(2, 5, 4, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    (alone,) = torch.autograd.grad(layer(f, i)[0].sum(), i)
    both = torch.autograd.grad(layer(f.requires_grad_(), i)[0].sum(), (f, i))
    assert torch.equal(alone, both[1])


@pytest.mark.parametrize("name, dims", [("lstm", dict(I=40, H=8)), ("rglru", dict(D=6))])
def test_what_is_left_out(name, dims):
    layer = ostinato.compile(str(ZOO / f"{name}.ost"), **dims)
    adjoint, executable = layer._plan.lowered.adjoint, layer._plan.executable
    verify(adjoint.lean)
    assert not adjoint.lean.outputs and len(adjoint.lean.body) < len(adjoint.backward.body)
    xs = sample_inputs(layer.cell, 2, 9, 0, torch.float32)
    layer(**xs)[0].sum().backward()
    compiled = ostinato.compile_count()
    layer(**{k: x[:1, :3] for k, x in xs.items()})[0].sum().backward()
    assert ostinato.compile_count() == compiled and "back" not in vars(executable)
    assert not any(p.name.startswith("out.") for p in executable.lean.kernel.ports)
