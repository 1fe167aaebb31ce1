"""Programs with something wrong in them, reproducible from a seed.

    text = mutant(seed)

Starts from a program of the corpus (the zoo and `EXTRA`) and makes one to four
random changes: to its tokens, characters, numbers, names or nesting, or, for
every second seed or so, only changes that mostly leave a text that parses.
"""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path

ZOO = Path(__file__).parent.parent / "examples" / "zoo"
TOKEN = re.compile(r"\s+|#[^\n]*|\w+|@\w*|[<>=!]=|.", re.DOTALL)

# What the zoo does not use: sub-cells, repeats, generators, random values, consts, programs.
EXTRA = ("""
fn spike(v, slope) = 1 if v > 0 else 0  derivative 1 / (1 + slope * abs(v))^2, 0
fn norm1(x: [A], eps=1e-5) {
  d = x - mean(x)
  return d * rsqrt(mean(d^2) + eps)
}
cell biquad() {
  input  x: []
  param  b: [3] = [1, 0, 0], a: [2] = 0
  state  y: [] = 0
  y[t] = sum(b[j] * x[t-j] for j in 3) - sum(a[j] * y[t-1-j] for j in 2)
  output y
}
cell cascade(n) {
  input  x: []
  use    section[n] = biquad()
  repeat j in n {
    state u: [] = x[t]
    u[j] = section[j](u[j-1])
  }
  output y: [] = u
}
cell noisy(H, p=0.5) {
  input  x: [H]
  param  w: [H]  ~ normal(0, 1/sqrt(H))
  state  v: [H] = 0, s: [H] = 0
  m: [H] ~ bernoulli(p)
  z ~ normal(x[t], 1)
  v[t] = 0.5 * v[t-1] + norm1(z) * (m if training else p) - s[t-1]
  s[t] = spike(v[t] - w, 25)
  output s, v
}
""", """
cell legs(N) {
  input  u: []
  const  A[n, k]: [N, N] = sqrt((2*n+1) * (2*k+1)) if n > k else n + 1 if n == k else 0
  const  B[n]: [N] = sqrt(2*n + 1)
  state  c: [N] = 0
  d    = 1 / (t + 1)
  c[t] = solve(eye(N) + d/2 * A, (eye(N) - d/2 * A) @ c[t-1] + d * u[t] * B)
  output c
}
cell gla(K, V, H) heads HV {
  input  q: [K] heads H, k: [K] heads H, g: [K] <= 0 heads H, v: [V]
  state  S: [K, V] = 0
  S[t] = exp(g[t]) * S[t-1] + outer(k[t], v[t])
  output o: [V] = q[t] @ S[t] / sqrt(K)
}
program dyck2(D) {
  input  x: int [] in [0, 3]
  state  pile: int [D] = 0, ok: bool [] = true
  kind    = x[t] % 2 + 1
  opening = x[t] < 2
  pile[t] = concat([kind], pile[t-1][:D-1]) if opening else concat(pile[t-1][1:], [0])
  fine    = pile[t-1][D-1] == 0 if opening else pile[t-1][0] == kind
  ok[t]   = ok[t-1] and fine
  output accept: bool [] = ok[t] and pile[t][0] == 0
}
cell hmm(S) {
  input  e: [S]
  param  A: [S, S], p: [S]  ~ normal(0, 1)
  state  a: [S] = 0
  a[t] = (log_softmax(p) if t == 0 else a[t-1] @lse log_softmax(A)) + e[t]
  output a, loglik: [] = logsumexp(a[t])
}
cell user(S, n=2) {
  input  e: [S]
  use    f = hmm(S)
  y = f(e[t])
  output z: [S] = max(f.a[t-1], -1e9)
}
""")

WORDS = ("cell input param const state output use repeat fn import program heads shared in if else and or not for "
         "return derivative t inf pi true training split concat sum max outer softmax eye iota grad stop_gradient "
         "h x c W H K V I N 0 1 -1 0.5 1e400 99999999999999999999 1i [t] [t-1] [t+1] [0] [H] .T ( ) [ ] { } , : = ~ "
         "+ - * / // % ^ @ @max == < . # \" ' ; ** \\ $").split()
