"""Chunks of matrix states that constant matrices are added to: learned starts that restarts put in, and others."""

from __future__ import annotations

import pytest
from agreement import check
from ostinato.compiler.passes.chunk import derive
from ostinato.compiler.passes.masked import Masked
from ostinato.compiler.pipeline import lower
from ostinato.runtime.sources import elaborate

UPDATES = {
    "scalar": "0.9 * S[t-1] + outer(k[t], v[t])",
    "none": "S[t-1] + outer(k[t], v[t])",
    "rows": "exp(-w[t]^2) * S[t-1] + outer(k[t], v[t])",
    "columns": "exp(-u[t]^2) * S[t-1] + outer(k[t], v[t])",
    "delta rule": "g[t] * S[t-1] + outer(k[t], v[t] - g[t] * k[t] @ S[t-1])",
    "rows and delta rule": "exp(-w[t]^2) * S[t-1] + outer(k[t], v[t]) - outer(k[t], w[t] @ S[t-1])",
    "towards a prior": "g[t] * S[t-1] + outer(k[t], v[t]) + (1 - g[t]) * S0 - sin(w[t]) * S1",
}
TEXT = """
cell c(K, V) {{
  input  k: [K], v: [V], g: [] in (0, 1), w: [K], u: [V]
  param  S0: [K, V], S1: [K, V]  ~ normal(0, 0.3)
  state  S: [K, V] = S0
  S[t] = {}
  output o: [V] = k[t] @ S[t], p: [K] = S[t-1] @ u[t]
}}"""


def cell(update: str, *masks: str):
    made = elaborate(TEXT.format(update), None, {"K": 3, "V": 4}).cell
    return Masked(**dict.fromkeys(masks, True))(made) if masks else made


@pytest.mark.parametrize("masks", [("reset",), ("valid",), ("reset", "valid")], ids="+".join)
@pytest.mark.parametrize("update", UPDATES)
def test_restarts_from_a_learned_state(update, masks):
    source = cell(UPDATES[update], *masks)
    for T in (3, 37):
        check("chunk(5)", source, 2, T, backend="interpreter")
    check("chunk(18)", source, 2, 37, backend="interpreter")


def test_a_learned_prior():
    check("chunk(5)", cell(UPDATES["towards a prior"]), 2, 23, backend="interpreter")
    check("quadratic", cell(UPDATES["towards a prior"]), 2, 23)


def test_where_rows_and_columns_decay_all_elements_are_kept():
    source = cell("exp(-u[t]^2) * (exp(-w[t]^2) * S[t-1]) + outer(k[t], v[t])", "reset")
    check("chunk(5)", source, 2, 23, backend="interpreter")
    assert derive(lower(source).split, 5).whole == ("S",)
