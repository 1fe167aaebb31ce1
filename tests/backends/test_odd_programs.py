"""Programs that once broke the compiler, compared with the interpreter forward and backward."""

import ostinato
import torch
from ostinato.compiler.passes.masked import Masked
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


def _check(text: str, **dims: int) -> None:
    rows, _ = verify_cell(elaborate(text, None, dims or {"H": 4}).cell, dtypes=(torch.float64,), shapes=((2, 5), (1, 1)))
    assert rows and all(r.ok for r in rows), rows


def test_outputs_that_are_constants():
    _check(CONSTANT_OUTPUTS)


def test_initial_values_from_drawn_parameters():
    _check(DRAWN_FROM_DRAWN)


def test_values_used_twice_along_a_long_chain():
    _check(_chain(30))              # the paths through it number more than 10^5


PADDED_COTANGENT = """cell c(H) {
  input  x: [H]
  state  h: [H] = 0
  u = concat(x[t], 0.5 * h[t-1])
  h[t] = tanh(x[t] + u[H:] + u[:H] * sum(u))
  output h, y: [H] = (u * sum(u))[:H]
}"""

ASSEMBLED_INPUT = """cell c(H) {
  input  a: [H], b: [H]
  state  x: [2, H] = 0, h: [2, H] = 0
  both = stack(a[t], b[t])
  x[t] = both
  h[t] = x[t-1] + both * sigmoid(h[t-1])
  output h
}"""

PIECE_OF_A_SWEEP = """cell c(K, V) {
  input  k: [K], v: [V]
  state  S: [K, V] = 0
  M    = sin(S[t-1])
  S[t] = M + outer(k[t], v[t])
  output y: [V] = k[t] @ M, both: [2, K, V] = stack(M, S[t])
}"""

TWO_RUNS = """cell c(K, V) {
  input  x: [K, V], q: [K]
  param  B: [K, V]  ~ normal(0, 1)
  state  S: [K, V] = 0
  P = softmax[K](x[t] + S[t-1])
  L = log_softmax[V](x[t] * 0.3 - S[t-1])
  S[t] = 0.5 * S[t-1] + 0.1 * P * L + 0.01 * cumsum[K](x[t]) - 0.01 * cumsum[V](S[t-1])
  output i: [] = min[K, V](S[t]), j: [] = logsumexp[K, V](x[t]), k: [K] = softmax(q[t]), b: [K] = max[V](x[t] - B)
}"""


def test_a_padded_value_is_whole_before_it_is_read():
    _check(PADDED_COTANGENT, H=4)


def test_an_assembled_input_that_steps_copy():
    """It lies in memory ahead of the steps, which read it and hand it on as a state."""
    _check(ASSEMBLED_INPUT)


def test_a_piece_that_only_its_own_sweep_reads():
    """It has no buffer of its own any more, but a place in the whole."""
    _check(PIECE_OF_A_SWEEP, K=4, V=3)


def test_runs_of_one_kernel_keep_their_constants_apart():
    """The recomputed forward and the backward cell both have nodes k, k.1, ..."""
    _check(TWO_RUNS, K=4, V=3)


def test_a_step_packs_no_parameter_however_large():
    """The kernel of a step has no packs: one that wanted them read from nowhere."""
    layer = ostinato.compile("""
cell wide(I, H) {
  input  x: [I]
  param  W: [I, H] ~ normal(0, 0.05)
  state  h: [H] = 0
  h[t] = 0.5 * h[t-1] + x[t] @ W
  output h
}""", I=256, H=512)
    assert not layer._plan.executable.single.kernel.packs
    x, state = torch.randn(1, 3, 256), layer.initial_state(1)
    with torch.no_grad():
        want, _ = layer(x)
        for t in range(3):
            y, state = layer.step(x[:, t], state)
            torch.testing.assert_close(y, want[:, t])


HEADS_MEET_BACKWARDS = """cell c(H) heads N {
  input  x: [H] shared, k: [H]
  state  s: [H] = 0
  s[t] = 0.5 * s[t-1] + x[t] * k[t]
  output y: [H] = s[t] * tanh(logsumexp(s[t]))
}"""


def test_heads_that_meet_in_the_backward_pass_only():
    _check(HEADS_MEET_BACKWARDS, H=3, N=2)


GROUPED = """cell c(K, D, N, G) heads N {
  input  k: [K] heads G, i: int [] in [0, 4] heads G, z: [D]
  param  W: [D, K], E: [5, K]  ~ normal(0, 1)
  state  h: [D] = 0
  h[t] = tanh(0.5 * h[t-1] + W @ (k[t] + E[i[t]]) + z[t])
  output h
}"""


def test_gradients_of_parameters_read_at_computed_places_what_is_computed():
    """A mask makes the grouped input a computed value, which the sum over the rows reads where its head lies."""
    for name, text in {"table": GROUPED, "plain": GROUPED.replace(" + E[i[t]]", "")}.items():
        cell = elaborate(text, None, dict(K=3, D=4, N=4, G=2)).cell
        for masked in (Masked(valid=True)(cell), Masked(reset=True, valid=True)(cell)):
            rows, _ = verify_cell(masked, dtypes=(torch.float64,), shapes=((2, 5), (1, 1)))
            assert rows and all(r.ok for r in rows), (name, rows)
