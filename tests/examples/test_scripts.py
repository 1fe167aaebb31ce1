"""The example scripts run."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import ostinato
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demo_with_one_epoch(monkeypatch, capsys):
    demo = script("demo")
    monkeypatch.setattr(demo, "EPOCHS", 1)
    threads = torch.get_num_threads()
    try:
        assert demo.main() == 1                        # one epoch is too few for 95 %, and it says so
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "images never seen in training" in printed and "eager PyTorch loop" in printed


def test_eager_lem_is_the_same_cell():
    demo = script("demo")
    layer = ostinato.compile(str(demo.ZOO / "lem.ost"), I=1, H=6, dtype=torch.float64)
    x = torch.randn(3, 9, 1, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0][:, -1], demo.eager_lem(x, dict(layer.named_parameters())))


def test_zoo_table(monkeypatch, tmp_path):
    table = script("zoo_table")
    shutil.copy(table.ZOO / "ema.ost", tmp_path)
    monkeypatch.setattr(table, "ZOO", tmp_path)
    assert table.main(tmp_path / "zoo.md") == 0
    text = (tmp_path / "zoo.md").read_text()
    assert "| [ema](../examples/zoo/ema.ost) | Exponential moving average" in text
    assert "| x [D] | y [D] | alpha [D] |" in text


def test_example_of_the_readme():
    text = (EXAMPLES.parent / "README.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    seen: dict = {}
    exec(compile(example, "README.md", "exec"), seen)
    assert seen["y"].shape == (16, 256, 128) and seen["y_t"].shape == (16, 128)
    assert all(p.grad is not None for p in seen["layer"].parameters())
