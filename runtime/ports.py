"""What may be passed to a cell: names, shapes and dtypes of its ports, and the
checks of a call, whose errors name the port and its declared shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from ..frontend.diagnostics import OstinatoError, diagnostic, did_you_mean
from ..ir.cell import Cell
from ..ir.types import Type


def torch_dtype(kind: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype that holds `kind` in a module whose reals are `dtype`."""
    return {"real": dtype, "complex": dtype.to_complex(), "int": torch.int64, "bool": torch.bool}[kind]


@dataclass(frozen=True, slots=True)
class Port:
    """An input (role "input", leading axes B and T), a state ("state", leading axis B) or a parameter ("param")."""

    name: str
    role: str
    sizes: tuple[int, ...]
    dtype: torch.dtype
    declared: str                 # as in the text: "[I]"
    axes: tuple[str, ...]         # with sizes: ("I=64",)


def port(name: str, role: str, type: Type, dtype: torch.dtype) -> Port:
    """The port of a declaration, in a module whose reals are `dtype`."""
    kind = "" if type.kind == "real" else f"{type.kind} "
    return Port(name, role, type.sizes, torch_dtype(type.kind, dtype),
                f"{kind}[{', '.join(d.name for d in type.shape)}]",
                tuple(d.name if d.name == str(d.size) else f"{d.name}={d.size}" for d in type.shape))


def ports(cell: Cell, dtype: torch.dtype) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """(inputs, states) of a cell."""
    return (tuple(port(p.name, "input", p.type, dtype) for p in cell.inputs),
            tuple(port(s.name, "state", s.type, dtype) for s in cell.states))


def fail(error: str, help: str | None = None, /, **fields: object) -> NoReturn:
    """Raise the catalogue's error `error`, with its own help or `help`."""
    raise OstinatoError((diagnostic(error, help=help, **fields),))


def given_values(cell: Cell, values: Mapping[str, object]) -> dict[str, Tensor]:
    """Values for parameters and consts as tensors. Raises OstinatoError for unknown names and wrong shapes."""
    known, out = {p.name: p for p in cell.params}, {}
    for name, value in values.items():
        if name not in known:
            fail("unexpected_dim", did_you_mean(name, known), cell=cell.name, name=name)
        x = torch.as_tensor(value)
        if tuple(x.shape) != known[name].type.sizes:
            p = port(name, "const", known[name].type, torch.float64)
            fail("const_shape", name=name, declared=p.declared, expected=f"[{', '.join(p.axes)}]", actual=list(x.shape))
        kind = known[name].type.kind
        if x.is_complex() and kind != "complex":
            fail("param_dtype", "take its real part", name=name, expected=torch_dtype(kind, torch.float64),
                 actual=x.dtype)
        out[name] = x.detach().to(torch_dtype(kind, torch.float64))
    return out


def arrange(ports: Sequence[Port], given: Sequence[Tensor], named: Mapping[str, Tensor], cell: str) -> list[Tensor]:
    """Positional and named inputs in declared order. Raises OstinatoError for missing, unknown or repeated ones."""
    if not named and len(given) == len(ports):
        return list(given)
    names = [p.name for p in ports]
    if not given and [*named] == names:
        return [*named.values()]
    if len(given) > len(ports):
        many = f"{len(ports)} input{'s' * (len(ports) != 1)} ({', '.join(names)})"
        fail("argument_count", name=cell, expected=many, actual=len(given))
    values = dict(zip(names, given))
    for name, x in named.items():
        if name not in names:
            fail("input_unknown", did_you_mean(name, names) or f"inputs are {', '.join(names)}", name=name)
        if name in values:
            fail("repeated_argument", name=cell, argument=name)
        values[name] = x
    for name in names:
        if name not in values:
            fail("input_missing", f"inputs are {', '.join(names)}", name=name)
    return [values[name] for name in names]


