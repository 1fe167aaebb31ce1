"""One step with as little around it as possible: for B sequences what does not
move of the argument block is laid out once; a call checks what it is given, and
the addresses follow.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, empty_like, nn
from torch._C._dynamo.guards import TensorGuards

from . import threads
from .block import up
from .launch import Launch

PLAIN = (Tensor, nn.Parameter)
RESULTS = ("out.", "final.")


class Stepper:
    """Steps of a kernel without packs, for a fixed number B of sequences and the present number of threads.
    `tensors`: shape and dtype by port, in the kernel's order: inputs, params, states; then outputs, final states."""

    def __init__(self, launch: Launch, B: int, tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]):
        ports = launch.kernel.ports
        if [p.name for p in ports] != list(tensors) or launch.kernel.packs:
            raise ValueError("a step takes the kernel's ports in their order, and no packs")
        self.function, self.threads, self.own = launch.function, threads.num_threads(), threading.local()
        laid = launch.laid(B, 1, self.threads, launch.contiguous(B, 1))
        self.fixed, self.nbytes, self.pack = laid.words, laid.nbytes, launch.moving
        self.given = [(torch.Size(shape), dtype) for name, (shape, dtype) in tensors.items()
                      if not name.startswith(RESULTS)]
        # patterns for empty_like, which is the cheapest way to a tensor
        self.results = [torch.empty(shape, dtype=dtype) for name, (shape, dtype) in tensors.items()
                        if name.startswith(RESULTS)]
        self.as_before = _never

    def takes(self, given: Sequence[Tensor]) -> bool:
        """Whether inputs, params, states are plain contiguous tensors of the ports' shapes and dtypes, one by one,
        and the number of threads is what it was."""
        return threads.num_threads() == self.threads and (self.as_before(*given) or self._fit(given))

    def __call__(self, given: Sequence[Tensor], seed: int, training: bool) -> list[Tensor]:
        """Inputs, params, states, which `takes` has seen -> outputs [B, *shape], states."""
        results = [empty_like(x) for x in self.results]
        try:
            scratch = self.own.start
        except AttributeError:                  # one per thread: steps of several threads may run at once
            self.own.memory = torch.empty(self.nbytes, dtype=torch.uint8)
            scratch = self.own.start = up(self.own.memory.data_ptr())
        address = Tensor.data_ptr
        self.function(self.fixed + self.pack(seed, training, False, scratch, *map(address, given),
                                             *map(address, results)))
        return results

    def _fit(self, given: Sequence[Tensor]) -> bool:
        """`takes`, one by one. Then tensors of these classes, dtypes, devices, shapes and strides are let through by
        one look at all of them, until others come."""
        for x, (shape, dtype) in zip(given, self.given):
            if (type(x) not in PLAIN or x.dtype is not dtype or x.shape != shape or not x.is_cpu
                    or not x.is_contiguous() or x.is_neg()):
                return False
        self.as_before = TensorGuards(*given, dynamic_dims_sizes=None, dynamic_dims_strides=None).check
        return True


def _never(*given: Tensor) -> bool:
    return False
