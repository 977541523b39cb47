"""The trace of one iteration, and that it costs the fit nothing when it cannot be written."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from openreml_dist.app.report.heartbeat import News
from openreml_dist.app.report.profiler import traced
from openreml_dist.log import LOGGER


def iterate(news: News, count: int) -> None:
    """Iteration k multiplies by a matrix of k + 1 rows."""
    for number in range(count):
        torch.ones(number + 1, 7) @ torch.ones(7, 7)
        news.iterated(number, 0.0)


def test_the_trace_is_of_the_iteration_that_was_asked_for(tmp_path: Path) -> None:
    news = News()
    with traced(2, news, tmp_path):
        iterate(news, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    shapes = [event["args"]["Input Dims"][0] for event in events if event.get("name") == "aten::mm"]
    assert shapes == [[3, 7]]
    assert news.listeners == []


@pytest.mark.parametrize(("wanted", "files"), [(None, 0), (9, 0), (4, 0)])
def test_without_such_an_iteration_there_is_no_trace(tmp_path: Path, wanted: int | None, files: int) -> None:
    news = News()
    with traced(wanted, news, tmp_path):
        iterate(news, 4)
    assert len(list(tmp_path.iterdir())) == files


def test_a_trace_that_cannot_be_written_ends_no_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    (tmp_path / "file").write_text("")
    news = News()
    with caplog.at_level(logging.WARNING, LOGGER.name), traced(1, news, tmp_path / "file"):
        iterate(news, 3)
    assert news.iteration == 2
    assert "launcher.profile" in caplog.messages[0]
