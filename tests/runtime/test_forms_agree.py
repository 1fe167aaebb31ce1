"""Every affine cell of the zoo in every form that it has, against the interpreter: outputs, final states and every
gradient, over many lengths, in pieces with the states carried over, in both precisions.

One cell of each structure is tested always, the whole grid with `make fuzz`.
"""

from __future__ import annotations

import pytest
from agreement import ZOO, as_good_as_sequential, check, executable, splits
from ostinato.runtime import forms
from ostinato.runtime.files import declared_sizes

NONLINEAR = frozenset("""elman elman_heads elman_relu gru gru_heads indrnn kalman lem lif ligru lmu lstm lstm_cifg
    lstm_cifg_peephole lstm_heads lstm_layernorm lstm_peephole lstm_projection ltc moneta paragru paralstm slstm sru srwm
    titans ttt_linear yaad""".split())
BOTH_WAYS = frozenset("bilstm jrt_rnn lion vim".split())    # run as several cells: test_directions
NAMES = sorted({p.stem for p in ZOO.glob("*.ost")} - NONLINEAR - BOTH_WAYS)
# the forms that not every affine cell has: which do, or which do not and why
CONV = frozenset("ema hippo_legt iir linear_attention linear_rnn lru lssl mega_ema retnet rwkv5 s4 s4d".split())
DIAGONALIZE = frozenset("hippo_legt linear_rnn lssl".split())
UNCHUNKED = frozenset("block_lrnn crf hippo_legt hmm legs linear_cde linear_rnn lssl s4 viterbi".split())
ALWAYS = ("iir", "minlstm", "qrnn", "legs", "aaren", "mlstm", "gla", "deltanet", "rwkv7", "gsa", "deltaproduct", "lru",
          "s4", "viterbi", "crf", "linear_cde", "linear_attention", "titans_linear", "retnet", "linear_rnn", "lssl",
          "gateloop", "mamba_complex", "mesa")
LENGTHS = (0, 1, 2, 15, 63, 64, 65)


def has(name: str, schedule: str) -> bool:
    form = forms.parse(schedule)[0]
    if form in ("chunk", "quadratic"):
        return name not in UNCHUNKED
    return name in {"conv": CONV, "diagonalize": DIAGONALIZE}.get(form, NAMES)


def grid(*schedules: str, always: tuple[str, ...] = ()):
    """(cell, schedule) of the whole zoo; quick are the cells in `always`."""
    return pytest.mark.parametrize("name, schedule", [
        pytest.param(n, s, marks=() if n in always else pytest.mark.slow)
        for s in schedules for n in NAMES if has(n, s)])


def test_which_cell_has_which_form():
    for name in sorted(NAMES + [*NONLINEAR]):
        for schedule in ("scan", "chunk", "quadratic", "conv", "diagonalize", "step"):
            try:
                executable(schedule, name)
            except forms.Unsuitable as why:
                assert schedule != "step" and name in NONLINEAR or not has(name, schedule), f"{name}, {schedule}: {why}"
                if schedule in ("chunk", "quadratic") and name in UNCHUNKED:
                    assert "multiplied by a matrix" in str(why)
            else:
                assert schedule == "step" or name in NAMES and has(name, schedule), f"{name} has {schedule} now"


# -- quick: no compiler, or one small kernel -------------------------------------------
@grid("sequential", "scan(3)", "quadratic", "conv", "diagonalize", "step", always=ALWAYS)
def test_lengths(name, schedule):
    for T in LENGTHS:
        check(schedule, name, 2, T)
    check(schedule, name, 1, 18)


@grid("chunk(16)", "chunk(32)", "chunk(64)", "chunk(128)", always=("aaren", "deltanet", "gsa", "mlstm", "rwkv7", "gateloop"))
def test_chunks_of_every_size(name, schedule):
    """The algorithm: the interpreter runs the cells of chunks."""
    for T in (*LENGTHS, 130):
        check(schedule, name, 2, T, backend="interpreter")


@grid("scan(3)", "quadratic", "conv", "diagonalize", always=("gla", "gateloop", "iir", "linear_attention", "linear_rnn", "aaren"))
def test_pieces(name, schedule):
    """Random splits, and step by step."""
    for i in range(3):
        check(schedule, name, 2, 65, pieces=splits(65, 4, i))
    check(schedule, name, 2, 15, pieces=(1,) * 15)


