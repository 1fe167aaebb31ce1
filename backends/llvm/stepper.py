"""One step with as little around it as possible: for B sequences the argument
block is laid out once, and a call checks what it is given and fills in addresses."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, empty_like, nn

from . import threads
from .block import ALIGN, HEADER, PER_PORT, SCRATCH, SEED, TRAINING
from .launch import Launch

PLAIN = (Tensor, nn.Parameter)
RESULTS = ("out.", "final.")


class Stepper:
    """Steps of a kernel without packs, for a fixed number B of sequences and the present number of threads.
    `tensors`: shape and dtype by port: inputs, params, states; then outputs, final states."""

    def __init__(self, launch: Launch, B: int, tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]):
        self.function, self.threads, self.own = launch.function, threads.num_threads(), threading.local()
        header, self.nbytes = launch.header(B, 1)
        words = list(header)
        for port in launch.kernel.ports:        # contiguous [B, (1,) *shape]
            inner = port.numel
            row = inner * (port.heads.size // port.groups if port.heads else 1)
            words += [0, row if port.space != "param" else 0, row if port.space in ("input", "output") else 0,
                      inner if port.heads else 0, inner // port.axes[0].size if port.rows and inner else 0]
        self.block = ctypes.c_int64 * len(words)
        self.template = bytes(self.block(*words))
        at = {p.name: HEADER + PER_PORT * i for i, p in enumerate(launch.kernel.ports)}
        self.given = [(at[name], torch.Size(shape), dtype) for name, (shape, dtype) in tensors.items()
                      if not name.startswith(RESULTS)]
        # patterns for empty_like, which is the cheapest way to a tensor
        self.results = [(at[name], torch.empty(shape, dtype=dtype)) for name, (shape, dtype) in tensors.items()
                        if name.startswith(RESULTS)]

    def __call__(self, given: Sequence[Tensor], seed: int, training: bool) -> list[Tensor] | None:
        """Inputs, params, states -> outputs [B, *shape], states. None if some tensor is not a plain contiguous
        one of the port's shape and dtype, or if the number of threads is another one now."""
        if threads.num_threads() != self.threads:
            return None
        block = self.block.from_buffer_copy(self.template)
        for (slot, shape, dtype), x in zip(self.given, given):
            if (type(x) not in PLAIN or x.dtype is not dtype or x.shape != shape or not x.is_cpu
                    or not x.is_contiguous()):
                return None
            block[slot] = x.data_ptr()
        results = []
        for slot, pattern in self.results:
            x = empty_like(pattern)
            block[slot] = x.data_ptr()
            results.append(x)
        own = self.own
        if not hasattr(own, "scratch"):         # one per thread: steps of several threads may run at once
            own.scratch = torch.empty(self.nbytes, dtype=torch.uint8)
            own.start = -(-own.scratch.data_ptr() // ALIGN) * ALIGN
        block[SEED], block[TRAINING], block[SCRATCH] = seed, training, own.start
        self.function(block)
        return results
