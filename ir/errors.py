"""What the IR refuses, as exceptions."""

from __future__ import annotations


class IRError(Exception):
    """Base of the IR's errors; the message says what is wrong and what to do."""


class VerifyError(IRError):
    """A cell breaks a rule of the IR. `where`: the node or port, `rule`: the rule's name."""

    def __init__(self, cell: str, where: str, rule: str, message: str):
        super().__init__(f"cell {cell}, {where}: {message} [{rule}]")
        self.where, self.rule = where, rule


class IRSyntaxError(IRError):
    """Text that is not a printed cell. `line` counts from 1."""

    def __init__(self, line: int, message: str):
        super().__init__(f"line {line}: {message}")
        self.line = line


class EvaluationError(IRError):
    """The interpreter was given values that do not fit the cell."""
