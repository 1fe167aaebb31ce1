"""Save or recompute: the cut is the cheapest, and the policies keep what they say."""

import itertools
import random

import pytest
from handmade import CELLS, H, K, V, real
from ostinato.compiler.passes.adjoint import adjoint
from ostinato.compiler.passes.tape import INF, SAVE, choose, work
from ostinato.compiler.pipeline import lower
from ostinato.ir.cell import Node
from ostinato.ir.types import Type


def random_body(rng):
    """A small body of inputs, states and pointwise operations of several sizes and costs."""
    nodes = [Node("x", "input", (), (("name", "x"),), real(H)), Node("s", "state", (), (("name", "s"),), real(H))]
    for i in range(rng.randint(1, 6)):
        op, arity = rng.choice([("add", 2), ("mul", 2), ("tanh", 1), ("exp", 1), ("sum", 1), ("stack", 2)])
        args = tuple(n.name for n in rng.choices([n for n in nodes if n.type.shape == (H,)], k=arity))
        if op == "sum":
            nodes += [Node(f"r{i}", "reduce", args, (("axes", (0,)), ("fn", "sum")), real()),
                      Node(f"n{i}", "broadcast", (f"r{i}",), (("axes", ()),), real(H))]
        elif op == "stack":
            nodes += [Node(f"n{i}", "concat", args, (("axis", 0),), real(V))]
        else:
            nodes += [Node(f"n{i}", op, args, (), real(H))]
    return nodes


def cost(nodes, needed, saved):
    """The cost of a set of values to save, by the tape's own prices; None if it does not suffice."""
    by_name, types = {n.name: n for n in nodes}, {n.name: n.type for n in nodes}
    todo, seen, total = list(needed), set(), 0
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        n = by_name[name]
        price = SAVE * n.type.numel if name in saved else work(n, types)
        if price >= INF or (name in saved and n.op == "input"):
            return None
        total += price
        todo += () if name in saved else n.args
    return total


@pytest.mark.parametrize("seed", range(60))
def test_the_cut_is_the_cheapest(seed):
    rng = random.Random(seed)
    nodes = random_body(rng)
    names = [n.name for n in nodes]
    needed = set(rng.sample(names, rng.randint(1, min(3, len(names)))))
    saved = choose(nodes, needed, set(names), set(), "auto")
    subsets = itertools.chain.from_iterable(itertools.combinations(names, k) for k in range(len(names) + 1))
    best = min(c for s in subsets if (c := cost(nodes, needed, set(s))) is not None)
    assert cost(nodes, needed, saved) == best


def kept(name, save="auto"):
    return adjoint(CELLS[name](), save).kept


def test_an_lstm_keeps_its_gates_and_old_states():
    names = kept("lstm")
    assert sum(n.startswith("prev.") for n in names) == 2 and len(names) == 6


def test_nothing_but_old_states():
    for name in CELLS:
        assert all(n.startswith("prev.") for n in kept(name, "none"))


@pytest.mark.parametrize("name", CELLS)
def test_nothing_is_recomputed(name):
    adj = adjoint(lower(CELLS[name]()).cell, "all")
    known = {p.name for p in adj.backward.inputs if not p.name.startswith("d.")}
    primal = set()
    for n in adj.backward.body:
        if (n.attr("name") in known if n.op in ("input", "param") else n.args and all(a in primal for a in n.args)):
            primal.add(n.name)
    assert not {n.op for n in adj.backward.body if n.name in primal} & {"contract", "exp", "tanh", "sigmoid", "log"}


def test_random_values_are_drawn_again():
    for save in ("auto", "all", "none"):
        adj = adjoint(CELLS["clocked"](), save)
        assert "prev.t" in adj.kept or not any(n.op == "random" for n in adj.backward.body)
        drawn = {n.name for n in adj.forward.body if n.op == "random"}
        assert not drawn & {o.value for o in adj.forward.outputs}


def test_an_output_one_step_later_is_recognised():
    assert adjoint(CELLS["lstm"]()).delayed == {"prev.h": "h"}
    assert adjoint(CELLS["gru"]()).delayed == {"prev.h": "y"}


def test_a_value_used_twice_is_kept_once():
    adj = adjoint(CELLS["lstm"]())
    values = [o.value for o in adj.forward.outputs if o.name.startswith("tape.")]
    assert len(values) == len(set(values))


def test_unknown_policies_are_refused():
    with pytest.raises(ValueError, match="auto, all or none"):
        adjoint(CELLS["lstm"](), "some")


def test_a_large_state_is_kept_once_and_read_by_four_products():
    adj = adjoint(CELLS["delta_rule"]())
    large = Type("real", (K, V))
    types = adj.backward.nodes()
    assert [p.name for p in adj.backward.inputs if p.type == large] == ["prev.S"]
    products = [n for n in adj.backward.body if n.op == "contract" and large in [types[a].type for a in n.args]]
    assert len(products) == 4
