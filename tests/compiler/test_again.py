"""Running the forward cell again: what it is given, that it needs no sums over states then, and that it is the same."""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import BACKWARDS, ZOO, check, executable, lowered, reference
from ostinato.compiler.passes.again import keeping, repeated, sums_to_keep
from ostinato.compiler.passes.dce import live
from ostinato.compiler.passes.masked import Masked
from ostinato.compiler.schedules.build import backward_kernel, sums_kept
from ostinato.compiler.schedules.views import is_reduction
from ostinato.ir import interp
from ostinato.ir.cell import Cell
from ostinato.ir.verify import verify
from ostinato.runtime.sample import sample_inputs

SUMS = """# sizes: K=4 V=5 N=2
cell sums(K, V) heads N {
  input  k: [K], v: [V], g: []
  state  S: [K, V] = 0, n: [V] = 0
  p = k[t] @ S[t-1]
  n[t] = 0.5 * n[t-1] + p * tanh(sum[V](n[t-1] * v[t]))
  S[t] = tanh(g[t]) * S[t-1] + outer(k[t], v[t] - p + n[t])
  output o: [V] = k[t] @ S[t] + n[t], m: [] = logsumexp[V](p)
}"""
MEET = """# sizes: K=4 V=5 N=2
cell meet(K, V) heads N {
  input  k: [K], v: [V], q: [V] shared
  state  S: [K, V] = 0
  S[t] = 0.9 * S[t-1] + outer(k[t], v[t] - k[t] @ S[t-1])
  output o: [V] = q[t] * (k[t] @ S[t])
}"""
ACROSS = MEET.replace("0.9 * S[t-1]", "0.9 * S[t-1] + outer(k[t], 0.1 * mean[N](k[t] @ S[t-1]))").replace("meet", "across")
PAYS = {"deltaproduct": 2, "titans": 3, "ttt_linear": 1, "moneta": 2, SUMS: 2, ACROSS: 1}   # how many values are kept
IN_PASSING = {"deltanet": 1, "rwkv7": 1, MEET: 1}   # the sweep that writes the state makes the next step's sums
CELLS = PAYS | IN_PASSING


def summed(cell: Cell) -> set[str]:
    """Sums of what is made of old states that the next states need."""
    of_states, nodes = set(), cell.nodes()
    for n in cell.body:
        if n.op == "state" or of_states & {*n.args}:
            of_states.add(n.name)
    needed = live(cell.body, [s.next for s in cell.states])
    return {name for name in needed & of_states if is_reduction(nodes[name])}


@pytest.mark.parametrize("source", CELLS)
def test_it_needs_no_sums_and_gives_the_same(source):
    """The cells themselves, by the interpreter."""
    cell, forward = lowered(source).cell, lowered(source).adjoint.forward
    own = len(cell.outputs)
    kept = sums_to_keep(forward, own)
    assert len(kept) == CELLS[source]
    first, tape = keeping(forward, own, kept), [o for o in forward.outputs[own:] if o not in kept]
    again = repeated(forward, kept, tape)
    verify(first)
    verify(again)
    assert summed(forward) and not summed(again)
    xs, *rest = ({p.name: x for p, x in zip(ports, values)}
                 for ports, values in zip((cell.inputs, cell.params, cell.states), reference(source, 2, 6).operands))
    whole, one = interp.run(forward, xs, *rest), interp.run(first, xs, *rest)
    two = interp.run(again, {**xs, **{o.name: one.outputs[o.name] for o in kept}}, *rest)
    for s in cell.states:
        assert torch.equal(whole.state[s.name], one.state[s.name])
        torch.testing.assert_close(two.state[s.name], whole.state[s.name], rtol=1e-12, atol=1e-12)
    for o in tape:
        torch.testing.assert_close(two.outputs[o.name], whole.outputs[o.name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name, sizes", [
    ("gla", {}),                        # no sums over states
    ("linear_cde", {}),                 # a sum that is as large as the state
    ("legs", {}),                       # the same of a vector
    ("deltanet", dict(K=1, V=9)),       # a sum over one row
    ("lstm", {})])                      # never run again
def test_nothing_is_kept_where_it_would_save_nothing(name, sizes):
    made = lowered(name, **sizes)
    assert sums_to_keep(made.adjoint.forward, len(made.cell.outputs)) == ()


@pytest.mark.parametrize("source", PAYS)
@pytest.mark.parametrize("way", ["", BACKWARDS])
def test_values_and_gradients(source, way):
    """Tiles and a part of one, and in pieces; of outputs and final states."""
    e = executable("sequential", way + source)
    assert e.recompute and len(e.sums) == PAYS[source]
    for T in (1, e.tile + 3):
        check("sequential", way + source, 2, T)
    if not way:
        check("sequential", source, 2, 9, pieces=(4, 0, 5))


