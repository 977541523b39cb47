"""The table of ``openreml-status``: a line a run, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from openreml_dist.app.report.run_state import RunState, Standing

HEAD = ("run", "state", "iter", "logL", "seen", "where", "doing")
RIGHT = ("iter", "logL", "seen")
GAP = "  "


def status_lines(runs: Sequence[RunState], width: int | None = None) -> list[str]:
    """The table, its head first, cut to ``width`` places if that is given; and how many runs stand how."""
    rows = [HEAD, *map(_row, runs)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEAD))]
    lines = [
        GAP.join(f"{text:{'>' if name in RIGHT else '<'}{size}}" for text, name, size in zip(row, HEAD, widths, strict=True))
        for row in rows
    ]
    counts = {standing: sum(run.standing is standing for run in runs) for standing in Standing}
    lines.append(", ".join(f"{count} {standing}" for standing, count in counts.items() if count))
    return [line.rstrip()[:width] for line in lines]


def duration(seconds: float) -> str:
    """In the two largest units: 42 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    whole = round(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for (name, size), (lower, below) in pairwise(units):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name} {rest} {lower}" if rest else f"{whole // size} {name}"
    return f"{whole} s"


def _row(run: RunState) -> tuple[str, ...]:
    beat, result = run.heartbeat, run.result
    iteration = result.get("num_iterations", beat.get("iteration"))
    loglik = result.get("loglik", beat.get("loglik"))
    is_awaited = run.standing is Standing.DEAD or not run.standing.is_over
    seen = "" if run.age is None or not is_awaited else f"{duration(run.age)} ago"
    return (
        _name(run.directory),
        str(run.standing),
        "" if iteration is None else str(iteration),
        "" if loglik is None else f"{loglik:.4f}",
        seen,
        _where(run),
        _doing(run),
    )


def _name(directory: Path) -> str:
    """Relative to where one is, if it is within."""
    try:
        return str(directory.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(directory)


def _doing(run: RunState) -> str:
    """What a run does, or how it ended."""
    beat, result = run.heartbeat, run.result
    if result:
        status = str(result.get("status"))
        message = " ".join(str(result.get("message", "")).split())
        return status if run.standing is Standing.FINISHED else f"{status} (exit code {result.get('exit_code')}): {message}"
    if not beat:
        return "" if run.standing is Standing.WAITING else "no heartbeat is kept"
    words = str(beat.get("state"))
    if beat.get("phase"):
        words += f", {beat['phase']} {100 * float(beat.get('done') or 0.0):.0f} %"
    if beat.get("seconds_left") is not None and run.standing is Standing.RUNNING:
        words += f", {duration(float(beat['seconds_left']))} left"
    if run.standing.is_over and beat.get("said"):
        words += f": {beat['said']}"
    return words


def _where(run: RunState) -> str:
    beat = run.heartbeat
    if not beat or run.standing is Standing.FINISHED:
        return ""
    ranks = int(beat.get("ranks", 1))
    words = [f"{beat.get('host')}:{beat.get('pid')}", f"{ranks} {'rank' if ranks == 1 else 'ranks'}"]
    if beat.get("slurm_job_id"):
        words.append(f"job {beat['slurm_job_id']}")
    return ", ".join(words)
