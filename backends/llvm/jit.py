"""From LLVM IR text to callable addresses on this machine, through the disk cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Options:
    """How to optimise. Our code is explicitly vectorised, so the vectorisers are off by default."""

    speed: int = 2
    loop_vectorise: bool = False
    slp: bool = False


class Compiled:
    """Linked code; alive as long as this object is (keep it while addresses are in use)."""

    def address(self, name: str) -> int:
        """Address of a function of the module with external linkage; KeyError if there is none."""
        raise NotImplementedError

    def asm(self) -> str:
        """Host assembly of the module (generated anew from the IR, not counted by compile_count)."""
        raise NotImplementedError


def compile_module(llvm_ir_text: str, *, key_extra: str = "", options: Options = Options()) -> Compiled:
    """Optimise, generate and link; code found in the disk cache is linked only.
    Thread-safe. Raises RuntimeError with LLVM's message for IR that does not parse or verify."""
    raise NotImplementedError


def compile_count() -> int:
    """Modules optimised and generated in this process (cache hits do not count)."""
    raise NotImplementedError


def vector_width(dtype: torch.dtype) -> int:
    """Lanes of one host register of float32 or float64."""
    raise NotImplementedError


def host() -> dict[str, str | int]:
    """cpu, features, triple, llvm and llvmlite versions, vector_bits."""
    raise NotImplementedError
