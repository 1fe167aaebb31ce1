"""Dimensions as polynomials.

A size in a text is an expression over the header's dimensions: `4*H`,
`R + 2*N`, `K - 1`. Two sizes are the same dimension exactly if they are the same
polynomial, whatever their values. What is no polynomial (`H // 2`) is an atom
of its own, named by its text.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.types import Dim

Monomial = tuple[str, ...]      # sorted atoms; () is the constant
MOST_TERMS = 32
LARGEST = 2**62


@dataclass(frozen=True)
class Poly:
    """Terms in order of first appearance; equality ignores the order."""

    terms: tuple[tuple[Monomial, int], ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Poly) and dict(self.terms) == dict(other.terms)

    def __hash__(self) -> int:
        return hash(frozenset(self.terms))

    @staticmethod
    def const(value: int) -> Poly:
        return Poly((((), value),) if value else ())

    @staticmethod
    def atom(name: str) -> Poly:
        return Poly((((name,), 1),))

    @property
    def constant(self) -> int | None:
        """The value of a polynomial without atoms, else None."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and self.terms[0][0] == () else None

    def scaled(self, factor: int) -> Poly:
        return _poly({m: c * factor for m, c in self.terms})

    def __add__(self, other: Poly) -> Poly:
        terms = dict(self.terms)
        for m, c in other.terms:
            terms[m] = terms.get(m, 0) + c
        return _poly(terms)

    def __sub__(self, other: Poly) -> Poly:
        return self + other.scaled(-1)

    def __mul__(self, other: Poly) -> Poly:
        terms: dict[Monomial, int] = {}
        for m, c in self.terms:
            for n, d in other.terms:
                key = tuple(sorted(m + n))
                terms[key] = terms.get(key, 0) + c * d
        return _poly(terms)

    def divided(self, by: Poly) -> Poly | None:
        """The exact quotient by a single term, or None."""
        if len(by.terms) != 1:
            return Poly.const(1) if self == by and self.terms else None
        (m, c), out = by.terms[0], {}
        for n, d in self.terms:
            rest = list(n)
            for atom in m:
                if atom not in rest:
                    return None
                rest.remove(atom)
            if d % c:
                return None
            out[tuple(rest)] = d // c
        return _poly(out)

    def manageable(self) -> bool:
        return len(self.terms) <= MOST_TERMS and all(abs(c) < LARGEST and len(m) < 8 for m, c in self.terms)

    def __str__(self) -> str:
        """Canonical text: positive terms first, the constant last: `R+2*N`, `K-1`."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            return self.terms[0][0][0]
        ordered = sorted(self.terms, key=lambda t: (t[1] < 0, t[0] == ()))
        text = ""
        for m, c in ordered:
            factors = [*([] if abs(c) == 1 and m else [str(abs(c))]), *(_factor(a) for a in m)]
            text += ("-" if c < 0 else "+" if text else "") + "*".join(factors)
        return text or "0"


def _poly(terms: dict[Monomial, int]) -> Poly:
    return Poly(tuple((m, c) for m, c in terms.items() if c))


def _factor(atom: str) -> str:
    return atom if atom.replace(".", "").replace("_", "").isalnum() else f"({atom})"


class Dims:
    """The dimensions met in one elaboration: names to polynomials, one name
    (the first met) for each polynomial."""

    def __init__(self) -> None:
        self._names: dict[Poly, str] = {}
        self._polys: dict[str, Poly] = {}

    def dim(self, poly: Poly, size: int) -> Dim:
        name = self._names.setdefault(poly, str(poly))
        self._polys.setdefault(name, poly)
        return Dim(name, size)

    def poly(self, dim: Dim) -> Poly:
        """The polynomial of a dimension that `dim` made."""
        return self._polys[dim.name]

    def uses(self, atom: str) -> bool:
        """Does a dimension met so far mention this header argument?"""
        return any(atom in m for p in self._names for m, _ in p.terms)
