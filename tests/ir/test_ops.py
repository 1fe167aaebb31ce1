"""Whoever has to know every operation of the table does."""

from ostinato.compiler.passes import derivatives
from ostinato.ir import evaluate, meaning
from ostinato.ir.ops import OPS
from ostinato.ir.types import KINDS

STRUCTURE = {o.name for o in OPS.values() if o.group in ("structure", "reduce", "linalg")}  # test_interp_ops has each


def test_the_table_is_well_formed():
    for name, op in OPS.items():
        assert op.name == name and op.group in ("leaf", "pointwise", "complex", "structure", "reduce", "linalg")
        assert set(op.kinds) <= set(KINDS) and op.result in (*KINDS, "same", "given") and op.arity >= -1


def test_the_interpreter_has_a_meaning_for_each():
    assert set(OPS) == set(meaning.POINTWISE) | set(evaluate.LEAVES) | STRUCTURE
    assert {o.name for o in OPS.values() if o.group in ("pointwise", "complex")} == set(meaning.POINTWISE) | {"real", "int"}


def test_the_adjoint_has_a_derivative_for_each():
    reads = {"input", "param", "state", "draw"}
    assert derivatives.REAL == set(derivatives.RULES) | derivatives.GATHERED | derivatives.LAST | reads
