"""Train a cell that no library ships on handwritten digits read pixel by pixel.

`make demo`, or `python examples/demo.py`. Long Expressive Memory (zoo/lem.ost) reads
scikit-learn's 8x8 digits as 64 steps of one pixel; its last state is classified.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import ostinato
import torch
from ostinato.runtime.sample import sample_inputs
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

ZOO = Path(__file__).parent / "zoo"
HIDDEN, BATCH, EPOCHS, RATE = 64, 64, 60, 2e-2
console = Console()


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images [n, 64, 1] in [-1, 1] and their labels [n]; a fifth is held out."""
    data = load_digits()
    train, test = train_test_split(range(len(data.target)), test_size=0.2, stratify=data.target, random_state=0)
    x, y = torch.tensor(data.data, dtype=torch.float32).unsqueeze(-1) / 8 - 1, torch.tensor(data.target)
    return x[train], y[train], x[test], y[test]


def eager_lem(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    """The same cell as one would write it by hand: x [B, T, I] -> last state [B, H]."""
    H = p["Wy"].shape[0]
    z = y = x.new_zeros(x.shape[0], H)
    for row in F.linear(x, p["V"], p["b"]).unbind(1):
        x1, x2, xz, xy = row.chunk(4, -1)
        y1, y2, yz = F.linear(y, p["W"]).chunk(3, -1)
        z = torch.lerp(z, torch.tanh(xz + yz), torch.sigmoid(x1 + y1))
        y = torch.lerp(y, torch.tanh(xy + F.linear(z, p["Wy"])), torch.sigmoid(x2 + y2))
    return y


class Classifier(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(HIDDEN, 10)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.layer(x)
        return self.head(y[:, -1])


def milliseconds(step, repeats: int = 9) -> float:
    """Median time of `step()` after one call to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def compile_some() -> None:
    """Compile a handful of cells, forward and backward (a second run finds them in the cache on disk)."""
    table = Table("cell", "text", "first gradient after")
    some = {"lem": {"I": 1, "H": HIDDEN}, "slstm": {"I": 16, "H": 32, "N": 4}, "lstm_layernorm": {"I": 16, "H": 64},
            "gated_deltanet": {"K": 32, "V": 32, "N": 2}, "rwkv7": {"K": 32, "V": 32, "N": 2}}
    for name, dims in some.items():
        text = (ZOO / f"{name}.ost").read_text()
        start = time.perf_counter()
        layer = ostinato.compile(text, **dims)
        xs = [x.requires_grad_() for x in sample_inputs(layer.cell, B=1, T=8, dtype=torch.float32).values()]
        layer(*xs)[0].sum().backward()
        lines = sum(1 for line in text.splitlines() if line.strip() and not line.startswith("#"))
        table.add_row(name, f"{lines} lines", f"{time.perf_counter() - start:.2f} s")
    console.print(table)


def compare_step(layer: nn.Module, x: Tensor) -> None:
    """One training step of the recurrence, ours and the eager loop, same numbers in."""
    p = dict(layer.named_parameters())

    def ours():
        layer(x)[0][:, -1].square().sum().backward()

    def eager():
        eager_lem(x, p).square().sum().backward()

    difference = (layer(x)[0][:, -1] - eager_lem(x, p)).abs().max().item()
    a, b = milliseconds(ours), milliseconds(eager)
    layer.zero_grad()
    console.print(f"Forward and backward of {x.shape[0]} sequences of {x.shape[1]} steps: [bold]{a:.1f} ms[/],\n"
                  f"the same cell as an eager PyTorch loop: {b:.1f} ms, {b / a:.1f} times as long "
                  f"(largest difference of the last states: {difference:.1e}).")


def train(model: Classifier, x: Tensor, y: Tensor) -> None:
    steps = -(-len(y) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS * steps, pct_start=0.2)
    bar = Progress(TextColumn("training"), BarColumn(), TimeRemainingColumn(),
                   TextColumn("epoch {task.completed}/{task.total}  loss {task.fields[loss]:.3f}"), console=console)
    with bar:
        task = bar.add_task("", total=EPOCHS, loss=float("nan"))
        for _ in range(EPOCHS):
            total = 0.0
            for batch in torch.randperm(len(y)).split(BATCH):
                loss = F.cross_entropy(model(x[batch]), y[batch])
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                total += loss.item() * len(batch)
            bar.update(task, advance=1, loss=total / len(y))


def main() -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)            # a cell this small gains nothing from more
    console.rule("Ostinato: from equations in a text file to a trained module")
    console.print((ZOO / "lem.ost").read_text(), highlight=False, markup=False, soft_wrap=True)
    compile_some()
    console.print("The intermediate representation of a small cell, an exponential moving average:")
    console.print(ostinato.compile(str(ZOO / "ema.ost"), D=4).ir("cell"), highlight=False, markup=False, soft_wrap=True)

    x, y, x_test, y_test = digits()
    model = Classifier(ostinato.compile(str(ZOO / "lem.ost"), I=1, H=HIDDEN))
    compare_step(model.layer, x[:BATCH])
    start = time.perf_counter()
    train(model, x, y)
    with torch.no_grad():
        accuracy = (model(x_test).argmax(1) == y_test).float().mean().item()
    console.print(f"{EPOCHS} epochs of {len(y)} images in {time.perf_counter() - start:.0f} s.\n"
                  f"Accuracy on {len(y_test)} images never seen in training: [bold]{accuracy:.1%}[/]")
    return 0 if accuracy >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
