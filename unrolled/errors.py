"""The errors a user can cause, each with the exit code the command line gives it.

A message is one sentence: what is wrong, where, what to do.
"""


class UnrolledError(Exception):
    """Something failed that the user should know about: exit code 1."""

    exit_code = 1


class InputError(UnrolledError, ValueError):
    """Unusable input or options: exit code 2."""

    exit_code = 2


class NonFiniteError(UnrolledError, ArithmeticError):
    """Training met a loss or gradient that is not a finite number: exit code 3."""

    exit_code = 3