NOISE = "\x00\x01\x7f\t\r\x0b\u00a0\u200b\u2028\ufeff\u0663\u00b2\u00e9\u03b1\u6f22\U0001f600\u0301\ud800é§¬"


@cache
def corpus() -> tuple[str, ...]:
    return tuple(p.read_text(encoding="utf-8") for p in sorted(ZOO.glob("*.ost"))) + EXTRA


def mutant(seed: int) -> str:
    """A program of the corpus with one to four random changes."""
    r = random.Random(seed)
    text = r.choice(corpus())
    changes = r.choice((CHANGES, MEANING))
    for _ in range(r.choice((1, 1, 2, 4))):
        text = r.choice(changes)(r, text)
    return text


def _tokens(change):
    def apply(r: random.Random, text: str) -> str:
        tokens = TOKEN.findall(text)
        places = [i for i, k in enumerate(tokens) if not k.isspace() and not k.startswith("#")]
        if not places:
            return text
        change(r, tokens, places)
        return "".join(tokens)
    return apply


@_tokens
def swap(r, tokens, places):
    i, j = r.choice(places), r.choice(places)
    tokens[i], tokens[j] = tokens[j], tokens[i]


@_tokens
def swap_neighbours(r, tokens, places):
    at = r.randrange(len(places))
    i, j = places[at], places[at - 1]
    tokens[i], tokens[j] = tokens[j], tokens[i]


@_tokens
def delete(r, tokens, places):
    tokens[r.choice(places)] = ""


@_tokens
def duplicate(r, tokens, places):
    i = r.choice(places)
    tokens[i] = tokens[i] + r.choice(("", " ")) + tokens[i]


@_tokens
def insert(r, tokens, places):
    tokens[r.choice(places)] += " " + r.choice(WORDS) + " "


@_tokens
def replace(r, tokens, places):
    tokens[r.choice(places)] = r.choice(WORDS)


@_tokens
def rename(r, tokens, places):
    """One use of a name becomes another name of the program."""
    names = [i for i in places if tokens[i][0].isalpha()]
    if names:
        tokens[r.choice(names)] = tokens[r.choice(names)]


@_tokens
def rename_everywhere(r, tokens, places):
    names = [i for i in places if tokens[i][0].isalpha()]
    if names:
        old, new = tokens[r.choice(names)], tokens[r.choice(names)]
        for i in places:
            if tokens[i] == old:
                tokens[i] = new


@_tokens
def change_number(r, tokens, places):
    numbers = [i for i in places if tokens[i].isdecimal()]
    if numbers:
        tokens[r.choice(numbers)] = r.choice(
            ("0", "1", "2", "3", "7", "1000", "4294967296", "1e308", "1e999", "0.5", "-1", "3i"))


@_tokens
def misspell(r, tokens, places):
    i = r.choice(places)
    word = list(tokens[i])
    word[r.randrange(len(word))] = r.choice("aeht_0[(=")
    tokens[i] = "".join(word)


def line_moved(r, text):
    lines = text.split("\n")
    line = lines.pop(r.randrange(len(lines)))
    lines.insert(r.randrange(len(lines) + 1), line)
    return "\n".join(lines)


def line_deleted(r, text):
    lines = text.split("\n")
    del lines[r.randrange(len(lines))]
    return "\n".join(lines)


def line_doubled(r, text):
    lines = text.split("\n")
    i = r.randrange(len(lines))
    lines.insert(r.randrange(len(lines) + 1), lines[i])
    return "\n".join(lines)


def noise(r, text):
    i = r.randrange(len(text) + 1)
    return text[:i] + r.choice(NOISE) * r.choice((1, 1, 3)) + text[i + r.choice((0, 1)):]


def cut(r, text):
    return text[:r.randrange(len(text) + 1)]


