"""The catalogue of error classes: every error a user can see, as data.

An entry is `name: ErrorClass(code, message, help)`; message and help are
templates filled with the keyword fields given to `Reporter.error`. Names of
the program go in backticks. A message is one sentence without a full stop and
speaks of the language, never of the compiler's internals.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorClass:
    """`code`: stable, E and four digits; `message`, `help`: str.format templates."""

    code: str
    message: str
    help: str | None = None


def _section(first: int, entries: dict[str, tuple[str, ...] | None]) -> dict[str, ErrorClass]:
    """Codes are given in order from `first`: append, never insert. None: a class that is no more."""
    return {name: ErrorClass(f"E{first + i:04}", *texts) for i, (name, texts) in enumerate(entries.items())
            if texts is not None}


SYNTAX = _section(101, {
    "unexpected": ("expected {expected}, found {found}",),
    "bad_character": ("{char} has no meaning in the language",),
    "unclosed_bracket": ("unclosed {bracket}",),
    "unmatched_bracket": ("{bracket} closes nothing",),
    "expected_expression": ("expected an expression after {after}, found {found}",),
    "unknown_statement": ("`{word}` begins no statement",
                          "a statement is an equation, or begins with input, param, const, state, output, use or "
                          "repeat"),
    "unknown_item": ("expected a cell, function, program or import, found {found}",
                     "a file holds `cell NAME(...) {{ ... }}`, `fn NAME(...) = ...`, `program ...` and "
                     "`import NAME from \"FILE\"`"),
    "unexpected_end": ("the file ends where {expected} was expected",),
    "missing_shape": ("`{name}` is declared without a shape", "write `{name}: [H]`, or `{name}: []` for a scalar"),
    "unterminated_string": ("unterminated string", 'close it with `"` on the same line'),
    "bad_number": ("`{text}` is not a number", "numbers look like 3, 0.5, 1e-5 or 2i; a product is written `2 * x`"),
    "too_deep": ("the expression is nested too deeply (more than {limit} levels)", "name parts of it"),
    "chained_comparison": ("comparisons do not chain", "write `a < b and b < c`"),
    "foreign_operator": ("`{found}` is not an operator of the language", "{instead}"),
    "keyword_as_name": ("`{word}` is a keyword and cannot be a name",),
    "missing_newline": ("expected the end of the line, found {found}", "write one statement per line"),
    "no_effect": ("an expression on its own does nothing",
                  "give it a name: `y = ...`, or declare it: `output y: [...] = ...`"),
    "else_missing": ("`if` without `else`", "a selection is written `a if condition else b`"),
    "bad_target": ("the left side of `=` must be names", "write `y = ...`, `h[t] = ...` or `a, b = ...`"),
    "missing_brace": ("expected `{{` to open the body of `{name}`",),
    "bad_encoding": ("the file is not UTF-8 text",),
    "missing_return": ("the block of the function ends without `return`", "write `return ...` as its last line"),
    "after_draw": ("nothing follows `~ ...` on a line: it draws every name there that has no `=`",
                   "what is drawn by another rule needs a line of its own: `{word} ...`"),
})

NAMES = _section(201, {
    "unknown_name": ("`{name}` is not defined",),
    "unknown_function": ("there is no function `{name}`",),
    "unknown_cell": ("there is no cell `{name}`",
                     "define it in this file or import it: `import {name} from \"FILE.ost\"`"),
    "unknown_dim": ("`{name}` is not a dimension of `{cell}`", "add it to the header: `cell {cell}(..., {name})`"),
    "duplicate_name": ("`{name}` is already defined", "names are defined once in a cell; rename one of them"),
    "shadows_builtin": ("`{name}` is a built-in function and cannot be redefined", "choose another name"),
    "reserved_name": ("`{name}` is reserved",
                      "t, inf, pi, true, false and training cannot be redefined; choose another name"),
    "unknown_attribute": ("`{cell}` has no state or output `{name}`",),
    "import_not_found": ("the imported file {file} does not exist", "paths are relative to the importing file"),
    "import_cycle": ("imports form a cycle: {path}",),
    "import_missing": ("{file} defines no `{name}`",),
    "duplicate_item": ("`{name}` is already defined in this file",),
    "unknown_fact": ("`{name}` is not a fact about values",
                     "facts are in (a, b), < <= > >= a bound, nonneg, symmetric, orthonormal, shared, heads N"),
    "unknown_kind": ("`{name}` is not a kind of number", "kinds are real (the default), int, bool and complex"),
    "cell_not_chosen": ("the file holds several cells: {cells}", "choose one with cell=\"NAME\""),
    "no_cell": ("the file holds no cell to compile",),
    "import_from_text": ("source text given as a string cannot import {file}",
                         "put it in a file, whose folder imports are relative to"),
    "not_a_function": ("`{name}` is {what} and cannot be called",),
    "not_a_value": ("`{name}` is {what}, not a value",),
})

SHAPES = _section(301, {
    "shape_mismatch": ("the shapes {left} and {right} do not fit in {what}",
                       "dimensions match by name, not by size"),
    "declared_shape": ("`{name}` is declared {declared} but its value has shape {actual}",),
    "product_mismatch": ("`{name}` sums over {left} on the left and {right} on the right, which are different "
                         "dimensions",
                         "the left operand has shape {left_shape}, the right one {right_shape}"),
    "product_scalar": ("`{name}` needs at least one dimension on each side, but the {side} operand is a scalar",
                       "use `{use}` for a scalar"),
    "ambiguous_axis": ("the dimension {dim} occurs twice in {shape}, so it is unclear which one is meant",
                       "use diag, outer or an index to resolve it"),
    "missing_axis": ("`{what}` reduces over {dim}, which {shape} does not have",),
    "axis_needed": ("`{what}` of a value of shape {shape} needs an axis", "name it: `{what}[{dim}](...)`"),
    "split_uneven": ("{dim} = {size} cannot be split into {parts} equal parts",),
    "split_sizes": ("the parts of the split add up to {total}, but {dim} is {size}",),
    "too_many_indices": ("{count} indices for a value of shape {shape}",),
    "index_out_of_range": ("index {index} is outside of {dim} = {size}",),
    "slice_out_of_range": ("the slice {slice} is outside of {dim} = {size}",),
    "not_square": ("{what} needs a square matrix, got shape {shape}",),
    "rank": ("{what} needs {expected}, got shape {actual}",),
    "size_not_integer": ("the size {text} is {value}, which is not an integer",),
    "size_negative": ("the size {text} is {value}, which is negative",),
    "size_unknown": ("`{name}` is not known when the cell is compiled, so it cannot give a size",
                     "sizes are made of dimensions and numbers of the header"),
    "missing_dim": ("the dimension `{name}` of `{cell}` has no value", "give it: {name}=..."),
    "unexpected_dim": ("`{cell}` has no dimension or argument `{name}`",),
    "unpack_count": ("{names} names on the left of `=`, but {values} on the right",),
    "branch_shapes": ("the branches of `if` have shapes {left} and {right}",),
    "concat_mismatch": ("the parts of {what} have shapes {left} and {right}",
                        "parts may differ in their first axis only"),
    "heads_uneven": ("the heads {outer} = {size} are not a multiple of {inner} = {group}",),
    "heads_missing": ("`{name}` is declared with heads in a cell without heads", "write `cell {cell}(...) heads N`"),
    "pattern_mismatch": ("argument `{param}` of `{function}` must have shape {expected}, got {actual}",),
    "size_too_large": ("the value of shape {shape} has {size} elements, more than the limit of {limit}",),
    "repeat_too_long": ("repeating {count} times is more than the limit of {limit}",),
    "target_indices": ("`{name}` takes {expected} on the left of `=`",),
    "duplicate_dim": ("the dimension `{name}` is listed twice",),
    "shared_heads": ("a value that differs between heads cannot be given to `{name}`, which is shared",
                     "mix the heads first: `sum[{heads}](...)`"),
    "axis_twice": ("reducing over {dim}, which occurs twice in {shape}, is ambiguous",
                   "take diag(...) first, or reduce with `@ ones({dim})`"),
    "unrolled_too_long": ("the cell unrolls to more than {limit} expressions",
                          "make the repeats and generators shorter"),
    "lag_too_long": ("the lag {lag} of `{name}` is more than the limit of {limit}",),
    "empty_generator": ("`{name}` of nothing has no value",),
})

KINDS = _section(401, {
    "kind_mismatch": ("{what} needs {expected}, got {actual}",),
    "declared_kind": ("`{name}` is declared {declared} but its value is {actual}",),
    "condition_kind": ("a condition must be bool, got {actual}", "compare it: `x > 0`"),
    "index_kind": ("an index must be int, got {actual}",),
    "not_constant": ("{what} must be a number known when the cell is compiled",),
    "argument_kind": ("`{name}` is a {actual} but is used as a {expected}",),
    "bound_order": ("the interval {interval} is empty",),
    "number_too_large": ("the number {text} is too large",),
    "bad_constant": ("{text} has no value: {reason}",),
    "complex_value": ("{what} needs real values, got complex", "take re(z), im(z), abs(z) or angle(z) first"),
})

TIME = _section(501, {
    "time_needed": ("`{name}` is {role} and needs a time", "write `{name}[t]` for the present step{previous}"),
    "future_read": ("`{name}[t+{lag}]` reads the future", "only the present and past steps can be read"),
    "lag_on_local": ("`{name}` is a local value of one step and has no past",
                     "declare it a state to read `{name}[t-{lag}]`"),
    "time_on_local": ("`{name}` is {role}, which takes no time", "write `{name}`"),
    "state_unassigned": ("the state `{name}` is never assigned at [t]", "add an equation `{name}[t] = ...`"),
    "assigned_twice": ("`{name}` is assigned twice",),
    "assign_not_state": ("`{name}` is {role} and cannot be assigned",),
    "assign_past": ("a state is assigned at [t] only",),
    "assign_needs_time": ("the state `{name}` is assigned without a time", "write `{name}[t] = ...`"),
    "cycle": ("these values depend on each other within one step: {cycle}", "read one of them at [t-1]"),
    "lag_not_constant": ("the lag of `{name}` is not a constant",),
    "init_not_static": ("the initial value of `{name}` reads {what}",
                        "initial values are made of parameters and numbers"),
    "init_cycle": ("the initial values of these parameters depend on each other: {cycle}",),
    "init_missing": ("the state `{name}` has no initial value", "write `{name}: {shape} = 0`"),
    "repeat_unassigned": ("the state `{name}` of the repeat is never assigned at [{index}]",
                          "add an equation `{name}[{index}] = ...`"),
    "repeat_read": ("inside its repeat `{name}` is read as `{name}[{index}]` or `{name}[{index}-1]`",),
    "repeat_lag": ("`{name}[{index}-{lag}]` reads more than one iteration back",
                   "a state of a repeat keeps its last value only"),
    "repeat_index": ("`{name}` belongs to the repeat over {index} and cannot be read at `t`",),
    "local_in_repeat": ("`{name}` is defined inside a repeat and not known outside",
                        "make it a state of the repeat to read its last value"),
    "input_default": ("`= {text}` of the input `{name}` must be a real number",
                      "an input's `= value` is what it reads before the start"),
    "const_value": ("the const `{name}` has no formula and no value was given", "give it when compiling: {name}=..."),
    "random_here": ("a random value can be drawn in the body and in a parameter's `~` only",),
    "param_without_init": ("the parameter `{name}` has no initial value",
                           "write `= 0` or `~ normal(0, 1)` after its shape"),
    "output_missing": ("the cell `{cell}` has no output", "add `output NAME`"),
    "output_twice": ("the output `{name}` is declared twice",),
    "output_undefined": ("the output `{name}` has neither a value nor a definition",
                         "write `output {name}: [...] = ...`"),
    "role_in_repeat": ("only states can be declared inside a repeat, not {role}",),
    "program_param": ("a program has no parameters", "use const, or make it a cell"),
    "in_function": ("`{name}` of the cell cannot be read inside a function", "pass it as an argument"),
    "const_formula": ("the const `{name}` has {indices} indices but shape {shape}",),
    "past_of_reverse": ("`{name}` cannot be read at [t-{lag}]: `{cell}` runs the other way through time",
                        "read it at [t], and make its old value an output of the sub-cell if that is meant"),
    "no_time_order": ("`{cell}` runs the other way through time than `{state}`, and each needs the other",
                      "give `{cell}` inputs that do not depend on its own outputs through `{state}`"),
})

CALLS = _section(601, {
    "argument_count": ("`{name}` takes {expected}, got {actual}",),
    "missing_argument": ("the argument `{argument}` of `{name}` is missing",),
    "unknown_argument": ("`{name}` has no argument `{argument}`",),
    "repeated_argument": ("the argument `{argument}` of `{name}` is given twice",),
    "positional_after_named": ("an argument without a name follows one with a name",),
    "recursive_function": ("functions cannot call themselves: {path}",),
    "derivative_count": ("the function `{name}` has {params} arguments, but its derivative lists {derivatives}",
                         "give one derivative per argument, 0 where there is none"),
    "cell_not_used": ("`{name}` is a cell; it needs a `use` before it can be called",
                      "write `use f = {name}(...)` and call `f(...)`"),
    "called_twice": ("the sub-cell `{name}` is called twice in one step", "use two of them: `use a = ..., b = ...`"),
    "never_called": ("the sub-cell `{name}` is never called",),
    "cell_array_index": ("`{name}` is an array of sub-cells and needs an index",
                         "write `{name}[j](...)` inside `repeat j in ...`"),
    "not_an_array": ("`{name}` is one sub-cell, not an array",),
    "cell_index_constant": ("the index of the sub-cell array `{name}` must be a constant or the index of a repeat",),
    "recursive_cell": ("cells cannot contain themselves: {path}",),
    "tuple_as_value": ("`{name}` gives {count} values where one is needed", "name them first: `a, b = {name}(...)`"),
    "program_as_cell": ("`{name}` is a program and cannot be used as a sub-cell",),
    "attribute_of_value": ("a value has no attribute `{name}`",
                           "`.T` transposes a matrix; `f.h[t-1]` reads a state of a sub-cell"),
    "generator_misplaced": ("`for` belongs inside sum, prod, max, min, mean, stack or concat",),
    "element_of_output": ("`{name}` of a sub-cell is read as `{cell}.{name}[t-1]` or `{cell}.{name}[t]`",),
    "axis_not_allowed": ("`{name}` takes no axis",),
    "slice_misplaced": ("a slice stands for a part of a value and cannot be used here",
                        "write one index, or the name of a dimension"),
    "grad_loss": ("`grad` differentiates a real scalar, got {actual}", "reduce it: `sum[K](...)`"),
    "grad_leaf": ("`grad` differentiates by whole values that have a name",
                  "write a state's old value `S[t-1]`, an input `x[t]`, a parameter or a local value"),
    "grad_independent": ("the loss does not depend on {leaf}, so there is no gradient by it",),
    "grad_heads": ("the loss of `grad` differs between heads, but {what}", "take one loss: `sum[{heads}](...)`"),
})

RUNTIME = _section(801, {
    "input_shape": ("the input `{name}` is declared {declared}, so it must have shape {expected}; got {actual}",),
    "input_dtype": ("the input `{name}` must be {expected}, got {actual}",),
    "input_device": ("the input `{name}` is on {actual}, the module on {expected}", "move one of them with .to(...)"),
    "input_missing": ("the input `{name}` is missing",),
    "input_unknown": ("there is no input `{name}`",),
    "input_type": ("the input `{name}` must be a tensor, got {actual}",),
    "state_shape": ("the state `{name}` is declared {declared}, so it must have shape {expected}; got {actual}",),
    "state_dtype": ("the state `{name}` must be {expected}, got {actual}",),
    "state_device": ("the state `{name}` is on {actual}, the module on {expected}", "move one of them with .to(...)"),
    "state_unknown": ("there is no state `{name}`",),
    "sizes_disagree": ("the inputs disagree about {what}: {sizes}",),
    "unknown_stage": ("there is no stage `{name}`", "stages are {stages}"),
    "unknown_backend": ("there is no back end `{name}`", "back ends are {backends}"),
    "unknown_schedule": ("there is no schedule `{name}`", "schedules are {schedules}"),
    "backend_unavailable": ("the back end `{name}` cannot run this: {reason}",),
    "file_not_found": ("there is no file {file}",),
    "const_shape": ("the const `{name}` is declared {declared}, so it must have shape {expected}; got {actual}",),
    "option_value": ("{option} must be {expected}, got {actual}",),
    "import_weights": ("the weights cannot be imported: {reason}",),
    "param_shape": ("the parameter `{name}` is declared {declared}, so it must have shape {expected}; got {actual}",),
    "param_dtype": ("the parameter `{name}` must be {expected}, got {actual}",
                    "the whole module changes its precision by .to(dtype)"),
    "param_device": ("the parameter `{name}` is on {actual}, the module on {expected}",
                     "the whole module moves by .to(device)"),
    "unsuitable_schedule": ("`{name}` has no schedule `{schedule}`: {reason}",),
    "ill_conditioned": ("the matrix that moves `{state}` of `{name}` cannot be diagonalised in {dtype}: the condition "
                        "number of its eigenvectors is {condition}, more than {limit}",
                        'use schedule="sequential" or "scan", or start from a matrix that is closer to a normal one'),
    "too_long": ("`{name}` over {T} steps of {B} sequences needs a value of {size} in the schedule `{schedule}`, more "
                 "than {limit}", 'use schedule="sequential", "scan" or "chunk", or call it for shorter pieces of time, '
                                 "with the state carried over"),
    "no_step": ("`{name}` has no single steps: its sub-cell `{cell}` runs backwards in time and needs all later inputs",
                "call it on whole sequences"),
    "no_stage": ("{what} has no stage `{name}`", "compile with {instead}"),
    "not_dense": ("the {role} `{name}` must be a dense tensor, got a {actual} one",),
})

NOT_YET = _section(901, {
    "not_yet": ("{what} is not supported yet", "{instead}"),
    "not_yet_complex": None,
    "not_yet_semiring": None,
    "not_yet_grad": None,
    "not_yet_gather": None,
    "not_yet_reverse": None,
    "not_yet_two_axes": ("a second time axis is not supported yet",),
})

SECTIONS: dict[str, dict[str, ErrorClass]] = {
    "Syntax": SYNTAX, "Names": NAMES, "Dimensions and shapes": SHAPES, "Kinds of numbers": KINDS,
    "Time and states": TIME, "Functions and sub-cells": CALLS, "Calling a compiled cell": RUNTIME, "Not yet": NOT_YET,
}
CATALOGUE: dict[str, ErrorClass] = {name: e for section in SECTIONS.values() for name, e in section.items()}
