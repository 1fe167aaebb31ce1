"""Programs that once broke the compiler, compared with the interpreter forward and backward."""

import torch
from ostinato.runtime.sources import elaborate
from ostinato.runtime.verify import verify_cell

CONSTANT_OUTPUTS = """cell c(H) {
  input  x: [H]
  state  h: [H] = 0
  h[t] = 0.5 * h[t-1] + x[t]
  output h, a: [] = 3, b: bool [] = true, c: int [H] = iota(H)
}"""

DRAWN_FROM_DRAWN = """cell c(H) {
  input  x: [H]
  param  nu: [H]  ~ uniform(0.5, 1)
  param  gamma: [H] = sqrt(1 - exp(-nu)), D: [H, H] = diag(gamma) + 0.1
  state  h: [H] = 0
  h[t] = exp(-nu) * h[t-1] + gamma * (D @ x[t])
  output h
}"""


def _chain(depth: int) -> str:
    lines = [f"  a{i} = sin(a{i - 1}) + 0.1 * a{max(0, i - 3)}" for i in range(1, depth)]
    return "\n".join(["cell c(H) {", "  input  x: [H]", "  state  h: [H] = 0", "  a0 = x[t] + h[t-1]", *lines,
                      f"  h[t] = a{depth - 1}", "  output h", "}"])


def _check(text: str) -> None:
    (row,) = verify_cell(elaborate(text, None, {"H": 4}).cell, dtypes=(torch.float64,), shapes=((2, 5), (1, 1)))
    assert row.ok, row


def test_outputs_that_are_constants():
    _check(CONSTANT_OUTPUTS)


def test_initial_values_from_drawn_parameters():
    _check(DRAWN_FROM_DRAWN)


def test_values_used_twice_along_a_long_chain():
    _check(_chain(30))              # the paths through it number more than 10^5
