"""What is refused, with which words, and what is accepted."""

import pytest
from elaborated import B, T, close, errors, given, outputs
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.frontend.load import load
from ostinato.ir.interp import run
from ostinato.ir.verify import verify

BODY = "cell c(H, K) {{\n input x: [H]\n param W: [H, K] = 1\n state h: [H] = 0\n{}\n output h\n}}"


@pytest.mark.parametrize("line, says", [
    ("h[t] = y\n y = h[t]", "h[t] -> y -> h[t]"), ("h[t] = x[t+1]", "reads the future"), ("y = x[t]\n h[t] = y[t-1]", "has no past"),
    ("h[t] = h", "needs a time"), ("h[t] = x[t]\n h[t] = 2 * x[t]", "assigned twice"), ("y = 1", "never assigned"),
    ("h[t] = W", "declared [H] but its value has shape [H, K]"), ("h[t] = W @ x[t]", "sums over K on the left and H on the right"),
    ("h[t] = x[t] + W[0]", "[H] and [K]"), ("h[t] = sum[H](x[t]) * sum[K](x[t])", "which [H] does not have"),
    ("h[t] = sum(W)", "needs an axis"), ("x = 2\n h[t] = x[t]", "cannot be assigned"), ("i = 1\n i = 2\n h[t] = x[t]", "already defined"),
    ("tanh = 1\n h[t] = x[t]", "built-in"), ("t = 1\n h[t] = x[t]", "reserved"), ("h[t] = xs[t]", "`xs` is not defined"),
    ("h[t] = tahn(x[t])", "no function `tahn`"), ("h[t] = tanh(x[t], 1)", "takes 1 argument"), ("h[t-1] = x[t]", "assigned at [t] only"),
    ("a, b = x[t]\n h[t] = a", "2 names on the left"), ("h[t] = x[t] if x[t] else 0", "must be bool"), ("h[t] = x[t][2.5]", "index must be int"),
    ("h[t] = x[t] and true", "needs bool"), ("h[t] = normal(0, 1)", "random value"), ("h[t] = outer(x[t], x[t]) * x[t]", "occurs twice"),
    ("state q: [H] = x[t-1]\n q[t] = x[t]\n h[t] = x[t]", "initial value of `q` reads the state"), ("h[t] = split(x[t], 2)", "values where one"),
    ("repeat j in 2 {\n state m: [H] = 0\n m[j] = m[j-2]\n}\n h[t] = m", "more than one iteration back"),
    ("repeat j in 2 {\n state m: [H] = 0\n}\n h[t] = m", "never assigned at [j]"), ("repeat j in 2 {\n z = 1\n}\n h[t] = z * x[t]", "inside a repeat"),
    ("h[t] = x[t-5000]", "more than the limit"), ("h[t] = x[t][9999999 // 0]", "divides by zero"), ("h[t] = sum(x[t] for t in 3)", "reserved"),
    ("h[t] = x[t] @ 2", "right operand is a scalar"), ("h[t] = sum[H](outer(x[t], x[t]))", "occurs twice"), ("h[t] = x[h[t-1]]", "needs a time"),
    ("use f = c(H, K)\n h[t] = f(x[t])", "c -> c"), ("use f = d(H)\n h[t] = x[t]", "no cell `d`"), ("h[t] = x[t-W]", "not a constant"),
    ("y: int [H] = x[t]\n h[t] = y", "declared int but its value is real"), ("y: [J] = 1\n h[t] = x[t]", "`J` is not a dimension of `c`"),
    ("h[t] = x[t, t]", "second time axis"), ("state t2: [H]\n h[t] = x[t]", "no initial value"), ("input u: [H] purple\n h[t] = x[t]", "not a fact"),
])
def test_errors(line, says):
    found = errors(BODY.format(line), H=2, K=3)
    assert any(says in m for m in found), found


def test_several_errors_in_one_run():
    found = errors("cell c(H) {\n input x: [H]\n a = nope\n b = tahn(x[t])\n d = a + b\n output y: [H] = x[t+1]\n}", H=2)
    assert len(found) == 3


@pytest.mark.parametrize("arguments, says", [
    ({"H": 2}, "`K` of `c` has no value"), ({"H": 2, "K": 2, "L": 1}, "no dimension or argument `L`"),
    ({"H": -1, "K": 2}, "negative"), ({"H": 2.5, "K": 2}, "not an integer"), ({"H": "relu", "K": 2}, "size"),
])
def test_header_errors(arguments, says):
    with pytest.raises(OstinatoError) as e:
        load(BODY.format("h[t] = x[t]")).cells["c"].elaborate(**arguments)
    assert says in str(e.value)


