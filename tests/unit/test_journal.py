"""A fit that stops anywhere and is continued from its journal goes the same way, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from openreml_dist import Covariance, Grouping, Identity, Kernel
from openreml_dist.errors import InputError
from openreml_dist.grid import ProcessGrid
from openreml_dist.reml.dense import schedule
from openreml_dist.reml.driver import average_information
from openreml_dist.reml.engine import Engine, Reply, Request, Want
from openreml_dist.reml.journal import Entry, continued
from openreml_dist.reml.outcome import Outcome, Stopping
from openreml_dist.reml.rounds import drive
from openreml_dist.reml.solver import Solver
from openreml_dist.reml.step import LogLikelihood
from tests.helpers.engines import WholeMatrices
from tests.helpers.oracle import random_case


@dataclass(frozen=True)
class Fit:
    """What is fitted; each call of ``engine`` makes one that knows of no evaluation before."""

    engine: Callable[[], Engine]
    start: str | Tensor = "auto"
    status: str = "converged"
    stopping: Stopping = field(default_factory=Stopping)


def inside() -> Engine:
    case = random_case(90, 2, seed=2)
    return Solver.of(case.covariance, ProcessGrid.single(), 32).engine(case.y, case.X, "exact")


def at_bound() -> Engine:
    """A factor that has nothing to do with y."""
    n = 120
    generator = torch.Generator().manual_seed(6)
    Z = torch.randn(n, 60, generator=generator, dtype=torch.float64)
    y = Z @ torch.randn(60, generator=generator, dtype=torch.float64) / 8
    y = y + torch.tensor([1.0, -1.0]).repeat(n // 2)  # the levels are pairs, whose members differ: less than no variance
    covariance = Covariance([Kernel.from_array(Z @ Z.mT / 60), Grouping([i // 2 for i in range(n)], "pair"), Identity(n)])
    return Solver.of(covariance, ProcessGrid.single(), 32).engine(y, torch.ones(n, 1, dtype=torch.float64), "exact")


def probes(traces: str) -> Callable[[], Engine]:
    def engine() -> Engine:
        generator = torch.Generator().manual_seed(8)
        Z = torch.randn(300, 200, generator=generator, dtype=torch.float64)
        y = Z @ torch.randn(200, generator=generator, dtype=torch.float64) / 14
        y = y + torch.randn(300, generator=generator, dtype=torch.float64)
        covariance = Covariance([Kernel.from_array((Z @ Z.mT / 200).float()), Identity(300)])
        return Solver.of(covariance, ProcessGrid.single(), 96).engine(y, torch.ones(300, 1).double(), traces, 64)

    return engine


class Deaf(WholeMatrices):
    """Whoever leaves the start is told that it was better there: no step is ever accepted."""

    def evaluate(self, requests: object) -> list[Reply]:
        assert isinstance(requests, list)
        first = self.covariance.start(self.case.y.square())
        answers = super().evaluate(requests)
        return [a if torch.equal(r.theta, first) else LogLikelihood(-1e9, 0.0) for a, r in zip(answers, requests, strict=True)]


FITS = {
    "inside": Fit(inside),
    "at a bound": Fit(at_bound, status="converged_at_bound"),
    "probes, an anchor, exact": Fit(probes("auto"), torch.tensor([0.05, 3.0], dtype=torch.float64)),
    "probes to the end": Fit(probes("hutchinson")),
    "stalled": Fit(lambda: Deaf(random_case(40, 1, seed=5)), "equal", "stalled"),
    "iteration limit": Fit(inside, torch.full((4,), 0.05, dtype=torch.float64), "iteration_limit", Stopping(max_iter=2)),
}


class KilledError(Exception):
    pass


def run(fit: Fit, journal: list[Entry], most: int | None = None) -> tuple[Outcome | None, list[Entry]]:
    """The outcome of a fit that is continued from a journal, or None if it is lost after ``most`` new evaluations."""
    engine, kept = fit.engine(), list(journal)
    theta = engine.start(fit.start) if isinstance(fit.start, str) else fit.start
    bounds = engine.bounds(True).beside_vanishing(theta)
    dialogue = average_information(theta, bounds, fit.stopping, engine.schedule)
    left = most

    def evaluate(requests: object) -> list[Reply]:
        nonlocal left
        assert isinstance(requests, list)
        if left == 0:
            raise KilledError
        left = None if left is None else left - 1
        return engine.evaluate(requests)

    try:
        (ended,) = drive(engine.grid, [continued(dialogue, journal, kept.append)], evaluate)
    except KilledError:
        return None, kept
    if isinstance(ended, Exception):
        raise ended
    return ended, kept


def same(one: Outcome, other: Outcome) -> None:
    assert (one.status, one.message, len(one.iterations)) == (other.status, other.message, len(other.iterations))
    for mine, theirs in zip(one.iterations, other.iterations, strict=True):
        assert (mine.evaluations, mine.largest_move, mine.noise) == (theirs.evaluations, theirs.largest_move, theirs.noise)
        assert str(mine.step.evaluation) == str(theirs.step.evaluation)
        for name in ("theta", "score", "score_noise", "AI", "beta", "beta_covariance"):
            assert torch.equal(getattr(mine.step, name), getattr(theirs.step, name))
        assert mine.step.loglik == theirs.step.loglik
        assert torch.equal(mine.at_bound, theirs.at_bound)


@pytest.mark.parametrize("name", FITS)
def test_stopped_after_any_evaluation_a_fit_goes_on_as_if_it_never_had(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SMALLEST_SIZE", 100)
    fit = FITS[name]
    whole, journal = run(fit, [])
    assert whole is not None and whole.status == fit.status
    kinds = {entry.how for entry in journal}
    assert name != "probes, an anchor, exact" or {"probes float32", "anchored float32", "exact float64"} < kinds
    for stopped_after in range(len(journal) + 1):
        lost, kept = run(fit, [], stopped_after)
        assert (lost is None) == (stopped_after < len(journal)) and len(kept) == stopped_after
        read_back = [Entry.from_data(json.loads(json.dumps(entry.to_data()))) for entry in kept]
        again, complete = run(fit, read_back)
        assert again is not None and len(complete) == len(journal)
        same(whole, again)


def test_another_fit_is_not_continued() -> None:
    _, journal = run(FITS["inside"], [], 3)
    other = Fit(inside, torch.full((4,), 0.3, dtype=torch.float64))
    with pytest.raises(InputError, match="the data, the settings or the program have changed"):
        run(other, journal)


def test_a_failed_evaluation_is_kept_too() -> None:
    request = Request(torch.tensor([1.0, 2.0], dtype=torch.float64), "whole")
    for reply in (None, LogLikelihood(-3.5, 1e-9)):
        entry = Entry.of(Request(request.theta, "whole", Want.LOGLIK), reply)
        again = Entry.from_data(json.loads(json.dumps(entry.to_data())))
        assert again.reply == reply and torch.equal(again.theta, entry.theta)
