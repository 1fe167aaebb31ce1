"""One small program per error class: NAME.ost has that error and no other, NAME.err is what the user sees.

Refresh with `pytest tests/frontend/test_golden_errors.py --update-golden`, then read the difference.
"""

import re
from pathlib import Path

import pytest
from ostinato.frontend.diagnostics import OstinatoError
from ostinato.frontend.errors import CATALOGUE
from ostinato.frontend.load import load

FOLDER = Path(__file__).parent.parent / "golden" / "errors"
PROGRAMS = sorted(FOLDER.glob("*.ost"))


def compile_all(path: Path) -> None:
    """Load a file, and elaborate its cells if its first line gives sizes (`# sizes: H=3`)."""
    program = load(path)
    sizes = re.match(r"# sizes: (.*)", path.read_text(encoding="utf-8"))
    if sizes:
        for cell in program.cells.values():
            cell.elaborate(**{k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", sizes.group(1))})


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_error(path: Path, update_golden: bool):
    with pytest.raises(OstinatoError) as e:
        compile_all(path)
    d, = e.value.diagnostics
    assert d.code == CATALOGUE[path.stem].code, str(e.value)
    shown = str(e.value).replace(f"{FOLDER}/", "") + "\n"
    golden = path.with_suffix(".err")
    if update_golden:
        golden.write_text(shown, encoding="utf-8")
    assert shown == golden.read_text(encoding="utf-8")


def test_enough_classes_have_a_golden_file():
    assert {p.stem for p in PROGRAMS} <= CATALOGUE.keys()
    assert len({CATALOGUE[p.stem].code for p in PROGRAMS}) >= 60
    assert {p.stem for p in FOLDER.glob("*.err")} == {p.stem for p in PROGRAMS}
