"""One step with as little around it as possible: for B sequences the argument
block is laid out once, and a call fills in addresses only."""

from __future__ import annotations

import ctypes
from typing import Sequence

import torch
from torch import Tensor

from .frame import HEADER, PER_PORT
from .launch import SCRATCH, SEED, TRAINING, Launch


class Stepper:
    """Steps of a kernel without packs, for a fixed number B of sequences whose
    tensors are contiguous. `outputs` and `states`: (shape, dtype) of each."""

    def __init__(self, launch: Launch, B: int, order: dict[str, Sequence[str]],
                 outputs: Sequence[tuple[tuple[int, ...], torch.dtype]],
                 states: Sequence[tuple[tuple[int, ...], torch.dtype]]):
        self.function = launch.function
        self.outputs = [((B, *shape), dtype) for shape, dtype in outputs]
        self.states = [((B, *shape), dtype) for shape, dtype in states]
        header, self.scratch = launch.header(B, 1)
        words = list(header)
        for port in launch.kernel.ports:        # contiguous [B, (1,) *shape]
            inner = port.numel
            row = inner * (port.heads.size // port.groups if port.heads else 1)
            lead = port.space != "param"
            words += [0, row if lead else 0, row if port.space in ("input", "output") else 0, inner if port.heads else 0]
        self.template = bytes((ctypes.c_int64 * len(words))(*words))
        self.block = ctypes.c_int64 * len(words)
        at = {p.name: HEADER + PER_PORT * i for i, p in enumerate(launch.kernel.ports)}
        self.slots = tuple(at[name] for role in ("inputs", "params", "first", "outputs", "final") for name in order[role])

    def __call__(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], seed: int,
                 training: bool) -> tuple[list[Tensor], list[Tensor]] | None:
        """(outputs [B, *shape], states); None if some tensor is not contiguous."""
        given = (*inputs, *params, *states)
        for x in given:
            if not x.is_contiguous():
                return None
        outputs = [torch.empty(shape, dtype=dtype) for shape, dtype in self.outputs]
        finals = [torch.empty(shape, dtype=dtype) for shape, dtype in self.states]
        scratch = torch.empty(self.scratch, dtype=torch.uint8)
        block = self.block.from_buffer_copy(self.template)
        block[SEED], block[TRAINING], block[SCRATCH] = seed, training, -(-scratch.data_ptr() // 64) * 64
        for slot, x in zip(self.slots, (*given, *outputs, *finals)):
            block[slot] = x.data_ptr()
        self.function(block)
        return outputs, finals
