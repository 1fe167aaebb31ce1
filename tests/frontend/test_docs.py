"""docs/language.md: every program compiles; every keyword, built-in function and section of errors is described."""

import re
from pathlib import Path

import pytest
from ostinato.frontend.check.builtins import BUILTINS
from ostinato.frontend.check.scope import RESERVED
from ostinato.frontend.errors import SECTIONS
from ostinato.frontend.format import format_source
from ostinato.frontend.load import load
from ostinato.frontend.scan import KEYWORDS
from ostinato.ir.verify import verify

PAGE = (Path(__file__).parent.parent.parent / "docs" / "language.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```ost\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", PROGRAMS, ids=lambda s: re.search(r"(?:cell|program) (\w+)", s).group(1))
def test_program(text):
    program = load(text)
    assert program.cells
    for cell in program.cells.values():
        needed = [p.name for p in cell.item.header if p.value is None]
        verify(cell.elaborate(**{name: 2 if name == "G" else 4 + 2 * i for i, name in enumerate(needed)}))
    assert format_source(text) == text


def test_everything_is_there():
    words = set(re.findall(r"[\w]+", " ".join(re.findall(r"`([^`\n]+)`", PAGE))))
    assert len(PROGRAMS) >= 12
    assert KEYWORDS | set(RESERVED) | BUILTINS.keys() <= words
    for section in SECTIONS.values():
        assert {e.code[:3] for e in section.values()} <= {c[:3] for c in re.findall(r"E\d\dxx", PAGE)}


def test_the_error_shown_is_the_one_given():
    """The rendering quoted under Errors, from the program it is about."""
    shown = re.search(r"```\n(error\[E.*?)```", PAGE, re.DOTALL).group(1)
    text = ("cell rnn(I, H) {\n  input  x: [I]\n  param  W: [H, H], R: [H, H]  ~ normal(0, 1)\n  state  h: [H] = 0\n\n"
            "  h[t] = W @ x[t] + R @ h[t-1]\n  output h\n}\n")
    with pytest.raises(Exception) as e:
        load(text)
    assert str(e.value).replace("<text>", "rnn.ost") + "\n" == shown
