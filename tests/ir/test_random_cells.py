"""The generator itself: reproducible, varied, and tame enough to compare to 1e-9."""

import torch
from ostinato.ir.interp import run
from ostinato.ir.ops import OPS
from strategies import draw_data, rebuild

ALL = {"sums": True, "reverse": True, "semirings": True, "linalg": True, "large": True}
SEEDS = range(150)


def test_a_cell_can_be_made_again_from_its_name():
    for seed in range(20):
        assert rebuild(f"cell_{seed}_2", **ALL) == rebuild(f"cell_{seed}_2", **ALL)
    assert rebuild("cell_1_2").body != rebuild("cell_2_2").body


def test_variety():
    cells = [rebuild(f"cell_{s}_{1 + s % 3}", **ALL) for s in SEEDS]
    seldom = {"floor", "ceil", "round", "sign", "atan2", "sqrt"}
    made_by_passes = {"running", "solve_lower", "gather", "scatter", "decayed", "decayed_sum", "decayed_back",
                      "ends", "ends_back",
                      "cumprod", "cumprod_back"}     # test_gather has the last two
    real = {o.name for o in OPS.values() if o.group != "complex"}
    assert real - {n.op for c in cells for n in c.body} <= seldom | made_by_passes | {"tan", "draw"}
    assert any(c.heads for c in cells) and any(c.reverse for c in cells) and any(not c.heads for c in cells)
    assert {s.type.rank for c in cells for s in c.states} == {0, 1, 2, 3}
    assert {s.type.kind for c in cells for s in c.states} == {"real", "int", "bool"}
    assert {d.size for c in cells for d in c.dims} >= {1, 2, 3, 5, 7, 16, 17, 20}
    assert any(not p.trainable for c in cells for p in c.params)


def test_knobs_keep_things_out():
    cells = [rebuild(f"cell_{s}_3", heads=False, ints=False, noise=False) for s in range(60)]
    ops = {n.op for c in cells for n in c.body}
    assert not ops & {"random", "training", "solve", "logdet", "or", "mod"}
    assert all(c.heads is None and not c.sums and not c.reverse for c in cells)
    assert {s.type.kind for c in cells for s in c.states} == {"real"}
    assert all(n.attr("semiring") == "sum" for c in cells for n in c.body if n.op == "contract")


def test_values_and_gradients_are_bounded():
    for seed in range(0, 150, 3):
        cell = rebuild(f"cell_{seed}_{1 + seed % 3}", **ALL)
        inputs, params, _ = draw_data(cell, 2, 5, seed)
        leaves = [v.requires_grad_() for d in (inputs, params) for v in d.values() if v.is_floating_point()]
        out = run(cell, inputs, params, training=seed % 2 == 0)
        total = sum(v.sum() for v in out.outputs.values() if v.is_floating_point())
        if not total.requires_grad:
            continue
        grads = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        assert all(v.abs().max() < 100 for v in out.outputs.values()), cell.name
        assert all(g.isfinite().all() and g.abs().max() < 1e3 for g in grads), cell.name
