"""What a fit has found: estimates with their sampling covariance, and ratios by the delta method.

Legend: r parameters θ, p fixed effects β; a parameter on its bound has no standard error and is left out of the information.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, Quantity
from openreml_dist.reml.outcome import Iteration, Outcome, Status
from openreml_dist.reml.ridges import combination
from openreml_dist.reml.sampling import Sampling
from openreml_dist.reml.trust import NO_INFORMATION, monte_carlo_errors, positive_definite

NO_ERROR = 1e-7  # relative; a function that no free parameter moves, such as a correlation of 1, has no standard error
UNIT_CORRELATION = 1 - 1e-5
NO_PROPORTION_ERROR = 1e-5  # a proportion that no free parameter moves by more, since the others are on a bound, has none


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
        is_linear: θ are variances that add up: ``components``, ``total`` and ``proportion_of`` mean something.
        Py: (n,) P y at the estimate, from which effects are predicted, where the engine keeps it.
        unknown: names of parameters that the likelihood of these data does not depend on, and of what is derived from them:
            they keep the value of the start, without a standard error.
        sampling: what the data say of θ; by default what ``theta_covariance`` does.
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
    sampling: Sampling | None = None

    @classmethod
    def of(cls, outcome: Outcome, covariance: Covariance, Py: Tensor) -> FitResult:
        """Read the last iterate, of which Py (n,) is."""
        step, held = outcome.last.step, outcome.last.held
        fixed = outcome.last.fixed
        sampling = Sampling.of(step.AI, held, fixed, outcome.last.ridges)
        status, message = outcome.status, outcome.message
        if status.exit_code == 0 and (sampling.confounded or (covariance.is_linear and bool(fixed.any()))):
            status, message = Status.NOT_IDENTIFIED, f"{message}, and logL does not change along a line through the estimate"
        return cls(
            status,
            message,
            covariance.parameters,
            step.theta,
            sampling.of_theta,
            monte_carlo_errors(step.score_noise, positive_definite(step.AI), held),
            outcome.last.at_bound,
            step.loglik,
            step.beta,
            step.beta_covariance,
            outcome.iterations,
            delta_method(covariance.summary, step.theta, sampling),
            covariance.is_linear,
            tuple(quantity.unit for quantity in covariance.map.quantities()),
            Py,
            _unknown(covariance, step.theta, fixed),
            sampling,
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
        values = self._determined.tolist()
        own = [Estimate(name, values[k], _number(ses[k]), units[k]) for k, name in enumerate(self.parameters)]
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
        untold = [k for k, name in enumerate(self.parameters) if strength[k] < NO_INFORMATION and name not in self.unknown]
        untold = [k for k in untold if not bool(self.at_bound[k])]
        return tuple(self.parameters[k] for k in sorted({*self.known.confounded, *untold}))

    @property
    def ridges(self) -> tuple[str, ...]:
        """Changes of θ that leave ℓ as it is: ``k1 - 0.333 k3`` is more of one and a third as much less of the other."""
        found = []
        for direction in self.known.undetermined.mT:
            parts = torch.where(self.known.told, 0.0, direction / direction[direction.abs().argmax()]).tolist()
            found.append(combination(parts, self.parameters))
        return tuple(found)

    @property
    def known(self) -> Sampling:
        """What the data say of θ, for functions of it."""
        return self.sampling or Sampling.of_covariance(self.theta_covariance)

    @property
    def _determined(self) -> Tensor:
        """θ, nan for what the data do not determine."""
        values = self.theta.clone()
        values[self.known.confounded] = torch.nan
        values[self.known.unknown] = torch.nan
        return values

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
        return self._function(self.theta.sum(), torch.ones_like(self.theta))

    @property
    def components(self) -> list[VarianceEstimate]:
        """Variance components with their proportions of the sum, in the order of the parameters."""
        rows = zip(self.parameters, self._determined.tolist(), self.standard_errors, strict=True)
        numbered = enumerate(rows)
        return [VarianceEstimate(name, value, _number(se), *self.proportion_of([k])) for k, (name, value, se) in numbered]

    def proportion_of(self, components: list[int]) -> tuple[float, float | None]:
        """Sum of some components over the sum of all, with its standard error."""
        part, se = self._function(self.theta[components].sum() / self.theta.sum(), proportion_gradient(self.theta, components))
        return part, None if se is None or se < NO_PROPORTION_ERROR or bool(self.at_bound[components].all()) else se

    def _function(self, value: Tensor, gradient: Tensor) -> tuple[float, float | None]:
        """A function of θ with its standard error; nan without one where the data do not determine it."""
        known = self.known.determines(gradient)
        return (float(value) if known else math.nan), self.known.se(gradient)


def delta_method(
    functions: Callable[[Tensor], dict[Quantity, Tensor]], theta: Tensor, sampling: Sampling
) -> tuple[Estimate, ...]:
    """Values of differentiable functions of θ (r,) with their standard errors; nan where they are not determined. Local."""
    values = functions(theta)
    if not values:
        return ()
    gradients = torch.func.jacrev(lambda point: torch.stack([*functions(point).values()]))(theta)
    estimates = []
    for ((name, unit, _), value), gradient in zip(values.items(), gradients, strict=True):
        se = sampling.se(gradient)
        has_se = se is not None and se > NO_ERROR * abs(float(value))
        shown = float(value) if sampling.determines(gradient) else math.nan
        estimates.append(Estimate(name, shown, se if has_se else None, unit))
    return tuple(estimates)


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


def proportion_gradient(theta: Tensor, components: list[int]) -> Tensor:
    """∂(Σ_{k∈components} θ_k / Σθ)/∂θ (r,)."""
    total = theta.sum()
    gradient = -theta[components].sum() / total**2 * torch.ones_like(theta)
    gradient[components] += 1 / total
    return gradient


def _number(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(value)
