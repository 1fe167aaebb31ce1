"""Time to the first gradient: cold (empty kernel cache) and warm (new process, filled cache), for short and long T."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def latency_rows(cells: list[tuple[str, dict[str, int]]]) -> list[dict[str, object]]:
    """For every cell: seconds of compile + first forward and backward beyond the running time itself, cold and
    warm, at T = 64; for the first cell also at T = 16 384, and how many kernels the longer call compiled."""
    rows = []
    for cold_T in (64, 16_384):
        some = cells if cold_T == 64 else cells[:1]
        with tempfile.TemporaryDirectory() as cache:
            for run in ("cold", "warm"):
                rows += [{"run": run, "T": cold_T, **r} for r in _child(some, cold_T, cache)]
    return rows


def _child(cells, T: int, cache: str) -> list[dict[str, object]]:
    # a new process of an installed package: Python keeps its bytecode, as it does unless told otherwise
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    out = subprocess.run([sys.executable, "-m", "benchmarks.latency", json.dumps([cells, T])], env=env, cwd=ROOT,
                         stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def _measure(cells, T: int) -> list[dict[str, object]]:
    start = time.perf_counter()
    import torch  # noqa: F401 (its own import time is not ours)
    torch_import = time.perf_counter() - start
    import ostinato

    from .data import inputs
    package_import = time.perf_counter() - start - torch_import
    rows = []
    for name, dims in cells:
        start = time.perf_counter()
        layer = ostinato.compile(str(ROOT / "examples" / "zoo" / f"{name}.ost"), **dims)
        xs = inputs(layer.cell, 1, T)
        _gradients(layer, xs)
        first = time.perf_counter() - start
        compiled = ostinato.compile_count()
        ostinato.free_memory()              # new pages cost the first call time too, however it was compiled
        start = time.perf_counter()
        _gradients(layer, xs)
        again = time.perf_counter() - start
        _gradients(layer, inputs(layer.cell, 2, 2 * T))
        more = ostinato.compile_count() - compiled
        rows.append({"cell": name, "seconds": first - again, "import_torch": torch_import,
                     "import_ostinato": package_import, "compiled_by_other_shapes": more})
    return rows


def _gradients(layer, xs) -> None:
    y, _ = layer(**{k: v.requires_grad_() for k, v in xs.items()})
    sum(v.sum() for v in (y if isinstance(y, tuple) else (y,))).backward()


if __name__ == "__main__":
    print(json.dumps(_measure(*json.loads(sys.argv[1]))))
