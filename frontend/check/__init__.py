"""Elaboration: a syntax tree with sizes becomes a cell of the IR.

`dims` polynomials of dimensions, `values` what expressions evaluate to,
`context` kinds, alignment and the builder, `expr` expressions, `builtins`
(with `pointwise`, `reductions`, `structure`) the library, `functions` inlining,
`scope` names, `block` equations and repeats, `instance` a cell and its
sub-cells, `cell` the assembly.
"""
