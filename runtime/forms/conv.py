"""States as convolutions: h = powers of A * b (`compiler.passes.convolution`), evaluated by torch.

The powers A^0 .. A^T are products of each other, so defective matrices are as good as any. They are made in float64 and
then rounded: a rounding of A itself is the same at every step, T times as much in the end, where those of single steps
make up for each other. Short sequences are convolved directly, longer ones by FFT; a first state is what came in at
step -1. Errors of an FFT are relative to the largest value of a sequence, and what is not finite spreads over all of
it.

Slack (`valid@`, see `compiler.passes.masked`) adds nothing: a first state comes in where the sequence begins, the final
one is that where it ends. In between the states go on as they like; nothing reads them. Restarts would make the
transition vary.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ...compiler.analysis.affine import Apply, LowRank, Mix, Outer, Scale, Term
from ...compiler.passes.convolution import Component, Unconvolvable, convolution, released
from ...compiler.passes.masked import RESET, VALID
from ...compiler.pipeline import CANONICAL, Run
from ...ir.cell import Cell, Node
from ...ir.interp import evaluate
from ...ir.meaning import einsum
from ..ports import fail
from . import Source, Unsuitable
from .torched import Reads, Torched, Values, lead, reading

DIRECT = 16             # steps up to which there is no FFT
FEW = 4                 # elements that are mixed one by one
LIMIT = 2 << 30         # bytes of a value
WIDE = torch.float64    # of transitions and their powers
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def build(source: Source) -> Convolved:
    """See the module. Raises Unsuitable where a transition depends on the inputs."""
    cell = getattr(source.lowered, "split", None) or Run()(CANONICAL, source.lowered.cell)
    if any(p.name == RESET for p in cell.inputs):
        raise Unsuitable("restarts make its transition vary from step to step")
    try:
        return Convolved(cell, *convolution(released(cell)), source.dtype)
    except Unconvolvable as why:
        raise Unsuitable(str(why)) from None


class Convolved(Torched):
    """`whole`: the cell with all that its `components` name, whose states go on in slack."""

    def __init__(self, cell: Cell, whole: Cell, components: tuple[Component, ...], dtype: torch.dtype):
        super().__init__(cell, dtype)
        self.whole, self.components, self.nodes = whole, components, whole.nodes()

    def run(self, inputs: Values, params: Values, states: Values, T: int,
            training: bool) -> tuple[list[Tensor], list[Tensor]]:
        """See `Torched`. Raises OstinatoError where a value would be larger than LIMIT."""
        B = next(iter((*inputs.values(), *states.values()))).shape[0]
        self._check(B, T)
        reads, known, after, finals = reading(inputs, params, {}), {}, {}, {}
        wide = reading({}, {k: x.to(WIDE) if x.is_floating_point() else x for k, x in params.items()}, {})
        slack = Slack(inputs[VALID]) if VALID in inputs else None
        options = dict(types={n.name: n.type for n in self.whole.body}, dtype=self.dtype, training=training,
                       device=next(iter((*inputs.values(), *states.values()))).device)
        for c in self.components:
            known = evaluate(self._needed(c.nodes(), known), known, reads=reads, **options)
            for s, h in zip(c.states, self._values(c, known, wide, [states[s] for s in c.states], T, slack)):
                reads["state", s], after[s], finals[s] = h[:, :-1], h[:, 1:], slack.last(h) if slack else h[:, -1]
        # a next value is what was found, not computed again from old values
        known |= {s.next: after[s.name] for s in self.whole.states if self.nodes[s.next].op not in ("input", "state")}
        values = evaluate(self._needed([o.value for o in self.whole.outputs], known), known, reads=reads, **options)
        outputs = [lead(values[o.value], self.nodes[o.value].type.rank, 2) for o in self.whole.outputs]
        return [slack.without(y) for y in outputs] if slack else outputs, [finals[s.name] for s in self.whole.states]

    def _needed(self, roots, known: Values) -> list[Node]:
        """What has to be evaluated for `roots`, in order."""
        need, stack = set(), [x for x in roots if x not in known]
        while stack:
            name = stack.pop()
            if name not in need:
                need.add(name)
                stack += [a for a in self.nodes[name].args if a not in known]
        return [n for n in self.whole.body if n.name in need]

    # -- one component ------------------------------------------------------------
    def _values(self, c: Component, known: Values, params: Reads, first: list[Tensor], T: int,
                slack: Slack | None) -> list[Tensor]:
        """The values of its states before the first step and after each, [B, T + 1, *shape] each."""
        B, sizes = first[0].shape[0], c.type.sizes
        given = [self._offset(c, s, known, first[0], slack).expand(B, T, *sizes) for s in c.states]

        def begun(h: Tensor, x: Tensor) -> Tensor:
            return slack.begun(h, x) if slack else torch.cat([h.unsqueeze(1), x], 1)

        given = [begun(h, x) for h, x in zip(first, given)]
        if not c.recurs:
            return given
        found = [torch.cumsum(given[0], 1)] if c.counts else self._convolved(c, params, given)
        return [begun(h, x[:, 1:]) for h, x in zip(first, found)]

    def _convolved(self, c: Component, params: Reads, given: list[Tensor]) -> list[Tensor]:
        b = torch.stack(given, -1)
        order = self._order(c)
        b = b.permute(0, 1, *(2 + a for a in order))
        shape = b.shape
        kernel = powers(self._transition(c, params, b.device), b.shape[1]).to(self.dtype)
        h = convolved(kernel, b.flatten(2 + len(order) - len(c.mixed) - 1)).reshape(shape)
        back = [order.index(a) for a in range(len(order))]
        return list(h.permute(0, 1, *(2 + a for a in back)).unbind(-1))

    @staticmethod
    def _order(c: Component) -> list[int]:
        """Axes of the states side by side: those that do not mix, those that do, the states."""
        r = c.type.rank
        return [*(a for a in range(r) if a not in c.mixed), *c.mixed, r]

    def _offset(self, c: Component, state: str, known: Values, like: Tensor, slack: Slack | None) -> Tensor:
        """[B or 1, T or 1, *shape]"""
        r, total = c.type.rank, None

        def term(value: str, rank: int) -> Tensor:
            x = lead(known[value], rank, 2)
            return slack.without(x) if slack else x

        for o in c.offsets[state]:
            if isinstance(o, Outer):
                x = term(o.write, r - 1).unsqueeze(-1) * term(o.value, r - 1).unsqueeze(-2)
            else:
                x = term(o.value, r)
            total = x if total is None else total + x
        return like.new_zeros((1, 1, *c.type.sizes)) if total is None else total

    def _transition(self, c: Component, params: Reads, device: torch.device) -> Tensor:
        """A [*lanes (1 where it is the same), M, M]: what it makes of each unit vector."""
        known = evaluate(self._needed(c.factors(), {}), reads=params, types={n.name: n.type for n in self.whole.body},
                         dtype=WIDE, device=device)
        M, r, sizes = c.size, c.type.rank, c.type.sizes
        order = self._order(c)
        inner = [sizes[a] for a in c.mixed]
        units = torch.eye(M, dtype=WIDE, device=device)
        units = units.reshape(M, *(1 for _ in range(r - len(inner))), *inner, len(c.states))
        back = [order.index(a) for a in range(r + 1)]
        old = dict(zip(c.states, units.permute(0, *(1 + a for a in back)).unbind(-1)))
        full = (M, *(n if a in c.mixed or a in c.lanes else 1 for a, n in enumerate(sizes)))
        new = []
        for s in c.states:
            total = units.new_zeros(())
            for t in c.terms[s]:
                total = total + applied(t, old[t.of], known)
            new.append(total.expand(full))
        x = torch.stack(new, -1).permute(0, *(1 + a for a in order))
        return x.flatten(x.dim() - len(inner) - 1).movedim(0, -1)

    # -- limits -----------------------------------------------------------------------
    def _largest(self, B: int, T: int) -> int:
        """Bytes of the largest value: powers, their transforms, or values of states."""
        sizes = [0]
        for c in self.components:
            if c.recurs:
                n = 2 * (T + 1) if T > DIRECT else (T + 1) ** 2
                sizes += [c.kernel * n * self.dtype.itemsize, c.kernel * (T + 1) * WIDE.itemsize,
                          2 * B * (T + 1) * len(c.states) * c.type.numel * self.dtype.itemsize]
        return max(sizes)

    def _check(self, B: int, T: int) -> None:
        if (size := self._largest(B, T)) > LIMIT:
            fail("too_long", name=self.cell.name, schedule="conv", B=B, T=T, size=f"{size / 2**30:.1f} GiB",
                 limit=f"{LIMIT >> 30} GiB")

    def explain(self, B: int | None = None, T: int | None = None) -> str:
        """What runs."""
        lines = ["schedule conv: states are convolutions with the powers of constant transitions, evaluated by torch, "
                 f"by FFT for more than {DIRECT} steps; backward evaluates them again, nothing is kept"]
        for c in self.components:
            if c.recurs:
                lanes = prod(c.type.sizes[a] for a in c.lanes)
                lines.append(f"  {', '.join(c.states)}: {lanes} transition{'s' * (lanes > 1)} of {c.size} x {c.size}")
        if T is not None:
            lines.append(f"  the largest value has {self._largest(B or 1, T) / 2**20:.1f} MiB")
        return "\n".join(lines)


class Slack:
    """Where the sequences lie: `valid` [B, T], true without gaps; a value has T + 1 places, before and after steps."""

    def __init__(self, valid: Tensor):
        self.valid = valid
        self.begin = valid.int().argmax(1)
        self.end = self.begin + valid.sum(1)
        self.first = torch.arange(valid.shape[1] + 1, device=valid.device) == self.begin[:, None]

    def without(self, x: Tensor) -> Tensor:
        """[B or 1, T or 1, ...]: 0 in slack."""
        return torch.where(self.valid.view(*self.valid.shape, *(1,) * (x.dim() - 2)), x, 0)

    def begun(self, first: Tensor, x: Tensor) -> Tensor:
        """x [B, T, ...] after the steps: [B, T + 1, ...] with `first` [B, ...] where the sequence begins."""
        x = torch.cat([torch.zeros_like(first).unsqueeze(1), x], 1)
        return torch.where(self.first.view(*self.first.shape, *(1,) * (x.dim() - 2)), first.unsqueeze(1), x)

    def last(self, x: Tensor) -> Tensor:
        """[B, T + 1, ...] where the sequence ends: [B, ...]"""
        return x[torch.arange(len(self.end), device=x.device), self.end]


# -- numbers --------------------------------------------------------------------------
def applied(term: Term, x: Tensor, known: Values) -> Tensor:
    """The maps of a term applied to x [P, *shape] (sizes 1 where lanes are the same)."""
    r = x.dim() - 1
    all_, new = LETTERS[:r], LETTERS[r]
    for m in term.maps:
        match m:
            case Scale(factor, axes):
                f = known[factor]
                for a in range(r):
                    f = f if a in axes else f.unsqueeze(a)
                x = x * f
            case Apply(matrix, axis, lanes):
                front = "".join(all_[a] for a in lanes)
                to = all_.replace(all_[axis], new)
                x = einsum(f"{front}{new}{all_[axis]},...{all_}->...{to}", known[matrix], x)
            case LowRank(read, write, axis, lanes):
                front = "".join(all_[a] for a in lanes)
                rest = all_.replace(all_[axis], "")
                seen = einsum(f"{front}{all_[axis]},...{all_}->...{rest}", known[read], x)
                x = einsum(f"{front}{all_[axis]},...{rest}->...{all_}", known[write], seen)
            case Mix(factors, spec):
                left, _, to = spec.partition("->")
                front, _, old = left.rpartition(",")
                x = einsum(f"{front}{',' if front else ''}...{old}->...{to}", *(known[f] for f in factors), x)
    return x


def powers(A: Tensor, n: int) -> Tensor:
    """A^0 .. A^(n-1), [n, *lanes, M, M], each a product of at most log2(n) factors."""
    M = A.shape[-1]
    if M == 1:
        out = torch.ones_like(A)[None]
        while out.shape[0] < n:
            out = torch.cat([out, out * (out[-1] * A)])
        return out[:n]
    out = torch.eye(M, dtype=A.dtype, device=A.device).expand(1, *A.shape)
    while out.shape[0] < n:
        out = torch.cat([out, out @ (out[-1] @ A)])
    return out[:n]


def convolved(kernel: Tensor, b: Tensor) -> Tensor:
    """sum over s <= t of kernel[t - s] b[s]: kernel [n, *lanes, M, M], b [B, n, *lanes, M] -> as b. Where a
    size of the kernel's lanes is 1, it is the same for all."""
    n = b.shape[1]
    if n <= DIRECT + 1:
        at = torch.arange(n, device=b.device)
        lag = at[:, None] - at
        table = torch.where((lag >= 0).reshape(n, n, *(1 for _ in kernel.shape[1:])), kernel[lag.clamp(min=0)], 0)
        return einsum("ts...ij,bs...j->bt...i", table, b)
    size = fast(2 * n - 1)
    # time as the last axis: transforms of what lies side by side
    k, x = (torch.fft.rfft(z.movedim(at, -1).contiguous(), size) for z, at in ((kernel, 0), (b, 1)))
    if kernel.shape[-1] <= FEW:         # a product of tiny matrices costs more than all of its multiplications
        y = sum(k[..., j, :] * x[..., j, None, :] for j in range(kernel.shape[-1]))
    else:
        y = einsum("...ijf,b...jf->b...if", k, x)
    return torch.fft.irfft(y, size)[..., :n].movedim(-1, 1)


def fast(n: int) -> int:
    """The smallest number from n on without prime factors above 5."""
    while True:
        rest = n
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return n
        n += 1
