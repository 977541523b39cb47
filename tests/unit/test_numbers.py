"""Numbers of tables: digits follow the size, a column has one format, and what six decimals cannot show is said."""

from __future__ import annotations

import math

import pytest
import torch

from openreml_dist.app.report.decimals import decimals_notes, hsq_line, scale_of_y
from openreml_dist.app.report.numbers import Format, columns
from openreml_dist.reml.outcome import Status
from openreml_dist.reml.result import Estimate, FitResult

VALUES = (0.69245182, 0.35996324, 1.05241506)
ERRORS = (0.17754932, 0.12933380, 0.10455882)


@pytest.mark.parametrize("scale", [10.0**k for k in range(-24, 25, 2)])
def test_column_has_six_digits_of_its_largest_number_on_any_scale(scale: float) -> None:
    texts = columns([(value * scale, se * scale) for value, se in zip(VALUES, ERRORS, strict=True)])
    shown = [[float(text) for text in pair] for pair in texts]
    for (value, se), expected, error in zip(shown, VALUES, ERRORS, strict=True):
        assert value == pytest.approx(expected * scale, abs=0.5e-5 * VALUES[2] * scale)
        assert se == pytest.approx(error * scale, rel=1e-3)
    flat = [text for pair in texts for text in pair]
    assert max(map(len, flat)) <= 14
    assert len({text.rpartition(".")[2].partition("e")[0].__len__() for text in flat if "." in text}) <= 1  # points align
    assert len({"e" in text for text in flat}) == 1


def test_usual_scale_has_the_decimals_of_hsq() -> None:
    assert columns([(0.5, 0.04), (12.25, None)]) == [("0.500000", "0.040000"), ("12.250000", "NA")]


def test_small_standard_errors_beside_large_estimates_are_read() -> None:
    """An intercept of 1,700 beside the slope of a covariate with large numbers."""
    (_, _), (slope, error) = columns([(1700.123456, 2.5), (0.00123456, 0.000123456)])
    assert (float(slope), float(error)) == (pytest.approx(0.00123456, rel=1e-4), pytest.approx(0.000123456, rel=1e-3))


def test_an_estimate_that_is_nothing_beside_its_error_takes_no_digits() -> None:
    assert columns([(1.0, 0.04), (3e-12, 0.02)])[1] == ("0.000000", "0.020000")
    assert columns([(1.0, 0.04), (-3e-17, None)])[1] == ("0.000000", "NA")  # on its bound, but for rounding


def test_what_is_no_number_is_not_available() -> None:
    form = Format.of([(None, None), (math.nan, math.inf)])
    assert (form(None), form(math.nan), form(0.0)) == ("NA", "NA", "0.000000")


def test_a_line_of_an_iteration_leaves_its_format_rather_than_be_unreadable() -> None:
    form = Format.of([(0.5, None)])
    assert form.within(0.25, 14) == "0.250000"
    assert form.within(0.0, 14) == "0.000000"
    assert form.within(2.5e-9, 14) == "2.50000e-09"
    assert form.within(1.25e15, 14) == "1.25000e+15"


def fitted(scale: float, se: float = 0.1, beta: float = 2.0, beta_se: float = 0.04) -> FitResult:
    """Two components, 0.6 and 0.4 times ``scale``, with one standard error and no correlation."""
    theta = scale * torch.tensor([0.6, 0.4], dtype=torch.float64)
    covariance = (scale * se) ** 2 * torch.eye(2, dtype=torch.float64)
    free, none = torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.float64)
    fixed = torch.tensor([beta], dtype=torch.float64), torch.tensor([[beta_se**2]], dtype=torch.float64)
    return FitResult(Status.CONVERGED, "", ("G", "residual"), theta, covariance, none, free, -1.0, *fixed, ())


@pytest.mark.parametrize("scale", [1e-18, 3e-9, 2e-4, 9e-4])
def test_scale_that_is_proposed_is_enough(scale: float) -> None:
    fit = fitted(scale)
    times = scale_of_y(fit)
    assert times is not None
    assert math.log10(times) == round(math.log10(times)) > 0
    assert scale_of_y(fitted(scale * times**2)) is None
    assert scale_of_y(fitted(scale * (times / 10) ** 2)) is not None or 0.1 * scale * (times / 10) ** 2 < 1e-3
    name, value = hsq_line(fit).rstrip("\n").split("\t")
    assert " " not in name  # one field, for whom white space separates
    assert float(value) == times
    (note,) = decimals_notes(fit)
    assert note.startswith("result.hsq has six decimals, too few for G (")
    assert float(note.partition("multiply y by ")[2].partition(",")[0]) == times


@pytest.mark.parametrize("scale", [2e-3, 1.0, 1e18])
def test_nothing_is_said_where_six_decimals_are_enough(scale: float) -> None:
    fit = fitted(scale)
    assert (scale_of_y(fit), hsq_line(fit), decimals_notes(fit, fixed_names=("intercept",))) == (None, "", [])


def test_fixed_effects_of_large_covariates_are_named() -> None:
    fit = fitted(1.0, beta=3e-7, beta_se=2e-8)
    assert hsq_line(fit) == ""
    (note,) = decimals_notes(fit, fixed_names=("income",))
    assert "fixed effect of income (3e-07, SE 2e-08): divide income by 100000," in note
    assert decimals_notes(fit) == []  # not in the file


def test_of_several_traits_the_small_one_is_named() -> None:
    rows = [
        Estimate("V(G)_tr1", 0.5, 0.1), Estimate("V(G)_tr2", 5e-7, 1e-7), Estimate("rG", 1e-5, 1e-5, "correlation")
    ]  # fmt: skip
    (note,) = decimals_notes(fitted(1.0), rows)
    assert "V(G)_tr2" in note and "multiply y by 100," in note
