"""Tests of components and the liability scale, against SciPy and numbers by hand."""

from __future__ import annotations

import pytest
from scipy import stats

from openreml_dist.app.report.terminal import _shortened
from openreml_dist.reml.liability import LiabilityScale
from openreml_dist.reml.likelihood_ratio import VarianceTests
from openreml_dist.reml.wald import chi2_tail


@pytest.mark.parametrize("df", [1, 2, 5])
@pytest.mark.parametrize("x", [0.0, 0.3, 3.84, 50.0, 700.0])
def test_tail_of_chi_square(x: float, df: int) -> None:
    assert chi2_tail(x, df) == pytest.approx(stats.chi2.sf(x, df), rel=1e-9)


def test_one_component_has_half_a_chi_square() -> None:
    tests = VarianceTests.of(-100.0, -102.0, -102.0, num_random=1)
    assert tests.lrt == 4.0
    assert tests.pvalue == pytest.approx(0.5 * stats.chi2.sf(4.0, 1))
    assert "approximate" not in tests.pvalue_note


def test_several_components_have_binomial_weights_and_say_so() -> None:
    tests = VarianceTests.of(-100.0, -103.0, None, num_random=2)
    assert tests.pvalue == pytest.approx(0.5 * stats.chi2.sf(6.0, 1) + 0.25 * stats.chi2.sf(6.0, 2))
    assert tests.pvalue_note.startswith("approximate")


@pytest.mark.parametrize(("num_random", "pvalue"), [(1, 0.5), (2, 0.75), (3, 0.875)])
@pytest.mark.parametrize("gain", [-1e-7, 0.0, 1e-14])
def test_no_gain_has_the_limit_from_above(num_random: int, pvalue: float, gain: float) -> None:
    """1 − 2⁻ᴷ, GCTA's 0.5 for one variance, whether rounding leaves the two log-likelihoods equal or not."""
    tests = VarianceTests.of(-100.0 + gain, -100.0, None, num_random)
    assert tests.lrt == pytest.approx(0.0, abs=1e-12)
    assert tests.pvalue == pytest.approx(pvalue, abs=1e-6)


def test_liability_scale_of_lee_et_al() -> None:
    """K = 1 %, P = 1/2: threshold 2.326348, z = 0.0266521, factor = (0.01 · 0.99)² / (0.0266521² / 4)."""
    assert LiabilityScale(0.01, 0.5).factor == pytest.approx(0.551906, rel=1e-5)
    z = stats.norm.pdf(stats.norm.isf(0.1))
    assert LiabilityScale(0.1, 0.1).factor == pytest.approx(0.09 / z**2, rel=1e-10)  # no ascertainment: K(1−K)/z²


@pytest.mark.parametrize(
    "names",
    [
        ["genetic.L[milk_yield_305,milk_yield_305]", "genetic.L[milk_fat_305,milk_yield_305]", "residual"],
        ["permanent.variance[herd_1]", "permanent.variance[herd_2]", "permanent.correlation[herd_2]"],
        ["chromosome_01_of_map", "chromosome_02_of_map", "chromosome_10_of_map"],
        [f"{'a' * 20}{i}{'b' * 20}" for i in range(3)],
    ],
)
def test_shortened_names_stay_different(names: list[str]) -> None:
    short = _shortened(names)
    assert len(set(short)) == len(names) and max(map(len, short)) <= 14
    assert all(name == other for name, other in zip(short, names, strict=True) if len(other) <= 14)


def test_a_name_is_shortened_to_its_beginning_and_end() -> None:
    assert _shortened(["genetic", "genetic.L[milk,milk]"]) == ["genetic", "geneti…k,milk]"]
