"""``openreml-fit -m``: plan the points, run what is not finished, and make one table of all; Hydra's launchers run them."""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openreml_dist.app import launch
from openreml_dist.app.cli import config_directory, configuration_named
from openreml_dist.app.report.heartbeat import stamp
from openreml_dist.app.report.run_directory import FINISHED, leave_failure, write_json
from openreml_dist.app.report.run_state import SWEEP, Standing, read_run
from openreml_dist.app.startup import uncollected
from openreml_dist.app.sweep.plan import Action, Planned, plan_sweep, quoted
from openreml_dist.app.sweep.point import settings_of
from openreml_dist.app.sweep.points import points_of
from openreml_dist.app.sweep.table import Row, sweep_rows, write_sweep_table
from openreml_dist.config import FitConfig
from openreml_dist.errors import ConfigError, RankLostError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

    from openreml_dist.grid import ProcessGrid

FOLDER, NAME = "runs", "sweep"  # of a sweep without an experiment
UNFINISHED = 1  # exit code of a sweep of which a point has not ended


def sweep(arguments: Sequence[str]) -> int:
    """Fit every point. Collective: with ranks of a launcher, all of them run the points one after the other.

    Returns:
        The worst exit code of all points.
    Raises:
        ConfigError: for what no point could be made of, ranks that a launcher of Hydra cannot use.
        RankLostError: if the ranks that are left cannot run the other points.
    """
    with uncollected():
        from openreml_dist.app.sweep.launchers import BASIC, adapted, kind_of, launch_all, task_of
    with configuration_named("fit"), _hydra(arguments) as (hydra, config):
        kind, placement = kind_of(config), launch.find_placement("auto")
        if placement.size > 1 and kind != BASIC:
            raise ConfigError(
                f"hydra/launcher={kind} under {placement.launcher} with {placement.size} ranks: it starts ranks of its own; "
                "start the sweep as one process, or leave hydra/launcher out: the ranks then run the points in turn"
            )
        folder = Path(config.hydra.sweep.dir)
        ranks = _ranks(placement, config)
        planned = _agreed(ranks, lambda: _planned(hydra, config, folder))
        wanted = [plan for plan in planned if plan.action is Action.RUN]
        overrides = adapted(kind, config, wanted)
        launcher = _launcher(hydra, config, task_of(kind))
        is_root = placement.rank == 0
        if is_root:
            _announce(planned, folder)
        try:
            if kind == BASIC:
                for number, plan in enumerate(wanted, 1):
                    if is_root:
                        print(f"\nsweep: point {number} of {len(wanted)}: {plan.point.name}", flush=True)
                    launch_all(kind, launcher, {plan.run_dir: overrides[plan.run_dir]})
            elif wanted:
                launch_all(kind, launcher, overrides)
        finally:
            code = _conclude(wanted, folder) if is_root else 0
    return code if ranks is None else ranks.broadcast_object(code)


@contextmanager
def _hydra(arguments: Sequence[str]) -> Iterator[tuple[Hydra, DictConfig]]:
    """Hydra as its own main function sets it up, and the configuration of the sweep as a whole. Local."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path, get_args_parser
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    os.environ["HYDRA_FULL_ERROR"] = "1"
    ConfigStore.instance().store(name="fit_schema", node=FitConfig)
    version.setbase("1.3")
    chosen = get_args_parser().parse_args(list(arguments))
    search_path = create_config_search_path(chosen.config_path or str(config_directory()))
    if chosen.config_dir is not None:
        from hydra.core.config_search_path import SearchPathQuery

        if not Path(chosen.config_dir).is_dir():
            raise ConfigError(f"--config-dir: {chosen.config_dir} is no folder")
        path = f"file://{Path(chosen.config_dir).absolute()}"
        search_path.prepend(provider="command-line", path=path, anchor=SearchPathQuery(provider="schema"))
    given = {override.key_or_group: override for override in OverridesParser.create().parse_overrides(chosen.overrides)}
    if "hydra.sweep.dir" not in given:
        experiment = given.get("experiment")
        name = NAME if experiment is None or experiment.is_sweep_override() else str(experiment.value())
        chosen.overrides.append(f"hydra.sweep.dir={quoted(f'{FOLDER}/{name}')}")
    if GlobalHydra.instance().is_initialized():
        GlobalHydra.instance().clear()
    try:
        hydra = Hydra.create_main_hydra2("fit", search_path)
        name = chosen.config_name or "fit"
        yield hydra, hydra.compose_config(name, [*chosen.overrides, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    finally:
        GlobalHydra.instance().clear()


def _planned(hydra: Hydra, config: DictConfig, folder: Path) -> list[Planned]:
    """Points of the command line and of an experiment's ``hydra.sweeper.params``, which the command line replaces. Local."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    sweeper = config.hydra.sweeper
    if "basic_sweeper" not in str(sweeper.get("_target_", "")):
        raise ConfigError(f"hydra/sweeper: {sweeper.get('_target_')} is not basic, the one that this program knows")
    params = _as_written(sweeper.params or {})
    given = _as_written(config.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=hydra.config_loader)

    def compose(overrides: Sequence[str]) -> FitConfig:
        with configuration_named("fit"):
            return settings_of(_without_hydra(hydra.config_loader.load_sweep_config(config, list(overrides))))

    points = points_of(parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *given]))
    return plan_sweep(points, folder, compose)


