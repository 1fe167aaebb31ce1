"""A delta rule's chunk solves for the error v - k . S, of which a multiple is written, not for the read k . S."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))

from ostinato.compiler.passes.chunk import chunk
from test_chunk import Data, text, zoo

DELTA = """\
cell delta(K, V) {
  input  q: [K], k: [K], v: [V], beta: []
  state  S: [K, V] = 0, n: [V] = 0
%s
}"""
CASES = {       # and products of the forward chunk in which only steps are summed over: Gram matrix . (what is written)
    "a sum": ("""  S[t] = S[t-1] + beta[t] * outer(k[t], v[t] + k[t] @ S[t-1])
  n[t] = v[t]
  output o: [V] = q[t] @ S[t]""", 1),
    "another order": ("""  S[t] = S[t-1] - outer(k[t], (k[t] @ S[t-1] - v[t]) * beta[t])
  n[t] = v[t]
  output o: [V] = q[t] @ S[t]""", 1),
    "the error is an output": ("""  e = v[t] - k[t] @ S[t-1]
  S[t] = S[t-1] + beta[t] * outer(k[t], e)
  n[t] = n[t-1] + e
  output o: [V] = e * e""", 0),
    "the read is an output": ("""  w = k[t] @ S[t-1]
  S[t] = S[t-1] + beta[t] * outer(k[t], v[t] - w)
  n[t] = v[t]
  output o: [V] = w""", 1),
    "the read is a state": ("""  w = k[t] @ S[t-1]
  S[t] = S[t-1] + beta[t] * outer(k[t], v[t] - w)
  n[t] = w
  output o: [V] = q[t] @ S[t]""", 2),
    "a factor of each column": ("""  S[t] = S[t-1] + outer(k[t], v[t] * (v[t] - k[t] @ S[t-1]))
  n[t] = v[t]
  output o: [V] = q[t] @ S[t]""", None),
}


def products(cell) -> int:
    """Products over the steps of a chunk that give a row for each step."""
    nodes = cell.nodes()
    return sum(n.op == "contract" and nodes[n.args[0]].type.shape[-1:] == nodes[n.args[0]].type.shape[-2:-1]
               and n.type.shape[-1].name == "V" for n in cell.body)


@pytest.mark.parametrize("name", CASES)
def test_cells(name):
    body, want = CASES[name]
    cell = text(DELTA % body, K=3, V=4)
    if want is None:
        with pytest.raises(Exception, match="scaled differently in every column"):
            chunk(cell, 6)
        return
    made = chunk(cell, 6)
    assert products(made) == want
    Data(cell, 6, 2).agree(made)


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "kda", "comba"])
def test_zoo(name):
    cell = zoo(name)
    made = chunk(cell, 6)
    assert products(made) == 1                  # what later steps read of what is written
    Data(cell, 6, 2, beta=0.0).agree(made)
