"""The command line: outputs, files, exit statuses, errors on stderr, no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import ostinato
import pytest
import torch
from click.testing import CliRunner
from ostinato.runtime.cli import main

TEXT = """# an Elman network
# sizes: I=3 H=5
cell elman(I, H) {
  input  x: [I]
  param  W: [H, I], R: [H, H], b: [H]  ~ uniform(-1/sqrt(H), 1/sqrt(H))
  state  h: [H] = 0

  h[t] = tanh(W @ x[t] + R @ h[t-1] + b)
  output h
}
"""
WRONG = TEXT.replace("R @ h[t-1]", "Q @ h[t-1]")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "elman.ost"
    path.write_text(TEXT)
    return path


@pytest.fixture
def wrong(tmp_path):
    path = tmp_path / "wrong.ost"
    path.write_text(WRONG)
    return path


def call(*arguments, status=0, **options):
    result = CliRunner().invoke(main, [str(a) for a in arguments], **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


# -- check, fmt, new ---------------------------------------------------------
def test_check(file, wrong):
    assert "no errors" in call("check", file).stdout
    result = call("check", file, wrong, status=1)
    assert "`Q` is not defined" in result.stderr and not result.stdout
    assert "no errors" in call("check", "-", input=TEXT).stdout
    call("check", file, "-D", "H=-1", status=1)


def test_check_json(file, wrong):
    assert json.loads(call("check", "--json", file).stdout) == {"ok": True, "diagnostics": []}
    found = json.loads(call("check", "--json", wrong, status=1).stdout)
    (error,) = found["diagnostics"]
    assert not found["ok"] and error["line"] == 8 and error["message"] == "`Q` is not defined" and error["code"]


def test_fmt(tmp_path, file):
    untidy = TEXT.replace("input  x", "input x").replace("h[t] = tanh", "h[t]=tanh")
    path = tmp_path / "untidy.ost"
    path.write_text(untidy)
    assert "untidy.ost" in call("fmt", "--check", path, file, status=1).stderr
    assert path.read_text() == untidy
    call("fmt", path)
    assert path.read_text() == TEXT and os.listdir(tmp_path) == os.listdir(tmp_path)
    call("fmt", "--check", path, file)
    assert call("fmt", "-", input=untidy).stdout == TEXT
    assert "error" in call("fmt", "-", input="cell (", status=1).stderr


def test_new(tmp_path):
    path = tmp_path / "my cell.ost"
    call("new", path)
    text = path.read_text()
    assert "cell my_cell(" in text
    call("check", path)
    call("verify", path, "--backend", "interpreter", "--dtype", "float64")
    assert call("fmt", "-", input=text).stdout == text
    assert "exists" in call("new", path, status=2).stderr
    path.write_text("")
    call("new", path, status=2)
    assert path.read_text() == ""
    call("new", "--force", path)
    assert path.read_text() == text
    assert ".ost" in call("new", tmp_path / "x.txt", status=2).stderr


@pytest.mark.parametrize("name", ["if", "cell", "tanh", "t", "3", "_", "W"])
def test_new_under_any_name(tmp_path, name):
    path = tmp_path / f"{name}.ost"
    call("new", path)
    call("check", path)


def test_new_says_what_a_shell_understands(tmp_path):
    assert f"verify '{tmp_path}/two words.ost'" in call("new", tmp_path / "two words.ost").stdout


# -- ir, explain ---------------------------------------------------------------
@pytest.mark.parametrize("stage", ["source", "cell", "split", "fused", "adjoint"])
def test_ir(file, stage):
    text = call("ir", file, "--stage", stage).stdout
    assert text == TEXT if stage == "source" else text.startswith("cell elman")


def test_ir_of_an_unknown_stage(file):
    assert "did you mean `fused`" in call("ir", file, "--stage", "fusd", status=2).stderr


def test_explain(file):
    text = call("explain", file, "-B", 16, "-T", 512, "-D", "H=128").stdout
    assert "H=128" in text and "I=3" in text and "bytes" in text and "schedule" in text


# -- run -------------------------------------------------------------------------
def test_run(tmp_path, file):
    layer = ostinato.compile(str(file), I=3, H=5, seed=4)
    x, h = np.random.default_rng(0).normal(size=(2, 7, 3)), np.ones((2, 5))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "all.npz", **{"x": x, "state.h": h})
    out = tmp_path / "out.npz"
    call("run", file, "-i", f"x={tmp_path / 'x.npy'}", "-o", out, "--seed", 4)
    y, state = layer(torch.tensor(x, dtype=torch.float32))
    with np.load(out) as found:
        assert set(found) == {"h", "state.h"}
        np.testing.assert_allclose(found["h"], y.detach().numpy(), atol=1e-6)
        np.testing.assert_allclose(found["state.h"], state["h"].detach().numpy(), atol=1e-6)
    torch.save(layer.state_dict(), tmp_path / "p.pt")
    np.savez(tmp_path / "p.npz", **{k: v.numpy() for k, v in layer.state_dict().items()})
    y, _ = layer(torch.tensor(x, dtype=torch.float32), state={"h": torch.ones(2, 5)})
    for params in ("p.pt", "p.npz"):
        result = call("run", file, "-i", tmp_path / "all.npz", "-p", tmp_path / params, "-o", out, "--json")
        assert json.loads(result.stdout)["shapes"] == {"h": [2, 7, 5], "state.h": [2, 5]}
        with np.load(out) as found:
            np.testing.assert_allclose(found["h"], y.detach().numpy(), atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.npz", "elman.ost", "out.npz", "p.npz", "p.pt", "x.npy"]


def test_run_refuses_what_does_not_fit(tmp_path, file):
    out = tmp_path / "out.npz"
    np.save(tmp_path / "x.npy", np.zeros((2, 7, 4)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "junk.pt").write_bytes(b"junk")
    x = f"x={tmp_path / 'x.npy'}"
    assert "axis I is 4 instead of 3" in call("run", file, "-i", x, "-o", out, status=2).stderr
    assert "`x` is missing" in call("run", file, "-o", out, status=2).stderr
    assert "missing.npy" in call("run", file, "-i", "x=missing.npy", "-o", out, status=2).stderr
    assert "objects.npy" in call("run", file, "-i", f"x={tmp_path / 'objects.npy'}", "-o", out, status=2).stderr
    assert "NAME=" in call("run", file, "-i", tmp_path / "x.npy", "-o", out, status=2).stderr
    assert "junk.pt" in call("run", file, "-i", x, "-p", tmp_path / "junk.pt", "-o", out, status=2).stderr
    np.save(tmp_path / "long.npy", np.zeros((2, 7, 3), np.longdouble))
    if np.dtype(np.longdouble).itemsize > 8:
        assert "cannot be read" in call("run", file, "-i", f"x={tmp_path / 'long.npy'}", "-o", out, status=2).stderr
    np.savez_compressed(tmp_path / "bad.npz", x=np.arange(200.0))
    data = bytearray((tmp_path / "bad.npz").read_bytes())
    data[120:180] = b"\xff" * 60
    (tmp_path / "bad.npz").write_bytes(data)
    assert "bad.npz" in call("run", file, "-i", tmp_path / "bad.npz", "-o", out, status=2).stderr
    assert "twice" in call("run", file, "-i", x, "-i", x, "-o", out, status=2).stderr
    assert ".npz" in call("run", file, "-i", x, "-o", tmp_path / "out.txt", status=2).stderr
    assert not out.exists()


def test_run_writes_one_array(tmp_path, file):
    np.save(tmp_path / "x.npy", np.ones((2, 7, 3)))
    x = f"x={tmp_path / 'x.npy'}"
    result = call("run", file, "-i", x, "-o", tmp_path / "y.npy", "--json")
    assert json.loads(result.stdout)["shapes"] == {"h": [2, 7, 5]}
    call("run", file, "-i", x, "-o", tmp_path / "y.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.load(tmp_path / "y.npz")["h"])
    two = tmp_path / "two.ost"
    two.write_text(TEXT.replace("output h", "output h, y: [H] = 2 * h[t]"))
    assert "2 outputs" in call("run", two, "-i", x, "-o", tmp_path / "z.npy", status=2).stderr


def test_names_that_are_those_of_arguments_elsewhere(tmp_path):
    """Inputs called as arguments of the call are, an output as one of np.savez."""
    path = tmp_path / "names.ost"
    path.write_text("# sizes: H=2\ncell names(H) {\n  input  self: [H], seed: [H]\n  param  _plan: [H] = 1\n"
                    "  state  h: [H] = 0\n  h[t] = 0.5 * h[t-1] + _plan * self[t] + seed[t]\n"
                    "  output file: [H] = h[t]\n}\n")
    ones = np.ones((1, 3, 2), np.float32)
    np.savez(tmp_path / "in.npz", **{"self": ones, "seed": 2 * ones})
    call("run", path, "-i", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["file"][0, :, 0], [3.0, 4.5, 5.25])
    call("verify", path, "--dtype", "float64")
    call("bench", path, "-B", 1, "-T", 2)


# -- verify, bench -----------------------------------------------------------------
def test_verify(file):
    result = call("verify", file, "--json", "-B", 2, "-T", 4)
    found = json.loads(result.stdout)
    rows, unsuitable = found["rows"], found["unsuitable"]
    assert [(r["schedule"], r["dtype"]) for r in rows] == [
        (schedule, dtype) for dtype in ("float32", "float64") for schedule in ("sequential", "step")]
    assert found["ok"] and all(r["ok"] and r["cell"] == "elman" for r in rows)
    assert {"chunk(16)", "scan"} <= {u["schedule"] for u in unsuitable} and all("tanh" in u["reason"] for u in unsuitable
                                                                              if u["schedule"] == "scan")
    text = call("verify", file, "-D", "H=2", "--dtype", "float64").stdout
    assert "elman" in text and "no schedule scan: " in text


def test_verify_every_form_of_a_cell():
    ema = Path(__file__).parents[2] / "examples" / "zoo" / "ema.ost"
    rows = json.loads(call("verify", ema, "--json", "--dtype", "float64", "-B", 2, "-T", 19).stdout)["rows"]
    assert {"sequential", "chunk(16)", "scan"} <= {r["schedule"] for r in rows} and all(r["ok"] for r in rows)


def test_verify_fails_where_it_must(file):
    for tolerance in ("1e-30", "0"):
        call("verify", file, "--tolerance", tolerance, "--dtype", "float32", status=1)
    assert "did you mean" in call("verify", file, "--backend", "lvm", status=2).stderr


def test_bench(file):
    result = json.loads(call("bench", file, "-B", 1, "-T", 2, "--json", "-D", "H=2").stdout)
    assert [t["what"] for t in result["timings"]] == ["step", "forward", "forward+backward"]


# -- errors --------------------------------------------------------------------------
@pytest.mark.parametrize("arguments,message", [
    (["check", "nowhere.ost"], "nowhere.ost"), (["ir", "FILE", "-D", "H"], "-D H=128"),
    (["ir", "FILE", "-D", "H=1", "-D", "H=2"], "twice"), (["ir", "FILE", "-D", "backend=llvm"], "--backend"),
    (["ir", "FILE", "-D", "save=1"], "called that"), (["ir", "FILE", "--schedule", "chunk(0)"], "no schedule"),
    (["bench", "FILE", "-B", str(10**9), "-T", str(10**9)], "more memory"), (["ir", "FILE", "--seed", str(2**64)], "seed"),
    (["verify", "FILE", "--tolerance", "-1"], "tolerance"), (["frobnicate"], "No such command"), (["ir", "FILE", "--dtype", "float16"], "float16"), (["check", "."], "directory"),
])
def test_usage_errors(file, arguments, message):
    assert message in call(*(str(file) if a == "FILE" else a for a in arguments), status=2).stderr


@pytest.mark.parametrize("definition,message", [("HH=3", "did you mean `H`"), ("H=2.5", "H")])
def test_errors_of_sizes(file, definition, message):
    assert message in call("ir", file, "-D", definition, status=1).stderr


def test_not_utf8(tmp_path):
    path = tmp_path / "latin.ost"
    path.write_bytes(b"# caf\xe9\n")
    assert "UTF-8" in call("check", path, status=2).stderr


def test_the_installed_command(file):
    command = [sys.executable, "-m", "ostinato.runtime.cli", "check", str(file)]
    assert "no errors" in subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
