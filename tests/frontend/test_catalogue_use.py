"""Every place that reports an error names a class of the catalogue and gives its fields."""

import ast
import re
from pathlib import Path

import pytest
from ostinato.frontend.errors import CATALOGUE

ROOT = Path(__file__).parent.parent.parent
REPORTING = {"error", "fail", "fail_sized", "unknown", "diagnostic", "raise_error", "fail_targets", "refuse"}
FILES = [p for folder in ("frontend", "runtime", "compiler", "backends") for p in sorted((ROOT / folder).rglob("*.py"))]


def reports(path: Path):
    """(line, class, fields given, help given, unknown fields may be given) of each reporting call."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in REPORTING:
            continue
        for arg in node.args[:2]:
            if isinstance(arg, ast.Constant) and re.fullmatch(r"[a-z]+(_[a-z]+)*", str(arg.value)):
                given = {k.arg for k in node.keywords}
                if name == "unknown":
                    given |= {"name"}
                yield node.lineno, arg.value, given, None in given
                break


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_reports(path):
    for line, name, given, open_ended in reports(path):
        assert name in CATALOGUE, f"{path.name}:{line}: {name} is not in the catalogue"
        entry = CATALOGUE[name]
        texts = entry.message + ("" if "help" in given else entry.help or "")
        needed = set(re.findall(r"(?<!{){(\w+)}", texts))
        assert open_ended or needed <= given, f"{path.name}:{line}: {name} lacks {needed - given}"


def test_the_scan_finds_reports():
    assert sum(len(list(reports(p))) for p in FILES) > 100


def test_every_class_is_reported_somewhere():
    text = "\n".join(p.read_text(encoding="utf-8") for p in FILES if p.name != "errors.py")
    used = set(re.findall(r'"([a-z]+(?:_[a-z]+)*)"', text))
    endings = tuple(re.findall(r'f"{[^}]+}(_[a-z]+)"', text))
    assert not {name for name in CATALOGUE.keys() - used if not name.endswith(endings)}
