"""From LLVM IR text to callable addresses on this machine, through the disk cache."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from functools import cache as once
from pathlib import Path
from typing import Callable

import llvmlite
import llvmlite.binding as llvm
import torch

from ... import cache
from . import threads

_lock = threading.RLock()
_serial = itertools.count()
_compiled = 0
if hasattr(os, "register_at_fork"):  # no fork in the middle of a compilation: the child could never take the lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@once
def _features() -> dict[str, bool]:
    return dict(llvm.get_host_cpu_features())


@once
def host() -> dict[str, str | int]:
    """cpu, features (LLVM's notation), triple, llvm and llvmlite versions, vector_bits."""
    has = _features()
    bits = 512 if has.get("avx512f") else 256 if has.get("avx2") else 128
    # sorted: the order from LLVM is not promised, and the text is part of the cache's key
    text = ",".join(("+" if on else "-") + name for name, on in sorted(has.items()) if name != "prefer-256-bit")
    if bits == 512:
        text += ",-prefer-256-bit"
    return {"cpu": llvm.get_host_cpu_name(), "features": text, "triple": llvm.get_process_triple(),
            "llvm": ".".join(map(str, llvm.llvm_version_info)), "llvmlite": llvmlite.__version__, "vector_bits": bits}


def vector_width(dtype: torch.dtype) -> int:
    """Lanes of one host register of a real dtype (float32, float64) or int64."""
    return host()["vector_bits"] // 8 // dtype.itemsize


def compile_count() -> int:
    """Modules optimised and generated in this process (cache hits do not count)."""
    return _compiled


def _machine() -> llvm.TargetMachine:
    return llvm.Target.from_triple(host()["triple"]).create_target_machine(
        cpu=host()["cpu"], features=host()["features"], opt=3, reloc="pic", codemodel="default", jit=True)


@once
def _linker() -> llvm.LLJIT:
    """The process's one linker; every module becomes a library of its own in it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler(_machine(), use_jit_link=True)


def _optimised(text: str) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """Few passes: what we emit is vectorised, unrolled into registers and hoisted out of loops already. LLVM's own
    pipelines took four times as long, more than anything else, and no kernel ran faster for them."""
    module = llvm.parse_assembly(text)
    module.verify()
    machine = _machine()
    module.triple, module.data_layout = host()["triple"], str(machine.target_data)
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return module, machine


def _key(text: str, key_extra: str) -> str:
    parts = (
        text,
        key_extra,
        *(str(host()[k]) for k in ("llvm", "llvmlite", "triple", "cpu", "features")),
    )
    digest = hashlib.sha256()
    for part in parts:  # lengths first, so that no two lists of parts look alike
        digest.update(len(part.encode()).to_bytes(8, "little") + part.encode())
    return digest.hexdigest()


class Compiled:
    """Linked code; alive as long as this object is (keep it while addresses are in use)."""

    def __init__(self, text: Callable[[], str], tracker: llvm.orcjit.ResourceTracker,
                 names: frozenset[str]):
        self._text, self._tracker, self._names = text, tracker, names

    def address(self, name: str) -> int:
        """Address of a function of the module with external linkage; KeyError if there is none."""
        if name not in self._names:
            raise KeyError(f"no function {name} in this module; it has {sorted(self._names)}")
        return self._tracker[name]

    def asm(self) -> str:
        """Host assembly of the module (generated anew from the IR, not counted by compile_count)."""
        with _lock:
            module, machine = _optimised(self._text())
            return machine.emit_assembly(module)


def compile_module(llvm_ir_text: str, *, key_extra: str = "",
                   symbols: dict[str, int] | None = None) -> Compiled:
    """Optimise, generate and link; code found in the disk cache is linked only.

    `symbols`: addresses of functions that the text declares only (default: `threads.symbols()`);
    the C library's are found by themselves. Thread-safe. Raises RuntimeError with LLVM's message
    for IR that does not parse, verify or link.
    """
    return _compile(llvm_ir_text, key_extra, lambda: llvm_ir_text, _named(llvm_ir_text, "define"),
                    threads.symbols() if symbols is None else symbols)


def compile_described(
    description: str, make: Callable[[], str], *exports: str
) -> Compiled:
    """As `compile_module`, for IR that `make()` derives from `description`: it is
    not even made when the cache has the code. The key holds the description, the
    text of the modules that derive the IR, and whether there are threads."""
    extra = f"{_emitter()} {bool(threads.symbols())}"
    return _compile(description, extra, make, frozenset(exports), threads.symbols())


@once
def _emitter() -> str:
    """Digest of the source of everything that turns a kernel into IR."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted((*here.glob("*.py"), *(here.parents[1] / "compiler" / "schedules").glob("*.py"))):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _compile(text: str, extra: str, make: Callable[[], str], names: frozenset[str],
             symbols: dict[str, int]) -> Compiled:
    global _compiled
    with _lock:
        linker = _linker()
        key = _key(text, extra)
        code = cache.load(key)
        if code is None:
            module, machine = _optimised(make())
            code = machine.emit_object(module)
            _compiled += 1
            cache.store(key, code)
        library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for name, address in symbols.items():
            library.import_symbol(name, address)
        for name in names:
            library.export_symbol(name)
        try:
            tracker = library.link(linker, f"ostinato.{next(_serial)}")
        except RuntimeError as error:
            wanted = sorted(n for n in _named(make(), "declare") if not n.startswith("llvm.") and n not in symbols)
            raise RuntimeError(f"cannot link: {error}; declared but not given: {', '.join(wanted)}") from error
    return Compiled(make, tracker, names)


def _named(text: str, what: str) -> frozenset[str]:
    """Functions with external linkage that the IR text has as `define` or `declare`
    (read off the text: no need to parse it when the code is in the cache)."""
    lines = (line.lstrip() for line in text.splitlines())
    return frozenset(line.split("@", 1)[1].split("(", 1)[0].strip().strip('"') for line in lines
                     if line.startswith(what) and not line.startswith((f"{what} internal", f"{what} private")))
