"""A compiled cell as a torch.nn.Module."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..ir import interp
from ..ir.cell import Cell
from . import direct, sequences, stages
from . import recur as operators
from .import_torch import matching_weights
from .parts import Parts, on_parts
from .plan import Plan, get
from .ports import arrange, check, check_inputs, check_state, fail, given_values, match, port, ports
from .quick import Quick
from .results import result_type

State = Mapping[str, Tensor]


class Scope(nn.Module):
    """The parameters of a sub-cell; the cell that uses it does the computing."""


class Layer(nn.Module):
    """A cell over time. Made by `ostinato.compile` or `Layer.from_cell`.

    Inputs `[B, T, *shape]`, in declared order or by name; states `[B, *shape]`;
    parameters, buffers and state_dict keys have the program's names.
    """

    def __init__(self, cell: Cell, *, backend: str = "auto", schedule: str = "auto",
                 dtype: torch.dtype = torch.float32, seed: int = 0, save: str = "auto",
                 values: Mapping[str, Tensor] | None = None, source: str | None = None):
        super().__init__()
        self.cell, self.backend, self.schedule, self.save, self.source = cell, backend, schedule, save, source
        self._dtype, self._device, self._seed = dtype, torch.device("cpu"), seed
        self._given = given_values(cell, values or {})
        self._draws = operators.draws(cell)
        self._bind()
        slots = []
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
            slots.append((home, leaf))
        self._slots = tuple(slots)

    @classmethod
    def from_cell(cls, cell: Cell, **options) -> Layer:
        """A layer from a cell of the IR; options as for the constructor."""
        return cls(cell, **options)

    # -- what it is made of ------------------------------------------------
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
        left = ("_plan", "_fast", "_quick", "_result", "_start", "_cached")
        return {k: v for k, v in self.__dict__.items() if k not in left}

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

    # -- running -----------------------------------------------------------
    def forward(self, *inputs: Tensor, state: State | None = None, seed: Tensor | int | None = None,
                **named):
        """Run over a sequence: inputs [B, T, *shape] -> (y, state).

        y: [B, T, *shape], a named tuple if there are several outputs. state:
        dict of [B, *shape]; states left out start from their declared value.
        `seed`: for cells that draw; otherwise taken from torch's generator.

        By name also `reset` [B, T], `lengths` [B] and `padding`, `cu_seqlens` [n + 1] (states
        [n, *shape]), `reverse=True`: see `docs/language.md`, Sequences.
        Raises OstinatoError for wrong names, shapes, dtypes and devices.
        """
        spec = sequences.take(named, self.input_names) if named else None
        xs, state = self._arguments(inputs, state, named)
        B, T = check_inputs(self._inputs, xs, "BT", self._device)
        if spec is not None:
            spec.check(B, T, self._device)
        outputs, finals = self._run(xs, state, seed, B, spec)
        return self._unpack([*outputs, *finals])

    def step(self, *inputs: Tensor, state: State | None = None, seed: Tensor | int | None = None, **named):
        """One step: inputs [B, *shape] -> (y [B, *shape], state), the numbers of `forward`.

        The state may also be the last positional argument. `reset` [B] bool:
        true where it counts as the declared one. Without gradients
        the static part of the cell is kept from call to call until a
        parameter changes (in place or by assignment; not through `.data`).
        """
        if seed is None and (done := self._quick.step(inputs, state, named)) is not None:
            return done
        if (late := next((s.name for s in self.cell.states if s.reverse), None)) is not None:
            fail("no_step", name=self.cell.name, cell=late.rpartition(".")[0])
        spec = sequences.take(named, self.input_names) if named else None
        xs, state = self._arguments(inputs, state, named)
        (B,) = check_inputs(self._inputs, xs, "B", self._device)
        if spec is not None:
            state = sequences.restarted(spec, self._states, state, self._derive()[1], B, self._device)
        if self._fast is None or self._needs_grad(xs, state) or not direct.possible(xs, state.values()):
            outputs, finals = self._run([x.unsqueeze(1) for x in xs], state, seed, B)
            return self._unpack([*(y[:, 0] for y in outputs), *finals])
        params, start = self._static()
        states = self._initial(state, start, B)
        try:
            given = [*self._input_parts.split(xs), *params, *states]
            results = self._fast(given, B, operators.number(self._seed_for(seed)), self.training)
        except NotImplementedError as missing:
            operators.refuse(self._plan, missing)
        if self._n_results == len(self._result_parts.complex) and not self._input_parts.any:
            self._quick.learn(B)
        return self._unpack(self._result_parts.join(results))

    def reference(self, *inputs: Tensor, state: State | None = None, seed: Tensor | int | None = None,
                  **named):
        """The same by the float64 interpreter on the same parameters: the
        definition. Takes any float dtype, gives float64; differentiable in
        inputs, states and parameters by torch's autograd (once)."""
        spec = sequences.take(named, self.input_names) or sequences.Sequences()
        xs, state = self._arguments(inputs, state, named)
        B, T = check_inputs(self._inputs, xs, "BT", self._device, any_float=True)
        spec.check(B, T, self._device)
        check_state(self._states, state, spec.count(B), self._device, any_float=True)
        return self._unpack(sequences.interpret(spec, self.cell, xs, self._params(), state,
                                                operators.number(self._seed_for(seed)), self.training))

    def initial_state(self, B: int) -> dict[str, Tensor]:
        """The declared initial state for B sequences: name -> [B, *shape], memory of its own."""
        _, start = self._derive()
        return {name: x.expand(B, *x.shape).clone() for name, x in zip(self.state_names, start)}

    def _arguments(self, inputs, state, named) -> tuple[list[Tensor], State]:
        if inputs and (inputs[-1] is None or isinstance(inputs[-1], dict)):
            if state is not None:
                fail("repeated_argument", name=self.cell.name, argument="state")
            *inputs, state = inputs
        if not self._runs_here:
            fail("backend_unavailable", "move the module back: .to(\"cpu\")", name=self._plan.backend,
                 reason=f"it does not run on {self._device.type}")
        if not self._inputs:
            fail("not_yet", what=f"running `{self.cell.name}`, which has no inputs,",
                 instead="give it an input, whose length says how many steps to run")
        if state is not None and not isinstance(state, Mapping):
            fail("option_value", option="state", expected="a dict of tensors by the names of the states",
                 actual=type(state).__name__)
        return arrange(self._inputs, inputs, named, self.cell.name), {} if state is None else state

    def _run(self, xs: list[Tensor], state: State, seed, B: int,
             spec: sequences.Sequences | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs [B, T, *shape] to (outputs, final states), recorded by autograd where needed."""
        plan = self._plan if spec is None else spec.plan(self._plan, self.schedule == "auto")
        params, start = self._derive(plan)
        xs, states = self._input_parts.split(xs), self._initial(state, start, B if spec is None else spec.count(B))
        if direct.tangents(xs, params, states):
            fail("not_yet", what=f"forward-mode differentiation (jvp) of `{self.cell.name}`",
                 instead="use backward(), torch.autograd.grad, or jvp of layer.reference")
        keep = torch.is_grad_enabled() and any(x.requires_grad for x in (*xs, *params, *states))
        given = plan, (xs, params, states), self._seed_for(seed), self.training, keep
        flat = direct.call(*given) if spec is None else sequences.call(spec, *given)
        flat = self._result_parts.join(flat[:self._n_results])
        return flat[:self._n_out], flat[self._n_out:]

    def _derive(self, plan: Plan | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """(the executable's parameters, the states' initial values [*shape])"""
        plan, own = plan or self._plan, self._param_parts.split(self._params())
        static = plan.static
        if static.idle:
            return static.arrange(own, ()), self._start
        if torch.compiler.is_compiling():
            computed = torch.ops.ostinato.derive(plan.key, own)
        else:
            computed = static.compute(own, self._dtype, self._device)
        start = self._state_parts.join(computed[len(static.extra):]) if self._start is None else self._start
        return static.arrange(own, computed), start

    def _static(self) -> tuple[list[Tensor], list[Tensor]]:
        """`_derive`, computed anew only when a parameter has changed."""
        if self._idle:
            return self._derive()
        own = self._here()
        try:
            versions = [(id(x), x.data_ptr(), x._version) for x in own]
        except (AttributeError, RuntimeError):      # no tensor at all, or one that does not count its changes
            return self._derive()
        cached = self._cached
        if cached is None or cached[0] != versions:     # holds `own`, so that no new tensor has an old one's id
            cached = self._cached = versions, self._derive(), own
        return cached[1]

    def _initial(self, state: State, start: list[Tensor], B: int) -> list[Tensor]:
        if len(state) == len(self._states) and isinstance(state, dict):
            states = [state.get(name) for name in self.state_names]
            if match(self._states, states, (B,), self._device):
                return self._state_parts.split(states)
        if state:
            check_state(self._states, state, B, self._device)
        return self._state_parts.split(
            [state[p.name] if p.name in state else x.expand(B, *p.sizes) for p, x in zip(self._states, start)])

    def _needs_grad(self, xs: list[Tensor], state: State) -> bool:
        return torch.is_grad_enabled() and any(getattr(x, "requires_grad", False)
                                               for x in (*xs, *self._params(), *state.values()))

    def _seed_for(self, seed: Tensor | int | None) -> Tensor | None:
        if not self._draws:
            return None
        if seed is None:
            return torch.randint(2**62, ())
        return seed if isinstance(seed, Tensor) else torch.tensor(seed)

    def _draw(self) -> int:
        """A seed from torch's generator."""
        return int(self._seed_for(None))

    def _unpack(self, results: list[Tensor]):
        """(y, state) from outputs and final states in one list."""
        n = self._n_out
        y = results[0] if n == 1 else self._result(*results[:n])
        return y, dict(zip(self.state_names, results[n:]))

    # -- looking inside, importing -------------------------------------------
    def ir(self, stage: str) -> str:
        """Text of a stage of compilation; see `stages.STAGES`. Raises OstinatoError for unknown stages."""
        return stages.stage(self, stage)

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """The chosen schedule and back end, why, what was rejected, memory kept for the backward pass."""
        return stages.explain(self, B, T)

    def load_torch(self, module: nn.Module) -> Layer:
        """Copy the weights of a torch.nn.LSTM, GRU or RNN; sub-cells stand for its layers and directions, in
        its order (each layer forwards, then `reverse`). Raises OstinatoError if they do not fit this cell."""
        with torch.no_grad():
            own = dict(zip((p.name for p in self.cell.params), self._params()))
            for name, value in matching_weights(self.cell, module).items():
                own[name].copy_(value)
        return self
