"""Viterbi's best path, traced back by a second cell over the pointers, against all paths."""

from itertools import product

import ostinato
import pytest
import torch
from zoo_data import path, shake

TRACEBACK = """
cell traceback(S) {
  input  back: int [S]
  state  s: int [] = 0
  s[t] = back[t][s[t-1]]
  output path: int [] = s[t-1]
}
"""
B, T, S = 3, 5, 3


@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
def test_the_best_path(backend):
    viterbi = ostinato.compile(path("viterbi"), backend=backend, dtype=torch.float64, S=S)
    shake(viterbi)
    e = torch.randn(B, T, S, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        (d, back), _ = viterbi(e)
        traceback = ostinato.compile(TRACEBACK, backend=backend, dtype=torch.float64, S=S)
        found = traceback(back.flip(1), state={"s": d[:, -1].argmax(-1)})[0].flip(1)
        start, step = viterbi.get_parameter("p").log_softmax(-1), viterbi.get_parameter("A").log_softmax(-1)
    for b in range(B):
        def score(states):
            moves = sum(step[i, j] for i, j in zip(states, states[1:]))
            return float(start[states[0]] + moves + sum(e[b, t, s] for t, s in enumerate(states)))

        best = max(product(range(S), repeat=T), key=score)
        assert found[b].tolist() == list(best) and abs(score(best) - float(d[b, -1].max())) < 1e-12
