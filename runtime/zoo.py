"""`python -m ostinato.runtime.zoo [FILE or FOLDER ...]`: verify cells and print
the results as a Markdown table: cell x schedule x back end x forward/backward."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..frontend.diagnostics import OstinatoError
from .files import declared_sizes
from .sources import elaborate
from .verify import SCHEDULES, SEQUENTIAL, Row, verify_cell

FOLDER = Path(__file__).parents[1] / "examples" / "zoo"
HEAD = ("| cell | schedule | back end | dtype | forward | backward | agrees |", "|---|---|---|---|---|---|---|")


def rows(paths: Sequence[Path]) -> Iterator[Row]:
    """Verify each file at the sizes of its `# sizes:` line: the sequential schedule in both precisions, the others
    that the cell has in float64."""
    for path in paths:
        try:
            made = elaborate(path, None, declared_sizes(path.read_text(encoding="utf-8")))
        except OstinatoError as error:
            yield Row(path.stem, "-", "-", "-", 0.0, 0.0, False, str(error).splitlines()[0])
        else:
            yield from verify_cell(made.cell, values=made.values, schedules=(SEQUENTIAL,))[0]
            yield from verify_cell(made.cell, values=made.values, dtypes=(torch.float64,),
                                   schedules=[s for s in SCHEDULES if s != SEQUENTIAL])[0]


def line(row: Row) -> str:
    """One row of the table."""
    numbers = (row.note, "") if row.note else tuple(
        f"{e:.1e} ({own:.1e})" if own else f"{e:.1e}" for e, own in zip((row.forward, row.backward), row.rounding))
    verdict = {True: "yes", False: "**no**", None: "refused"}[row.ok]
    cells = (row.cell, row.schedule, row.backend, row.dtype, *numbers, verdict)
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def main(arguments: Sequence[str]) -> int:
    """Exit status 1 if anything does not agree."""
    given = [Path(a) for a in arguments] or [FOLDER]
    paths = [f for p in given for f in (sorted(p.glob("*.ost")) if p.is_dir() else [p])]
    agree = True
    print(*HEAD, sep="\n")
    for row in rows(paths):
        print(line(row), flush=True)
        agree &= row.ok is not False
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
