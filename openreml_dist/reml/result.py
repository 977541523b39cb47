"""What a fit has found: estimates with their sampling covariance, and ratios by the delta method.

Legend: r parameters θ, p fixed effects β; a parameter on its bound has no standard error and is left out of the information.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, Quantity
from openreml_dist.reml.outcome import Iteration, Outcome, Status
from openreml_dist.reml.trust import NO_INFORMATION, monte_carlo_errors, positive_definite

SINGULAR = 1e-9  # eigenvalue of an information matrix with unit diagonal
NO_ERROR = 1e-7  # relative; a function that no free parameter moves, such as a correlation of 1, has no standard error
UNIT_CORRELATION = 1 - 1e-5
LEAST_PART = 0.1  # of a parameter in a direction of unit length


@dataclass(frozen=True)
class VarianceEstimate:
    """One component: variances in squared units of y, proportions of their sum; None where there is no standard error."""

    name: str
    variance: float
    se: float | None
    proportion: float
    proportion_se: float | None


@dataclass(frozen=True)
class Estimate:
    """A parameter, or a function of the parameters; no standard error on a bound."""

    name: str
    value: float
    se: float | None
    unit: str = "variance"


@dataclass(frozen=True)
class FitResult:
    """Estimates of one fit, on the CPU, the same on every rank.

    Attributes:
        status: how it ended.
        message: why, in words.
        parameters: names (r).
        theta: (r,) estimates.
        theta_covariance: (r, r) inverse average information of the free parameters, nan for those on their bound or unknown.
        monte_carlo_se: (r,) error of the estimates due to random probes, beside their standard errors; 0 without probes.
        at_bound: (r,) parameters on a bound.
        loglik: REML log-likelihood without −½(n−p) log 2π.
        beta: (p,) fixed effects.
        beta_covariance: (p, p).
        iterations: every accepted iterate, the start first.
        derived: functions of θ that the terms report: correlations, variances of a factorised matrix, untransformed values.
        units: of θ, as ``covariance.Parameter`` has them; by default variances.
        is_linear: θ are variances that add up: ``components``, ``total`` and ``share`` mean something.
        Py: (n,) P y at the estimate, from which effects are predicted, where the engine keeps it.
        unknown: names of parameters that the likelihood of these data does not depend on, and of what is derived from them:
            they keep the value of the start, without a standard error.
    """

    status: Status
    message: str
    parameters: tuple[str, ...]
    theta: Tensor
    theta_covariance: Tensor
    monte_carlo_se: Tensor
    at_bound: Tensor
    loglik: float
    beta: Tensor
    beta_covariance: Tensor
    iterations: tuple[Iteration, ...]
    derived: tuple[Estimate, ...] = ()
    is_linear: bool = True
    units: tuple[str, ...] = ()
    Py: Tensor | None = None
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, outcome: Outcome, covariance: Covariance, Py: Tensor) -> FitResult:
        """Read the last iterate, of which Py (n,) is."""
        step, held = outcome.last.step, outcome.last.held
        theta_covariance = sampling_covariance(step.AI, held)
        return cls(
            outcome.status,
            outcome.message,
            covariance.parameters,
            step.theta,
            theta_covariance,
            monte_carlo_errors(step.score_noise, positive_definite(step.AI), held),
            outcome.last.at_bound,
            step.loglik,
            step.beta,
            step.beta_covariance,
            outcome.iterations,
            delta_method(covariance.summary, step.theta, theta_covariance),
            covariance.is_linear,
            tuple(quantity.unit for quantity in covariance.map.quantities()),
            Py,
            _unknown(covariance, step.theta, outcome.last.fixed),
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
    def estimates(self) -> list[Estimate]:
        """θ with standard errors, then what the terms derive from it."""
        ses = self.standard_errors
        units = self.units or ("variance",) * len(ses)
        own = [Estimate(name, float(self.theta[k]), _number(ses[k]), units[k]) for k, name in enumerate(self.parameters)]
        return [*own, *self.derived]

    @property
    def confounded(self) -> tuple[str, ...]:
        """Names of parameters that the data cannot tell apart, from each other or from fixed effects.

        The information of a combination of them is zero, or that of one of them is at every iterate: AI_kk θ_k² ≈ 0.
        """
        if not self.iterations:
            return ()
        steps = [iteration.step for iteration in self.iterations]
        strength = torch.stack([step.AI.diagonal() * step.theta.square() for step in steps]).amax(dim=0)
        told = torch.tensor([name not in self.unknown for name in self.parameters])
        singular = {
            *singular_directions(steps[-1].AI, told),
            *torch.nonzero(told & (strength < NO_INFORMATION)).flatten().tolist(),
        }
        return tuple(self.parameters[k] for k in sorted(singular))

    @property
    def unit_correlations(self) -> tuple[str, ...]:
        """Names of correlations that have run to 1 or −1, where they have no standard error."""
        ended = [e for e in self.estimates if e.unit == "correlation" and e.se is None and e.name not in self.unknown]
        return tuple(e.name for e in ended if abs(e.value) > UNIT_CORRELATION)

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
                    None if bool(self.at_bound[k]) else _se(share_gradient(self.theta, [k]), self.theta_covariance),
                )
            )
        return estimates

    def share(self, components: list[int]) -> tuple[float, float | None]:
        """Sum of some components over the sum of all, with its standard error."""
        part = float(self.theta[components].sum() / self.theta.sum())
        return part, _se(share_gradient(self.theta, components), self.theta_covariance)


def delta_method(
    functions: Callable[[Tensor], dict[Quantity, Tensor]], theta: Tensor, theta_covariance: Tensor
) -> tuple[Estimate, ...]:
    """Values of differentiable functions of θ (r,) with their standard errors. Local."""
    values = functions(theta)
    if not values:
        return ()
    gradients = torch.func.jacrev(lambda point: torch.stack([*functions(point).values()]))(theta)
    ses = [_se(gradient, theta_covariance) for gradient in gradients]
    return tuple(
        Estimate(name, float(value), se if se is not None and se > NO_ERROR * abs(float(value)) else None, unit)
        for ((name, unit, _), value), se in zip(values.items(), ses, strict=True)
    )


def _unknown(covariance: Covariance, theta: Tensor, fixed: Tensor) -> tuple[str, ...]:
    """Names of fixed parameters (r,), and of what changes with them at θ."""
    if not bool(fixed.any()):
        return ()
    names = [name for name, kept in zip(covariance.parameters, fixed.tolist(), strict=True) if kept]
    quantities = [*covariance.summary(theta)]
    if quantities:
        gradients = torch.func.jacrev(lambda point: torch.stack([*covariance.summary(point).values()]))(theta)
        changes = (gradients[:, fixed] != 0).any(dim=1).tolist()
        names += [quantity.name for quantity, changed in zip(quantities, changes, strict=True) if changed]
    return tuple(names)


def singular_directions(AI: Tensor, among: Tensor) -> list[int]:
    """Which parameters have a part in a combination without information: eigenvectors of AI with unit diagonal.

    Only those ``among`` (r,) are looked at. Local.
    """
    places = torch.nonzero(among).flatten()
    AI = AI[places][:, places]
    if not len(AI):
        return []
    scale = AI.diagonal().clamp_min(torch.finfo(AI.dtype).tiny).rsqrt()
    values, vectors = torch.linalg.eigh(scale[:, None] * AI * scale)
    singular = vectors[:, values < SINGULAR]
    return places[(singular.abs() > LEAST_PART).any(dim=1)].tolist()


def share_gradient(theta: Tensor, components: list[int]) -> Tensor:
    """∂(Σ_{k∈components} θ_k / Σθ)/∂θ (r,)."""
    total = theta.sum()
    gradient = -theta[components].sum() / total**2 * torch.ones_like(theta)
    gradient[components] += 1 / total
    return gradient


def sampling_covariance(AI: Tensor, held: Tensor) -> Tensor:
    """AI⁻¹ of the free parameters; nan in the rows and columns of the others, and where AI is singular."""
    covariance = torch.full_like(AI, float("nan"))
    free = torch.nonzero(~held).flatten()
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
