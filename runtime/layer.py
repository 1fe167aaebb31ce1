"""A compiled cell as a torch.nn.Module: running it, over a sequence or one step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from ..ir.cell import Cell
from . import direct, sequences, stages
from . import recur as operators
from .import_torch import matching_weights
from .module import Module
from .plan import Plan
from .ports import arrange, check_inputs, check_state, fail, match, widened

State = Mapping[str, Tensor]


class Layer(Module):
    """A cell over time. Made by `ostinato.compile` or `Layer.from_cell`.

    Inputs `[B, T, *shape]`, in declared order or by name; states `[B, *shape]`;
    parameters, buffers and state_dict keys have the program's names.
    """

    @classmethod
    def from_cell(cls, cell: Cell, **options) -> Layer:
        """A layer from a cell of the IR; options as for the constructor."""
        return cls(cell, **options)

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
        if seed is None and not is_compiling() and (done := self._quick.run(inputs, state, named)) is not None:
            return done
        seed = self._not_an_input(seed, inputs, named)
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
        seed = self._not_an_input(seed, inputs, named)
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
        inputs, states and parameters, as often as wanted, by torch's autograd
        and torch.func."""
        seed = self._not_an_input(seed, inputs, named)
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
        xs, state = arrange(self._inputs, inputs, named, self.cell.name), {} if state is None else state
        xs = [widened(p, x) for p, x in zip(self._inputs, xs)]
        if state:
            states = {p.name: p for p in self._states}
            state = {k: widened(states[k], x) if k in states else x for k, x in state.items()}
        return xs, state

    def _not_an_input(self, seed: Tensor | int | None, inputs: tuple, named: dict[str, Tensor]) -> Tensor | int | None:
        """The argument `seed`, unless an input of that name has no value yet: then that is what is meant."""
        if seed is not None and "seed" in self.input_names[sum(isinstance(x, Tensor) for x in inputs):]:
            named["seed"], seed = seed, None
        return seed

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
        if spec is None and seed is None and not is_compiling():
            self._quick.see(xs, state, params, states)
        flat = self._result_parts.join(flat[:self._n_results])
        return flat[:self._n_out], flat[self._n_out:]

    def _derive(self, plan: Plan | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """(the executable's parameters, the states' initial values [*shape])"""
        plan, own = plan or self._plan, self._param_parts.split(self._params())
        static = plan.static
        if static.idle:
            return static.arrange(own, ()), self._start
        if is_compiling():
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
        elif start is self._start and not direct.watched():
            first = self._first
            if first is None or first[0] != B:
                first = self._first = B, self._from_start({}, start, B)
            return list(first[1])
        return self._from_start(state, start, B)

    def _from_start(self, state: State, start: list[Tensor], B: int) -> list[Tensor]:
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
