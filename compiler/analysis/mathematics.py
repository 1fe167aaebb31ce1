"""Body nodes as mathematics: names of the text where a value has one, else its expression.

Products are flattened into a sign, a number and atoms, so that common factors
and multiples (a write that is -beta times a read) can be seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...ir.cell import Cell, Node
from ...ir.ops import OPS, spec_parts

SUM, PRODUCT, ATOM = 1, 2, 3        # how tightly an expression binds
LONGEST = 32                        # longer factors get a name
DEEPEST = 24                        # deeper expressions are cut short
_HINTS = frozenset("bc dot outer ix sl k v cat pad place stack norm iota inverse".split())
_INFIX = {"div": " / ", "eq": " == ", "ne": " != ", "lt": " < ", "le": " <= ", "gt": " > ",
          "ge": " >= ", "and": " and ", "or": " or ", "mod": " % ", "floordiv": " // "}


@dataclass(frozen=True, slots=True)
class Atom:
    """A factor of a product: a node, and which axes of the product it has."""

    node: str
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """number * atoms"""

    number: float
    atoms: tuple[Atom, ...]

    def without(self, taken: Iterable[Atom]) -> Product:
        """Divided by some of its atoms."""
        atoms = list(self.atoms)
        for a in taken:
            atoms.remove(a)
        return Product(self.number, tuple(atoms))

    def has(self, wanted: Iterable[Atom]) -> bool:
        atoms = list(self.atoms)
        for a in wanted:
            if a not in atoms:
                return False
            atoms.remove(a)
        return True


def _counts(state: str) -> bool:
    """Whether it is the index of the step, of the cell or of a reverse sub-cell: no program can call a state so."""
    return state.rpartition(".")[2] == "t"


class Text:
    """Expressions of a cell's nodes. `source`: the cell as it was before the analysis
    added nodes, which tells what is named in the text. `used`: named nodes shown so far."""

    def __init__(self, cell: Cell, source: Cell):
        self.nodes = cell.nodes()
        self.states = {s.name for s in cell.states}
        self.against = {s.name for s in cell.states if s.reverse}      # their old value is that of the step after
        self.next = {s.next: s.name for s in cell.states
                     if not _counts(s.name) and self.nodes[s.next].op not in ("input", "param", "state")}
        self.named = {n.name for n in source.body if is_named(n)} | set(self.next)
        self.used: dict[str, None] = {}
        self.short: dict[str, str] = {}         # names given to long factors
        self._depth = 0
        self._axes: tuple[int, ...] | None = None       # where the axes of what is shown are in the whole expression

    # -- products ---------------------------------------------------------------
    def product(self, name: str, axes: tuple[int, ...] | None = None, through: bool = False) -> Product:
        """A node flattened. `axes`: what its axes are called; `through`: named products are opened, too."""
        n = self.nodes[name]
        axes = tuple(range(n.type.rank)) if axes is None else axes
        if n.op == "broadcast":
            return self.product(n.args[0], tuple(axes[i] for i in n.attr("axes")), through)
        if n.op == "literal" and n.type.kind in ("real", "int"):
            return Product(n.attr("value"), ())
        if name in self.named and not through:
            return Product(1, (Atom(name, axes),))
        if n.op == "neg":
            p = self.product(n.args[0], axes, through)
            return Product(-p.number, p.atoms)
        if n.op == "mul":
            p, q = (self.product(a, axes, through) for a in n.args)
            return Product(p.number * q.number, p.atoms + q.atoms)
        if n.op == "complex" and self.product(n.args[1]) == Product(0, ()):
            return self.product(n.args[0], axes, through)
        return Product(1, (Atom(name, axes),))

    def show_product(self, p: Product, more: str = "") -> str:
        """`- 2 theta k`, then `more` factors."""
        words = [self.factor(a) for a in p.atoms] + ([more] if more else [])
        if abs(p.number) != 1 or not words:
            words.insert(0, f"{abs(p.number):.6g}")
        return ("-" if p.number < 0 else "") + " ".join(words)

    def factor(self, a: Atom) -> str:
        """An atom of a product."""
        if a.node in self.short:
            return self.short[a.node]
        text, binds = self._at(tuple(self._place(c) for c in a.axes), a.node)
        if len(text) > LONGEST and a.node not in self.named:
            taken = {*self.nodes, *self.short.values()}
            self.short[a.node] = next(u for i in range(1, len(taken) + 2) if (u := f"u{i}") not in taken)
            self.used[a.node] = None
            return self.short[a.node]
        return text if binds >= ATOM else f"({text})"

    # -- expressions --------------------------------------------------------------
    def show(self, name: str) -> str:
        return self._expression(name)[0]

    def atom(self, name: str) -> str:
        """An expression that may stand in a product."""
        text, binds = self._expression(name)
        return text if binds >= ATOM else f"({text})"

    def _expression(self, name: str) -> tuple[str, int]:
        n = self.nodes[name]
        if name in self.next:
            self.used[name] = None
            base, at, lag = self.next[name].rpartition("@")         # x@1[t] is x[t]
            return (self.old(f"{base}@{int(lag) - 1}") if lag != "1" else f"{base}[t]") if at else f"{lag}[t]", ATOM
        if n.op == "state":
            return self.old(n.attr("name")), ATOM
        if n.op in ("input", "param"):
            return n.attr("name"), ATOM
        if n.op == "literal":
            v = n.attr("value")
            text = f"{v:.6g}" if isinstance(v, (int, float)) and not isinstance(v, bool) else str(v)
            return text, ATOM if not text.startswith("-") else SUM
        if n.op == "broadcast":
            return self._at(tuple(self._place(i) for i in n.attr("axes")), n.args[0])
        if n.op == "iota":
            return self._letter(0), ATOM
        if name in self.named:
            self.used[name] = None
            return name, ATOM
        return self._operation(n)

    def _place(self, axis: int) -> int:
        return axis if self._axes is None else self._axes[axis]

    def _letter(self, axis: int) -> str:
        return "ijklmnpq"[self._place(axis)]

    def _at(self, axes: tuple[int, ...] | None, name: str) -> tuple[str, int]:
        """The expression of a value whose axes have these places."""
        before, self._axes = self._axes, axes
        try:
            return self._expression(name)
        finally:
            self._axes = before

    def old(self, state: str) -> str:
        """The value that a state has before the step."""
        base, at, lag = state.partition("@")
        if _counts(state) and state in self.states:
            return state
        back = "+" if state in self.against else "-"
        return f"{base}[t{back}{int(lag) + (base in self.states)}]" if at and lag.isdigit() else f"{state}[t{back}1]"

    def definition(self, name: str) -> str:
        """The expression of a named node."""
        return self._operation(self.nodes[name])[0]

    def _operation(self, n: Node) -> tuple[str, int]:
        before = self._axes
        if self._depth == DEEPEST:
            return "...", ATOM
        if OPS[n.op].group != "pointwise":
            self._axes = None
        self._depth += 1
        try:
            return self._shown(n)
        finally:
            self._axes, self._depth = before, self._depth - 1

    def _shown(self, n: Node) -> tuple[str, int]:
        args = n.args
        match n.op:
            case "mul" | "neg":
                p = self.product(args[0]) if n.op == "neg" else self._times(*args)
                p = Product(-p.number, p.atoms) if n.op == "neg" else p
                return self.show_product(p), PRODUCT if p.number > 0 else SUM
            case "sub":
                return f"{self._tight(args[0], SUM)} - {self._tight(args[1], PRODUCT)}", SUM
            case "div":
                return f"{self._tight(args[0], PRODUCT)} / {self.atom(args[1])}", PRODUCT
            case "add":
                return plus(self._tight(a, SUM) for a in args), SUM
            case op if op in _INFIX:
                return _INFIX[op].join(self._tight(a, SUM) for a in args), SUM
            case "real":
                return ("I", ATOM) if self._is_eye(n) else self._expression(args[0])
            case "solve" if self._is_eye(self.nodes[args[1]]):
                return f"{self.atom(args[0])}^-1", ATOM
            case "complex":
                return self._complex(*args)
            case "exp":
                text, binds = self._expression(args[0])
                return f"e^{text}" if binds >= ATOM else f"e^({text})", ATOM
            case "select":
                c, x, y = (self._tight(a, SUM) for a in args)
                r = n.type.rank
                if r >= 2 and y == "0" and c == f"{self._letter(r - 2)} == {self._letter(r - 1)}":
                    return (f"diag({x})", ATOM) if x != "1" else ("I", ATOM)
                return (f"[{c}]", ATOM) if (x, y) == ("1", "0") else (f"{x} if {c} else {y}", 0)
            case "contract":
                return self._contraction(n)
            case "reduce":
                return f"{n.attr('fn')}({self.show(args[0])})", ATOM
            case "index":
                return f"{self.atom(args[0])}[{n.attr('at')}]", ATOM
            case "slice":
                start = n.attr("start")
                return f"{self.atom(args[0])}[{start}:{start + n.type.shape[n.attr('axis')].size}]", ATOM
            case "input" | "param" | "state" | "literal" | "broadcast":
                return self._expression(n.name)
        return f"{n.op}({', '.join(map(self.show, args))})", ATOM

    def _times(self, x: str, y: str) -> Product:
        p, q = self.product(x), self.product(y)
        return Product(p.number * q.number, p.atoms + q.atoms)

    def _tight(self, name: str, least: int) -> str:
        text, binds = self._expression(name)
        return text if binds >= least else f"({text})"

    def _complex(self, re: str, im: str) -> tuple[str, int]:
        """x for a real x, `1i` for the imaginary unit."""
        x, y = self.product(re), self.product(im)
        if y == Product(0, ()):
            return self._expression(re)
        if x == Product(0, ()):
            return ("1i", ATOM) if y == Product(1, ()) else (f"1i {self.atom(im)}", PRODUCT)
        if (polar := self._polar(x, y)) is not None:
            return polar
        return f"({self.show(re)} + 1i {self.atom(im)})", ATOM

    def _polar(self, x: Product, y: Product) -> tuple[str, int] | None:
        """size e^(1i angle) for size cos(angle) + 1i size sin(angle)."""
        cos = [a for a in x.atoms if self.nodes[a.node].op == "cos"]
        sin = [a for a in y.atoms if self.nodes[a.node].op == "sin"]
        for c in cos:
            for s in sin:
                rest = Product(x.number, tuple(a for a in x.atoms if a != c))
                if self.nodes[c.node].args == self.nodes[s.node].args and c.axes == s.axes and \
                        rest == Product(y.number, tuple(a for a in y.atoms if a != s)):
                    turn = f"e^(1i {self.atom(self.nodes[c.node].args[0])})"
                    return (self.show_product(rest, turn), PRODUCT) if rest != Product(1, ()) else (turn, ATOM)
        return None

    def _is_eye(self, n: Node) -> bool:
        """real(i == j) of a square matrix"""
        eq = self.nodes[n.args[0]] if n.op == "real" else n
        if n.op != "real" or eq.op != "eq" or n.type.rank < 2 or n.type.shape[-1].size != n.type.shape[-2].size:
            return False
        x, y = (self.nodes[a] for a in eq.args)
        sources = {self.nodes[z.args[0]].op if z.op == "broadcast" else "" for z in (x, y)}
        return sources == {"iota"} and {*x.attr("axes"), *y.attr("axes")} == {n.type.rank - 2, n.type.rank - 1}

    def _contraction(self, n: Node) -> tuple[str, int]:
        """A product of matrices and vectors, heads left out; else an einsum."""
        sx, sy, so = spec_parts(n.attr("spec"))
        heads = {c for c in sx if c in sy and c in so}
        sx, sy, so = ("".join(c for c in s if c not in heads) for s in (sx, sy, so))
        both = [c for c in sx if c in sy]
        kept = "".join(c for c in sx + sy if c not in both)
        if len(both) != 1 or sorted(kept) != sorted(so) or max(len(sx), len(sy)) > 2:
            return f"einsum({n.attr('spec')!r}, {self.show(n.args[0])}, {self.show(n.args[1])})", ATOM
        op = "@" if n.attr("semiring") == "sum" else f"@{n.attr('semiring')}"
        (x, y), c = n.args, both[0]
        if len(so) == 1 and so in sx and sx[0] == c or len(so) == 1 and so in sy and sy[1] == c or so != kept:
            x, y, sx, sy = y, x, sy, sx                                 # a row times a matrix, a matrix times a column
        left = self.atom(x) + ("^T" if len(sx) == 2 and sx[0] == c else "")
        right = self.atom(y) + ("^T" if len(sy) == 2 and sy[1] == c else "")
        return f"{left} {op} {right}", PRODUCT


def plus(terms: Iterable[str]) -> str:
    """A sum; a term that starts with a minus is subtracted."""
    out = ""
    for t in terms:
        out = t if not out else f"{out} - {t[1:]}" if t.startswith("-") else f"{out} + {t}"
    return out or "0"


def is_named(n: Node) -> bool:
    """Whether a computed value's name is from the text, not after its operation."""
    base = n.name.split(".")[0]
    leaf = n.op in ("input", "param", "state", "literal", "broadcast") or n.name.endswith(".next")
    return not leaf and base not in OPS and (
        base not in _HINTS and base != n.attr("fn"))
