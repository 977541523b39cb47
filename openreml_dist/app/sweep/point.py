"""One point of a sweep, as launchers call it: here, in a process of joblib, or in a job of SLURM."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from openreml_dist.app import launch
from openreml_dist.app.report.run_directory import RESULT, leave_failure
from openreml_dist.config import FitConfig
from openreml_dist.errors import ConfigError, InterruptionError, OpenREMLError, RankLostError, files_named

if TYPE_CHECKING:
    from omegaconf import DictConfig

# exit codes: the ranks are lost, or the scheduler wants the nodes back
ENDS_THE_SWEEP = (RankLostError.exit_code, InterruptionError.exit_code)


def settings_of(config: DictConfig) -> FitConfig:
    """Typed settings of what Hydra composed.

    Raises:
        ConfigError: for an unknown key, a value of the wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(FitConfig), config))
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration: {str(error).splitlines()[0]}") from error
    made: FitConfig = settings
    return made


def run_point(config: DictConfig) -> int:
    """Fit one point. Collective. What goes wrong is left in ``result.json``, so that the other points are fitted none the less.

    Returns:
        The exit code of the fit.
    Raises:
        OpenREMLError: that ends the whole sweep.
        Exception: what is no known error, if there are other ranks, which may not have it.
    """
    from openreml_dist.app.fit import fit

    begun, since = time.perf_counter(), time.time()
    run_dir = Path(config.run_dir)
    placement = launch.find_placement("auto")
    try:
        with files_named():
            return fit(settings_of(config), begun)
    except OpenREMLError as error:
        _leave(run_dir, since, error.exit_code, str(error), placement.rank)
        if error.exit_code in ENDS_THE_SWEEP:
            raise
        if placement.rank == 0:
            print(f"openreml-fit: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except Exception as error:
        _leave(run_dir, since, 1, f"{type(error).__name__}: {error}", placement.rank)
        print(f"rank {placement.rank}: unexpected error\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        if placement.size > 1:
            raise
        return 1


def run_point_as_job(config: DictConfig) -> int:
    """``run_point`` in a job of its own, of which this process is one task, and so one rank. Collective.

    A process that lost its peers ends at once: its process group would wait for them.
    """
    try:
        exit_code = run_point(config)
    except Exception as error:
        _end(getattr(error, "exit_code", 1))
    launch.disconnect()
    return exit_code


def _leave(run_dir: Path, since: float, exit_code: int, message: str, rank: int) -> None:
    """Write the failure of a fit that ended before it had its folder; else it has been written. Local: rank 0."""
    result = run_dir / RESULT
    if rank == 0 and not (result.exists() and result.stat().st_mtime >= since):
        leave_failure(run_dir, exit_code, message)


def _end(code: int) -> NoReturn:
    import os

    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
