"""Initial values of parameters: what their distributions draw."""

from __future__ import annotations

import torch
from torch import Tensor

from .cell import Node
from .errors import EvaluationError


def draw(n: Node, xs: list[Tensor], generator: torch.Generator | None) -> Tensor:
    """A draw in float64; `xs`: its distribution's numbers. Raises EvaluationError outside the init region."""
    if generator is None:
        raise EvaluationError(f"{n.name}: draw belongs to the init region")
    sizes, new = n.type.sizes, dict(generator=generator, dtype=torch.float64)
    match n.attr("dist"):
        case "uniform":
            return xs[0] + (xs[1] - xs[0]) * torch.rand(sizes, **new)
        case "normal":
            return xs[0] + xs[1] * torch.randn(sizes, **new)
        case "bernoulli":
            return (torch.rand(sizes, **new) < xs[0]).to(torch.float64)
        case "orthogonal":
            return (xs[0] if xs else 1.0) * _orthogonal(torch.randn(sizes, **new))
        case other:
            raise EvaluationError(f"{n.name}: unknown distribution {other}")


def _orthogonal(x: Tensor) -> Tensor:
    """Rows (or columns, if fewer) orthonormal in the last two axes, Haar distributed:
    the Q of a Gaussian matrix, its signs fixed by R's diagonal (Mezzadri 2007)."""
    if x.dim() < 2:
        raise EvaluationError("orthogonal() needs a matrix; give the parameter two axes")
    wide = x.shape[-2] < x.shape[-1]
    q, r = torch.linalg.qr(x.mT if wide else x)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return q.mT if wide else q
