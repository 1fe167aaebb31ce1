"""Chunks, scans and quadratic forms of sequences as they come in practice, from their declared initial values on: each
as the sequences alone, in the interpreter. (An initial value may be -inf: then differences of states are NaN in slack.)"""

from __future__ import annotations

import ostinato
import pytest
import torch
from agreement import ZOO
from batches import Batch, by_layer, check, marks, own
from ostinato.runtime.files import declared_sizes

ALWAYS = {"chunk(4)": ("mlstm", "gated_deltanet", "rwkv7", "gsa", "rwkv4"), "scan": ("minlstm", "rwkv4"),
          "quadratic": ("mlstm", "kda", "aaren")}
NAMES = ("aaren abc comba deltanet deltaproduct gated_deltanet gla gsa hgrn hgrn2 kda linear_attention mesa "
         "mingru minlstm mlstm retnet rwkv4 rwkv6 rwkv7 simple_gla titans_linear").split()
SCANS = "aaren hgrn mingru minlstm rwkv4 qrnn iir".split()


CASES = [pytest.param(schedule, name, marks=() if name in always else pytest.mark.slow)
         for schedule, always in ALWAYS.items() for name in (SCANS if schedule == "scan" else NAMES)]


@pytest.mark.parametrize("schedule, name", CASES)
def test_as_alone(schedule, name):
    path = ZOO / f"{name}.ost"
    layer = ostinato.compile(path, schedule=schedule, dtype=torch.float64, **declared_sizes(path.read_text()))
    for i, form in enumerate(("left", "right", "packed")):
        batch = Batch(form, [9, 4, 0, 1, 6], 9)
        for starts in (False, True):
            check(by_layer(layer), layer.cell, own(layer), batch, starts=starts)
        check(by_layer(layer), layer.cell, own(layer), batch, starts=False, resets=marks(batch, 0.3, i))
