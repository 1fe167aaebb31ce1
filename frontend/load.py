"""Loading: files and their imports become a checked program.

    prog = load("examples/zoo/lstm.ost")
    cell = prog.cells["lstm"].elaborate(I=64, H=128)     # an ir.cell.Cell
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import NoReturn

from ..ir.cell import Cell
from ..ir.types import Span
from . import tree as t
from .check.builtins import BUILTINS
from .check.cell import elaborate_cell
from .check.functions import check_names
from .check.scope import RESERVED, CellItem, Module
from .check.values import Fn
from .diagnostics import Abandon, OstinatoError, Reporter, did_you_mean, raise_error
from .parse import parse

TEXT = "<text>"
STANDARD = "ostinato/"      # imports that begin so are of the standard library
LIBRARY = Path(__file__).parent / "library"


@dataclass(frozen=True)
class CellDef:
    """A cell of a loaded program."""

    name: str
    item: CellItem = field(repr=False)
    sources: Mapping[str, str] = field(repr=False)

    @property
    def syntax(self) -> t.Cell:
        return self.item.item

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the header's arguments, in order."""
        return tuple(p.name for p in self.item.header)

    def elaborate(self, **arguments: object) -> Cell:
        """The cell for given sizes: `elaborate(I=64, H=128, act="relu")`.

        Raises OstinatoError with everything that is wrong."""
        reporter = Reporter(self.sources)
        cell = elaborate_cell(self.item, arguments, reporter)
        reporter.check()
        return cell


@dataclass(frozen=True)
class Program:
    """A loaded text: its own cells and functions (imported ones are seen by
    them, not listed). `sources`: text by file name, for messages."""

    name: str
    cells: Mapping[str, CellDef]
    functions: Mapping[str, Fn]
    files: Mapping[str, t.File] = field(repr=False)
    sources: Mapping[str, str] = field(repr=False)

    def cell(self, name: str | None = None) -> CellDef:
        """The cell called `name`; without a name the only one that is no sub-cell of the others."""
        if name is None:
            used = {n.callee for c in self.cells.values() for n in t.walk(c.syntax) if isinstance(n, t.Use)}
            whole = [c for c in self.cells.values() if c.name not in used]
            if len(whole) == 1:
                return whole[0]
            if not self.cells:
                raise_error("no_cell", sources=self.sources)
            raise_error("cell_not_chosen", sources=self.sources, cells=", ".join(self.cells))
        if name not in self.cells:
            raise_error("unknown_cell", sources=self.sources, name=name, help=did_you_mean(name, self.cells))
        return self.cells[name]


def elaborate(program: Program, name: str | None, dims: Mapping[str, int],
              options: Mapping[str, object] | None = None) -> Cell:
    """The cell `name` of a program for given sizes and header options."""
    return program.cell(name).elaborate(**dims, **(options or {}))


def _is_text(source: str) -> bool:
    """A string with a newline, a brace, or, unless it ends like a file's name, a bracket or a comment; or nothing."""
    named = source.endswith(".ost")
    return not source.strip() or any(c in source for c in "\n{") or not named and any(c in source for c in "(#")


def load(source: str | PathLike, check: bool = True) -> Program:
    """Parse and check a text (see `_is_text`) or a file.

    Every cell is elaborated with made-up sizes, so that all errors which do not
    depend on sizes are found; `check=False` leaves that out. Raises
    OstinatoError with all diagnostics.
    """
    loader = _Loader()
    if isinstance(source, str) and _is_text(source):
        module = loader.text(source)
    else:
        module = loader.file(Path(source), None)
    reporter = loader.reporter
    reporter.check()
    file = loader.files[module.file]
    own = {i.name for i in file.items if isinstance(i, (t.Cell, t.Function))}
    if check:
        for name, item in module.cells.items():
            if name in own:
                check_cell(item, reporter)
        for name, fn in module.functions.items():
            if name in own and name not in module.used:
                check_names(fn, reporter, BUILTINS)
        reporter.check()
    return Program(
        module.file, {n: CellDef(n, c, loader.sources) for n, c in module.cells.items() if n in own},
        {n: f for n, f in module.functions.items() if n in own}, loader.files, loader.sources)


