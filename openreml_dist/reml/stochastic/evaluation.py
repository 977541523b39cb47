"""One evaluation of the matrix-free engine: y exactly, traces and log|S| by probes.

Legend: n samples, p fixed effects, m SNPs, K components; ℓ, score and AI as in ``reml/step.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openreml_dist.grid import PhaseProgress, Progress, silent
from openreml_dist.reml.step import Information, LogLikelihood, Step, rounding_of
from openreml_dist.reml.stochastic.accuracy import Target, estimated_traces
from openreml_dist.reml.stochastic.batches import Batches
from openreml_dist.reml.stochastic.determinant import log_determinants
from openreml_dist.reml.stochastic.faint import FaintTraces, faint_traces
from openreml_dist.reml.stochastic.probes import Stream, normals, signs
from openreml_dist.reml.stochastic.problem import Problem
from openreml_dist.reml.stochastic.projection import Projection
from openreml_dist.reml.stochastic.schedule import TOLERATED, Probing
from openreml_dist.reml.stochastic.system import System
from openreml_dist.reml.stochastic.traces import Probes, TraceMap, Weighting, likely_space
from openreml_dist.reml.stopwatch import Stopwatch

FEW = 16
FINAL_DETERMINANT = 64  # probes of log|S| at the anchor
SIMULATED = 16  # data sets behind the expected information
FEW_FAINT = 128  # probes of faint SNPs at most on the way,
FEW_FAINT_ERROR = 0.1  # and what their error may be, in standard errors of an estimate, unless the score of one on its bound is
CERTAIN = 4.0  # times its error
FAINT_PART = 0.7  # of the wanted error that faint SNPs may make up


@dataclass(frozen=True)
class Sampling:
    """What probes say at one θ.

    Attributes:
        traces: (K + 1,) tr(P V_k).
        covariance: (K + 1, K + 1) of its Monte-Carlo error.
        log_determinant: log|S|.
        log_determinant_error: its Monte-Carlo standard error.
    """

    traces: Tensor
    covariance: Tensor
    log_determinant: float
    log_determinant_error: float


@dataclass(frozen=True)
class Few:
    """What the few probes, the same at every θ, say: (s, K + 1) samples of the traces and (s,) of log|S|."""

    traces: Tensor
    log_determinants: Tensor

    def sampling(self) -> Sampling:
        """Their means. Local."""
        count = len(self.traces)
        covariance = torch.cov(self.traces.mT).reshape(self.traces.shape[1], -1) / count
        error = float(self.log_determinants.std()) / count**0.5
        return Sampling(self.traces.mean(dim=0), covariance, float(self.log_determinants.mean()), error)

    def since(self, anchor: Sampling, there: Few) -> Sampling:
        """The sampling at an anchor plus what the few say of the difference: their own errors cancel. Local."""
        change = Few(self.traces - there.traces, self.log_determinants - there.log_determinants).sampling()
        return Sampling(
            anchor.traces + change.traces,
            anchor.covariance + change.covariance,
            anchor.log_determinant + change.log_determinant,
            (anchor.log_determinant_error**2 + change.log_determinant_error**2) ** 0.5,
        )


def step_at(
    problem: Problem,
    theta: Tensor,
    how: Probing,
    carried: Mapping[str, Tensor],
    target: Target,
    batches: Batches,
    phase: PhaseProgress = silent,
) -> tuple[Step, Tensor] | None:
    """The step at θ (K + 1,) on the CPU and Py (n,); None where V(θ) is not positive definite. Collective."""
    watch = Stopwatch(problem.y.device)
    S = System.at(problem, theta)
    if S is None:
        return None
    watch.lap("precondition")
    P = Projection(S)
    T = P.derivatives_times_Py()
    quadratics = T.mT @ P.Py
    AI = 0.5 * P.quadratic(T)
    watch.lap("solve")
    weighting = Weighting.of(S)
    others, logs = few_probes(S, weighting, target.seed)
    error, most = (FEW_FAINT_ERROR, FEW_FAINT) if how is Probing.FEW else (FAINT_PART * target.error, target.most)
    known = _sign_or_value_known(S.theta[:-1], 0.5 * (quadratics[:-1] - others.mean(dim=0)), AI, error)
    faint = faint_traces(S, target.seed, known, most, batches)
    to_traces = TraceMap.of(S, faint.traces)
    of_faint = to_traces.slope @ faint.covariance @ to_traces.slope.mT
    few = Few(to_traces.traces(others), logs)
    watch.lap("few probes")

    def error_of(covariance: Tensor) -> Tensor:
        return relative_errors(AI.cpu(), (covariance + of_faint).cpu(), theta <= 0)

    found = few.sampling()
    if how is Probing.ANCHORED:
        found = few.since(*_from_carried(carried, few.traces.device))
    if how is Probing.ACCURATE or (
        how is Probing.ANCHORED and float(error_of(found.covariance).max()) > TOLERATED * target.error
    ):
        found = accurate_probes(S, weighting, to_traces, error_of, target, batches, phase(str(how)))
        batches.end()
        carried = _to_carry(found, few)
        watch.lap("probes to the target")
    loglik = -0.5 * (P.log_determinants(found.log_determinant) + float(problem.y @ P.Py))
    beta, beta_covariance = P.fixed_effects()
    if how is not Probing.FEW:
        beta_covariance = P.fixed_covariance()
        watch.lap("fixed effects")
    step = Step(
        theta=theta,
        loglik=loglik,
        loglik_error=rounding_of(loglik, torch.float64) + 0.5 * found.log_determinant_error,
        loglik_seen_error=0.0,
        score=(0.5 * (quadratics - found.traces)).cpu(),
        score_noise=(0.25 * (found.covariance + of_faint)).cpu(),
        AI=(0.5 * (AI + AI.mT)).cpu(),
        beta=beta.cpu(),
        beta_covariance=beta_covariance.cpu(),
        trace_error=0.0,
        evaluation=how,
        comparable=how.comparable,
        carried=carried,
        seconds=watch.seconds,
    )
    return step, P.Py


def log_likelihood_at(
    problem: Problem, theta: Tensor, how: Probing, carried: Mapping[str, Tensor], target: Target
) -> LogLikelihood | None:
    """ℓ(θ) alone. Collective."""
    S = System.at(problem, theta)
    if S is None:
        return None
    logs = log_determinants(S, _few_signs(S, target.seed, Stream.DETERMINANT))
    few = Few(torch.zeros(FEW, len(theta), dtype=torch.float64, device=logs.device), logs)
    found = few.sampling()
    if how is not Probing.FEW and carried:
        anchor, there = _from_carried(carried, logs.device)
        found = few.since(anchor, replace(there, traces=torch.zeros_like(there.traces)))
    P = Projection(S)
    loglik = -0.5 * (P.log_determinants(found.log_determinant) + float(problem.y @ P.Py))
    return LogLikelihood(loglik, rounding_of(loglik, torch.float64) + 0.5 * found.log_determinant_error)


def expected_information_at(problem: Problem, theta: Tensor, target: Target) -> Information | None:
    """½ tr(P V_j P V_k) as the mean of AI over data sets that V(θ) makes. Collective. Cost: that of AI for each of them."""
    S = System.at(problem, theta)
    if S is None:
        return None
    device, K = S.root.device, len(theta) - 1
    expected = torch.zeros(K + 1, K + 1, dtype=torch.float64, device=device)
    for number in range(SIMULATED):
        effects = normals(len(S.root), range(number, number + 1), target.seed, device)
        noise = normals(problem.num_samples, range(SIMULATED + number, SIMULATED + number + 1), target.seed, device)
        y = problem.Z.of_variants(S.root[:, None] * effects) + S.residual**0.5 * noise
        P = Projection(S, y[:, 0])
        expected += 0.5 * P.quadratic(P.derivatives_times_Py()) / SIMULATED
    return Information((0.5 * (expected + expected.mT)).cpu())


def few_probes(S: System, weighting: Weighting, seed: int) -> tuple[Tensor, Tensor]:
    """Samples (s, K) of the traces of SNPs that are not faint, and (s,) of log|S|, at one θ. Collective."""
    found = Probes(S, weighting, likely_space(S), seed, Stream.FEW).sample(range(FEW))
    return found.complete.cross_corrected(), log_determinants(S, _few_signs(S, seed, Stream.DETERMINANT))


def _sign_or_value_known(theta: Tensor, others: Tensor, AI: Tensor, error: float) -> Callable[[FaintTraces], bool]:
    """Whether every score (K,), all of which but the faint SNPs' part is in ``others``, has an error of this much of a standard
    error of its parameter θ_k, or, on the bound, certainly its sign."""
    standard_error = torch.linalg.pinv(0.5 * (AI + AI.mT), hermitian=True).diagonal()[:-1].clamp_min(0).sqrt()

    def known(found: FaintTraces) -> bool:
        noise = 0.5 * found.covariance.diagonal().sqrt()
        score = others - 0.5 * found.traces
        return bool(((noise * standard_error <= error) | ((theta <= 0) & (score.abs() >= CERTAIN * noise))).all())

    return known


def accurate_probes(
    S: System,
    weighting: Weighting,
    to_traces: TraceMap,
    error_of: Callable[[Tensor], Tensor],
    target: Target,
    batches: Batches,
    progress: Progress,
) -> Sampling:
    """At one θ, as many as the target takes. Collective."""
    exact = estimated_traces(S, weighting, to_traces, error_of, target, batches, progress)
    w = signs(len(S.root), range(FINAL_DETERMINANT), target.seed, Stream.FINAL_DETERMINANT, S.root.device)
    logs = log_determinants(S, w.to(S.H_inv.dtype))
    return Sampling(exact.traces, exact.covariance, float(logs.mean()), float(logs.std()) / len(logs) ** 0.5)


def relative_errors(AI: Tensor, covariance: Tensor, held: Tensor) -> Tensor:
    """(r,) Monte-Carlo errors of the estimates in their standard errors, from the covariance of traces; 0 if held. Local."""
    free = torch.nonzero(~held).flatten()
    inverse = torch.linalg.pinv(AI[free][:, free], hermitian=True)
    spread = inverse @ (0.25 * covariance[free][:, free]) @ inverse
    errors = torch.zeros(len(AI), dtype=torch.float64)
    errors[free] = (spread.diagonal() / inverse.diagonal()).clamp_min(0).sqrt()
    return errors


def _few_signs(S: System, seed: int, stream: Stream) -> Tensor:
    return signs(len(S.root), range(FEW), seed, stream, S.root.device).to(S.H_inv.dtype)


def _to_carry(found: Sampling, few: Few) -> dict[str, Tensor]:
    """An anchor, for a ``Step`` to carry: on the CPU."""
    logs = torch.tensor([found.log_determinant, found.log_determinant_error], dtype=torch.float64)
    carried = {"traces": found.traces, "covariance": found.covariance, "log_determinant": logs}
    carried |= {"few.traces": few.traces, "few.log_determinants": few.log_determinants}
    return {f"anchor.{name}": values.cpu() for name, values in carried.items()}


def _from_carried(carried: Mapping[str, Tensor], device: torch.device) -> tuple[Sampling, Few]:
    traces, covariance, logs, few, few_logs = (
        carried[f"anchor.{name}"].to(device)
        for name in ("traces", "covariance", "log_determinant", "few.traces", "few.log_determinants")
    )
    value, error = logs.tolist()
    return Sampling(traces, covariance, value, error), Few(few, few_logs)
