"""The command line shared by all programs: Hydra composes the settings, errors become exit codes.

Hydra by itself exits with 1 on a bad configuration and prints its own traceback; here every known error is one message and the
exit code of its class, whichever program it came from.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from openreml_dist.app.launch import find_placement
from openreml_dist.app.startup import choose_wait_policy, leave, uncollected
from openreml_dist.errors import ConfigError, InputError, InterruptionError, OpenREMLError, RankLostError, files_named

Settings = TypeVar("Settings")

SECONDS_FOR_RANK_0 = 3.0
SECONDS_FOR_THE_LAUNCHER = 0.5  # to pass on what was printed: srun may end a step before it has read its last lines
SECONDS_FOR_THE_CAUSE = 1.0  # to a rank lost by an error of its own: launchers return the code of whoever leaves first
_SETTING = re.compile(r"(?!hydra)[a-z_][\w.]*=")  # no flag of Hydra, no setting of its own: else it composes twice
INTERRUPTED = 130  # exit code after Ctrl-C, as a shell has it


def config_directory() -> Path:
    """The folder ``conf/``: inside the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def compose(name: str, schema: type[Settings], run: Callable[[Settings], int]) -> int:
    """Compose ``conf/<name>.yaml`` with the overrides of the command line and call ``run`` with typed settings.

    Returns:
        What ``run`` returned, the exit code; with ``--multirun`` the worst of all jobs.
    Raises:
        ConfigError: for an unknown key, a value of the wrong type, or a mandatory value that is missing.
    """
    with uncollected():
        import hydra
        from hydra import compose as compose_once
        from hydra import initialize_config_dir
        from hydra.core.config_store import ConfigStore
        from omegaconf import DictConfig, OmegaConf
        from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra re-raises instead of printing and exiting with 1
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    exit_codes = [0]
    failures: list[OpenREMLError | OmegaConfBaseException] = []

    def task(config: DictConfig) -> None:
        if any(isinstance(failure, RankLostError | InterruptionError) for failure in failures):
            return  # the ranks that are left cannot run another job, or are to leave
        try:
            settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), config))
            with files_named():
                exit_codes.append(run(settings))
        except (OpenREMLError, OmegaConfBaseException) as error:
            failures.append(error)  # raised below: Hydra would print lines of its own around it

    folder, arguments = str(config_directory()), sys.argv[1:]
    with configuration_named(name):
        if all(map(_SETTING.match, arguments)):
            with initialize_config_dir(folder, version_base="1.3"):
                config = compose_once(name, arguments)
            task(config)
        else:
            hydra.main(version_base="1.3", config_path=folder, config_name=name)(task)()
        if failures:
            raise failures[0]
    return max(exit_codes)


@contextmanager
def configuration_named(name: str) -> Iterator[None]:
    """Turn what Hydra and OmegaConf say of a configuration into one message. Local.

    Raises:
        ConfigError: what is wrong, and where all settings are listed.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"configuration: {_explained(error)}\nSee openreml-{name} --help for every key") from error


def _explained(error: Exception) -> str:
    """What Hydra and OmegaConf say, without advice that a typed configuration does not follow."""
    lines = [*str(error).splitlines(), *str(error.__cause__ or "").splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("To append to your config", "    reference_type")))


def exit_with(name: str, run: Callable[[], int]) -> NoReturn:
    """Run a program and end the process with its exit code; a known error is printed as one message, without a traceback.

    An error that every rank has alike is printed by rank 0. The others wait a moment before they leave, because launchers
    end the whole job when one rank has left, and rank 0 is to be heard. A lost rank is reported by whoever notices it
    first, who leaves after it.
    """
    choose_wait_policy()
    placement = find_placement("auto")
    rank, patience = placement.rank, SECONDS_FOR_THE_LAUNCHER
    try:
        with files_named():
            code = run()
        if code != 0 and rank != 0:
            _let_rank_0_leave_first(code)
        leave(code)
    except RankLostError as error:
        message, code = f"error: {f'rank {rank}: ' if placement.size > 1 else ''}{error}", error.exit_code
        patience += SECONDS_FOR_THE_CAUSE
    except OpenREMLError as error:
        if rank != 0:
            _let_rank_0_leave_first(error.exit_code)
        message, code = f"error: {error}" if rank == 0 else "", error.exit_code
    except BrokenPipeError:
        message, code = "error: nobody reads the output any more (a pipe was closed)" if rank == 0 else "", InputError.exit_code
    except KeyboardInterrupt:
        message, code = "interrupted" if rank == 0 else "", INTERRUPTED
    except Exception:
        message = f"rank {rank}: unexpected error, probably a mistake in this program\n{traceback.format_exc()}"
        code = 1
    if message:
        print(f"openreml-{name}: {message}", file=sys.stderr, flush=True)
    if placement.size > 1:
        sys.stdout.flush()
        time.sleep(patience)
        os._exit(code)  # the destructors of MPI and of process groups wait for other ranks
    leave(code)


def _let_rank_0_leave_first(code: int) -> None:
    """Wait a moment, or until the launcher ends this rank because rank 0 has left; then with this exit code.

    ``srun`` returns the largest exit code of all ranks, and that of SIGTERM, 143, is larger than ours.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    time.sleep(SECONDS_FOR_RANK_0)
