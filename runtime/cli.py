"""The command `ostinato`. Exit status: 0 well; 1 the program has errors, or
something does not agree; 2 the command line or a file cannot be used: errors that have no place in the program's text.
Errors go to stderr."""

from __future__ import annotations

import json as json_module
import shlex
import sys
from inspect import signature
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ..frontend.diagnostics import OstinatoError, render, to_json
from . import files
from .files import UsageError

TEMPLATE = '''\
# {name}: what it is, and where it was published
# sizes: I=3 H=5
cell {name}(I, H) {{
  input  x: [I]  # read as x[t]; batch and time are left out
  param  W: [H, I], R: [H, H], b: [H]  ~ uniform(-1/sqrt(H), 1/sqrt(H))
  state  h: [H] = 0  # carried from step to step, starts at 0

  h[t] = tanh(W @ x[t] + R @ h[t-1] + b)  # h[t-1]: the value one step ago
  output h
}}
'''


class Commands(click.Group):
    """Turns the errors of a command into messages and exit statuses."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except OstinatoError as error:
            click.echo(render(error.diagnostics, error.sources, color=sys.stderr.isatty()), err=True)
            sys.exit(1 if any(d.span for d in error.diagnostics) else 2)
        except UsageError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
        except (MemoryError, RuntimeError) as error:
            if not files.too_large(error):
                raise
            click.echo("error: these sizes need more memory than there is", err=True)
            sys.exit(2)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(2)


def _stack(*decorators):
    def apply(f):
        for d in reversed(decorators):
            f = d(f)
        return f
    return apply


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
cell_option = click.option("--cell", help="Which cell, if the file holds several.")
sizes_option = click.option("-D", "definitions", multiple=True, metavar="NAME=VALUE",
                            help="A dimension or option; without it the file's `# sizes:` line.")
layer_options = _stack(
    click.argument("file"),
    sizes_option,
    cell_option,
    click.option("--backend", default="auto", show_default=True),
    click.option("--schedule", default="auto", show_default=True),
    click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True),
    click.option("--seed", type=click.IntRange(-2**63, 2**63 - 1), default=0, show_default=True,
                 help="Of the initial parameters and of draws."),
)
OPTIONS = ("cell", "backend", "schedule", "dtype", "seed")
B_option = click.option("-B", "B", type=click.IntRange(0), help="Sequences.")
T_option = click.option("-T", "T", type=click.IntRange(0), help="Steps.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ostinato")
def main() -> None:
    """Ostinato: write the recurrence, get the kernels.

    Exit status: 0 well; 1 the program has errors, or something does not agree; 2 the command line or a file cannot be
    used.
    """


def _given(file: str, definitions: tuple[str, ...]) -> tuple[str, dict[str, object]]:
    """The file's text, and the values of its dimensions and options."""
    text = files.read_text(file)
    return text, files.declared_sizes(text) | files.settings(definitions)


def _layer(
    file: str, definitions: tuple[str, ...], cell: str | None, backend: str, schedule: str, dtype: str, seed: int
):
    import torch

    from .api import compile
    text, given = _given(file, definitions)
    if clash := set(signature(compile).parameters) & set(given):
        name = min(clash)
        raise UsageError(f"-D {name}: {f'use --{name}' if name in OPTIONS else 'no size or option can be called that'}")
    return compile(text if file == "-" else file, cell, backend=backend, schedule=schedule,
                   dtype=getattr(torch, dtype), seed=seed, **given)


# -- the text -------------------------------------------------------------------
@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE...")
@sizes_option
@cell_option
@json_option
def check(paths: tuple[str, ...], definitions: tuple[str, ...], cell: str | None, as_json: bool) -> None:
    """Check programs for errors, without compiling them."""
    from . import sources
    found, texts = [], {}
    for path in paths:
        text, given = _given(path, definitions)
        try:
            sources.check(text if path == "-" else path, cell, given)
        except OstinatoError as error:
            found += error.diagnostics
            texts |= error.sources
    if as_json:
        click.echo(json_module.dumps({"ok": not found, "diagnostics": to_json(found)}, indent=2))
    elif found:
        click.echo(render(found, texts, color=sys.stderr.isatty()), err=True)
    else:
        click.echo(f"{paths[0] if len(paths) == 1 else f'{len(paths)} files'}: no errors")
    sys.exit(1 if found else 0)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE...")
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit with 1 if something would change.")
def fmt(paths: tuple[str, ...], only_check: bool) -> None:
    """Bring files into the standard layout ("-": from standard input to standard output)."""
    from ..frontend.format import format_source
    changed = []
    for path in paths:
        text = files.read_text(path)
        new = format_source(text, "<stdin>" if path == "-" else path)
        if new != text:
            changed.append(path)
        if path == "-" and not only_check:
            click.echo(new, nl=False)
        elif new != text and not only_check:
            files.write_atomically(Path(path), new.encode())
    if only_check:
        for path in changed:
            click.echo(f"{path}: would be changed by `ostinato fmt`", err=True)
        sys.exit(1 if changed else 0)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def new(file: Path, force: bool) -> None:
    """Write a commented cell to start from."""
    if file.suffix != ".ost":
        raise UsageError(f"{file}: programs end in .ost")
    if file.exists() and not force:
        raise UsageError(f"{file} exists; --force overwrites it")
    from ..frontend.check.builtins import BUILTINS
    from ..frontend.check.scope import RESERVED
    from ..frontend.scan import KEYWORDS
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in file.stem)
    if not name[:1].isalpha() or name in KEYWORDS or name in RESERVED or name in BUILTINS:
        name = f"cell_{name}"
    files.write_atomically(file, TEMPLATE.format(name=name).encode())
    click.echo(f"wrote {file}; try `ostinato verify {shlex.quote(str(file))}`")