@grid("scan", "quadratic", "conv", "diagonalize", always=("minlstm", "retnet", "gateloop", "linear_rnn", "deltanet", "s4"))
def test_single_precision(name, schedule):
    for T in (65, 300):
        as_good_as_sequential(schedule, name, 2, T)


def test_roundings_do_not_grow_with_the_chunk():
    """Those of angles: tests/compiler/test_chunk_mixed.py."""
    as_good_as_sequential("chunk(128)", "deltanet", 2, 300)


# -- compiled chunks --------------------------------------------------------------------
@grid("chunk(4)", always=("kda", "mlstm", "mingru"))
def test_compiled_chunks(name, schedule):
    for T in (0, 1, 4, 11):
        check(schedule, name, 2, T, tolerance=1e-10)
    check(schedule, name, 2, 25, tolerance=1e-10, pieces=splits(25, 4, 0))


@pytest.mark.slow
@grid("chunk(16)", "chunk(32)", "chunk(64)", "chunk(128)")
def test_compiled_chunks_of_every_size(name, schedule):
    for T in (*LENGTHS, 130, 300):
        check(schedule, name, 2, T)
    for i in range(3):
        check(schedule, name, 2, 130, pieces=splits(130, 4, i))
    for T in (130, 300):
        as_good_as_sequential(schedule, name, 2, T)


# -- long, wide, many heads ---------------------------------------------------------------
@pytest.mark.slow
@grid("sequential", "scan", "chunk(16)", "quadratic", "conv", "diagonalize")
def test_long(name, schedule):
    check(schedule, name, 2, 1000)
    check(schedule, name, 2, 1000, pieces=splits(1000, 3, 0))


def test_long_of_one_structure_each():
    for name, schedule in (("iir", "conv"), ("iir", "scan"), ("minlstm", "scan"), ("retnet", "scan")):
        check(schedule, name, 1, 1000)


WIDE = {"K": 60, "V": 100, "D": 100, "H": 60, "I": 17, "S": 60, "M": 24}
SCAN_REFUSES = {"legs": "the transition of c has 10000 elements"}


@pytest.mark.slow
@grid("sequential", "scan(3)", "chunk(16)", "quadratic", "conv", "diagonalize")
def test_wide(name, schedule):
    sizes = wide(name)
    if schedule == "scan(3)" and name in SCAN_REFUSES:
        with pytest.raises(forms.Unsuitable, match=SCAN_REFUSES[name]):
            executable(schedule, name, **sizes)
        return
    check(schedule, name, 2, 37, **sizes)
    if schedule != "sequential":
        as_good_as_sequential(schedule, name, 2, 37, **sizes)


def wide(name: str) -> dict[str, int]:
    declared = declared_sizes((ZOO / f"{name}.ost").read_text())
    return {k: WIDE[k] for k in declared if k in WIDE}


@pytest.mark.parametrize("N", [1, pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["gla", "gated_deltanet"])
def test_heads(name, N):
    sizes = dict(N=N, K=6, V=5)
    check("chunk(16)", name, 2, 37, backend="interpreter", **sizes)
    for schedule in ("scan(3)", "quadratic"):
        check(schedule, name, 2, 17, **sizes)


GROUPED = """# sizes: K=3 V=4 N=4 G=2
cell grouped(K, V, G) heads N {
  input  q: [K], k: [K] heads G, v: [V] heads G, g: [] <= 0
  state  S: [K, V] = 0
  S[t] = exp(g[t]) * S[t-1] + outer(k[t], v[t])
  output o: [V] = q[t] @ S[t]
}
"""


@pytest.mark.parametrize("schedule, G, backend", [
    ("chunk(4)", 1, "interpreter"), ("chunk(4)", 2, "interpreter"), ("chunk(4)", 2, "llvm"), ("scan(3)", 2, "llvm"),
    ("quadratic", 1, "llvm")])
def test_grouped_heads(schedule, G, backend):
    check(schedule, GROUPED, 2, 19, tolerance=1e-10, backend=backend, G=G)
