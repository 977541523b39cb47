"""Traces to a wanted accuracy: two levels of probes, as many of each as a pilot finds to be worth their price.

    E h(x) = E h(x_d) + E[h(x) − h(x_d)]          x_d the solution after d steps, x all of it

Many probes are stopped after d steps, few and independent ones tell what that leaves out. The error that counts is that of the
estimates, in their standard errors: AI⁻¹ cov(½ traces) AI⁻¹ beside AI⁻¹.

Legend: K components, s probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openreml_dist.grid import Progress, no_progress
from openreml_dist.reml.stochastic.batches import Batches
from openreml_dist.reml.stochastic.conjugate_gradients import MOST_STEPS
from openreml_dist.reml.stochastic.controls import Controlled
from openreml_dist.reml.stochastic.probes import Stream
from openreml_dist.reml.stochastic.system import System
from openreml_dist.reml.stochastic.traces import Probes, Sampled, Space, TraceMap, Weighting

PILOT = 32  # probes
CANDIDATES = (1, 2, 3, 4, 6, 8)  # steps of truncated probes
BATCH = 32  # probes at once
MARGIN = 1.1  # more probes than a pilot asks for: its variances are estimates
ROUNDS = 4
CERTAIN = (0.5, 8.0)  # SNPs a sample: below probes over the SNPs are better, above those over the samples


@dataclass(frozen=True)
class Target:
    """What accuracy is wanted.

    Attributes:
        error: Monte-Carlo standard error of every estimate, in its standard errors.
        most: probes at most.
        seed: of the probes.
    """

    error: float
    most: int
    seed: int


@dataclass(frozen=True)
class Estimated:
    """Traces (K + 1,) and the covariance (K + 1, K + 1) of their Monte-Carlo error."""

    traces: Tensor
    covariance: Tensor
    num_probes: int


def estimated_traces(
    S: System,
    weighting: Weighting,
    to_traces: TraceMap,
    error_of: Callable[[Tensor], Tensor],
    target: Target,
    batches: Batches,
    progress: Progress = no_progress,
) -> Estimated:
    """tr(P V_k) to the accuracy of the target, or as near as its probes come. Collective.

    Args:
        S, weighting, to_traces: at one θ.
        error_of: (parameters,) errors of the estimates in their standard errors, from a covariance of the traces.
        target: of them.
        batches: of an evaluation that was cut off here, and where new ones are kept.
        progress: told the part of the probes that is done.
    """

    def variance(values: Tensor) -> float:
        """Of one probe, in squared standard errors of the estimate that has the most."""
        return float(error_of(torch.cov(to_traces.traces(values).mT)).square().max())

    pilots = [_pilot(Probes(S, weighting, space, target.seed, Stream.COMPLETE), variance, batches) for space in _candidates(S)]
    best = min(pilots, key=lambda pilot: pilot.work)
    levels = _Levels(best, batches)
    v0, v1, price, depth = best.low, best.high, best.price, best.depth
    for _ in range(ROUNDS):
        balance = MARGIN * (math.sqrt(v0 * depth) + math.sqrt(v1 * price)) / target.error**2
        levels.grow(balance * math.sqrt(v1 / price), balance * math.sqrt(v0 / depth) if depth else 0.0, target.most, progress)
        mean, covariance = levels.estimate()
        of_traces = to_traces.slope @ covariance @ to_traces.slope.mT
        if float(error_of(of_traces).max()) <= target.error or levels.num_probes >= target.most:
            break
        v0, v1 = (variance(values) if len(values) else 0.0 for values in levels.samples())
    return Estimated(to_traces.traces(mean[None])[0], of_traces, levels.num_probes)


def _candidates(S: System) -> list[Space]:
    """Spaces of probes that are worth a pilot. Local."""
    ratio = S.problem.Z.num_variants / S.problem.num_samples
    return [Space.SNPS] if ratio < CERTAIN[0] else [Space.SAMPLES] if ratio > CERTAIN[1] else [*Space]


@dataclass(frozen=True)
class _Pilot:
    """What the first probes say of the price of accuracy.

    Attributes:
        probes: they were the first of.
        complete: from their solutions.
        truncated: after ``depth`` steps; None where all probes had better be solved.
        depth: number of steps, 0 without.
        price: steps of a solution.
        low, high: variance of the truncated level and of the difference, in squared standard errors.
        work: steps times variance.
    """

    probes: Probes
    complete: Controlled
    truncated: Controlled | None
    depth: int
    price: float
    low: float
    high: float

    @property
    def work(self) -> float:
        return (math.sqrt(self.low * self.depth) + math.sqrt(self.high * self.price)) ** 2


def _sample(batches: Batches, probes: Probes, numbers: range, keep: Sequence[int] = (), most: int = MOST_STEPS) -> Sampled:
    """``probes.sample``, unless it is known. Collective."""
    what = f"{probes.space.name}.{probes.seed}.{probes.stream.name}.{numbers.start}.{numbers.stop}.{len(keep)}.{most}"
    found = batches.found(probes.S.theta, what, lambda: probes.sample(numbers, keep, most).to_tensors())
    return Sampled.from_tensors(found, probes.S.root.device)


def _pilot(probes: Probes, variance: Callable[[Tensor], float], batches: Batches) -> _Pilot:
    """Solve some probes, and find the number of steps to stop most of the others after. Collective."""
    found = _sample(batches, probes, range(PILOT), CANDIDATES)
    price = max(1.0, found.steps / PILOT)  # none where no SNP is awake
    whole = _Pilot(probes, found.complete, None, 0, price, 0.0, variance(found.complete.cross_corrected()))
    pilots = [whole]
    for depth in (depth for depth in CANDIDATES if depth < price):
        truncated = found.truncated[depth]
        low = variance(truncated.cross_corrected())
        high = variance(found.complete.less(truncated.values).cross_corrected())
        pilots.append(_Pilot(probes, found.complete, truncated, depth, price, low, high))
    return min(pilots, key=lambda pilot: pilot.work)


class _Levels:
    """Samples of both levels so far; of the first, none where all probes are solved completely."""

    def __init__(self, pilot: _Pilot, batches: Batches) -> None:
        self._probes, self._depth, self._batches = pilot.probes, pilot.depth, batches
        self._truncated_probes = replace(pilot.probes, stream=Stream.TRUNCATED)
        difference = pilot.complete if pilot.truncated is None else pilot.complete.less(pilot.truncated.values)
        self._coefficients = difference.coefficients()
        self._low_coefficients = None if pilot.truncated is None else pilot.truncated.coefficients()
        self._differences = [difference.cross_corrected()]
        self._low: list[Tensor] = []
        self._complete, self._truncated = PILOT, 0

    @property
    def num_probes(self) -> int:
        return self._complete + self._truncated

    def samples(self) -> tuple[Tensor, Tensor]:
        """(s, K) of the truncated level, and of the differences."""
        differences = torch.cat(self._differences)
        return (torch.cat(self._low) if self._low else differences[:0]), differences

    def grow(self, complete: float, truncated: float, most: int, progress: Progress) -> None:
        """Probes up to these numbers, batch by batch, while there are fewer than ``most``. Collective."""
        truncated = max(truncated, 2 * BATCH) if self._depth else 0.0
        shrink = min(1.0, most / max(1.0, complete + truncated))
        complete, truncated = complete * shrink, truncated * shrink
        planned = complete + truncated
        while self._complete < complete:
            self._differences.append(self._more_complete(range(self._complete, self._complete + BATCH)))
            self._complete += BATCH
            progress(min(1.0, self.num_probes / planned))
        while self._truncated < truncated:
            self._low.append(self._more_truncated(range(self._truncated, self._truncated + BATCH)))
            self._truncated += BATCH
            progress(min(1.0, self.num_probes / planned))

    def estimate(self) -> tuple[Tensor, Tensor]:
        """Mean (K,), and the covariance (K, K) of its error."""
        mean, covariance = torch.zeros(()), torch.zeros(())
        for values in self.samples():
            if len(values):
                mean = mean + values.mean(dim=0)
                covariance = covariance + torch.cov(values.mT).reshape(values.shape[1], -1) / len(values)
        return mean, covariance

    def _more_complete(self, numbers: range) -> Tensor:
        if not self._depth:
            return _sample(self._batches, self._probes, numbers).complete.corrected(self._coefficients)
        found = _sample(self._batches, self._probes, numbers, (self._depth,))
        return found.complete.less(found.truncated[self._depth].values).corrected(self._coefficients)

    def _more_truncated(self, numbers: range) -> Tensor:
        assert self._low_coefficients is not None
        found = _sample(self._batches, self._truncated_probes, numbers, most=self._depth)
        return found.complete.corrected(self._low_coefficients)