@pytest.mark.parametrize("source", IN_PASSING)
def test_nothing_is_kept_for_sums_that_are_made_in_passing(source):
    e = executable("sequential", source)
    assert e.recompute and not e.sums and len(e._parts(1, 1)) == 1


@pytest.mark.parametrize("name, without, given", [("deltaproduct", 3, 1), ("titans", 6, 2), ("moneta", 4, 1)])
def test_loop_nests_of_the_steps_that_run_again(name, without, given):
    made = lowered(name, **({"M": 8} if name == "titans" else {}), K=8, V=8, N=2)
    forward, backward, own = made.adjoint.forward, made.adjoint.backward, len(made.cell.outputs)
    kernels = [backward_kernel(forward, backward, "back", recompute=True, sums=sums)
               for sums in ((), sums_kept(forward, own))]
    assert [len(k.runs[0].steps.phases) for k in kernels] == [without, given]


def chunks(name: str, K: int):
    """The executable of whole chunks, inside what hands it values of parameters."""
    e = executable("chunk(16)", name, K=K, V=5).chunks
    return getattr(e, "inner", e)


@pytest.mark.parametrize("name", ["deltanet", "rwkv7"])
def test_chunks_are_given_what_they_solve_for(name):
    def solved(K: int) -> list[str]:
        return [o.name for o in chunks(name, K).sums if "decayed" not in o.value]

    assert solved(40)[:1] == ["tape.solve"] and "tape.solve" not in solved(24)
    check("chunk(16)", name, 2, 53, K=40, V=5)


@pytest.mark.parametrize("name, K, count", [("gla", 24, 2), ("rwkv7", 24, 6), ("rwkv7", 4, 0), ("simple_gla", 24, 1)])
def test_chunks_are_given_gram_matrices_with_decays_and_sums(name, K, count):
    """Nothing makes one again, unless that is cheaper than to keep it."""
    e = chunks(name, K)
    again, _ = e.back.kernel.runs
    made = [n for n in again.nodes.values() if n.op == "decayed"]
    kept = [o for o in e.sums if o.name != "tape.solve"]
    assert len(kept) == count and bool(made) == (not count)
    check("chunk(16)", name, 2, 53, K=K, V=5)


@pytest.mark.parametrize("name", ["deltaproduct", "titans"])
@pytest.mark.parametrize("reset, valid", [(True, False), (True, True)])
def test_masked_cells(name, reset, valid):
    cell = Masked(reset=reset, valid=valid)(lowered(name).elaborated)
    assert executable("sequential", cell).sums
    check("sequential", cell, 3, 14)


def test_the_tape_is_what_it_says():
    layer = ostinato.compile(ZOO / "deltaproduct.ost", K=8, V=16, n=2, N=2, schedule="sequential")
    e, B, T = layer._plan.executable, 3, 100
    tiles = -(-T // e.tile)
    assert [shape for shape, _ in e._parts(B, T)] == [(tiles, B, 2, 8, 16), (T, B, 2, 16), (T, B, 2, 16)]
    assert f"{4 * (tiles * B * 2 * 8 * 16 + 2 * T * B * 2 * 16):,} bytes" in (text := layer.explain(B, T))
    assert "given tape.sub, tape.sub.1 of every step" in text


@pytest.mark.parametrize("save", ["all", "none", "cut"])
def test_other_policies_keep_what_they_kept(save):
    if save == "cut":
        e = executable("scan(2)", "deltaproduct").steps
        assert not e.recompute and not e.sums
        return
    layer = ostinato.compile(ZOO / "deltaproduct.ost", K=8, V=16, n=2, N=2, save=save, schedule="sequential")
    assert not layer._plan.executable.sums


def test_twice_through_one_graph_and_without_gradients_of_inputs():
    layer = ostinato.compile(ZOO / "ttt_linear.ost", K=6, N=2, dtype=torch.float64, schedule="sequential")
    xs = {k: x.requires_grad_() for k, x in sample_inputs(layer.cell, 2, 50, 0, torch.float64).items()}
    state = {k: x.clone().requires_grad_() for k, x in layer.initial_state(2).items()}
    y, ends = layer(**xs, state=state)
    loss = y.square().sum() + sum(x.sin().sum() for x in ends.values())
    by = [*xs.values(), *state.values()]
    first, second = torch.autograd.grad(loss, by, retain_graph=True), torch.autograd.grad(loss, by)
    y, ends = layer(**{k: x.detach() for k, x in xs.items()}, state=state)
    lean = torch.autograd.grad(y.square().sum() + sum(x.sin().sum() for x in ends.values()), [*state.values()])
    for a, b in zip(first, second):
        assert torch.equal(a, b)
    for a, b in zip(first[len(xs):], lean):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
