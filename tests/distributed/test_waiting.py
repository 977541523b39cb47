"""Each rank counts how long it waits for the others: the slow one hardly does."""

from __future__ import annotations

import time

import pytest
import torch

from openreml_dist.grid import ProcessGrid
from tests.helpers.gloo import spawn

SECONDS = 0.3


def waited(share_memory: bool) -> list[float]:
    """Seconds by exchange of a rank; rank 1 is late for each."""
    grid = ProcessGrid.connect(2, 1, share_memory=share_memory)
    ones = torch.ones(3, dtype=torch.float64)
    exchanges = [
        lambda: grid.sum_(ones),
        lambda: grid.gather(1),
        lambda: grid.broadcast_(ones, 1),
        lambda: grid.broadcast_object(1, 1),
        lambda: grid.raise_first(None, "waiting"),
        *([lambda: grid.announce([0, 1]).wait()] if share_memory else []),
    ]
    found = []
    for exchange in exchanges:
        grid.gather(None)  # begin together
        before = grid.counters.seconds_waited
        if grid.rank == 1:
            time.sleep(SECONDS)
        exchange()
        found.append(grid.counters.seconds_waited - before)
    return found


@pytest.mark.parametrize("share_memory", [False, True])
def test_the_punctual_rank_waits_and_the_late_one_does_not(share_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_DISTRIBUTED_DEBUG", raising=False)  # which makes ranks wait before an exchange, to compare them
    punctual, late = spawn(waited, 2, share_memory)
    for mine, others in zip(punctual, late, strict=True):
        assert mine > 0.7 * SECONDS
        assert others < 0.5 * mine
