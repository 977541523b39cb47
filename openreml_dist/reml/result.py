"""What a fit has found: estimates with their sampling covariance, and ratios by the delta method.

Legend: r parameters θ, p fixed effects β; a parameter on its bound has no standard error and is left out of the information.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.reml.driver import Iteration, Outcome, Status, monte_carlo_errors
from openreml_dist.reml.trust import positive_definite


@dataclass(frozen=True)
class VarianceEstimate:
    """One component: variances in squared units of y, proportions of their sum; None where there is no standard error."""

    name: str
    variance: float
    se: float | None
    proportion: float
    proportion_se: float | None


@dataclass(frozen=True)
class FitResult:
    """Estimates of one fit, on the CPU, the same on every rank.

    Attributes:
        status: how it ended.
        message: why, in words.
        parameters: names (r).
        theta: (r,) estimates.
        theta_covariance: (r, r) inverse average information of the free parameters, nan for those on their bound.
        monte_carlo_se: (r,) error of the estimates due to random probes, beside their standard errors; 0 without probes.
        at_lower: (r,) parameters on their lower bound.
        loglik: REML log-likelihood without −½(n−p) log 2π.
        beta: (p,) fixed effects.
        beta_covariance: (p, p).
        iterations: every accepted iterate, the start first.
    """

    status: Status
    message: str
    parameters: tuple[str, ...]
    theta: Tensor
    theta_covariance: Tensor
    monte_carlo_se: Tensor
    at_lower: Tensor
    loglik: float
    beta: Tensor
    beta_covariance: Tensor
    iterations: tuple[Iteration, ...]

    @classmethod
    def of(cls, outcome: Outcome, parameters: tuple[str, ...]) -> FitResult:
        """Read the last iterate."""
        step = outcome.last.step
        return cls(
            outcome.status,
            outcome.message,
            parameters,
            step.theta,
            sampling_covariance(step.AI, outcome.last.at_lower),
            monte_carlo_errors(step, positive_definite(step.AI), outcome.last.at_lower),
            outcome.last.at_lower,
            step.loglik,
            step.beta,
            step.beta_covariance,
            outcome.iterations,
        )

    @property
    def num_iterations(self) -> int:
        """Accepted steps after the start."""
        return len(self.iterations) - 1

    @property
    def standard_errors(self) -> Tensor:
        """(r,) of θ̂, nan on a bound."""
        return self.theta_covariance.diagonal().sqrt()

    @property
    def beta_se(self) -> Tensor:
        """(p,) of β̂."""
        return self.beta_covariance.diagonal().sqrt()

    @property
    def total(self) -> tuple[float, float | None]:
        """Sum of the variances, Vp, and its standard error."""
        return float(self.theta.sum()), _se(torch.ones_like(self.theta), self.theta_covariance)

    @property
    def components(self) -> list[VarianceEstimate]:
        """Variance components with their shares of the sum, in the order of the parameters."""
        total = float(self.theta.sum())
        estimates = []
        for k, name in enumerate(self.parameters):
            share = self.theta[k] / total
            estimates.append(
                VarianceEstimate(
                    name,
                    float(self.theta[k]),
                    _number(self.standard_errors[k]),
                    float(share),
                    None if bool(self.at_lower[k]) else _se(share_gradient(self.theta, [k]), self.theta_covariance),
                )
            )
        return estimates

    def share(self, components: list[int]) -> tuple[float, float | None]:
        """Sum of some components over the sum of all, with its standard error."""
        part = float(self.theta[components].sum() / self.theta.sum())
        return part, _se(share_gradient(self.theta, components), self.theta_covariance)


def share_gradient(theta: Tensor, components: list[int]) -> Tensor:
    """∂(Σ_{k∈components} θ_k / Σθ)/∂θ (r,)."""
    total = theta.sum()
    gradient = -theta[components].sum() / total**2 * torch.ones_like(theta)
    gradient[components] += 1 / total
    return gradient


def sampling_covariance(AI: Tensor, at_lower: Tensor) -> Tensor:
    """AI⁻¹ of the free parameters; nan in the rows and columns of the others, and where AI is singular."""
    covariance = torch.full_like(AI, float("nan"))
    free = torch.nonzero(~at_lower).flatten()
    if len(free):
        inverse, info = torch.linalg.inv_ex(AI[free][:, free])
        if int(info) == 0:
            covariance[free[:, None], free] = inverse
    return covariance


def _se(gradient: Tensor, covariance: Tensor) -> float | None:
    """Delta method over the parameters that have a sampling variance; None if none has."""
    free = ~covariance.diagonal().isnan()
    if not bool(free.any()):
        return None
    return _number((gradient[free] @ covariance[free][:, free] @ gradient[free]).sqrt())


def _number(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(value)
