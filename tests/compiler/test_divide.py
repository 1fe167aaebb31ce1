"""Parts of one direction, one after the other, compute what the cell of both directions is."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ostinato.compiler.passes.divide import FROM, divide
from ostinato.compiler.pipeline import lower
from ostinato.frontend.load import load
from ostinato.ir import interp
from ostinato.ir.parser import parse_cell
from ostinato.ir.printer import print_cell
from ostinato.ir.sweeps import mixed, sweeps
from ostinato.ir.verify import verify
from strategies import both_ways, cells, draw_data


def one_after_the_other(parts, inputs, params, state):
    """Outputs and final states by name, in the interpreter."""
    values, outputs, finals = dict(inputs), {}, {}
    for part in parts:
        r = interp.run(part, *({p.name: given[p.name] for p in ports} for ports, given in (
            (part.inputs, values), (part.params, params), (part.states, state))), seed=3)
        values |= {k: y for k, y in r.outputs.items() if k.startswith(FROM)}
        outputs |= {k: y for k, y in r.outputs.items() if not k.startswith(FROM)}
        finals |= r.state
    return outputs, finals


@settings(max_examples=60, deadline=None)
@given(both_ways(linalg=True, semirings=True), st.integers(0, 2**20), st.integers(0, 5))
def test_random_cells(cell, seed, T):
    assert parse_cell(print_cell(verify(cell))) == cell
    inputs, params, state = draw_data(cell, 2, T, seed)
    want = interp.run(cell, inputs, params, state, seed=3)
    parts = divide(cell)
    assert len(parts) == len(sweeps(cell))
    for part in parts:
        assert not mixed(part) and parse_cell(print_cell(verify(part))) == part
    found = one_after_the_other(parts, inputs, params, state)
    torch.testing.assert_close(found, (want.outputs, want.state), rtol=1e-12, atol=1e-12, equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(both_ways())
def test_nothing_static_is_left(cell):
    """What depends on parameters only leaves the whole cell; its parts have nothing more to give away."""
    if mixed(cell):
        assert not any(part.static for part in lower(cell).parts)


@settings(max_examples=10, deadline=None)
@given(cells())
def test_one_direction_is_one_part(cell):
    assert divide(cell) == (cell,)


def test_what_is_handed_on():
    """A value is handed on once, before it is spread; inputs are read again."""
    text = ("cell sums(H) {\n  input  x: [H]\n  state  s: [H] = 0\n  s[t] = s[t-1] + x[t]\n  output s\n}\n"
            "cell c(H) {\n  input  x: [H], y: []\n  use    f = sums(H), b = reverse sums(H)\n"
            "  z = sum(x[t]) * y[t]\n  u = f(x[t] * z)\n  output o: [H] = b(x[t] + z) * u + z\n}\n")
    first, second = divide(load(text).cells["c"].elaborate(H=3))
    handed = [p for p in second.inputs if p.name.startswith(FROM)]
    assert sorted(len(p.type.shape) for p in handed) == [0, 1]
    assert [o.name for o in first.outputs] == [p.name for p in handed]
    assert "x" in {p.name for p in second.inputs}


def test_an_outer_product_is_not_handed_on():
    """Its factors are; of inputs nothing is."""
    text = ("cell sums(K, V) {\n  input  k: [K], v: [V]\n  state  S: [K, V] = 0\n  S[t] = S[t-1] + outer(k[t], v[t])\n"
            "  output y: [V] = k[t] @ S[t]\n}\ncell c(K, V) {\n  input  k: [K], v: [V]\n"
            "  use    f = sums(K, V), b = reverse sums(K, V), g = sums(K, V)\n"
            "  u = f(tanh(k[t]), v[t])\n  output y: [V] = b(tanh(k[t]), v[t]) + g(k[t], u)\n}\n")
    _, second = divide(lower(load(text).cells["c"].elaborate(K=5, V=7)).canonical)
    assert [p.type.sizes for p in second.inputs if p.name.startswith(FROM)] == [(7,)]