def test_errors_that_depend_on_sizes_come_with_the_sizes():
    program = load("cell c(H) {\n input x: [H]\n a, b = split(x[t], 2)\n output y = a[3] + b[H - 9]\n}".replace("y =", "y: [] ="))
    with pytest.raises(OstinatoError, match="cannot be split into 2"):
        program.cells["c"].elaborate(H=9)
    with pytest.raises(OstinatoError, match="outside of"):
        program.cells["c"].elaborate(H=6)
    verify(program.cells["c"].elaborate(H=10))


@pytest.mark.parametrize("source, says", [
    ("fn f(x) = g(x)\nfn g(x) = f(x)\ncell c(H) {\n input x: [H]\n output y: [H] = f(x[t])\n}", "f -> g -> f"),
    ("fn f(x: [A], y: [A]) = x\ncell c(H, K) {\n input x: [H], z: [K]\n output y: [H] = f(x[t], z[t])\n}", "must have shape [H], got [K]"),
    ("fn f(x) = w * x\ncell c(H) {\n input x: [H]\n param w: [H] = 1\n output y: [H] = f(x[t])\n}", "cannot be read inside a function"),
    ("fn f(x) = x derivative 1, 2\ncell c(H) {\n input x: [H]\n output y: [H] = f(x[t])\n}", "its derivative lists 2"),
    ("cell c(H) {\n input x: [H]\n param w: [H] ~ xavier(1)\n output y: [H] = w\n}", "distributions are uniform(low, high)"),
    ("cell c(H) {\n input x: [H]\n}", "no output"), ("cell c(H) {\n output q\n}", "neither a value"),
    ("cell c(H) {\n input x: [H]\n param w: [H] ~ uniform(0, 1)\n param v: [H] = u\n param u: [H] = v\n output w, v\n}", "depend on each other"),
    ("cell c(H) {\n input x: [H] shared\n output x\n}", "without heads"),
    ("cell c(H) heads N {\n input x: [H]\n output y: [H] shared = x[t]\n}", "shared"),
])
def test_more_errors(source, says):
    with pytest.raises(OstinatoError) as e:
        load(source)
    assert says in str(e.value), str(e.value)


def test_imports(tmp_path):
    (tmp_path / "a.ost").write_text('import f, g from "b.ost"\ncell c(H) {\n input x: [H]\n use s = g(H)\n output y: [H] = f(s(x[t]))\n}\n')
    (tmp_path / "b.ost").write_text("fn h(x) = 2 * x\nfn f(x) = h(x)\ncell g(K) {\n input x: [K]\n output y: [K] = h(x[t])\n}\n")
    program = load(tmp_path / "a.ost")
    assert list(program.cells) == ["c"] and not program.functions
    _, x, _, y = outputs(str(tmp_path / "a.ost"), H=2)
    close(y["y"], 4 * x["x"])
    (tmp_path / "b.ost").write_text('import c from "a.ost"\n')
    with pytest.raises(OstinatoError, match="cycle"):
        load(tmp_path / "a.ost")
    (tmp_path / "b.ost").write_text("fn ff(x) = x\n")
    with pytest.raises(OstinatoError, match="defines no `f`"):
        load(tmp_path / "a.ost")
    with pytest.raises(OstinatoError, match="no file"):
        load(tmp_path / "none.ost")
    with pytest.raises(OstinatoError, match="cannot import"):
        load('import f from "b.ost"\n')


@pytest.mark.parametrize("source", [
    "cell c(H) {\n input x: [H]\n" + "".join(f" a{i} = a{i + 1} + 1\n" for i in range(3000)) + " a3000 = x[t]\n output a0\n}",
    "".join(f"fn f{i}(x) = f{i + 1}(x)\n" for i in range(2000)) + "fn f2000(x) = x\ncell c(H) {\n input x: [H]\n output y: [H] = f0(x[t])\n}",
    "".join(f"fn f{i}(x) = f{i + 1}(x) + f{i + 1}(2 * x)\n" for i in range(40)) + "fn f40(x) = x\ncell c(H) {\n input x: [H]\n output y: [H] = f0(x[t])\n}",
    "cell c(H) {\n input x: [H]\n output y: [H] = x[t] * 10^10^10^10\n}",
    "cell c(H) {\n input x: [H]\n output y: [H] = sum(sum(sum(x[t] for a in 999) for b in 999) for d in 999)\n}",
    "cell c(H) {\n input x: [H]\n repeat j in 10^9 {\n state m: [H] = 0\n m[j] = m[j-1]\n}\n output m\n}",
    "cell c(H) {\n param x: [H^2^2^2^2, (H+1)*(H+2)*(H+3)*(H+4)*(H+5)*(H+6)] = 1\n output x\n}",
], ids=["reverse", "chain", "doubling", "power", "generators", "repeat", "polynomials"])
def test_texts_that_would_run_away(source):
    try:
        load(source)
    except OstinatoError as e:
        assert e.diagnostics


