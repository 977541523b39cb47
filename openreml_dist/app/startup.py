"""How a program begins and ends: what must be said before torch is loaded, imports without garbage collection, leaving at once.

Measured in ``benchmarks/busy_cores.py`` and ``benchmarks/startup.py``.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import NoReturn

WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
WAIT = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}  # rounds (tens of microseconds), milliseconds


def choose_wait_policy(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of OpenMP sleep soon when they wait, unless the user has chosen. Local: before torch is imported.

    By default they spin for some 10 ms at every barrier. Where another program has the core of the thread that they wait for,
    they take the time in which it could run, and a fit takes several times its share of the cores. GNU's library (torch's own
    wheels) reads the first variable, those of LLVM and Intel (other builds of torch) the second. Ranks that are started from
    here inherit both.
    """
    if not any(name in environment for name in WAIT_VARIABLES):
        environment.update(WAIT)


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without garbage collection, and never look for garbage in what was imported. Local.

    Libraries make some hundred thousand objects that stay; a collection that visits them finds nothing and takes 0.1 s.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()


def leave(code: int) -> NoReturn:
    """End the process: what was registered for the end is done and all output is written, but nothing is taken apart.

    To free every object of torch at the end of the interpreter takes 0.6 s. A process that is traced or profiled ends in the
    ordinary way, which its observer may need; so does one with MPI, which is finalised by the interpreter, after all that is
    registered, and else takes the job for lost.
    """
    observed = sys.gettrace() is not None or sys.getprofile() is not None
    if "torch" not in sys.modules or "mpi4py" in sys.modules or observed:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more, or its disk is full, which was said where it was written
            stream.flush()
    os._exit(code)
