"""What is said of files that cannot be read or written, whoever finds out."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from openreml_dist.errors import ConfigError, FileError, files_named
from openreml_dist.store.files import check_can_be_made, written_aside


@pytest.mark.parametrize(
    ("code", "advice"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "where you may write"), (errno.EIO, "")]
)
def test_words_of_the_system_become_one_line(code: int, advice: str) -> None:
    said = os.strerror(code)
    for error, path in ((OSError(code, said, "a/b"), None), (OSError(code, said), "a/b"), (OSError(code, said, "a/b"), "c")):
        with pytest.raises(FileError) as raised, files_named(path):
            raise error
        assert str(raised.value).startswith(f"a/b: {said}") and advice in str(raised.value)
        assert raised.value.exit_code == 2
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "closed"), ConnectionResetError(), ValueError("odd")])
def test_other_errors_are_not_of_files(error: Exception) -> None:
    with pytest.raises(type(error)), files_named("a/b"):
        raise error


def test_file_that_could_not_be_finished_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(FileError, match=r"x: .*; free some space"), written_aside(tmp_path / "x") as aside:
        aside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "old")]


def test_place_that_cannot_be_made_is_known_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    check_can_be_made(str(tmp_path / "new/folder/x.grm.zarr"), "out")
    check_can_be_made("s3://bucket/x.grm.zarr", "out")
    for place in ("file/x.grm.zarr", "file/a/b/x.grm.zarr"):
        with pytest.raises(ConfigError, match=r"out: .*cannot be made: .*file is not a folder"):
            check_can_be_made(str(tmp_path / place), "out")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # as for a user without permission there
    with pytest.raises(ConfigError, match=r"out: .*cannot be made: .* in which you may not write"):
        check_can_be_made(str(tmp_path / "new/x.grm.zarr"), "out")
