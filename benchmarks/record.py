"""The record of a benchmark: a file in ``results/``, and the same lines on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def keep(name: str, lines: Sequence[str]) -> None:
    """Write ``results/NAME.md``, and print it."""
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
