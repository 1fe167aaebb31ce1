"""Writes the table of the zoo: `python examples/zoo_table.py docs/zoo.md` (`make zoo`)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import ostinato

ZOO = Path(__file__).parent / "zoo"
HEAD = """# The zoo

Every file in `examples/zoo/` is one published cell, written as its paper prints it. Each is
tested forward and backward: the float64 interpreter against an independent PyTorch loop
(`tests/zoo/`), and the compiled cell against the interpreter. Written by `make zoo`.

| cell | what | inputs | states | trained | lines |
|---|---|---|---|---|---|
"""


def row(path: Path) -> str:
    """One line of the table; shapes with the names of the dimensions."""
    text = path.read_text()
    what, sizes = text.splitlines()[:2]
    dims = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", sizes)}
    cell = ostinato.compile(str(path), backend="interpreter", **dims).cell
    ports = [", ".join(f"{p.name} {str(p.type).removeprefix('real')}" for p in ps)
             for ps in (cell.inputs, [s for s in cell.states if "@" not in s.name and s.name != "t"], cell.params)]
    lines = sum(1 for line in text.splitlines() if line.strip() and not line.startswith("#"))
    columns = (f"[{path.stem}](../examples/zoo/{path.name})", what.removeprefix("# "), *ports, str(lines))
    return "| " + " | ".join(c.replace("|", "\\|") for c in columns) + " |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(HEAD + "".join(row(p) for p in sorted(ZOO.glob("*.ost"))))