# -- what is made of it -----------------------------------------------------------
@main.command()
@layer_options
@click.option("--stage", default="cell", show_default=True,
              help="source, cell, split, fused, adjoint, schedule, llvm or asm.")
def ir(stage: str, **options) -> None:
    """Print the program at a stage of compilation."""
    click.echo(_layer(**options).ir(stage), nl=False)


@main.command()
@layer_options
@B_option
@T_option
def explain(B: int | None, T: int | None, **options) -> None:
    """Say how a cell will run, why, and what it keeps in memory."""
    click.echo(_layer(**options).explain(B=B, T=T))


@main.command()
@layer_options
@click.option("-i", "--input", "inputs", multiple=True, metavar="NAME=x.npy|x.npz",
              help="Inputs [B, T, ...]; initial states [B, ...] as state.NAME.")
@click.option("-p", "--params", help="Parameters by name: .npz, or .pt with a state_dict.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="A .npz file: the outputs by name, final states as state.NAME; or a .npy file: the only output.")
@json_option
def run(inputs: tuple[str, ...], params: str | None, output: Path, as_json: bool, **options) -> None:
    """Run a cell over a sequence from files."""
    from .running import run_arrays
    if output.suffix not in (".npz", ".npy"):
        raise UsageError(f"{output}: the output is a .npz or a .npy file")
    given = files.named_arrays(inputs)
    parameters = None if params is None else files.parameters(params)
    layer = _layer(**options)
    if output.suffix == ".npy" and len(layer.output_names) != 1:
        raise UsageError(f"{output}: `{layer.cell.name}` has {len(layer.output_names)} outputs; a .npz file takes them")
    found = run_arrays(layer, given, parameters, options["seed"])
    if output.suffix == ".npy":
        found = {name: found[name] for name in layer.output_names}
    files.write_arrays(output, found)
    shapes = {name: list(x.shape) for name, x in found.items()}
    if as_json:
        click.echo(json_module.dumps({"output": str(output), "shapes": shapes}, indent=2))
    else:
        click.echo(f"wrote {output}: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))


@main.command()
@click.argument("file")
@sizes_option
@cell_option
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(["float32", "float64"]), help="Default: both.")
@click.option("--backend", "names", multiple=True, help="Default: all.")
@B_option
@T_option
@click.option("--tolerance", type=click.FloatRange(0),
              help="Largest error allowed (default: 1e-9 in float64; in float32 2e-4, or four times what the "
                   "interpreter has in float32).")
@json_option
def verify(file: str, definitions: tuple[str, ...], cell: str | None, dtypes: tuple[str, ...], names: tuple[str, ...],
           B: int | None, T: int | None, tolerance: float | None, as_json: bool) -> None:
    """Compare every schedule that a cell has, on every back end, with the interpreter: values and gradients."""
    import torch

    from .sources import elaborate
    from .verify import SHAPES, check_backends, verify_cell
    text, given = _given(file, definitions)
    made = elaborate(text if file == "-" else file, cell, given)
    check_backends(names)
    shapes = SHAPES if B is None and T is None else ((2 if B is None else B, 7 if T is None else T),) * 2
    precisions = [getattr(torch, d) for d in dtypes or ("float32", "float64")]
    rows, unsuitable = verify_cell(made.cell, values=made.values, shapes=shapes, names=names or None,
                                   tolerance=tolerance, dtypes=precisions)
    ok = all(r.ok is not False for r in rows)
    if as_json:
        click.echo(json_module.dumps({"ok": ok, "rows": [r.as_dict() for r in rows],
                                      "unsuitable": [u.as_dict() for u in unsuitable]}, indent=2))
    else:
        table = Table("cell", "schedule", "back end", "dtype", "forward", "backward", "ok",
                      caption="largest error relative to the interpreter (float64)")
        for r in rows:
            numbers = (r.note, "") if r.note else (f"{r.forward:.1e}", f"{r.backward:.1e}")
            table.add_row(r.cell, r.schedule, r.backend, r.dtype, *numbers,
                          "[dim]-[/]" if r.ok is None else "[green]yes[/]" if r.ok else "[red]NO[/]")
        Console().print(table)
        for u in unsuitable:
            click.echo(f"no schedule {u.schedule}: {u.reason}")
    sys.exit(0 if ok else 1)


@main.command()
@layer_options
@click.option("-B", "B", type=click.IntRange(1), default=16, show_default=True, help="Sequences.")
@click.option("-T", "T", type=click.IntRange(1), default=64, show_default=True, help="Steps.")
@click.option("--threads", type=click.IntRange(1), help="For torch.set_num_threads.")
@click.option("--no-eager", is_flag=True, help="Do not time the eager PyTorch loop.")
@json_option
def bench(B: int, T: int, threads: int | None, no_eager: bool, as_json: bool, **options) -> None:
    """Time a cell beside the same cell as an eager PyTorch loop."""
    import torch

    from .bench import bench_layer
    if threads is not None:
        torch.set_num_threads(threads)
    layer = _layer(**options)
    timings = bench_layer(layer, B, T, eager=not no_eager)
    if as_json:
        click.echo(json_module.dumps({"cell": layer.cell.name, "B": B, "T": T, "threads": torch.get_num_threads(),
                                      "timings": [t.as_dict() for t in timings]}, indent=2))
        return
    table = Table("", "compiled, ms", "eager loop, ms", "times faster",
                  title=f"{layer.cell.name}, B={B}, T={T}, {torch.get_num_threads()} thread(s)")
    for t in timings:
        table.add_row(t.what, f"{t.ours:.3f}", *("-" if x is None else f"{x:.3g}" for x in (t.eager, t.ratio)))
    Console().print(table)


if __name__ == "__main__":
    main()