def nest(r, text):
    """Brackets, operators or blocks a thousand deep, or a line a hundred thousand long."""
    i = text.find("=", r.randrange(len(text) + 1))
    if i < 0:
        return text
    n = r.choice((3, 50, 1000))
    bomb = r.choice((
        "(" * n + "1" + ")" * n, "[" * n + "1" + "]" * n, "-" * n + "1", "not " * n + "true", "x" + "[0]" * n,
        "exp(" * n + "1" + ")" * n, " + ".join(["1"] * n), "1 if true else " * n + "1", "2^" * n + "2", "(" * n,
        "h" * 100 * n, "9" * 10 * n, "x.T" + ".T" * n, "sum(" * n + "1" + " for j in 2)" * n, " " * 100 * n + "1"))
    return text[:i + 1] + " " + bomb + text[i + 1:]


FUNCTIONS = ("tanh sum sum[H] sum[K] max min mean softmax[K] outer dot diag split unstack concat stack onehot eye iota "
             "zeros ones full solve logdet cumsum argmax norm l2norm any all real int "
             "clamp uniform normal orthogonal grad re "
             "stop_gradient spike norm1 gru f section[0] section").split()
OPERATORS = "+ - * / // % ^ @ @max == < and or".split()
LINES = (
    "y9 = h[t-1][0]", "y9 = [1, 2, x[t]]", "a9, b9 = split(x[t], 2)", "a9, b9 = 1, 2", "repeat j in 3 {",
    "state s9: [H] = 0", "s9[t] = 1", "s9[t] = s9[t-2]", "input  x9: int [K] in [0, 3]", "const  c9: [H, H]",
    "const  c9[i]: [4] = i^2", "param  w9: [K, V]  ~ uniform(-1, 1)", "use    f9 = gru(3, 4)",
    "use    f9[3] = biquad()", "y9 = f9(x[t])", "r9 ~ normal(0, 1)", "r9: [H] ~ bernoulli(0.5)",
    "output y9: [] = 1", "y9: int [] = t", "y9 = training and t > 3", "y9 = sum(x[t-j] for j in 4)",
    "y9 = tanh if t > 0 else sum", "y9 = S[t].T @ S[t]", "y9 = x[t][1:] * x[t-1][:1]", "y9 = -inf * 0", "y9 = inf",
    "y9 = sum", "}", "h[t] = h[t]", "y9 = x", "y9 = t[t]", "y9 = (x[t] > 0) + 1", "y9 = zeros(H, H) @ x[t]",
    "y9: [H, H, H] = 0", "y9 = x[t]^0.5^-2")


def call_changed(r, text):
    """Some call becomes one of another function."""
    calls = list(re.finditer(r"\b\w+(?:\[\w+\])?(?=\()", text))
    if not calls:
        return text
    m = r.choice(calls)
    return text[:m.start()] + r.choice(FUNCTIONS) + text[m.end():]


def operator_changed(r, text):
    found = list(re.finditer(r"(?<= )(?:[-+*/@]|==|<)(?= )", text))
    if not found:
        return text
    m = r.choice(found)
    return text[:m.start()] + r.choice(OPERATORS) + text[m.end():]


def shape_changed(r, text):
    """Some bracket's content becomes another's."""
    found = list(re.finditer(r"\[([^\[\]\n]*)\]", text))
    if not found:
        return text
    m, other = r.choice(found), r.choice(found)
    return text[:m.start(1)] + r.choice((other.group(1), other.group(1), "", "0", "t-2", "1:", ":")) + text[m.end(1):]


def argument_changed(r, text):
    """Some argument list becomes another's."""
    found = list(re.finditer(r"\(([^()\n]*)\)", text))
    if not found:
        return text
    m, other = r.choice(found), r.choice(found)
    return text[:m.start(1)] + other.group(1) + text[m.end(1):]


def line_added(r, text):
    lines = text.split("\n")
    lines.insert(r.randrange(len(lines) + 1), "  " + r.choice(LINES))
    return "\n".join(lines)


MEANING = (rename, rename_everywhere, change_number, line_moved, line_deleted, line_doubled, call_changed,
           operator_changed, shape_changed, argument_changed, line_added)
CHANGES = (swap, swap_neighbours, delete, duplicate, insert, replace, rename, rename_everywhere, change_number,
           misspell, line_moved, line_deleted, line_doubled, noise, cut, nest)
