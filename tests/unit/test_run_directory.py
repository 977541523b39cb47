"""The folder of a run: new where none is named, refused where it holds a finished result, and its files whole or absent."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from openreml_dist.app.report.run_directory import (
    FINISHED,
    RESULT,
    append_json_line,
    prepare_run_directory,
    write_json,
    write_text,
)
from openreml_dist.errors import ConfigError
from openreml_dist.reml.outcome import Status


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "2030-01-02_03-04-05")
    folders = [prepare_run_directory(None, overwrite=False) for _ in range(3)]
    assert [str(folder) for folder in folders] == [f"runs/2030-01-02_03-04-05{end}" for end in ("", "_2", "_3")]
    assert all(folder.is_dir() for folder in folders)
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


@pytest.mark.parametrize("status", [*FINISHED, "failed"])
def test_finished_result_is_kept_and_a_failed_one_replaced(tmp_path: Path, status: str) -> None:
    write_json(tmp_path / RESULT, {"status": status})
    (tmp_path / "steps.jsonl").write_text("{}\n")
    if status != "failed":
        with pytest.raises(ConfigError, match="overwrite=true"):
            prepare_run_directory(str(tmp_path), overwrite=False)
        assert (tmp_path / RESULT).exists()
        assert (tmp_path / "steps.jsonl").exists()
    assert prepare_run_directory(str(tmp_path), overwrite=status != "failed") == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_every_status_but_failure_is_finished() -> None:
    assert {str(status) for status in Status} - set(FINISHED) == {"failed"}


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"status": 1}', "null"])
def test_result_that_cannot_be_read_is_no_result(tmp_path: Path, content: str) -> None:
    (tmp_path / RESULT).write_text(content)
    assert prepare_run_directory(str(tmp_path), overwrite=False) == tmp_path


def test_other_files_of_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    prepare_run_directory(str(tmp_path), overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(ConfigError, match=rf"run_dir: .*{name} cannot be made"):
            prepare_run_directory(str(tmp_path / name), overwrite=True)


def test_nothing_of_an_earlier_run_stays(tmp_path: Path) -> None:
    """What any run writes, by any number of ranks, whole or killed while it was written; nothing that only looks like it."""
    earlier = [RESULT, "result.hsq", "convergence.png", "steps.jsonl", "config.yaml", "rank-0.log", "rank-13.log"]
    earlier += ["result.indi.blp", "result.snp.blp", "blup.tsv", "blup.parquet", "blup.tsv.0a1b.partial"]
    others = ["rank-list.log", "my.hsq", "result.hsq.old", "steps.txt"]
    for name in [*earlier, *others]:
        (tmp_path / name).write_text("{}")
    prepare_run_directory(str(tmp_path), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_json_has_null_for_what_is_not_a_number(tmp_path: Path) -> None:
    content = {"a": math.nan, "b": [1.0, (math.nan, "σ²")], "c": {"d": math.nan}, "e": None}
    expected = {"a": None, "b": [1.0, [None, "σ²"]], "c": {"d": None}, "e": None}
    write_json(tmp_path / "x.json", content)
    append_json_line(tmp_path / "x.jsonl", content)
    append_json_line(tmp_path / "x.jsonl", {"second": math.inf})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=pytest.fail) == expected
    first, second = (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(first, parse_constant=pytest.fail) == expected
    assert json.loads(second, parse_constant=pytest.fail) == {"second": None}


def test_text_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "x", "new \udc80")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"