def check(p: Port, x: Tensor, lead: tuple[int, ...], lead_names: str, device: torch.device,
          any_float: bool = False) -> None:
    """Check one tensor against its port. `lead`: sizes of the leading axes,
    `lead_names` their names ("BT" or "B"); `any_float` accepts other float dtypes.
    Raises OstinatoError naming the port, its declared shape and the axis at fault."""
    if not isinstance(x, Tensor):
        fail("input_type", name=p.name, actual=type(x).__name__)
    if not dense(x):
        kind = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
        way = "pad it and say `lengths=`" if x.is_nested else f"convert it: {p.name}.to_dense()"
        fail("not_dense", way, role={"param": "parameter"}.get(p.role, p.role), name=p.name, actual=kind)
    n = len(lead_names)
    if x.dim() != n + len(p.sizes) or x.shape[n:] != p.sizes:
        _wrong_shape(p, x, lead_names)
    same = x.is_floating_point() == p.dtype.is_floating_point and x.is_complex() == p.dtype.is_complex
    if x.dtype != p.dtype and not (any_float and same and (x.is_floating_point() or x.is_complex())):
        cast = f"cast it: {p.name}.to({p.dtype})" + (
            ", or the module: .to(dtype)" if x.is_floating_point() and p.dtype.is_floating_point else "")
        fail(f"{p.role}_dtype", cast, name=p.name, expected=p.dtype, actual=x.dtype)
    if x.device != device:
        fail(f"{p.role}_device", name=p.name, expected=device, actual=x.device)
    for axis, (size, name) in enumerate(zip(lead, lead_names)):
        if x.shape[axis] != size:
            fail(f"{p.role}_shape", f"axis {name} is {x.shape[axis]} instead of {size}", name=p.name,
                 declared=p.declared, expected=_axes((f"B={lead[0]}", *(f"T={s}" for s in lead[1:])) + p.axes),
                 actual=list(x.shape))


def dense(x: Tensor) -> bool:
    """Whether it lies in memory by strides, which is all that kernels can read."""
    return x.layout is torch.strided and not x.is_nested


def _axes(axes: Iterable[str]) -> str:
    return f"[{', '.join(axes)}]"


def _wrong_shape(p: Port, x: Tensor, lead_names: str) -> NoReturn:
    n = len(lead_names)
    if x.dim() != n + len(p.sizes):
        detail = f"it has {x.dim()} axes instead of {n + len(p.sizes)}"
    else:
        axis, size = next((i, s) for i, s in enumerate(p.sizes) if x.shape[n + i] != s)
        detail = f"axis {p.axes[axis].partition('=')[0]} is {x.shape[n + axis]} instead of {size}"
    fail(f"{p.role}_shape", detail, name=p.name, declared=p.declared, expected=_axes((*lead_names, *p.axes)),
         actual=list(x.shape))


def match(ports: Sequence[Port], xs: Sequence[Tensor], lead: tuple[int, ...], device: torch.device) -> bool:
    """Whether all is as declared: the quick answer, before `check` looks for what is wrong."""
    for p, x in zip(ports, xs):
        if not isinstance(x, Tensor) or not dense(x):
            return False
        if x.dtype is not p.dtype or x.shape != lead + p.sizes or x.device != device:
            return False
    return True


HALVES = (torch.bfloat16, torch.float16)


def widened(p: Port, x: Tensor) -> Tensor:
    """Under torch.autocast layers before this one give 16-bit numbers: they are cast to the module's dtype, as autocast
    does for operations that want float32. Elsewhere a dtype that is not the module's is an error (`check`)."""
    if isinstance(x, Tensor) and x.dtype in HALVES and x.dtype != p.dtype and p.dtype.is_floating_point \
            and torch.is_autocast_enabled(x.device.type):
        return x.to(p.dtype)
    return x


def check_inputs(ports: Sequence[Port], xs: Sequence[Tensor], lead_names: str, device: torch.device,
                 any_float: bool = False) -> tuple[int, ...]:
    """Check the inputs of a call and that they agree about B (and T); returns (B, T) or (B,)."""
    n = len(lead_names)
    if isinstance(xs[0], Tensor) and dense(xs[0]) and match(ports, xs, lead := tuple(xs[0].shape[:n]), device):
        return lead
    for p, x in zip(ports, xs):
        check(p, x, (), lead_names, device, any_float)
    lead = xs[0].shape[:n]
    for x in xs[1:]:
        if x.shape[:n] != lead:
            sizes = ", ".join(f"{p.name} {list(y.shape[:n])}" for p, y in zip(ports, xs))
            fail("sizes_disagree", what=f"[{', '.join(lead_names)}]", sizes=sizes)
    return tuple(lead)


def check_state(ports: Sequence[Port], state: Mapping[str, Tensor], B: int, device: torch.device,
                any_float: bool = False) -> None:
    """Check the states passed by the caller (any subset of them)."""
    known = {p.name: p for p in ports}
    for name, x in state.items():
        if name not in known:
            names = ", ".join(known) or "none"
            fail("state_unknown", did_you_mean(name, known) or f"states are {names}", name=name)
        check(known[name], x, (B,), "B", device, any_float)
