"""The safe driver around one problem: bounds, the start, probes, the iteration, the result.

Legend: n samples, r parameters θ, s probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from openreml_dist.covariance import DiagonalTerm, VarianceComponent
from openreml_dist.errors import ConfigError
from openreml_dist.reml.dense.evaluation import METHODS, Schedule
from openreml_dist.reml.dense.probes import Probes, draw_probes
from openreml_dist.reml.dense.start import choose_start, haseman_elston, residuals
from openreml_dist.reml.driver import Iteration, Request, Stopping, average_information, drive
from openreml_dist.reml.result import FitResult
from openreml_dist.reml.step import PhaseProgress, Problem, Step, ai_step, log_likelihood
from openreml_dist.reml.trust import Bounds
from openreml_dist.tiled import Workspace

SMALLEST_RESIDUAL = 1e-6  # share of the phenotypic variance at which the bound of an identity term lies: V must stay invertible


@dataclass(frozen=True)
class FitOptions:
    """How to fit; the arguments of ``REML.fit``, where they are explained."""

    constrain: bool = True
    stopping: Stopping | None = None
    traces: str = "auto"
    num_probes: int = 64
    seed: int = 1
    report: Callable[[Iteration], None] | None = None


def fit(problem: Problem, start: Tensor | str, options: FitOptions, phase: PhaseProgress) -> FitResult:
    """Estimate θ from a start (r,) of values, or the name of a method that finds one. Collective."""
    if options.traces not in METHODS:
        raise ConfigError(f"solver.traces: {options.traces!r} is none of {', '.join(METHODS)}")
    covariance, grid, n = problem.covariance, problem.grid, problem.layout.size
    schedule = Schedule.choose(options.traces, n, options.num_probes, covariance.is_linear)
    bounds = bounds_of(problem, options.constrain)
    if isinstance(start, str):
        start = choose_start(start, covariance)
    if start == "haseman-elston" or schedule.uses_probes:
        products, Z = random_products(problem, options.num_probes, options.seed, phase)
    if start == "haseman-elston":
        theta = haseman_elston(problem, products, Z)
    elif isinstance(start, str):
        with grid.together("choosing the start"):
            theta = covariance.start(residuals(problem).square().cpu())
    else:
        theta = start
    check_start(covariance.parameters, theta, bounds)
    if schedule.uses_probes:
        problem = replace(problem, probes=Probes(Z, products[:, :, :-1].contiguous()))
    problem = replace(problem, workspace=Workspace(schedule.widest))
    decisions = None
    if grid.is_root:
        stopping = options.stopping or Stopping()
        decisions = average_information(theta, bounds.beside_vanishing(theta), stopping, options.report, schedule)
    return FitResult.of(drive(grid, decisions, partial(evaluate, problem, phase=phase)), covariance)


def evaluate(problem: Problem, request: Request, phase: PhaseProgress) -> Step | float:
    """What the driver asks for. Collective."""
    if request.how.is_complete:
        return ai_step(problem, request.theta, phase, request.how)
    return log_likelihood(problem, request.theta, phase, request.how.dtype)


def random_products(problem: Problem, num_probes: int, seed: int, phase: PhaseProgress) -> tuple[Tensor, Tensor]:
    """K_k [Z e] (r, n, s + 1) and Z (n, s), float32, for the start and for traces. Collective; one pass over kernels."""
    Z = draw_probes(problem.layout.size, num_probes, seed).to(problem.grid.device)
    Ze = torch.cat([Z, residuals(problem)[:, None].float()], dim=1)
    ones = torch.ones(len(problem.covariance.parameters), dtype=torch.float64)
    return problem.covariance.times(Ze, ones, problem.grid, problem.layout, phase("reading the kernels")), Z


def bounds_of(problem: Problem, constrain: bool) -> Bounds:
    """Of θ: those of the parameters, unless variances are not constrained. Local."""
    covariance = problem.covariance
    lower, upper = covariance.map.bounds()
    vanishing = torch.zeros_like(lower, dtype=torch.bool)
    smallest = SMALLEST_RESIDUAL * float(residuals(problem).var())
    independent = {
        parameter.name
        for term in covariance.terms
        if isinstance(term.K if isinstance(term, VarianceComponent) else term, DiagonalTerm)
        for parameter in term.parameters
    }
    for parameter, k in zip(covariance.map.parameters, covariance.map.source, strict=True):
        if k < 0 or lower[k] == -math.inf:
            continue
        vanishing[k] = parameter.vanishes
        if parameter.unit == "variance" and not constrain:
            lower[k] = -math.inf
        elif parameter.name in independent:
            lower[k] = smallest
    return Bounds(lower, upper, vanishing)


def check_start(parameters: tuple[str, ...], theta: Tensor, bounds: Bounds) -> None:
    """Refuse a start outside the bounds. Local."""
    for name, value, least, most in zip(parameters, theta.tolist(), bounds.lower.tolist(), bounds.upper.tolist(), strict=True):
        if not least <= value <= most:
            side, bound = ("below", least) if value < least else ("above", most)
            raise ConfigError(f"start: {name} = {value:g} is {side} its bound {bound:g}; start within it or do not constrain")
