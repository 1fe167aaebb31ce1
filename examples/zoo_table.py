"""Writes the table of the zoo: `python examples/zoo_table.py docs/zoo.md` (`make zoo`)."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from ostinato.runtime import zoo
from ostinato.runtime.files import declared_sizes
from ostinato.runtime.sources import elaborate
from ostinato.runtime.verify import FEW, NEARBY, TOLERANCE

ZOO = Path(__file__).parent / "zoo"
HEAD = """# The zoo

Every file in `examples/zoo/` is one published cell, written as its paper prints it. Each is
tested forward and backward: the float64 interpreter against an independent PyTorch loop
(`tests/zoo/`), and the compiled cell against the interpreter. Written by `make zoo`.

| cell | what | inputs | states | trained | lines |
|---|---|---|---|---|---|
"""
VERIFIED = f"""
## Compiled cells against the interpreter

The largest difference of any output and final state (forward) and of any gradient (backward) from the float64
interpreter, relative to the largest value, at the small sizes that each file names. In float32 the errors that the
interpreter itself has in float32 at the same inputs stand in parentheses: what a cell amplifies (`kalman`, `moneta`) is
no fault of its kernels. A row agrees where its errors are at most {TOLERANCE[torch.float64]:.0e} in float64, in
float32 {TOLERANCE[torch.float32]:.0e} or {FEW:.0f} times those of the interpreter (if need be the worst of {1 + NEARBY}
runs at inputs a rounding apart), whichever is larger. Other sizes, lengths and chunks:
`tests/runtime/test_forms_agree.py`.
"""


def row(path: Path) -> str:
    """One line of the table; shapes with the names of the dimensions."""
    text = path.read_text()
    what = text.splitlines()[0]
    cell = elaborate(path, None, declared_sizes(text)).cell
    ports = [", ".join(f"{p.name} {str(p.type).removeprefix('real')}" for p in ps)
             for ps in (cell.inputs, [s for s in cell.states if "@" not in s.name and s.name != "t"], cell.params)]
    lines = sum(1 for line in text.splitlines() if line.strip() and not line.startswith("#"))
    columns = (f"[{path.stem}](../examples/zoo/{path.name})", what.removeprefix("# "), *ports, str(lines))
    return "| " + " | ".join(c.replace("|", "\\|") for c in columns) + " |"


def main(out: Path) -> int:
    """Writes the file; exit status 1 if a cell does not agree with the interpreter."""
    paths = sorted(ZOO.glob("*.ost"))
    verified = list(zoo.rows(paths))
    out.write_text("\n".join([HEAD + "\n".join(map(row, paths)), VERIFIED, *zoo.HEAD, *map(zoo.line, verified), ""]))
    return 0 if all(r.ok is not False for r in verified) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
