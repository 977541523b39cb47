"""What the launchers of Hydra need to know, or do not do, for points that are fits: threads, lost processes, lost jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openreml_dist.app.report.run_state import has_begun
from openreml_dist.app.sweep.plan import Planned
from openreml_dist.app.sweep.point import run_point, run_point_as_job
from openreml_dist.errors import ConfigError
from openreml_dist.plan.load import usable_cores

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig

BASIC, JOBLIB, SUBMITIT = "basic", "joblib", "submitit"
EVERY_TASK_OR_NONE = "export SLURM_KILL_BAD_EXIT=1"  # srun: tasks whose peer is gone would wait for it


def kind_of(config: DictConfig) -> str:
    """Which launcher Hydra was told to use, by the class that its settings name. Local.

    Raises:
        ConfigError: for one that this program does not know.
    """
    target = str(config.hydra.launcher.get("_target_", ""))
    for kind, words in {BASIC: "basic_launcher", JOBLIB: "joblib_launcher", SUBMITIT: "submitit_launcher"}.items():
        if words in target:
            return kind
    raise ConfigError(f"hydra/launcher: {target} is none of basic, joblib, submitit_slurm and submitit_local")


def task_of(kind: str) -> Callable[[DictConfig], int]:
    """What a launcher calls for a point; it can be pickled."""
    return run_point_as_job if kind == SUBMITIT else run_point


def adapted(kind: str, config: DictConfig, plans: Sequence[Planned]) -> dict[str, list[str]]:
    """The settings of each point by run directory, with what its launcher makes necessary, which is told of them. Local.

    Processes of joblib each see all cores, which they have to share. Of the tasks of a SLURM job either all go on or none.
    """
    more: list[str] = []
    if kind == JOBLIB:
        cores, wanted = len(usable_cores()), int(config.hydra.launcher.n_jobs)
        workers = min(len(plans), wanted if wanted > 0 else max(1, cores + 1 + wanted))
        more = [f"launcher.threads={max(1, cores // max(1, workers))}"]
    if kind == SUBMITIT and "setup" in config.hydra.launcher and config.hydra.launcher.setup is None:
        config.hydra.launcher.setup = [EVERY_TASK_OR_NONE]
    return {
        plan.run_dir: [*plan.overrides, *(setting for setting in more if not _is_given(setting, plan.overrides))]
        for plan in plans
    }


def launch_all(kind: str, launcher: Launcher, points: Mapping[str, Sequence[str]]) -> None:
    """Run all points, whatever happens to some of them. Local: the process that leads the sweep.

    Args:
        kind: of the launcher.
        launcher: set up by Hydra.
        points: settings by run directory.
    Raises:
        Exception: of a point that ends the sweep, or of the launcher itself.
    """
    if kind == JOBLIB:
        _launch_by_joblib(launcher, points)
    elif kind == SUBMITIT:
        with lost_jobs_left_out():
            launcher.launch(list(points.values()), initial_job_idx=0)
    else:
        for returned in launcher.launch(list(points.values()), initial_job_idx=0):
            _ = returned.return_value


def _launch_by_joblib(launcher: Launcher, points: Mapping[str, Sequence[str]]) -> None:
    """A process that is killed takes all others with it: what had not begun is begun anew, as long as anything begins."""
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from joblib.externals.loky.process_executor import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        TerminatedWorkerError,
    )

    left = dict(points)
    while left:
        since = time.time()
        try:
            launcher.launch(list(left.values()), initial_job_idx=0)
            return
        except TerminatedWorkerError:
            not_begun = {run_dir: point for run_dir, point in left.items() if not has_begun(Path(run_dir), since)}
            if len(not_begun) == len(left):
                raise
            left = not_begun
        finally:  # its processes would wait 300 s for more, and the program for them
            get_reusable_executor().shutdown(wait=True, kill_workers=True)


@contextmanager
def lost_jobs_left_out() -> Iterator[None]:
    """Let submitit's launcher, which waits for its jobs in turn, wait for all of them, not until the first that is lost."""
    from submitit import Job  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from submitit.core.utils import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        FailedJobError,
        UncompletedJobError,
    )

    results = Job.results

    def results_or_nothing(job: Any) -> list[Any]:
        try:
            return list(results(job))
        except (FailedJobError, UncompletedJobError):  # its folder says how far it came
            return [None]

    setattr(Job, results.__name__, results_or_nothing)
    try:
        yield
    finally:
        setattr(Job, results.__name__, results)


def _is_given(setting: str, overrides: Sequence[str]) -> bool:
    name = setting.partition("=")[0]
    return any(override.lstrip("+").partition("=")[0] == name for override in overrides)
