"""Batches of sequences as a call may give them, checked against the same sequences alone."""

from __future__ import annotations

import torch
from alone import cotangent, gradients, leaf, one
from strategies import values

NAN = float("nan")


def fill(x, valid, value):
    """`x` with `value` (int 1, bool true) in slack."""
    value = value if x.is_floating_point() else 1
    return torch.where(valid.view(*valid.shape, *(1,) * (x.dim() - 2)), x, torch.as_tensor(value, dtype=x.dtype))


class Batch:
    """The same sequences in a padded batch (`form` right or left) or packed, with junk in the slack."""

    def __init__(self, form, lengths, T):
        self.form, self.lengths, self.n = form, lengths, len(lengths)
        self.shape = (1, sum(lengths)) if form == "packed" else (self.n, T)
        starts = [sum(lengths[:i]) for i in range(self.n)]
        self.at = [(0, slice(a, a + s)) if form == "packed" else (i, slice(T - s, T) if form == "left" else slice(0, s))
                   for i, (a, s) in enumerate(zip(starts, lengths))]
        self.valid = torch.zeros(self.shape, dtype=torch.bool)
        for row, time in self.at:
            self.valid[row, time] = True

    def arguments(self):
        if self.form == "packed":
            return {"cu_seqlens": torch.tensor([0, *torch.tensor(self.lengths).cumsum(0).tolist()])}
        return {"lengths": torch.tensor(self.lengths)} | ({"padding": "left"} if self.form == "left" else {})

    def parts(self, x):
        """[1, length, ...] of every sequence."""
        return [x[row:row + 1, time] for row, time in self.at]


def agree(got, want, what):
    torch.testing.assert_close(got.double(), want.double(), rtol=1e-10, atol=1e-10, msg=lambda m: f"{what}: {m}")


def check(run, cell, params, batch, *, resets=None, reverse=False, starts=True, junk=NAN, seed=0):
    """`run(inputs, state, **arguments)` gives (outputs, finals) by name, differentiably in the leaves given."""
    g = torch.Generator().manual_seed(seed)
    inputs = {p.name: values(p.type, batch.shape, g) for p in cell.inputs}
    state = {s.name: values(s.type, (batch.n,), g) for s in cell.states} if starts else {}
    marks = torch.zeros(batch.shape, dtype=torch.bool) if resets is None else resets

    own = {k: leaf(v) for k, v in inputs.items()}, {k: leaf(v) for k, v in params.items()}, \
        {k: leaf(v) for k, v in state.items()}
    want = [one(cell, {k: batch.parts(x)[i] for k, x in own[0].items()}, own[1],
                {k: x[i:i + 1] for k, x in own[2].items()}, marks[row, time], reverse)
            for i, (row, time) in enumerate(batch.at)]

    dirty = {k: leaf(fill(v, batch.valid, junk)) for k, v in inputs.items()}
    theirs = {k: leaf(v) for k, v in state.items()}
    extra = {} if resets is None else {"reset": resets | ~batch.valid}
    outputs, finals, leaves = run(dirty, theirs, **batch.arguments(), **extra, **({"reverse": True} if reverse else {}))

    ends, wanted_ends = [], []
    for o in cell.outputs:
        y = outputs[o.name]
        assert (y[~batch.valid] == 0).all(), f"{o.name} in slack"
        d = cotangent(o.name, tuple(y.shape))
        for i, part in enumerate(batch.parts(y)):
            agree(part, want[i][0][o.name], f"{o.name} of sequence {i}")
        if y.is_floating_point():
            ends.append((y, fill(d, batch.valid, junk)))
            wanted_ends += [(w[0][o.name], p) for w, p in zip(want, batch.parts(d))]
    for s in cell.states:
        x, d = finals[s.name], cotangent(s.name, tuple(finals[s.name].shape))
        for i in range(batch.n):
            agree(x[i:i + 1], want[i][1][s.name], f"final {s.name} of sequence {i}")
        if x.is_floating_point():
            ends.append((x, d))
            wanted_ends += [(w[1][s.name], d[i:i + 1]) for i, w in enumerate(want)]
    got = gradients(ends, {**{f"d.{k}": x for k, x in dirty.items()}, **{f"first {k}": x for k, x in theirs.items()},
                           **{f"param {k}": x for k, x in leaves.items()}})
    expected = gradients(wanted_ends, {**{f"d.{k}": x for k, x in own[0].items()},
                                       **{f"first {k}": x for k, x in own[2].items()},
                                       **{f"param {k}": own[1][k] for k in leaves}})
    for k in expected:
        agree(got[k], expected[k], k)
    for k, x in dirty.items():
        if x.requires_grad:
            assert (got[f"d.{k}"][~batch.valid] == 0).all()


def by_layer(layer, method="forward"):
    """A layer, or its reference, as `run`."""
    def run(inputs, state, **arguments):
        y, end = getattr(layer, method)(**inputs, state=state, **arguments)
        ys = [y] if isinstance(y, torch.Tensor) else y
        return dict(zip(layer.output_names, ys)), end, {k: v for k, v in layer.named_parameters()}
    return run


def marks(batch, density, seed=0):
    return torch.rand(batch.shape, generator=torch.Generator().manual_seed(seed)) < density


def own(layer):
    return {p.name: x.detach() for p, x in zip(layer.cell.params, layer._params())}
