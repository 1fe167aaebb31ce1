"""Every pass preserves values and gradients."""

import pytest
from gradients import B, close, initial, reference, values
from handmade import CELLS
from ostinato.compiler.analysis.domains import Order, domains
from ostinato.compiler.passes.canonicalise import Canonicalise
from ostinato.compiler.passes.cse import Cse
from ostinato.compiler.passes.dce import Dce
from ostinato.compiler.passes.doubled import Doubled
from ostinato.compiler.passes.fold import Fold
from ostinato.compiler.passes.gates import Gates
from ostinato.compiler.passes.regroup import Regroup
from ostinato.compiler.passes.static import hoist
from ostinato.frontend.load import load
from ostinato.ir import interp

PASSES = [Canonicalise(), Fold(), Cse(), Dce(), Gates(), Regroup(), Doubled(), Order()]


def assert_same(before, after, given=None):
    inputs, params, state = given or values(before)
    state = state or initial(before, params)
    want, _, want_grads = reference(before, inputs, params, state)
    got, _, got_grads = reference(after, inputs, params, state)
    for what, a, b in (("output", want.outputs, got.outputs), ("state", want.state, got.state),
                       *(("gradient", a, b) for a, b in zip(want_grads, got_grads))):
        assert list(a) == list(b)
        for name in a:
            close(b[name], a[name], f"{what} {name}", 1e-12)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("a_pass", PASSES, ids=lambda p: type(p).__name__)
def test_a_pass_preserves_meaning(name, a_pass):
    cell = CELLS[name]()
    assert_same(cell, a_pass(cell))


@pytest.mark.parametrize("name", CELLS)
def test_passes_are_idempotent(name):
    cell = CELLS[name]()
    for p in PASSES:
        cell = p(cell)
    again = cell
    for p in PASSES:
        again = p(again)
    assert again == cell


@pytest.mark.parametrize("name", CELLS)
def test_hoist_preserves_meaning(name):
    cell = Canonicalise()(CELLS[name]())
    static = hoist(cell)
    inputs, params, _ = values(cell)
    state = initial(cell, params)
    want = interp.run(cell, inputs, params, state)
    hoisted = interp.evaluate(static.nodes, reads={("param", k): v for k, v in params.items()},
                              types={n.name: n.type for n in static.nodes})
    given = {p.name: hoisted.get(p.name, params.get(p.name)) for p in static.cell.params}
    got = interp.run(static.cell, inputs, given, state)
    for name_ in want.outputs:
        close(got.outputs[name_], want.outputs[name_], name_, 1e-12)
    start = interp.run(static.cell, {}, given, batch=B, steps=0) if not static.cell.inputs else interp.run(
        static.cell, {k: v[:, :0] for k, v in inputs.items()}, given)
    want_start = interp.run(cell, {k: v[:, :0] for k, v in inputs.items()}, params)
    for s in want_start.state:
        close(start.state[s], want_start.state[s], s, 1e-12)


def test_hoist_leaves_views_and_moves_the_rest():
    cell = Canonicalise()(CELLS["static_part"]())
    static = hoist(cell)
    ops = {n.op for n in static.cell.body}
    assert not ops & {"exp", "softplus", "sqrt", "log"}
    assert {n.op for n in static.nodes} >= {"exp", "softplus"}
    assert static.cell.param(static.cell.states[0].init).name == static.cell.states[0].init
    assert any(p.trainable for p in static.cell.params if p.name.startswith("static."))
    assert not hoist(Canonicalise()(CELLS["lstm"]())).nodes


def test_hoisted_fixed_values_are_not_trained():
    cell = Canonicalise()(CELLS["static_part"]())
    trainable = {p.name: p.trainable for p in hoist(cell).cell.params}
    assert [v for k, v in trainable.items() if k.startswith("static.")].count(False) == 1    # 4 * u


def test_gates_turn_lstm_into_four_products_per_operand():
    cell = Gates()(CELLS["lstm"]())
    products = [n for n in cell.body if n.op == "contract"]
    assert len(products) == 8 and all(n.type.sizes == (4,) for n in products)
    nodes = cell.nodes()
    assert all(nodes[n.args[0]].op == "param" for n in cell.body if n.op == "slice")


def test_gates_leave_values_that_are_needed_whole():
    cell = Gates()(Canonicalise()(CELLS["lstm_layernorm"]()))
    assert len([n for n in cell.body if n.op == "contract" and n.type.rank]) == 2


def test_common_subexpressions_and_dead_code():
    cell = CELLS["delta_rule"]()
    twice = cell.with_body((*cell.body, *(type(n)(f"{n.name}'", n.op, tuple(f"{a}'" for a in n.args), n.attrs, n.type)
                                          for n in cell.body)))
    assert Cse()(twice).body == Dce()(twice).body == cell.body


def test_steps_are_split_by_domain():
    cell = Gates()(CELLS["lstm"]())
    domain, nodes = domains(cell), cell.nodes()
    for n in cell.body:
        if n.op == "contract":
            assert domain[n.name] == ("pre" if nodes[n.args[1]].op == "input" else "step")


def test_sums_are_regrouped_by_domain():
    cell = Regroup()(Gates()(CELLS["lstm"]()))
    domain = domains(cell)
    steps = [n for n in cell.body if n.op == "add" and domain[n.name] == "step"]
    assert len(steps) == 4 + 1          # four gates and the cell's own sum: W x + b is one value, ahead
    assert len([n for n in cell.body if n.op == "add" and domain[n.name] == "pre"]) == 4


@pytest.mark.parametrize("scales, left", [
    ("g[t] * S[t-1]", 0), ("a[t] * S[t-1]", 0), ("g[t] * (a[t] * S[t-1])", 0), ("S[t-1] * g[t] * a[t]", 0),
    ("v[t] * S[t-1]", 1), ("late[t-1] * S[t-1]", 1), ("outer(a[t], v[t]) * S[t-1]", 1)])
def test_what_scales_the_rows_of_a_matrix_scales_its_vector(scales, left):
    """Not what differs along its lanes, nor what the steps compute."""
    cell = load("cell c(K, V) {\n  input k: [K], a: [K], v: [V], g: []\n  state S: [K, V] = 0, late: [] = 1\n"
                f"  late[t] = 0.5 * late[t-1] + g[t]\n  S[t] = S[t-1] + outer(a[t], k[t] @ ({scales}))\n"
                "  output o: [V] = k[t] @ S[t]\n}").cells["c"].elaborate(K=3, V=4)
    cell = Dce()(Canonicalise()(cell))
    found = Regroup()(cell)
    assert_same(cell, found)
    nodes = found.nodes()
    matrices = {nodes[x].op for n in found.body if n.op == "contract" for x in n.args if len(nodes[x].type.shape) > 1}
    assert ("mul" in matrices) is bool(left)


def test_weights_of_joined_vectors_are_cut():
    cell = CELLS["joined"]()
    assert_same(cell, Gates()(cell))
    domain = domains(Gates()(cell))
    assert sorted(domain[n.name] for n in Gates()(cell).body if n.op == "contract") == ["pre", "step"]


def test_hoisted_values_keep_what_is_known_of_them():
    cell = hoist(Canonicalise()(CELLS["static_part"]())).cell
    decay = next(p for p in cell.params if "exp" in p.name and p.trainable)
    assert decay.facts == (">= 0.0", "<= 1.0")          # exp(-softplus(A))