def test_functions_that_nothing_calls_are_checked():
    with pytest.raises(OstinatoError, match="`yy` is not defined"):
        load("fn f(x: [A], w) {\n z = A * x\n return z + yy\n}\n")
    load("fn f(x: [A], w) {\n z = A * sum(x[j] * w for j in 3)\n return -z\n}\n")


@pytest.mark.parametrize("source", [
    # select with Num branches as state
    "cell c(H) {\n input x: [H]\n state n: int [] = 0\n n[t] = n[t-1] + (1 if sum(x[t]) > 0 else 0)\n output n\n}",
    # grouped heads with a lag
    "cell c(K, G) heads N {\n input q: [K] heads G\n state h: [K] = 0\n h[t] = q[t-1] + h[t-1]\n output h\n}",
    # heads in sub without heads
    "cell s(H) {\n input x: [H]\n param w: [H] = 1\n state h: [H] = 0\n h[t] = w * (h[t-1] + x[t-2])\n output h\n}\ncell c(K) heads N {\n input x: [K] shared\n use f = s(K)\n output y: [K] = f(x[t])\n}",
    # draw in functions and with shared
    "fn noisy(x: [A]) {\n e: [A] ~ normal(0, 1)\n return x + e\n}\ncell c(K) heads N {\n input x: [K]\n z: [K] shared ~ uniform(0, 1)\n output y: [K] = noisy(x[t]) + noisy(x[t]) + z\n}",
    # nested repeat
    "cell c(K, n) {\n input x: [K]\n repeat i in n {\n  state a: [K] = x[t]\n  repeat j in 2 {\n   state b: [K] = a[i-1]\n   b[j] = b[j-1] * (i + j)\n  }\n  a[i] = b\n }\n output a\n}",
    # repeat over empty
    "cell c(K, n=0) {\n input x: [K]\n repeat i in n {\n  state a: [K] = x[t]\n  a[i] = 2 * a[i-1]\n }\n output a\n}",
    # array generator of subcells
    "cell s(H) {\n input x: [H]\n state h: [H] = 0\n h[t] = h[t-1] + x[t]\n output h\n}\ncell c(K, n) {\n input x: [K]\n use f[n] = s(K)\n output y: [n, K] = stack(f[j](x[t]) for j in n)\n}",
    # concat size
    "cell c(K, n) {\n input x: [K]\n y = concat(x[t], x[t-1], [1])\n param W: [n, 2*K+1] = 0\n output z: [n] = W @ y\n}",
    # negative / const reading consts & params
    "cell c(K) {\n input x: [K]\n const d: [K] = 3\n param w: [K] = 2 * d\n state h: [K] = w - d\n h[t] = h[t-1] * x[t]\n output h\n}",
    # bare output of input and param
    "cell c(K) {\n input x: [K]\n param w: [K] = 2\n output x, w\n}",
    # no inputs
    "cell c(K) {\n state h: [K] = 1\n h[t] = h[t-1] / 2\n output h, s: [] = t * 1.5\n}",
    # H/2 dims
    "cell c(H) {\n input x: [H]\n a, b = split(x[t], 2)\n param w: [H/2, H//2] = 1\n output y: [H/2] = w @ a + b\n}",
    # bool outputs and casts
    "cell c(H) {\n input x: int [H], m: bool [H]\n output y: [H] = x[t] * m[t], z: int [H] = x[t] + m[t], w: [H] = x[t] / 2\n}",
    # function w/o args, unicode
    "fn one() = 1\ncell cé(H) {\n input λ: [H]\n output y: [H] = λ[t] + one()\n}",
    "cell c(H) {\n input x: [H]\n output y: [H] = f(x[t])\n}\nfn f(x) = (x if true else nope)\n",
    "cell c(H, K) {\n input x: [H], y: [K, H]\n output a: [H] = x[t] @ y[t].T @ y[t], b: [K, H] = x[t] * y[t], d: [H, K] = y[t].T + x[t]\n}",
])
def test_accepted(source):
    for definition in load(source).cells.values():
        cell = verify(definition.elaborate(**{p.name: 2 if p.name == "G" else 4 for p in definition.item.header if p.value is None}))
        inputs, params = given(cell)
        run(cell, inputs, params, batch=None if inputs else B, steps=None if inputs else T)