def check_cell(item: CellItem, reporter: Reporter) -> None:
    """Elaborate with distinct small sizes, leaving out errors that depend on them."""
    sizes = {p.name: 2 + i for i, p in enumerate(p for p in item.header if p.value is None)}
    apart = Reporter(reporter.sources)
    elaborate_cell(item, sizes, apart, sample=True)
    for d in apart.diagnostics:
        reporter.add(d)


class _Loader:
    """Reads files once; imports are relative to the importing file."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.files: dict[str, t.File] = {}
        self.modules: dict[Path, Module] = {}
        self.open: list[Path] = []
        self.reporter = Reporter(self.sources)

    def text(self, source: str) -> Module:
        self.sources[TEXT] = source = source.removeprefix("\ufeff")
        return self.module(parse(source, TEXT), None)

    def file(self, path: Path, span: Span | None) -> Module:
        try:
            key = path.resolve()
        except (OSError, ValueError, RuntimeError):     # characters that no file name has, a loop of links
            self.missing(path, span)
        if key in self.open:
            names = [p.name for p in self.open[self.open.index(key):]] + [path.name]
            self.reporter.fail("import_cycle", span, path=" -> ".join(names))
        if key in self.modules:
            return self.modules[key]
        source = self.read(path, span)
        name = STANDARD + path.name if path.parent == LIBRARY else str(path)
        self.sources[name] = source
        self.open.append(key)
        try:
            self.modules[key] = self.module(parse(source, name), path.parent)
        finally:
            self.open.pop()
        return self.modules[key]

    def read(self, path: Path, span: Span | None) -> str:
        try:
            return path.read_text(encoding="utf-8-sig")     # some editors begin a file with a byte order mark
        except UnicodeDecodeError:
            self.refuse("bad_encoding", span)
        except (OSError, ValueError):
            self.missing(path, span)

    def missing(self, path: Path, span: Span | None) -> NoReturn:
        self.refuse("import_not_found" if span else "file_not_found", span, file=str(path))

    def refuse(self, error: str, span: Span | None, **fields: str) -> NoReturn:
        """Give up a file: the import at `span`, or the whole load."""
        self.reporter.error(error, span, **fields)
        if span is None:
            self.reporter.check()
        raise Abandon

    def module(self, file: t.File, folder: Path | None) -> Module:
        self.files[file.name] = file
        module = Module(file.name)
        for item in file.items:
            if isinstance(item, t.Import):
                with suppress(Abandon):
                    self.import_(module, item, folder)
            else:
                self.enter(module, item.name, item, item.head if isinstance(item, t.Cell) else item.span)
        return module

    def enter(self, module: Module, name: str, item, span: Span) -> None:
        if name in RESERVED or name in BUILTINS:
            self.reporter.error("reserved_name" if name in RESERVED else "shadows_builtin", span, name=name)
            return
        if name in module.cells or name in module.functions:
            self.reporter.error("duplicate_item", span, name=name)
            return
        match item:
            case t.Cell():
                module.cells[name] = CellItem(item, module)
            case t.Function():
                module.functions[name] = Fn(item, module)
            case CellItem():
                module.cells[name] = item
            case Fn():
                module.functions[name] = item

    def import_(self, module: Module, item: t.Import, folder: Path | None) -> None:
        standard = item.path.startswith(STANDARD)
        if folder is None and not standard:
            self.reporter.fail("import_from_text", item.span, file=item.path)
        if not item.path.strip() or "\0" in item.path:
            self.reporter.fail("import_not_found", item.span, file=item.path)
        try:
            other = self.file(LIBRARY / item.path.removeprefix(STANDARD) if standard else folder / item.path, item.span)
        except OstinatoError as e:
            for d in e.diagnostics:
                self.reporter.add(d)
            raise Abandon from None
        for name in item.names:
            found = other.cells.get(name) or other.functions.get(name)
            if found is None:
                self.reporter.error("import_missing", item.span, file=item.path, name=name,
                                    help=did_you_mean(name, other.names()))
                continue
            self.enter(module, name, found, item.span)


