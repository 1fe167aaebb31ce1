"""The one central object: a recurrence cell.

A cell maps (inputs at t, params, states at t-1) to (outputs at t, states at t)
by a single-assignment body of tensor operations over one time step. Batch and
time are left out of every type. The forward cell, its adjoint, a chunked cell:
all are cells, so all print, verify, interpret and compile alike.

Reads are operations: `input` (attr name) reads the input at the present step,
`state` (attr name) reads the state's *old* value (t-1), `param` (attr name)
a parameter. Longer lags and the step index `t` are ordinary states, which the
front end introduces (`x@1`, `x@2`, `t`), so that carried state is exactly the
states.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Iterator

from .types import Dim, Span, Type

Attr = int | float | bool | str | tuple


@dataclass(frozen=True, slots=True)
class Node:
    """One assignment `name: type = op(args) key=attr ...`."""

    name: str
    op: str
    args: tuple[str, ...]
    attrs: tuple[tuple[str, Attr], ...]
    type: Type
    span: Span | None = field(default=None, compare=False)

    def attr(self, key: str, default: Attr | None = None) -> Attr | None:
        for k, v in self.attrs:
            if k == key:
                return v
        return default


@dataclass(frozen=True, slots=True)
class Input:
    """An input, one value per step. `default` is what it reads before the start."""

    name: str
    type: Type
    default: float = 0.0
    facts: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter, the same at every step and for every sequence.

    `init` names the node of the cell's init region that gives its initial
    value (None: supplied by the caller). A const supplied at compile time is
    a parameter that is not `trainable`.
    """

    name: str
    type: Type
    init: str | None = None
    trainable: bool = True
    facts: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class State:
    """A state: `init` names the body node (depending on params only) that it
    starts from, `next` the body node that is its value at [t]. `reverse`: it runs
    the other way through time than its cell, so its old value is that of the step
    after, and its first one that after the last step (see `sweeps`)."""

    name: str
    type: Type
    init: str
    next: str
    facts: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False)
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """An output port reading body node `value` (also used for `sums`)."""

    name: str
    value: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Cell:
    """A recurrence cell. `sums` are values added up over time and batch (a
    parameter's gradient is one); `reverse` runs time backwards; `init` is the
    region that computes initial parameter values (ops `draw`, `param`, ...)."""

    name: str
    dims: tuple[Dim, ...] = ()
    heads: Dim | None = None
    inputs: tuple[Input, ...] = ()
    params: tuple[Param, ...] = ()
    states: tuple[State, ...] = ()
    outputs: tuple[Output, ...] = ()
    sums: tuple[Output, ...] = ()
    init: tuple[Node, ...] = ()
    body: tuple[Node, ...] = ()
    reverse: bool = False

    def nodes(self) -> dict[str, Node]:
        """Body nodes by name."""
        return {n.name: n for n in self.body}

    def input(self, name: str) -> Input:
        return next(p for p in self.inputs if p.name == name)

    def param(self, name: str) -> Param:
        return next(p for p in self.params if p.name == name)

    def state(self, name: str) -> State:
        return next(s for s in self.states if s.name == name)

    def roots(self) -> Iterator[str]:
        """Names of body nodes that the cell's interface reads."""
        for s in self.states:
            yield s.init
            yield s.next
        for o in (*self.outputs, *self.sums):
            yield o.value

    def with_body(self, body) -> Cell:
        return replace(self, body=tuple(body))
