"""Standard errors of ratios against finite differences; bounds and singular information."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from openreml_dist.reml.outcome import Status
from openreml_dist.reml.result import FitResult
from openreml_dist.reml.sampling import Sampling


def result(theta: Tensor, AI: Tensor, at_bound: Tensor) -> FitResult:
    covariance = Sampling.of(AI, at_bound).of_theta
    one = torch.ones(1, 1, dtype=torch.float64)
    names = tuple(f"c{k}" for k in range(len(theta)))
    no_error = torch.zeros_like(theta)
    return FitResult(Status.CONVERGED, "", names, theta, covariance, no_error, at_bound, -1.0, one[0], 4 * one, ())


THETA = torch.tensor([0.3, 0.1, 0.6], dtype=torch.float64)
AI = torch.tensor([[900.0, 100.0, 200.0], [100.0, 700.0, 150.0], [200.0, 150.0, 1100.0]], dtype=torch.float64)
FREE = torch.zeros(3, dtype=torch.bool)


def test_standard_errors_are_the_delta_method() -> None:
    fit = result(THETA, AI, FREE)
    covariance = torch.linalg.inv(AI)
    h = 1e-7
    for k, component in enumerate(fit.components):
        gradient = torch.stack([
            ((THETA + h * e)[k] / (THETA + h * e).sum() - (THETA - h * e)[k] / (THETA - h * e).sum()) / (2 * h)
            for e in torch.eye(3, dtype=torch.float64)
        ])  # fmt: skip
        assert component.variance == float(THETA[k])
        assert component.se == pytest.approx(float(covariance[k, k].sqrt()))
        assert component.proportion == pytest.approx(float(THETA[k] / THETA.sum()))
        assert component.proportion_se == pytest.approx(float((gradient @ covariance @ gradient).sqrt()), rel=1e-6)
    assert fit.total == (pytest.approx(1.0), pytest.approx(float(covariance.sum().sqrt())))
    share, se = fit.proportion_of([0, 1])
    assert share == pytest.approx(0.4)
    assert se == pytest.approx(fit.components[2].proportion_se)  # it is one minus the residual's
    assert fit.beta_se.tolist() == [2.0]


def test_component_on_its_bound_has_no_standard_error_and_is_left_out() -> None:
    theta = torch.tensor([0.0, 0.4, 0.6], dtype=torch.float64)
    fit = result(theta, AI, torch.tensor([True, False, False]))
    bound, second, residual = fit.components
    assert (bound.variance, bound.se, bound.proportion, bound.proportion_se) == (0.0, None, 0.0, None)
    inner = torch.linalg.inv(AI[1:, 1:])
    assert second.se == pytest.approx(float(inner[0, 0].sqrt()))
    assert residual.proportion_se == pytest.approx(second.proportion_se)
    assert fit.theta_covariance[0].isnan().all()


def test_residual_is_all_there_is_where_the_others_are_on_their_bounds() -> None:
    fit = result(torch.tensor([0.0, 1.0], dtype=torch.float64), AI[:2, :2], torch.tensor([True, False]))
    residual = fit.components[1]
    assert (residual.proportion, residual.proportion_se) == (1.0, None)
    assert residual.se is not None


def test_singular_information_gives_no_standard_errors() -> None:
    fit = result(THETA[:2], torch.ones(2, 2, dtype=torch.float64), FREE[:2])
    assert [c.se for c in fit.components] == [None, None]
    assert math.isnan(float(fit.standard_errors[0]))
