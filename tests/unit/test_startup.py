"""How the programs begin and end: the wait policy of OpenMP, imports without collection, an end that loses nothing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from openreml_dist.app.startup import WAIT, WAIT_VARIABLES, choose_wait_policy, uncollected

PROGRAMS = ("fit", "plan", "grm", "prepare", "simulate")
ENDS = """
import atexit, logging, sys, threading
import openreml_dist.app.cli as cli
{first}
print("on the terminal", end="")
sys.stderr.write("an error")
atexit.register(lambda: print(", registered", end=""))
threading.Thread(target=lambda: None).start()
cli.exit_with("fit", lambda: {code})
"""


@pytest.mark.parametrize("chosen", WAIT_VARIABLES)
def test_wait_policy_of_the_user_stays(chosen: str) -> None:
    environment = {chosen: "7"}
    choose_wait_policy(environment)
    assert environment == {chosen: "7"}
    environment = {"OMP_NUM_THREADS": "2"}
    choose_wait_policy(environment)
    assert environment == WAIT | {"OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_choose_before_torch_is_loaded(program: str) -> None:
    """A library of OpenMP reads its variables when it is loaded."""
    code = f"import sys, openreml_dist.app.{program} as p; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's library on Linux alone")
def test_library_of_torch_hears_of_it() -> None:
    """GNU's library prints what it has read when it is loaded."""
    code = "from openreml_dist.app.startup import choose_wait_policy; choose_wait_policy(); import torch"
    environment = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    run = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
    )
    if "GOMP_SPINCOUNT" not in run.stderr:
        pytest.skip("this torch has another library of OpenMP")
    assert f"GOMP_SPINCOUNT = '{WAIT['GOMP_SPINCOUNT']}'" in run.stderr


def test_collection_is_as_it_was() -> None:
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()


@pytest.mark.parametrize("first", ["", "import torch"], ids=["ordinary", "at once"])
@pytest.mark.parametrize("code", [0, 3])
def test_end_loses_nothing(first: str, code: int) -> None:
    """Buffered output, what was registered for the end, and the exit code."""
    program = ENDS.format(first=first, code=code)
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (code, "on the terminal, registered", "an error")


def test_profiled_process_ends_in_the_ordinary_way() -> None:
    """The profiler prints after the program has ended."""
    code = "import cProfile; cProfile.run('import torch; from openreml_dist.app.startup import leave; leave(0)')"
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "function calls" in run.stdout
