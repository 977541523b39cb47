"""Errors that end a program, each with the exit code the command line promises.

Every message says what was wrong and where (file, sample, parameter, iteration), then what to try.
"""

from __future__ import annotations


class OpenREMLError(Exception):
    """Base of all errors that are reported without a traceback."""

    exit_code = 1


class InputError(OpenREMLError):
    """Data that cannot be used: a missing or damaged file, no common sample, a constant phenotype."""

    exit_code = 2


class ConfigError(InputError):
    """A setting that cannot be used: an unknown key, a grid that does not match the ranks."""


class NotPositiveDefiniteError(OpenREMLError):
    """V(θ) has a non-positive leading minor, so that it has no Cholesky factor."""

    exit_code = 4


class RankLostError(OpenREMLError):
    """Another rank stopped answering: killed, out of memory, or its node was lost."""

    exit_code = 5
