"""What a compiled cell holds as a torch.nn.Module: parameters under the program's names, and the plan for its dtype."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..ir import interp
from ..ir.cell import Cell
from . import recur as operators
from .parts import Parts, on_parts
from .plan import Plan, get
from .ports import check, fail, given_values, match, port, ports
from .quick import Quick
from .results import result_type


class Scope(nn.Module):
    """The parameters of a sub-cell; the cell that uses it does the computing."""


class Module(nn.Module):
    """The part of `layer.Layer` that does not run: parameters, dtype and device, pickling."""

    def __init__(self, cell: Cell, *, backend: str = "auto", schedule: str = "auto",
                 dtype: torch.dtype = torch.float32, seed: int = 0, save: str = "auto",
                 values: Mapping[str, Tensor] | None = None, source: str | None = None):
        super().__init__()
        self.cell, self.backend, self.schedule, self.save, self.source = cell, backend, schedule, save, source
        self._dtype, self._device, self._seed = dtype, torch.device("cpu"), seed
        self._given = given_values(cell, values or {})
        self._draws = operators.draws(cell)
        self._slots: list[tuple[nn.Module, str]] = []
        self._bind()
        initial = interp.initial_params(cell, seed, dtype=dtype, given=self._given)
        for p in cell.params:
            if p.name not in initial:
                fail("const_value" if not p.trainable else "param_without_init", name=p.name)
            home, leaf = self._home(p.name)
            if p.trainable and p.type.kind in ("real", "complex"):
                # Straight into the dictionaries of nn.Module, since a program may call a parameter `step`.
                home._parameters[leaf] = nn.Parameter(initial[p.name])
            else:
                home._buffers[leaf] = initial[p.name]
            self._slots.append((home, leaf))

    def __setattr__(self, name: str, value: object) -> None:
        # An attribute stays one where a program has a parameter of that name: nn.Module would take it for that.
        if name in self.__dict__ and not isinstance(value, (Tensor, nn.Module)):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _home(self, name: str) -> tuple[nn.Module, str]:
        """The (sub)module that holds a parameter, and the parameter's name there."""
        home: nn.Module = self
        *path, leaf = name.split(".")
        for part in path:
            if part not in home._modules:
                home._modules[part] = Scope()
            home = home._modules[part]
        return home, leaf

    def _bind(self) -> None:
        """Find or build the plan for the present dtype, and what calls need often."""
        plan = get(self.cell, self.backend, self.schedule, self._dtype, self.save)
        self._plan: Plan = plan
        self._inputs, self._states = ports(self.cell, self._dtype)
        self._own = tuple(port(p.name, "param", p.type, self._dtype) for p in self.cell.params)
        self._names = tuple(p.name for p in self.cell.params)
        self.input_names = tuple(p.name for p in self.cell.inputs)      # in the order of positional arguments
        self.output_names = tuple(o.name for o in self.cell.outputs)    # in the order of the returned tuple
        self.state_names = tuple(s.name for s in self.cell.states)      # all that is carried from step to step
        self._result = result_type(self.cell.name, self.output_names)
        self._n_out = len(self.cell.outputs)
        types = self.cell.nodes()
        self._input_parts, self._state_parts, self._param_parts = (
            Parts.of(p.type for p in ports) for ports in (self.cell.inputs, self.cell.states, self.cell.params))
        self._result_parts = Parts.of(
            [types[o.value].type for o in self.cell.outputs] + [s.type for s in self.cell.states])
        self._n_results = len(plan.output_meta) + len(plan.state_meta)
        # The states' initial values, where they are numbers of the text.
        self._start = self._state_parts.join(plan.static.constants(self._dtype, self._device)) \
            if plan.static.fixed else None
        self._first = None      # for calls without a state: B, the initial states of so many sequences
        self._idle = plan.static.idle       # read here: torch.compile cannot trace a cached_property's first use
        self._cached = None     # for `step`: versions, what `_derive` gave, the parameters
        self._fast = getattr(plan.executable, "step", None)
        self._quick = Quick(self)
        self._runs_here = self._device.type in plan.devices

    def _here(self) -> list[Tensor]:
        """What is in the places of the program's parameters, in declared order."""
        held = self._parameters
        if tuple(held) == self._names:          # all of them here, as most programs have it
            return [*held.values()]
        return [home._parameters[leaf] if leaf in home._parameters else
                home._buffers[leaf] if leaf in home._buffers else getattr(home, leaf) for home, leaf in self._slots]

    def _params(self) -> list[Tensor]:
        """The program's parameters in declared order. What was put in their place (by assignment, by
        `functional_call`) is checked: kernels take addresses. Raises OstinatoError."""
        own = self._here()
        if not match(self._own, own, (), self._device):
            for p, x in zip(self._own, own):
                check(p, x, (), "", self._device)
        return own

    def _apply(self, fn, recurse=True):
        # .to(), .double(), .cuda(): what fn does to one tensor tells the new dtype and device.
        probe = fn(torch.zeros((), dtype=self._dtype, device=self._device))
        if probe.dtype not in (torch.float32, torch.float64):
            fail("option_value", option="dtype", expected="torch.float32 or torch.float64", actual=probe.dtype)
        super()._apply(on_parts(fn), recurse)
        self._dtype, self._device = probe.dtype, probe.device
        self._bind()
        return self

    def __getstate__(self):
        # The plan stays behind: it belongs to a process and is found or built again.
        return self.__dict__ | dict.fromkeys(("_plan", "_fast", "_quick", "_result", "_start", "_first", "_cached"))

    def __setstate__(self, state):
        super().__setstate__(state)
        self._bind()

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw the initial parameters anew, from `seed` or the one given when compiling."""
        fresh = interp.initial_params(self.cell, self._seed if seed is None else seed, given=self._given)
        with torch.no_grad():
            for p, x in zip(self.cell.params, self._params()):
                x.copy_(fresh[p.name])

    def extra_repr(self) -> str:
        dims = ", ".join(f"{d.name}={d.size}" for d in self.cell.dims)
        return f"{self.cell.name}({dims}), {self._plan.backend}, {self._plan.schedule}, {self._dtype}"
