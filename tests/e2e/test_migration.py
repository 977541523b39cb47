"""The example of the migration page, as its commands say."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.programs import SECONDS, TORCHRUN, environment

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "john_alpha.py"


@pytest.mark.skipif(importlib.util.find_spec("torch_openreml") is None, reason="torch-openreml is not installed")
@pytest.mark.parametrize(("start", "ranks"), [([sys.executable], 1), ([*TORCHRUN, "--nproc-per-node=2"], 2)])
def test_the_documented_example_prints_what_the_page_says(start: list[str], ranks: int) -> None:
    page = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    more = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*start, EXAMPLE], capture_output=True, text=True, timeout=SECONDS, env=environment(**more))
    assert done.returncode == 0, done.stderr
    numbers = ("[-0.9728, -1.3281, -1.2529]", "[0.1429, 0.0702, 0.0816]", "[ 4.5182,  0.2978, -0.4140]")
    for printed in numbers:  # each in one piece, though the ranks print at once
        assert done.stdout.count(printed) == ranks
    assert done.stderr.count("iteration ") == done.stderr.count("|score|") == 16
    for printed in re.findall(r"\d\.\d{4}", " ".join(numbers)):
        assert printed in page
