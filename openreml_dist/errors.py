"""Errors that end a program, each with the exit code the command line promises.

Every message says what was wrong and where (file, sample, parameter, iteration), then what to try.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


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


class InterruptionError(OpenREMLError):
    """Ended by a signal of a scheduler, to be started again: the same command goes on from there."""

    exit_code = 99


class StopRequestedError(OpenREMLError):
    """Ended on purpose before it converged."""

    exit_code = 3


class FileError(InputError):
    """What the operating system refused: a full disk, a folder without permission, a file where a folder is needed."""

    @classmethod
    def of(cls, error: OSError, path: object = None) -> FileError:
        """In one line: the path (of the error, else the one given), what the system said of it, what to do if that is known."""
        where = path if error.filename is None else error.filename
        said = error.strerror or str(error) or type(error).__name__
        return cls(f"{'' if where is None else f'{where}: '}{said}{_REMEDIES.get(error.errno or 0, '')}")


_REMEDIES = {
    errno.ENOSPC: "; free some space, or write to another disk",
    errno.EDQUOT: "; free some space, or write to another disk",
    errno.EFBIG: "; the limit of the size of a file is reached (ulimit -f)",
    errno.EACCES: "; choose a place where you may write",
    errno.EROFS: "; choose a place where you may write",
    errno.ENOTDIR: "; a part of the path is a file",
    errno.EMFILE: "; raise the number of open files (ulimit -n)",
}


@contextmanager
def files_named(path: object = None) -> Iterator[None]:
    """Turn what the operating system says of a file into a ``FileError``, where it names none that of ``path``. Local."""
    try:
        yield
    except ConnectionError:  # of a peer, or of a pipe that nobody reads any more: no file
        raise
    except OSError as error:
        raise FileError.of(error, path) from error
