"""Any text gives a checked program or diagnostics: no other exception, no hang.

A failing case is `mutate.mutant(seed)` of the seed in the message.
"""

import re
import signal
from contextlib import contextmanager

import mutate
import pytest
from ostinato.frontend.diagnostics import OstinatoError, to_json
from ostinato.frontend.format import format_source
from ostinato.frontend.load import load
from ostinato.frontend.parse import parse
from ostinato.ir.parser import parse_cell
from ostinato.ir.printer import print_cell
from ostinato.ir.verify import verify

PATIENCE = 30       # seconds after which a case counts as hanging


class Hang(BaseException):
    """Not an Exception, so that nothing under test can swallow it."""


@contextmanager
def watchdog():
    def bark(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(text: str) -> str:
    """Load, format and elaborate a text; "accepted" or the first error's code."""
    try:
        program = load(text)
        assert parse(format_source(text)).items == parse(text).items
        line = (re.findall("# sizes: (.*)", text) or [""])[0]
        sizes = {k: int(v) for k, v in re.findall(r"\b(\w{1,9})=(\d{1,3})\b", line)}
        for cell in program.cells.values():
            elaborated = cell.elaborate(**sizes)
            verify(elaborated)
            assert parse_cell(print_cell(elaborated)) == elaborated
        return "accepted"
    except OstinatoError as e:
        assert e.diagnostics and str(e) and len(to_json(e.diagnostics)) == len(e.diagnostics)
        return e.diagnostics[0].code


def outcomes(seeds) -> list[str]:
    found = []
    for seed in seeds:
        text = mutate.mutant(seed)
        try:
            with watchdog():
                found.append(attempt(text))
        except (Exception, Hang) as e:
            raise AssertionError(f"seed {seed}: {type(e).__name__}: {e}\n{text[:3000]}") from e
    return found


@pytest.mark.parametrize("batch", range(6))
def test_mutants(batch):
    found = outcomes(range(50 * batch, 50 * batch + 50))
    assert len(set(found)) > 5 and "accepted" in found, found


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(20))
def test_ten_thousand_mutants(batch):
    outcomes(range(500 * batch, 500 * batch + 500))


@pytest.mark.parametrize("text", [
    "", "\n", "#", "{", "}", "cell", "\x00", "\x00\n{", "\ufeffcell a() {\n}\n", "cell a() {\n}", "a\nb", "/", ".", "~",
    "x" * 100_000, "x\n" * 50_000, "{" * 20_000, "cell a() { " * 3000, "fn f(x) = " + "x + " * 20_000 + "x\n",
    "\ud800", "import a from \"\x00\"\n", "import a from \"\ud800\"\n",
    "cell a(H) {\n  input  x: [H], z: [H]\n  output y: [H] = x[t] + z[t]\n}\n"
    "cell b(H) {\n  input  x: [H]\n  use    f = a(H)\n  output y: [H] = f(x[t]) + f.y[t]\n}\n",
    "cell a(H) {\n  input  x: [x]\n  state  s: [s] = 0\n  use    f = a(f)\n  y = y\n  output z: [z] = z\n}\n",
    "import a from \".\"\n", "import a from \"/\"\n", "import a from \"a.ost\"\n" * 1000,
    "cell a(H) {\n  input  x: [H]\n  output y: [H] = x[t" + "-1" * 5000 + "]\n}\n",
    "cell a(H) {\n  input  x: [H]\n  output y: [H] = x[t-1000000000000]\n}\n",
    "cell a(H) {\n  input  x: [H]\n  output y: [H] = x[t-4000]\n}\n",
    "cell a(H) {\n  input  x: [H" + "*H" * 90 + "]\n  output x\n}\n",
    "cell a(H) {\n  input  x: [9^9^9^9]\n  output x\n}\n",
    "cell a(H) {\n  input  x: [2^100000]\n  output x\n}\n",
    "fn f(x) = g(x) + g(x)\nfn g(x) = f(x)\n",
    "".join(f"fn f{i}(x) = f{i + 1}(x) + f{i + 1}(2 * x)\n" for i in range(60)) + "fn f60(x) = x\n"
    "cell a(H) {\n  input  x: [H]\n  output y: [H] = f0(x[t])\n}\n",
    "cell a() {\n  input  x: []\n  a0 = x[t]\n" + "".join(f"  a{i + 1} = a{i} * a{i} + 1\n" for i in range(3000))
    + "  output y: [] = a3000\n}\n",
    "cell a() {\n  input  x: []\n" + "".join(f"  a{i} = a{i + 1} * 2\n" for i in range(3000))
    + "  a3000 = x[t]\n  output y: [] = a0\n}\n",
    "cell a() {\n  input  x: []\n  repeat j in 1000 {\n    state u: [] = x[t]\n"
    "    u[j] = u[j-1] + 1\n  }\n"
    "  output y: [] = u\n}\n",
    "cell a() {\n  input  x: []\n  output y: [] = sum(sum(sum(x[t] for i in 1000) for j in 1000) for k in 1000)\n}\n",
    "cell a() {\n  input  x: []\n  output y: [] = 10^400 * x[t] + 10^-400 + 9999999999999999999999^9\n}\n",
], ids=lambda s: repr(s[:24]))
def test_hostile_texts(text):
    with watchdog():
        attempt(text)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"cell a() {\n  x = \"\xe9\"\n}\n", b"\x00" * 100], ids=repr)
def test_files_that_are_no_text(tmp_path, data):
    (tmp_path / "bad.ost").write_bytes(data)
    with watchdog(), pytest.raises(OstinatoError):
        load(tmp_path / "bad.ost")


def test_no_text_runs_as_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("__import__('os').mkdir('made')", "().__class__", "{{7*7}}", "{0.__class__}"):
        attempt(f"cell a(H) {{\n  input  x: [H]\n  output y: [H] = {text}\n}}\n")
        attempt(f"cell a(H={text}) {{\n  input  x: [{text}]\n  output x\n}}\n")
    assert not list(tmp_path.iterdir())