def _as_written(values: Any) -> Any:
    """Plain lists and mappings, in which ${...} is kept for each point."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(values, resolve=False) if OmegaConf.is_config(values) else values


def _ranks(placement: launch.Placement, config: DictConfig) -> ProcessGrid | None:
    """The ranks that run the points in turn; None where this process is alone. Collective."""
    if placement.size == 1:
        return None
    shared = settings_of(_without_hydra(config))
    return launch.connect(placement, shared.launcher, shared.grid)


def _agreed(ranks: ProcessGrid | None, plan: Callable[[], list[Planned]]) -> list[Planned]:
    """The plan of rank 0, which looks into the folders before any point changes them, on every rank. Collective."""
    if ranks is None:
        return plan()
    with ranks.together("planning the sweep"):
        planned = plan() if ranks.is_root else None
    agreed = ranks.broadcast_object(planned)
    assert agreed is not None
    return agreed


def _without_hydra(config: DictConfig) -> DictConfig:
    from omegaconf import open_dict

    task = copy.deepcopy(config)
    with open_dict(task):
        del task["hydra"]
    return task


def _launcher(hydra: Hydra, config: DictConfig, task: Callable[[DictConfig], int]) -> Any:
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
    return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)


def _announce(planned: Sequence[Planned], folder: Path) -> None:
    """Leave ``sweep.json``, and say what is done with each point that is not run. Local: rank 0."""
    points = []
    for plan in planned:
        run_dir = Path(plan.run_dir or folder / plan.point.name)
        is_refused = plan.action is Action.REFUSE
        if is_refused and read_run(run_dir).result.get("status") not in FINISHED:
            leave_failure(run_dir, ConfigError.exit_code, plan.why)
        within = run_dir.relative_to(folder) if run_dir.is_relative_to(folder) else run_dir.absolute()
        points.append({"values": plan.point.values, "run_dir": str(within), "refused": plan.why if is_refused else None})
    write_json(folder / SWEEP, {"begun": stamp(time.time()), "command": sys.argv, "points": points})
    counts = {action: sum(plan.action is action for plan in planned) for action in Action}
    print(
        f"sweep of {len(planned)} points in {folder}: {counts[Action.RUN]} to run, {counts[Action.SKIP]} skipped, "
        f"{counts[Action.REFUSE]} refused"
    )
    for plan in planned:
        if plan.action is Action.SKIP:
            print(f"skipped {plan.point.name}: {plan.why}")
    sys.stdout.flush()


def _conclude(ran: Sequence[Planned], folder: Path) -> int:
    """The table, a line for each failure, and the exit code: the worst. Local: rank 0."""
    for plan in ran:
        if read_run(Path(plan.run_dir)).standing is Standing.WAITING:
            message = "the fit was not begun: see what the launcher said, for SLURM in .submitit beside it"
            leave_failure(Path(plan.run_dir), RankLostError.exit_code, message)
    print("", *write_sweep_table(folder), sep="\n", flush=True)
    rows = sweep_rows(folder)
    for row in rows:
        if row["exit_code"] != 0:
            print(f"openreml-fit: {_failure(row)}", file=sys.stderr, flush=True)
    return max((_exit_code(row) for row in rows), default=0)


def _exit_code(row: Row) -> int:
    return UNFINISHED if row["exit_code"] is None else int(row["exit_code"])


def _failure(row: Row) -> str:
    message = " ".join((row.get("message") or "").split())
    return f"{row['run_dir']}: {row['status']} (exit code {row['exit_code']}){': ' if message else ''}{message}"
