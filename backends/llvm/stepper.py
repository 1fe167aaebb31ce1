"""One step with as little around it as possible: for B sequences the argument
block is laid out once, and a call fills in addresses only."""

from __future__ import annotations

import ctypes
import threading
from typing import Sequence

import torch
from torch import Tensor

from .block import ALIGN, HEADER, PER_PORT, SCRATCH, SEED, TRAINING
from .launch import Launch


class Stepper:
    """Steps of a kernel without packs, for a fixed number B of sequences whose
    tensors are contiguous. `outputs` and `states`: (shape, dtype) of each."""

    def __init__(self, launch: Launch, B: int, order: dict[str, Sequence[str]],
                 outputs: Sequence[tuple[tuple[int, ...], torch.dtype]],
                 states: Sequence[tuple[tuple[int, ...], torch.dtype]]):
        self.function = launch.function
        # patterns for empty_like, which is the cheapest way to a tensor
        self.results = [torch.empty(B, *shape, dtype=dtype) for shape, dtype in (*outputs, *states)]
        self.n_outputs, self.own = len(outputs), threading.local()
        header, self.nbytes = launch.header(B, 1)
        words = list(header)
        for port in launch.kernel.ports:        # contiguous [B, (1,) *shape]
            inner = port.numel
            row = inner * (port.heads.size // port.groups if port.heads else 1)
            lead = port.space != "param"
            words += [
                0,
                row if lead else 0,
                row if port.space in ("input", "output") else 0,
                inner if port.heads else 0,
            ]
        self.template = bytes((ctypes.c_int64 * len(words))(*words))
        self.block = ctypes.c_int64 * len(words)
        at = {p.name: HEADER + PER_PORT * i for i, p in enumerate(launch.kernel.ports)}
        self.slots = tuple(
            at[name] for role in ("inputs", "params", "first", "outputs", "final") for name in order[role]
        )

    def __call__(self, inputs: Sequence[Tensor], params: Sequence[Tensor], states: Sequence[Tensor], seed: int,
                 training: bool) -> tuple[list[Tensor], list[Tensor]] | None:
        """(outputs [B, *shape], states); None if some tensor is not contiguous."""
        given = (*inputs, *params, *states)
        for x in given:
            if not x.is_contiguous():
                return None
        results = [torch.empty_like(x) for x in self.results]
        scratch = getattr(self.own, "scratch", None)
        if scratch is None:                     # one per thread: steps of several threads may run at once
            scratch = self.own.scratch = torch.empty(self.nbytes, dtype=torch.uint8)
            self.own.start = -(-scratch.data_ptr() // ALIGN) * ALIGN
        block = self.block.from_buffer_copy(self.template)
        block[SEED], block[TRAINING], block[SCRATCH] = seed, training, self.own.start
        for slot, x in zip(self.slots, (*given, *results)):
            block[slot] = x.data_ptr()
        self.function(block)
        return results[:self.n_outputs], results[self.n_outputs:]
