"""What is remarkable about a phenotype is found; what is usual is passed over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from openreml_dist.reml import Remark, remarks_on
from openreml_dist.reml.remarks import residuals

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]


def kinds(found: list[Remark]) -> list[tuple[str, str]]:
    return [(remark.kind, remark.of) for remark in found]


USUAL: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(170, 9, n),
    "rounded to whole centimetres": lambda rng, n: rng.normal(170, 9, n).round(),
    "rounded to two decimals": lambda rng, n: rng.normal(0, 1, n).round(2),
    "uniform": lambda rng, n: rng.random(n),
    "leaning": lambda rng, n: rng.beta(2, 4, n),
    "two humps": lambda rng, n: rng.normal(0, 1, n) + 6 * (rng.random(n) < 0.5),
    "ages": lambda rng, n: rng.integers(20, 80, n).astype(float),
    "cases and controls": lambda rng, n: (rng.random(n) < 0.02).astype(float),
    "cases and controls from 1": lambda rng, n: 1.0 + (rng.random(n) < 0.5),
    "rare counts": lambda rng, n: rng.poisson(0.3, n).astype(float),
    "counts": lambda rng, n: rng.poisson(3, n).astype(float),
    "large counts": lambda rng, n: rng.poisson(200, n).astype(float),
    "overdispersed counts": lambda rng, n: rng.negative_binomial(1.5, 0.15, n).astype(float),
    "counts with many zeros": lambda rng, n: np.where(rng.random(n) < 0.5, 0.0, rng.poisson(6, n)),
    "litters": lambda rng, n: 1.0 + rng.poisson(3, n),
    "sums of items": lambda rng, n: rng.binomial(10, 0.5, n).astype(float),
    "scores about zero": lambda rng, n: rng.binomial(8, 0.5, n) - 4.0,
}


@pytest.mark.parametrize("name", USUAL)
@pytest.mark.parametrize("n", [120, 2_000, 100_000])
def test_usual_phenotypes_are_passed_over(name: str, n: int) -> None:
    rng = np.random.default_rng(n)
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    for _ in range(10 if n < 10_000 else 1):
        y = USUAL[name](rng, n)
        assert kinds(remarks_on(y)) == []
        assert kinds(remarks_on(y, X)) == []


@pytest.mark.parametrize("n", [30, 100, 500])
def test_normal_data_raise_few_false_alarms(n: int) -> None:
    """At most 1 in 1,000 is claimed; 12 and more of 4,000 would be a chance of 1e-3."""
    rng = np.random.default_rng(n)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    assert sum(bool(remarks_on(rng.normal(size=n), X)) for _ in range(4_000)) < 12


@pytest.mark.parametrize("scale", [1e-150, 1e-9, 1.0, 1e9, 1e150])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_value_far_away_is_named_in_any_unit(scale: float, as_tensor: bool) -> None:
    y = np.random.default_rng(1).normal(2, 1, 240)
    y[17], y[40] = 302.0, -98.0
    values = torch.tensor(y * scale) if as_tensor else y * scale
    (remark,) = remarks_on(values)
    assert (remark.kind, remark.of, remark.count, remark.records) == ("outliers", "phenotype", 2, (17, 40))
    sd = 1.4826 * np.median(np.abs(y - np.median(y)))
    assert remark.distances == pytest.approx(((302 - np.median(y)) / sd, (-98 - np.median(y)) / sd), rel=0.2)
    assert remark.values == (302.0 * scale, -98.0 * scale)
    assert f"person 17 has {302 * scale:.6g} (+" in remark.sentence(lambda record: f"person {record}")


def test_many_far_values_are_a_tail_and_only_some_are_named() -> None:
    rng = np.random.default_rng(2)
    (tails, *_) = remarks_on(rng.standard_cauchy(5_000))
    assert tails.kind == "tails" and tails.count > 50 and len(tails.records) == 100
    assert tails.sentence().endswith(f"and {tails.count - 5:,} more")


def test_fixed_effects_uncover_what_differences_between_groups_hide() -> None:
    rng = np.random.default_rng(3)
    group = np.arange(1_000) % 20
    X = (group[:, None] == np.arange(20)).astype(float)
    X[:, 0] = 1.0
    y = rng.normal(size=1_000) + 10.0 * group
    y[33] += 25.0
    assert kinds(remarks_on(y)) == []
    (remark,) = remarks_on(y, X)
    assert (remark.kind, remark.of, remark.records) == ("outliers", "residuals", (33,))
    assert "after the fixed effects" in remark.text
    y[40] = 1e7  # must not make outliers of all the others in its group
    assert [(found.of, found.records) for found in remarks_on(y, X)] == [("phenotype", (40,)), ("residuals", (33,))]


def test_skewness_is_that_of_what_the_fixed_effects_leave() -> None:
    rng = np.random.default_rng(4)
    rare = (rng.random(5_000) < 0.04).astype(float)
    X = np.column_stack([np.ones(5_000), rare])
    y = rng.normal(size=5_000) + 5 * rare
    assert ("skewness", "residuals") not in kinds(remarks_on(y, X))
    assert ("skewness", "phenotype") in kinds(remarks_on(rng.exponential(size=5_000)))
    assert ("skewness", "residuals") in kinds(remarks_on(y + rng.exponential(3, 5_000), X))
    spread = rng.uniform(-1.5, 1.5, 5_000)
    spread[:150] = rng.uniform(5.5, 6.4, 150) * rng.choice([-1, 1], 150)  # within 6 SD, which are 6.7
    assert kinds(remarks_on(spread)) == [("kurtosis", "phenotype")]


def test_repeated_values_are_a_spike_where_the_others_are_not_repeated() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(25, 4, 3_000).round(1)
    y[:90], y[90:110] = -9.0, 99.0
    found = remarks_on(y)
    assert kinds(found) == [("spike", "phenotype"), ("spike", "phenotype")]
    assert [remark.count for remark in found] == [90, 20]
    assert "90 of 3,000 records (3.0%) have the value -9, -" in found[0].text and "SD from the median" in found[0].text
    detection = np.maximum(rng.normal(size=3_000), -1.0)
    (limit,) = remarks_on(detection)
    assert limit.kind == "spike" and "SD from" not in limit.text


@pytest.mark.parametrize(
    ("levels", "shares"),
    [
        ((1, 2, 3), (0.3, 0.3, 0.4)),
        ((0, 2), (0.7, 0.3)),
        ((0, 1, 2, 9), (0.5, 0.3, 0.15, 0.05)),
        ((-9, 1, 2), (0.02, 0.6, 0.38)),
        ((0, 1, 2, 3, 4, 5), (0.1, 0.3, 0.05, 0.3, 0.05, 0.2)),
        ((10, 20, 30), (0.4, 0.4, 0.2)),
    ],
)
def test_few_whole_numbers_that_are_no_counts_may_be_codes(levels: tuple[int, ...], shares: tuple[float, ...]) -> None:
    y = np.random.default_rng(6).choice(np.array(levels, float), 400, p=shares)
    (remark,) = remarks_on(y)
    assert remark.kind == "codes"
    assert f"among {len(levels)} whole numbers ({', '.join(map(str, levels))})" in remark.text


def test_a_wrong_count_is_an_outlier() -> None:
    y = np.random.default_rng(7).poisson(3, 500).astype(float)
    y[7] = 999.0
    (remark,) = remarks_on(y)
    assert (remark.kind, remark.records) == ("outliers", (7,))


def test_residuals_are_those_of_least_squares_over_the_records_used() -> None:
    rng = np.random.default_rng(8)
    X = np.column_stack([np.ones(300), 1e6 * rng.normal(size=300), np.arange(300) == 5])
    y, used = rng.normal(size=300), np.arange(300) != 5  # leaves the third column without a record
    expected = y - X[:, :2] @ np.linalg.lstsq(X[used, :2], y[used])[0]
    np.testing.assert_allclose(residuals(y, X, used)[used], expected[used], atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 29])
def test_too_few_records_are_not_judged(n: int) -> None:
    y = np.zeros(n)
    y[-1] = 1e9
    assert remarks_on(y) == []


def test_y_and_x_stay_as_they_are() -> None:
    rng = np.random.default_rng(9)
    y, X = rng.exponential(size=400), np.column_stack([np.ones(400), rng.normal(size=400)])
    before = y.copy(), X.copy()
    remarks_on(y, X)
    np.testing.assert_array_equal(y, before[0])
    np.testing.assert_array_equal(X, before[1])
