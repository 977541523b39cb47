"""The heartbeat: what is written, when, and that nothing that happens to it happens to the fit."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from openreml_dist.app.report.heartbeat import News, State, beating
from openreml_dist.app.report.run_directory import HEARTBEAT
from openreml_dist.app.report.terminal import Terminal
from openreml_dist.log import logging_to

EVERY = 0.02


def record(directory: Path) -> dict[str, Any]:
    return json.loads((directory / HEARTBEAT).read_text())


def wait_for(directory: Path, **wanted: Any) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if (directory / HEARTBEAT).exists() and wanted.items() <= (found := record(directory)).items():
            return found
        time.sleep(0.005)
    raise TimeoutError(f"the heartbeat never said {wanted}")


def test_it_follows_the_news_and_says_how_it_ended(tmp_path: Path) -> None:
    news = News()
    with beating(tmp_path, news, EVERY, "torchrun", 4):
        begun = wait_for(tmp_path, state="starting", iteration=None)
        assert (begun["ranks"], begun["launcher"], begun["every"]) == (4, "torchrun", EVERY)
        news.enter(State.ITERATING)
        note = news.begin("factorisation")
        note(0.5)
        news.iterated(3, -12.5)
        news.hear("   3  -12.5 ")
        news.hear("")
        found = wait_for(tmp_path, state="iterating", phase="factorisation", done=0.5, iteration=3, loglik=-12.5)
        assert found["said"] == "3  -12.5"
        assert found["seconds_left"] >= 0
        note(1.0)
        assert wait_for(tmp_path, phase=None)["seconds_left"] is None
    assert record(tmp_path)["state"] == "finished"
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
    assert [path.name for path in tmp_path.iterdir()] == [HEARTBEAT]


def test_a_failure_is_its_last_word(tmp_path: Path) -> None:
    with pytest.raises(KeyError), beating(tmp_path, News(), 60.0, "single", 1):
        raise KeyError("odd column")
    assert record(tmp_path)["state"] == "failed"
    assert "odd column" in record(tmp_path)["said"]


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    with beating(tmp_path, News(), 0.0, "single", 1):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_ends_the_heartbeat_alone_and_is_logged_once(tmp_path: Path) -> None:
    gone, log = tmp_path / "gone", tmp_path / "log"
    with logging_to(log, 0), beating(gone, News(), EVERY, "single", 1):
        time.sleep(5 * EVERY)
        gone.mkdir()
        time.sleep(5 * EVERY)
    [line] = (log / "rank-0.log").read_text().splitlines()
    assert f"WARNING {gone / HEARTBEAT} cannot be written, and says no more" in line
    assert list(gone.iterdir()) == []


def test_the_terminal_tells_what_it_shows_and_what_no_screen_shows() -> None:
    terminal = Terminal(0)
    report = terminal.phase("reading")
    report(0.25)
    assert (terminal.news.phase, terminal.news.done) == ("reading", 0.25)
    terminal.say("one", "two")
    assert terminal.news.said == "two"
    other = Terminal(1)
    other.phase("reading")(0.25)
    assert other.news.phase is None, "ranks without a heartbeat do not keep the time of every step"


def test_a_listener_hears_of_every_iterate() -> None:
    news, heard = News(), list[int]()
    news.listeners.append(heard.append)
    for number in range(3):
        news.iterated(number, 0.0)
    assert heard == [0, 1, 2]


def test_no_number_that_json_has_not() -> None:
    news = News()
    news.iterated(0, float("nan"))
    assert news.record()["loglik"] is None
