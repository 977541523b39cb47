"""Cores that other programs hold: told from our own, and said where they matter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from openreml_dist.plan import load

SPIN = "import os\nwhile sum(os.times()[:2]) < 0.6: pass"


def test_busy_time_is_that_of_our_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six of the kinds of time count, of the cores that this process may use."""
    stat = tmp_path / "stat"
    stat.write_text("cpu 999 9 9 9 9 9 9 9 9 9\ncpu0 100 20 30 5000 600 7 8 9 50 3\ncpu1 1 1 1 1 1 1 1 1 1 1\nintr 5\n")
    ticks = load.os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(load, "usable_cores", lambda: frozenset({0}))
    assert load.busy_seconds(stat) == pytest.approx((100 + 20 + 30 + 7 + 8 + 9) / ticks)
    monkeypatch.setattr(load, "usable_cores", lambda: frozenset({0, 1}))
    assert load.busy_seconds(stat) == pytest.approx((174 + 6) / ticks)
    stat.write_text("cpu0 0 0 0 0 0 0 0 0 0 0\n")
    assert load.busy_seconds(stat) is None, "a sandbox that shows zeros tells nothing"
    assert load.busy_seconds(tmp_path / "absent") is None


def test_own_children_are_no_others() -> None:
    """What a child of ours has computed is taken off once it was waited for; a process of somebody else stays in."""
    own = load.own_seconds()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert load.own_seconds() - own > 0.55


def test_watch_takes_off_what_is_ours() -> None:
    with (
        mock.patch.object(load, "busy_seconds", side_effect=[100.0, 107.0]),
        mock.patch.object(load, "own_seconds", side_effect=[10.0, 12.0]),
        mock.patch.object(load.time, "perf_counter", side_effect=[0.0, 4.0]),
    ):
        assert load.OtherLoad().cores() == pytest.approx((7 - 2) / 4)


def test_remark() -> None:
    assert load.remark(None) is None
    assert load.remark(load.NOTICED / 2) is None
    assert load.remark(1.26) == f"other programs held 1.3 of the {len(load.usable_cores())} cores"
