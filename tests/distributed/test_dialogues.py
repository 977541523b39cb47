"""Many fits in one drive on several ranks: a broadcast a round, with nothing in it that every rank has already."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from openreml_dist.grid import ProcessGrid
from openreml_dist.reml.dense.engine import DenseEngine
from openreml_dist.reml.driver import average_information
from openreml_dist.reml.engine import Reply, Request
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.outcome import Outcome, Stopping
from openreml_dist.reml.rounds import Ended, drive
from openreml_dist.reml.solver import Solver
from tests.helpers.gloo import spawn
from tests.helpers.oracle import random_case

N, TRAITS = 1000, 3


def engines(grid: ProcessGrid) -> list[DenseEngine]:
    case = random_case(N, 1, grouping=False, seed=11)
    solver = Solver.of(case.covariance, grid, tile_size=144)
    noise = torch.randn(TRAITS, N, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return [solver.engine(case.y + e, case.X, "exact") for e in noise]


def together() -> tuple[list[Ended], list[Tensor], list[Tensor], int, list[int]]:
    """How each trait ended, its Py and the same of a fit apart; the rounds, and the bytes of what was broadcast meanwhile."""
    grid = ProcessGrid.connect()
    apart = [fit(engine, "haseman-elston", FitOptions()).Py for engine in engines(grid)]
    posed, rounds = engines(grid), 0
    starts = [(engine.start("haseman-elston"), engine.bounds(True)) for engine in posed]
    dialogues = None
    if grid.is_root:
        schedule = posed[0].schedule
        dialogues = [average_information(theta, bounds, Stopping(), schedule) for theta, bounds in starts]
    sizes: list[int] = []
    share = grid.broadcast_object

    def counting(value: Any, rank: int = 0) -> Any:
        received = share(value, rank)
        sizes.append(len(pickle.dumps(received)))
        return received

    def evaluate(requests: Sequence[Request]) -> list[Reply]:
        nonlocal rounds
        rounds += 1
        grid.broadcast_object = share  # type: ignore[method-assign]
        replies = [posed[request.dialogue].evaluate([request])[0] for request in requests]
        grid.broadcast_object = counting  # type: ignore[method-assign]
        return replies

    grid.broadcast_object = counting  # type: ignore[method-assign]
    ended = drive(grid, dialogues, evaluate)
    grid.broadcast_object = share  # type: ignore[method-assign]
    Py = [engine.Py(one.last.step) for engine, one in zip(posed, ended, strict=True) if isinstance(one, Outcome)]
    return ended, Py, [one for one in apart if one is not None], rounds, sizes


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_a_round_is_one_broadcast_without_any_vector_of_n(num_ranks: int) -> None:
    for ended, Py, apart, rounds, sizes in spawn(together, num_ranks):
        assert [one.status for one in ended if isinstance(one, Outcome)] == ["converged"] * TRAITS
        for mine, theirs in zip(Py, apart, strict=True):
            assert torch.equal(mine, theirs)
        assert len(sizes) == rounds + 1  # the last one says that all have ended
        longest = max(len(one.iterations) for one in ended if isinstance(one, Outcome))
        assert rounds == longest
        steps = sum(len(one.iterations) for one in ended if isinstance(one, Outcome))
        assert sum(sizes) < steps * 8 * N  # less than one vector an iterate


def again(forget: bool) -> Tensor:
    """Py of an iterate that was evaluated long ago, or that an engine after it has never seen."""
    grid = ProcessGrid.connect()
    engine = engines(grid)[0]
    found = fit(engine, "haseman-elston", FitOptions())
    other = engines(grid)[0] if forget else engine
    return other.Py(found.iterations[-1].step)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_Py_that_is_no_longer_kept_is_computed_again_bit_for_bit(num_ranks: int) -> None:
    for kept, computed in zip(spawn(again, num_ranks, False), spawn(again, num_ranks, True), strict=True):
        assert torch.equal(kept, computed)
