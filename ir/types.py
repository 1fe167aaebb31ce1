"""Types of the cell IR: nominal dimensions, tensor types, source spans.

A dimension is nominal: two dimensions are the same axis only if their names
are equal, whatever their sizes (K and V do not match even where both are 64).
A name is the canonical text of the expression that gave the size ("H", "4*H",
"R+2*N", "3").
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("real", "int", "bool", "complex")
STEPS = "C@"        # the dimension of a chunk's steps: no program has one of this name


@dataclass(frozen=True, slots=True)
class Dim:
    """One axis: its nominal name and its size (>= 0)."""

    name: str
    size: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Type:
    """A tensor over one time step: kind and shape, batch and time left out.

    `real` has no precision here: the program is compiled for float32 or
    float64 later, and the interpreter always uses float64.
    """

    kind: str
    shape: tuple[Dim, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(d.size for d in self.shape)

    @property
    def numel(self) -> int:
        n = 1
        for d in self.shape:
            n *= d.size
        return n

    def with_kind(self, kind: str) -> Type:
        return Type(kind, self.shape)

    def with_shape(self, shape: tuple[Dim, ...]) -> Type:
        return Type(self.kind, tuple(shape))

    def __str__(self) -> str:
        return f"{self.kind}[{', '.join(map(str, self.shape))}]"


REAL = Type("real")
INT = Type("int")
BOOL = Type("bool")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of source text; lines and columns count from 1."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int
