"""What every program does with its command line, its errors and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from openreml_dist.app import cli
from openreml_dist.config import FitConfig, GrmConfig, PrepareConfig, SimulateConfig
from openreml_dist.errors import ConfigError, InputError, NotPositiveDefiniteError, OpenREMLError, RankLostError

PROGRAMS = {"fit": FitConfig, "grm": GrmConfig, "prepare": PrepareConfig, "simulate": SimulateConfig}
ENDS: list[tuple[BaseException | int, int, str]] = [
    (0, 0, ""),
    (3, 3, ""),
    (OpenREMLError("odd file"), 1, "openreml-fit: error: odd file"),
    (InputError("odd file"), 2, "openreml-fit: error: odd file"),
    (ConfigError("odd key"), 2, "openreml-fit: error: odd key"),
    (NotPositiveDefiniteError("minor 3"), 4, "openreml-fit: error: minor 3"),
    (RankLostError("no answer"), 5, "openreml-fit: error: no answer"),
    (KeyboardInterrupt(), 130, "openreml-fit: interrupted"),
]


def ending(end: BaseException | int) -> Callable[[], int]:
    def run() -> int:
        if isinstance(end, BaseException):
            raise end
        return end

    return run


@dataclass
class Leaving:
    """Stands for ``os._exit``, and for a clock that is not waited for."""

    waited: list[float] = field(default_factory=list)

    def exit(self, code: int) -> None:
        raise SystemExit(code)


@pytest.fixture(autouse=True)
def environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs choose the wait policy in the environment of their process, and end it."""
    monkeypatch.setattr(cli, "choose_wait_policy", lambda: None)
    monkeypatch.setattr(cli, "leave", sys.exit)


@pytest.fixture(params=[None, 0, 1], ids=["alone", "rank 0 of 2", "rank 1 of 2"])
def rank(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """A lone process, or a rank of two under torchrun."""
    for name in list(os.environ):
        if name.startswith(("TORCHELASTIC", "OMPI_", "PMI_", "SLURM_")):
            monkeypatch.delenv(name)
    if request.param is not None:
        launched = {"TORCHELASTIC_RUN_ID": "x", "RANK": str(request.param), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        for name, value in launched.items():
            monkeypatch.setenv(name, value)
    return request.param


@pytest.mark.parametrize(("end", "exit_code", "message"), ENDS, ids=lambda value: type(value).__name__)
def test_ends(
    rank: int | None,
    end: BaseException | int,
    exit_code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exit code is that of the class; one message, by rank 0 where all have the error, and then the others leave."""
    leaving = Leaving()
    monkeypatch.setattr(cli.os, "_exit", leaving.exit)
    monkeypatch.setattr(cli.time, "sleep", leaving.waited.append)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as exit_:
        cli.exit_with("fit", ending(end))
    assert exit_.value.code == exit_code
    lost = isinstance(end, RankLostError)
    if rank is not None and lost:
        message = message.replace("error:", f"error: rank {rank}:")
    assert capsys.readouterr().err.strip() == (message if rank != 1 or lost else "")
    waits = rank == 1 and (end == 3 or isinstance(end, OpenREMLError)) and not lost
    before = [cli.SECONDS_FOR_RANK_0] if waits else []
    patience = cli.SECONDS_FOR_THE_LAUNCHER + (cli.SECONDS_FOR_THE_CAUSE if lost else 0)
    after = [] if rank is None or isinstance(end, int) else [patience]
    assert leaving.waited == before + after


def test_mistake_of_the_program_is_shown_with_its_place(rank: int | None, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.os, "_exit", Leaving().exit)
    with pytest.raises(SystemExit) as exit_:
        cli.exit_with("grm", ending(ZeroDivisionError("odd")))
    assert exit_.value.code == 1
    errors = capsys.readouterr().err
    assert f"openreml-grm: rank {rank or 0}: unexpected error" in errors
    assert "ZeroDivisionError: odd" in errors


def test_defaults_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the schema and the files of ``conf/`` give together, and what the command line changes."""
    seen: list[FitConfig] = []
    monkeypatch.setattr(sys, "argv", ["x", "data.grm=[a,b]", "data.pheno=y", "solver.max_iter=7", "solver.start=[1,2.5,3]"])
    assert cli.compose("fit", FitConfig, lambda settings: seen.append(settings) or 3) == 3
    assert isinstance(seen[0], FitConfig)
    assert (seen[0].data.grm, seen[0].solver.max_iter, seen[0].solver.start) == (["a", "b"], 7, [1, 2.5, 3])
    assert (seen[0].model.name, seen[0].run_dir, seen[0].overwrite) == ("greml", None, False)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("no_such_key=1", ("no_such_key", "--help")),
        ("overwrite=perhaps", ("overwrite", "perhaps", "bool")),
        ("nonsense", ("nonsense",)),
    ],
)
def test_configuration_errors(program: str, override: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *([override] if override else [])])
    with pytest.raises(ConfigError) as raised:
        cli.compose(program, PROGRAMS[program], lambda _: pytest.fail("it ran"))
    assert [word for word in words if word not in str(raised.value).lower()] == [], str(raised.value)


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "fit"])  # what that needs depends on its model
def test_values_that_must_be_given(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(ConfigError, match=r"(?i)mandatory"):
        cli.compose(program, PROGRAMS[program], lambda _: pytest.fail("it ran"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_schema_and_files_agree(program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``--cfg job`` shows every key of the schema, and runs nothing."""
    monkeypatch.setattr(sys, "argv", ["x", "--cfg", "job"])
    assert cli.compose(program, PROGRAMS[program], lambda _: pytest.fail("it ran")) == 0
    shown = capsys.readouterr().out
    assert [name for name in PROGRAMS[program].__dataclass_fields__ if f"{name}:" not in shown] == []


def test_worst_of_many_runs_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "-m", "data.grm=g", "data.pheno=y", "data.pheno_column=1,2,3"])
    codes = {1: 0, 2: 3, 3: 0}
    assert cli.compose("fit", FitConfig, lambda settings: codes[settings.data.pheno_column]) == 3
