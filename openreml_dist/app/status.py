"""``openreml-status``: how runs stand, read from their folders; and a word to those that are to stop.

It reads files alone and loads no library that computes, so that it answers at once, on a login node too.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openreml_dist.app.cli import exit_with
from openreml_dist.app.report.run_directory import STOP, STOP_AFTER_ITERATION, STOP_NOW, write_text
from openreml_dist.app.report.run_state import RunState, Standing, find_runs, read_run, sweep_record
from openreml_dist.app.report.status_table import status_lines
from openreml_dist.errors import ConfigError, InputError

USAGE = f"""openreml-status RUN_DIR... [watch=true] [stop={STOP_NOW}|{STOP_AFTER_ITERATION}] [table=true]

RUN_DIR      a run directory of openreml-fit, a folder that holds some, or that of a sweep
watch=true   show the table again and again, until all runs have ended; Ctrl-C ends it
every=2      ... so many seconds apart
stop=...     ask running fits to stop: {STOP_NOW} (what they have is kept), or {STOP_AFTER_ITERATION}
table=true   write sweep.tsv (and sweep.parquet) of a sweep again, from what its points have by now

Exit code: 0 all finished with an answer, 1 some are running or waiting, 3 one has no answer (not converged, not
identified, interrupted), 4 one failed, 5 one is dead: the worst of them; 2 for bad arguments. With stop= or table=: 0, or 2."""
CLEAR = "\x1b[H\x1b[2J"
_SETTING = re.compile(r"[a-z_]+=[^/]*")


@dataclass(frozen=True)
class Request:
    """What is asked of the program."""

    paths: list[Path]
    watch: bool = False
    every: float = 2.0
    stop: str | None = None
    table: bool = False


def main() -> None:
    """Entry point."""
    exit_with("status", lambda: status(sys.argv[1:]))


def status(arguments: Sequence[str]) -> int:
    """Do what the command line asks.

    Returns:
        The exit code.
    Raises:
        InputError: for what is no run directory.
        ConfigError: for arguments that cannot be understood.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else ConfigError.exit_code
    request = parse(arguments)
    if request.stop is not None:
        return ask_to_stop(_read(request.paths), request.stop)
    if request.table:
        return write_tables_again(request.paths)
    if request.watch:
        return watch(request.paths, request.every)
    runs = _read(request.paths)
    print(*status_lines(runs), sep="\n")
    return _exit_code(runs)


def parse(arguments: Sequence[str]) -> Request:
    """Folders and settings of the command line; a folder may be called like a setting, as the points of a sweep are.

    Raises:
        ConfigError: for a setting that there is not, or a value that it cannot have.
    """
    paths, settings = [], {}
    for argument in arguments:
        name, is_setting, value = argument.partition("=")
        if is_setting and name in _VALUES and not Path(argument).exists():
            settings[name] = _VALUES[name](name, value)
        elif _SETTING.fullmatch(argument) and not Path(argument).exists():
            raise ConfigError(f"{argument} is neither a folder nor a setting ({', '.join(_VALUES)})")
        else:
            paths.append(Path(argument))
    if not paths:
        raise ConfigError("no run directory is given; see openreml-status --help")
    request = Request(paths, **settings)  # type: ignore[arg-type]
    if sum((request.stop is not None, request.watch, request.table)) > 1:
        raise ConfigError("stop, watch and table are three things: ask for one at a time")
    return request


def watch(paths: Sequence[Path], every: float) -> int:
    """Show the table until all runs have ended, in one place of a terminal, else one below the other. Local."""
    on_screen = sys.stdout.isatty()
    while True:
        runs = _read(paths)
        size = shutil.get_terminal_size()
        lines = status_lines(runs, size.columns if on_screen else None)
        if on_screen and len(lines) >= size.lines:
            lines = [*lines[: size.lines - 3], "...", lines[-1]]
        print(CLEAR if on_screen else "", "\n".join(lines), sep="" if on_screen else "\n", flush=True)
        if all(run.standing.is_over for run in runs):
            return _exit_code(runs)
        time.sleep(every)


def ask_to_stop(runs: Sequence[RunState], word: str) -> int:
    """Leave the word in the folders of the fits that run, where rank 0 looks for it between two steps. Local.

    Raises:
        InputError: if none of them runs.
        FileError: for a folder in which one may not write.
    """
    running = [run for run in runs if run.standing in (Standing.RUNNING, Standing.SILENT, Standing.UNKNOWN)]
    for run in runs:
        if run in running:
            write_text(run.directory / STOP, f"{word}\n")
            print(f"{run.directory}: asked to stop {word.replace('-', ' ')}")
        else:
            print(f"{run.directory}: is {run.standing}, nothing to stop")
    if not running:
        raise InputError("none of these runs is running")
    return 0


def write_tables_again(paths: Sequence[Path]) -> int:
    """The table of each sweep, from what its points have by now. Local.

    Raises:
        InputError: for a folder that is not that of a sweep.
    """
    from openreml_dist.app.sweep.table import write_sweep_table

    for path in paths:
        if not sweep_record(path):
            raise InputError(f"{path} is not the folder of a sweep: it has no sweep.json")
        print(*write_sweep_table(path), sep="\n")
    return 0


def _read(paths: Sequence[Path]) -> list[RunState]:
    return [read_run(directory) for path in paths for directory in find_runs(path)]


def _exit_code(runs: Sequence[RunState]) -> int:
    return max(run.standing.exit_code for run in runs)


def _yes_or_no(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ConfigError(f"{name}: {value!r} is neither true nor false")
    return value == "true"


def _word(name: str, value: str) -> str:
    if value not in (STOP_NOW, STOP_AFTER_ITERATION):
        raise ConfigError(f"{name}: {value!r} is neither {STOP_NOW} nor {STOP_AFTER_ITERATION}")
    return value


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ConfigError(f"{name}: {value!r} is not a number of seconds above 0")
    return seconds


_VALUES: dict[str, Callable[[str, str], bool | float | str]] = {
    "watch": _yes_or_no,
    "every": _seconds,
    "stop": _word,
    "table": _yes_or_no,
}


if __name__ == "__main__":
    main()
