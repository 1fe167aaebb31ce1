"""The body of a cell over a chunk: values of vector states, reads of matrix states, and what they need, when asked."""

from __future__ import annotations

from dataclasses import replace

from ....ir.cell import Cell, Input, Output
from ....ir.types import Dim
from ...analysis.affine import Affine, nodes_of
from ..canonicalise import RULES
from ..dce import Dce, live
from ..realify import named
from ..rewrite import Rewriter
from . import vector
from .ends import ended
from .forms import Scale
from .lift import Lift, Unchunkable, first_axes
from .linear import Error, Linear, dependence, error, linear
from .matrix import Constant, Matrix, Written
from .mixed import Mixed, several
from .readout import Readout
from .solve import solved
from .together import together
from .turned import complex_state, turns


def recurrent(c: Affine) -> bool:
    """Whether the next values of a component depend on its old values."""
    return any(c.terms[s] for s in c.states)


class Body:
    """`components` by their states; `base`: the cell with all their nodes; `vectors`: states that are no matrices."""

    def __init__(self, cell: Cell, dim: Dim, components: dict[str, Affine], base: Cell, vectors: frozenset[str]):
        self.source, self.components = cell, components
        self.dim = dim
        self.b = Rewriter(RULES)
        self.lift = Lift(self.b, self.dim, first_axes(cell))
        self.readout = Readout(base, tuple(s.name for s in cell.states if s.name not in vectors))
        self.reads = self.readout.reads
        self.forms = {s: self.readout.next(s) for s in self.readout.matrices}
        self.token = {n.name: n for n in self.readout.b.nodes}
        self.depends = dependence(self.readout.b.nodes, set(self.reads))
        self.done: dict[str, tuple[str, bool]] = {}     # node of one step -> its value, and whether it has the axis
        self.after: dict[str, str] = {}                 # vector state -> its values after each step
        self.matrix: dict[str, Matrix] = {}
        self.inner: dict[str, str] = {}
        self.turned: dict[str, tuple[int, int]] = {}    # these and the states below: see `Derived`
        self.mixed, self.doubled, self.whole = [], [], []
        self.errors = {e.name: e for s in self.forms if (e := self._error(self._group(s))) is not None}
        self._learn()
        self.solutions: dict[str, str] = {}
        self.next = {s.name: self.readout.value(s.next, f"the state {s.name}") for s in cell.states
                     if s.name in vectors}
        self.by_next = {v: k for k, v in self.next.items() if recurrent(components[k])}

    # -- the body over the chunk ------------------------------------------------------
    def value(self, name: str) -> tuple[str, bool]:
        """A node of one step over the chunk, and whether it varies."""
        if name not in self.done:
            self.done[name] = self._value(name)
        return self.done[name]

    def varying(self, name: str) -> str:
        x, lifted = self.value(name)
        return x if lifted else self.lift.spread(x)

    def _value(self, name: str) -> tuple[str, bool]:
        n = self.token[name]
        if name in self.by_next:
            return self._after(self.by_next[name]), True
        if name in self.errors:
            if name not in self.solutions:
                self._solve(self._group(self.reads[self.errors[name].leaf].state))
            return self.solutions[name], True
        match n.op:
            case "input" if name in self.reads:
                return self._read(name), True
            case "input":
                return self.b.read("input", n.attr("name"), n.type.with_shape(self.lift.shape(n.type.shape))), True
            case "state":
                s = n.attr("name")
                return vector.previous(self.lift, self.b.read("state", s, n.type), self._after(s)), True
            case "random":
                raise Unchunkable("it draws random numbers, which are counted step by step")
        done = [self.value(a) for a in n.args]
        self.b.span = n.span
        if not any(y for _, y in done):
            return self.b.add(n.op, tuple(x for x, _ in done), n.type, n.name, **dict(n.attrs)), False
        types = [self.token[a].type for a in n.args]
        return self.lift.node(n, [x for x, _ in done], [y for _, y in done], types), True

    def _after(self, state: str) -> str:
        """A vector state's values after each step."""
        if state not in self.after:
            if not recurrent(self.components[state]):
                self.after[state] = self.varying(self.next[state])
                return self.after[state]
            self.after |= self._values(self.components[state], state)
        return self.after[state]

    def _values(self, c: Affine, state: str) -> dict[str, str]:
        """The values of a component's states after each step."""
        types = {self.source.state(s).type for s in c.states}
        if len(types) > 1 or len(c.states) > 1 and c.semiring != "sum":
            what = "have different shapes" if len(types) > 1 else f"are affine over another semiring ({c.semiring})"
            raise Unchunkable(f"{named(c.states)} depend on each other at every step, and {what}")
        if any(t.kind == "bool" for t in types):
            raise Unchunkable(f"{named(c.states)}: a bool that depends on the step before")
        self.whole += (s for s in c.states if self.source.state(s).type.rank - self._lead(s) > 1)
        self.doubled += c.states if len(c.states) > 1 else ()
        b, names = self.readout.b, self.readout.values
        known = {x: self.readout.value(x, f"the update of {state}") for x in nodes_of(c)}
        decays, offsets = vector.coefficients(b, c, names | known)
        self._learn()
        decays, offsets = ({k: x and self.varying(x) for k, x in some.items()} for some in (decays, offsets))
        old = {s: self.b.read("state", s, self.source.state(s).type) for s in c.states}
        if len(old) > 1:
            return vector.together(self.lift, old, decays, offsets)
        return {state: vector.values(self.lift, c.semiring, old[state], decays[state, state], offsets[state],
                                     state in c.first)}

    def _lead(self, state: str) -> int:
        """Whether it has the heads' axis."""
        return int(self.source.state(state).type.shape[:1] == (self.source.heads,))

    def _learn(self) -> None:
        """Nodes of one step that were made meanwhile."""
        for n in self.readout.b.nodes[len(self.token):]:
            self.token[n.name] = n
            self.depends[n.name] = set().union(*(self.depends[a] for a in n.args))

    # -- matrix states ----------------------------------------------------------------
    def rows(self, name: str, lead: int) -> str:
        """A value with the axes [*lead, C, ...]."""
        shape = self.token[name].type.shape
        return self.lift.moved(self.varying(name), lead, self.lift.at(shape))

    def _group(self, state: str) -> tuple[str, ...]:
        """The matrix states that depend on each other, or add multiples of each other."""
        group, size = {state}, 0
        while len(group) != size:
            size = len(group)
            for s, form in self.forms.items():
                linked = {s, *form.scales, *(t for t in self.components[s].states if t in self.forms)}
                group |= linked if linked & group else set()
        return tuple(s for s in self.forms if s in group)

    def _matrix(self, state: str) -> Matrix:
        if state not in self.matrix:
            states = self._group(state)
            if len(states) == 1 and set(self.forms[state].scales) == {state}:
                s = self.source.state(state)
                scale, lead = self.forms[state].scales[state], s.type.rank - 2
                parts = self._decays(scale, states, lead)
                constants = tuple(Constant(self.value(name)[0], *self._decays(c, states, lead))
                                  for name, c in self.forms[state].constants.items())
                self.matrix[state] = Matrix(self.b, s, self.dim, *parts, constants=constants)
            else:
                self._couple(states)
        return self.matrix[state]

    def _couple(self, states: tuple[str, ...]) -> None:
        """States that add multiples of each other."""
        if (name := next((s for s in states if self.forms[s].constants), None)) is not None:
            raise Unchunkable(f"{named(states)} depend on each other, and a constant is added to {name}")
        found, scales = [self.source.state(s) for s in states], self._scales(states)
        lead = found[0].type.rank - 2
        if (turned := turns(self.readout.b, states, scales)) is not None:
            self._learn()
            size, along, *turn = turned
            uses = sum(r.state in states for r in self.reads.values()) // 2 + len(self._outers(states))
            self.turned |= dict.fromkeys(states, (along, uses))
            self.matrix |= complex_state(self.b, found, self.dim, self._decays(size, states, lead), along,
                                         *(self._decay(x, states, lead) for x in turn))
            return
        decays = {pair: self._decays(scale, states, lead) for pair, scale in scales.items()}
        made = several(self.b, found, self.dim, decays)
        self.mixed += (s for s, m in made.items() if isinstance(m, Mixed))
        self.matrix |= made

    def _scales(self, states: tuple[str, ...]) -> dict[tuple[str, str], Scale]:
        return {(s, t): scale for s in states for t, scale in self.forms[s].scales.items()}

    def _decays(self, scale: Scale, states: tuple[str, ...], lead: int) -> tuple[str | None, ...]:
        return tuple(self._decay(p, states, lead) for p in (scale.scalar, scale.row, scale.column))

    def _decay(self, node: str | None, states: tuple[str, ...], lead: int) -> str | None:
        if node is None:
            return None
        if self._own(node, states):
            raise Unchunkable(f"the decay of {', '.join(states)} depends on what is read of it")
        return self.rows(node, lead)

    def _own(self, name: str, states: tuple[str, ...]) -> set[str]:
        return {leaf for leaf in self.depends[name] if self.reads[leaf].state in states}

    def _outers(self, states: tuple[str, ...]) -> dict[tuple[str, str], frozenset[str]]:
        """The outer products that are written, and the states that they are added to."""
        out: dict[tuple[str, str], frozenset[str]] = {}
        for s in states:
            for pair in self.forms[s].outers:
                out[pair] = out.get(pair, frozenset()) | {s}
        return out

    def _inner(self, states: tuple[str, ...]) -> list[str]:
        """The leaves that what is written to the states depends on."""
        found = {leaf for pair in self._outers(states) for z in pair for leaf in self._own(z, states)}
        return [leaf for leaf in self.reads if leaf in found]

    def _read(self, leaf: str) -> str:
        read = self.reads[leaf]
        states = self._group(read.state)
        if leaf not in self.inner and leaf in self._inner(states):
            self._solve(states)
        if leaf in self.inner:
            return self.inner[leaf]
        m = self._matrix(read.state)
        y = m.read(self.rows(read.reader, m.n), read.axis, self._written(read.state))
        return self.lift.moved(y, self.lift.at(self.token[leaf].type.shape), m.n)

    def _written(self, state: str) -> list[Written]:
        n = self._matrix(state).n
        return [Written(self.rows(x, n), self.rows(y, n), into)
                for (x, y), into in self._outers(self._group(state)).items()]

    def _error(self, states: tuple[str, ...]) -> Error | None:
        """What is solved for in place of a read: see `linear.error`."""
        leaves, outers = self._inner(states), [*self._outers(states)]
        if len(leaves) != 1 or len(outers) != 1:
            return None
        cell, values = self.source, self.readout.values
        used = (*(o.value for o in (*cell.outputs, *cell.sums)), *(s.next for s in cell.states))
        return error(self.readout.b, outers[0][1 - self.reads[leaves[0]].axis], leaves[0], self.depends,
                     {values[x] for x in used if x in values})

    def _solve(self, states: tuple[str, ...]) -> None:
        """All inner reads of a group of states."""
        leaves, outers, m = self._inner(states), self._outers(states), self._matrix(states[0])
        axes = {self.reads[leaf].axis for leaf in leaves}
        if len(axes) > 1:
            raise Unchunkable(f"what is written to {', '.join(states)} depends on reads along both axes")
        (axis,) = axes
        if any(self._own(self.reads[leaf].reader, states) for leaf in leaves):
            raise Unchunkable(f"a vector that reads {', '.join(states)} depends on what is read of it")
        linears: list[Linear] = []
        for pair in outers:
            if self._own(pair[axis], states):
                raise Unchunkable(f"what is read of {', '.join(states)} along one axis is written back along the same")
            linears.append(linear(self.readout.b, pair[1 - axis], set(leaves), self.depends))
        self._learn()
        written = [Written(*((self.rows(x, m.n), "") if axis == 0 else ("", self.rows(y, m.n))), into)
                   for (x, y), into in outers.items()]
        locals_ = [f.local and self.rows(f.local, m.n) for f in linears]
        factors = [[0 if leaf not in f.reads else (c := f.reads[leaf]) and self.rows(c, m.n) for leaf in leaves]
                   for f in linears]
        reads = [(self._matrix((r := self.reads[leaf]).state), self.rows(r.reader, m.n)) for leaf in leaves]
        if (e := next((e for e in self.errors.values() if e.leaf in leaves), None)) is not None:
            (u,) = solved(reads, axis, written, [None], factors, (self.rows(e.local, m.n), e.sign))
            self.solutions[e.name] = self.lift.moved(u, self.lift.at(self.token[e.name].type.shape), m.n)
            return
        for leaf, w in zip(leaves, solved(reads, axis, written, locals_, factors)):
            self.inner[leaf] = self.lift.moved(w, self.lift.at(self.token[leaf].type.shape), m.n)

    # -- the cell -------------------------------------------------------------------
    @property
    def cancels(self) -> bool:
        """Whether most of what its steps add up cancels, so that roundings grow with them: see `composed`."""
        return bool(self.inner or self.solutions or self.turned)

    def cell(self) -> Cell:
        cell, b, ro = self.source, self.b, self.readout
        values = {o: ro.value(o.value, f"the output {o.name}") for o in (*cell.outputs, *cell.sums)}
        roots = [*values.values(), *self.next.values(), *(ro.values[s.init] for s in cell.states)]
        parts = (z for f in self.forms.values() for o in (*f.outers, f.constants) for z in o)
        needed = live(ro.b.nodes, [*roots, *parts]) - {e.leaf for e in self.errors.values()}
        for n in tuple(ro.b.nodes):             # in their order, so that `value` never goes deep
            if n.name in needed:
                self.value(n.name)
        states = []
        for s in cell.states:
            if s.name in self.forms:
                last = self._matrix(s.name).next(self._written(s.name))
            else:
                last = b.index(self._after(s.name), self.lift.at(s.type.shape), self.dim.size - 1)
            states.append(replace(s, init=self.value(ro.values[s.init])[0], next=last))
        outputs = tuple(replace(o, value=self.varying(values[o])) for o in cell.outputs)
        inputs = tuple(Input(p.name, p.type.with_shape(self.lift.shape(p.type.shape)), p.default, p.facts, p.span)
                       for p in cell.inputs)
        made = Dce()(replace(cell, name=f"{cell.name}.chunk{self.dim.size}", dims=(*cell.dims, self.dim), init=(),
                             inputs=inputs, states=tuple(states), outputs=outputs,
                             sums=tuple(self._sum(o, values[o]) for o in cell.sums), body=tuple(b.nodes)))
        return ended(together(made))

    def _sum(self, o: Output, name: str) -> Output:
        x = self.varying(name)
        return replace(o, value=self.b.reduce(x, "sum", (self.lift.at(self.token[name].type.shape),)))
