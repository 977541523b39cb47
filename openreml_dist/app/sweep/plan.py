"""What is to be done with each point of a sweep: decided once, by rank 0, before the first one runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from openreml_dist.app.report.run_directory import ANSWERS, FINISHED
from openreml_dist.app.report.run_state import Standing, read_run
from openreml_dist.app.sweep.points import Point
from openreml_dist.config import FitConfig
from openreml_dist.errors import ConfigError, InputError

NO_PART_OF_THE_ANSWER = ("run_dir", "overwrite", "resume", "launcher", "grid")  # settings: where and on what a fit is computed


class Action(StrEnum):
    """What is done with a point."""

    RUN = "run"
    SKIP = "skip"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Planned:
    """A point and what is done with it.

    Attributes:
        point: of the sweep.
        run_dir: of its fit; empty where its settings cannot be read.
        action: what is done.
        why: it is not run.
        more: settings that are added to those of the point.
    """

    point: Point
    run_dir: str
    action: Action
    why: str = ""
    more: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        """All settings of the fit."""
        return [*self.point.overrides, *self.more]


def plan_sweep(points: Sequence[Point], folder: Path, compose: Callable[[Sequence[str]], FitConfig]) -> list[Planned]:
    """Settings, folder and action of every point. Local: rank 0.

    Args:
        points: of the sweep.
        folder: of the sweep, in which points have folders of their own, unless ``run_dir`` names others.
        compose: makes settings of overrides; raises ConfigError.
    Raises:
        ConfigError: if two points would write to the same folder.
    """
    planned = [_plan(point, folder, compose) for point in points]
    folders = Counter(plan.run_dir for plan in planned if plan.run_dir)
    shared = [name for name, count in folders.items() if count > 1]
    if shared:
        raise ConfigError(
            f"run_dir: {shared[0]} would be that of {folders[shared[0]]} points; leave run_dir out, and each has a folder of "
            "its own, or name what differs, as in 'run_dir=runs/${data.pheno_column}'"
        )
    return planned


def differences(settings: FitConfig, result: dict[str, Any]) -> list[str]:
    """Names of the settings that a result was not made with, among those that an answer depends on. Local."""
    there = result.get("settings")
    if not isinstance(there, dict):
        return ["settings"]
    wanted, had = _flat(json.loads(json.dumps(asdict(settings)))), _flat(asdict(FitConfig())) | _flat(there)
    names = sorted({*wanted, *had})
    return [name for name in names if wanted.get(name) != had.get(name) and name.partition(".")[0] not in NO_PART_OF_THE_ANSWER]


def changed_inputs(settings: FitConfig, result: dict[str, Any]) -> list[str]:
    """Paths of tables and GRMs that are not what a result was made from; none where they are gone. Local."""
    from openreml_dist.app.report.provenance import input_digests

    had = result.get("inputs", {})
    try:
        digests = input_digests(settings)
    except (OSError, InputError):
        return []
    return [path for path, digest in digests.items() if path in had and had[path] != digest]


def _plan(point: Point, folder: Path, compose: Callable[[Sequence[str]], FitConfig]) -> Planned:
    try:
        settings = compose(point.overrides)
    except ConfigError as error:
        return Planned(point, "", Action.REFUSE, str(error))
    run_dir = settings.run_dir or str(folder / point.name)
    more = () if settings.run_dir else (f"run_dir={quoted(run_dir)}",)
    plan = Planned(point, run_dir, Action.RUN, more=more)
    state = read_run(Path(run_dir))
    if state.standing in (Standing.RUNNING, Standing.SILENT):
        beat = state.heartbeat
        return replace(plan, action=Action.SKIP, why=f"is running already, as process {beat.get('pid')} on {beat.get('host')}")
    if settings.overwrite or not state.result:
        return plan
    return _after(plan, settings, state.result)


def _after(plan: Planned, settings: FitConfig, result: dict[str, Any]) -> Planned:
    """What is done with a point whose folder holds the result of an earlier fit."""
    run_dir, status = plan.run_dir, result.get("status")
    if status not in ANSWERS:
        return replace(plan, more=(*plan.more, "overwrite=true")) if status in FINISHED else plan
    if others := differences(settings, result):
        why = f"{run_dir} holds the result of other settings ({', '.join(others)}); overwrite=true replaces it"
        return replace(plan, action=Action.REFUSE, why=why)
    if changed := changed_inputs(settings, result):
        why = f"{run_dir} holds the result of other data ({', '.join(changed)} has changed); overwrite=true replaces it"
        return replace(plan, action=Action.REFUSE, why=why)
    return replace(plan, action=Action.SKIP, why=f"finished before: {status}")


def quoted(value: str) -> str:
    """As Hydra reads it on the command line, whatever is in it."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return "'" + escaped.replace("${", "\\${") + "'"


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Values by dotted names; empty mappings are nothing."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found
