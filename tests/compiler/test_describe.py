"""The analysis as text: the normal forms of known cells, and the class of every cell of the zoo."""

import pytest
from affine_meaning import ZOO, elaborate
from ostinato.compiler.analysis.affine import classify
from ostinato.compiler.analysis.describe import describe
from ostinato.compiler.analysis.structure import structure
from ostinato.compiler.pipeline import CANONICAL, Run
from ostinato.runtime import sources

PATHS = {p.stem: p for p in ZOO}
CLASSES = {
    "aaren": ["identity", "scalar", "scalar"], "comba": ["scalar + rank 1"], "deltanet": ["identity + rank 1"],
    "deltaproduct": ["scalar + rank 2"], "ema": ["per channel"], "garch": ["identity", "none", "scalar"],
    "gated_deltanet": ["scalar + rank 1"], "gla": ["rows"], "gsa": ["columns", "rows"], "hgrn": ["per channel"],
    "hgrn2": ["rows"], "iir": ["none", "none", "2 x 2 per lane"], "kda": ["rows + rank 1"],
    "legs": ["identity", "dense"], "linear_attention": ["identity", "identity"], "mega_ema": ["element-wise"],
    "mingru": ["per channel"], "minlstm": ["per channel"], "mlstm": ["scalar", "scalar", "scalar"],
    "qrnn": ["none", "per channel"], "retnet": ["scalar"], "rglru": ["per channel"],
    "abc": ["identity", "columns", "rows"], "fast_weights": ["identity + rank 1"], "hmm": ["identity", "dense"],
    "viterbi": ["identity", "dense"], "linear_rnn": ["dense"], "linear_cde": ["dense"], "lssl": ["block-diagonal"],
    "mamba": ["element-wise"], "mesa": ["scalar", "scalar"], "block_lrnn": ["block-diagonal"], "lru": ["per channel"],
    "rwkv4": ["per channel", "per channel", "per channel"], "rwkv6": ["rows"], "rwkv7": ["rows + rank 1"],
    "simple_gla": ["scalar"], "titans_linear": ["2 x 2 per lane + rank 1"],
}
CONSTANT = {"lru": [True], "linear_rnn": [True], "retnet": [True], "ema": [True], "iir": [True, True, True], "gla": [False]}


def canonical(name):
    return Run()(CANONICAL, elaborate(PATHS[name]))


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    assert [structure(c).name for c in classify(canonical(name))] == CLASSES[name]


@pytest.mark.parametrize("name", CONSTANT)
def test_constant_transitions(name):
    assert [structure(c).constant for c in classify(canonical(name))] == CONSTANT[name]


@pytest.mark.parametrize("name, lines", {
    "gated_deltanet": ["S[t] = L S[t-1] + B", "L = e^g (I - beta k k^T)", "B = beta k v^T",
                       "e^g is a decay with logarithm g <= 0", "reads and writes k, writes -e^g beta k"],
    "kda": ["L = (I - beta k k^T) diag(e^g)", "beta in [0, 2]: I - beta k k^T does not expand where |k| <= 1"],
    "rwkv7": ["L = diag(e^w) + b a^T", "B = k v^T"],
    "comba": ["L = e^g I - beta k p^T"],
    "gateloop": ["L = diag(sigmoid(r) e^(1i phi))", "B = k v^T"],
    "deltaproduct": ["L = e^g (I - beta[0] k[0] k[0]^T - beta[1] k[1] u1^T)",
                     "where u1 = k[1] - k[0] sum(k[0] k[1]) beta[0]"],
    "mlstm": ["3 components of the states, one after another: m; C; n", "m[t] = max(i, m[t-1] + logsigmoid(f))",
              "L = F I", "B = J k v^T", "where F = e^(l - m[t])", "where l = logsigmoid(f) + m[t-1]"],
    "titans_linear": ["S[t] = L_S S[t-1] + L_S,P P[t-1] + B_S", "L_S = (1 - alpha) I - 2 theta k k^T"],
    "gsa": ["A[t] = A[t-1] R + B_A", "R = diag(e^g)"],
    "rwkv4": ["m[t] = max(m[t-1] - w, k)"],
    "iir": ["x@1[t] = x", "x@2[t] = x[t-1]", "y@1[t] = y[t-1]", "L_y = -a[0] I"],
    "legs": ["I + 0.5 d A", "where d = 1 / (t + 1)"],
    "kalman": ["where S = (H @ Pp) @ H^T + R", "where Pp = (F @ P[t-1]) @ F^T + Q", "`solve` of a value"],
    "hmm": ["a [S]: affine over (logsumexp, +)", "logA @lse a[t-1]"], "lru": ["where lambda = e^(-e^nu + 1i e^theta)"],
    "fast_weights": ["L = I - beta u1 u1^T", "B = beta u1 v^T", "where u1 = (k + 1 if k > 0 else e^k) / sum("],
    "lstm": ["h [H], c [H]: not affine", "line 9: `sigmoid` of a value that depends on h"],
    "lif": ["`stop_gradient` of a value that depends on s"],
}.items())
def test_normal_forms(name, lines):
    text = describe(canonical(name))
    for line in lines:
        assert line in text, text


@pytest.mark.parametrize("path", ZOO, ids=lambda p: p.stem)
def test_every_cell_is_described(path):
    cell = Run()(CANONICAL, elaborate(path))
    text = describe(cell)
    for s in cell.states:
        assert f"{s.name} [" in text
    assert ".next" not in text and "iota" not in text


@pytest.mark.parametrize("kind", ["complex ", ""])
def test_sums_of_outer_products_added_to_a_state(kind):
    text = """cell c(K, V) {
  input  k: [K], v: [V], r: [K], u: [V], g: []
  state  S: %s[K, V] = 0
  S[t] = g[t] * S[t-1] + g[t] * outer(k[t], v[t]) - outer(r[t], u[t])
  output o: [V] = %s
}""" % (kind, "re(k[t] @ S[t])" if kind else "k[t] @ S[t]")
    cell = Run()(CANONICAL, sources.elaborate(text, None, {"K": 3, "V": 4}).cell)
    assert "B = g k v^T - r u^T" in describe(cell)
