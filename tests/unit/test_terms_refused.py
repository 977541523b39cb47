"""What makes no sense is refused where it is given, in words that name it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from openreml_dist.covariance import (
    AR1Correlation,
    BlockDiagonal,
    Covariance,
    CovariancePropagation,
    DiagonalLevels,
    Exchangeable,
    Exponential,
    FactorAnalytic,
    FeatureKernel,
    Grouping,
    HadamardProduct,
    Heterogeneous,
    Identity,
    Kernel,
    KroneckerProduct,
    Matern,
    PedigreeMatrix,
    SameLevel,
    Scaled,
    Sum,
    Unstructured,
    Weighted,
)
from openreml_dist.errors import InputError

NAN, G = math.nan, Unstructured(2, "G")
INPUT: list[tuple[Callable[[], object], str]] = [
    (lambda: Identity(0), "at least 1"),
    (lambda: Identity(2.5), "at least 1"),  # type: ignore[arg-type]
    (lambda: Weighted([1, NAN]), "not finite"),
    (lambda: Weighted([1, 0]), "positive"),
    (lambda: Weighted([]), "there are none"),
    (lambda: Weighted(["a"]), "not text"),  # type: ignore[list-item]
    (lambda: Heterogeneous([]), r"shape \(0,\)"),
    (lambda: Heterogeneous(["a", None]), "1 samples have no level, the first of them number 2"),
    (lambda: Heterogeneous([1.0, NAN]), "no level"),
    (lambda: Heterogeneous(["a", NAN]), "no level"),
    (lambda: SameLevel(np.array(["a", pd.NA], object), "g"), "no level"),
    (lambda: SameLevel(np.ones((3, 2)), "g"), r"shape \(3, 2\)"),
    (lambda: SameLevel("aab", "g"), "one level a sample"),
    (lambda: Grouping(["1", 1, "1"], "g"), "same level"),
    (lambda: Kernel.from_array(np.zeros((0, 0))), "square"),
    (lambda: Kernel.from_array(np.eye(3)).selected(np.array([0, 3])), "0 to 2 can be selected, not 0 to 3"),
    (lambda: Kernel.from_array(np.eye(3)).selected(np.array([-1])), "0 to 2 can be selected"),
    (lambda: G.selected(np.array([0, 2])), "0 to 1 can be selected"),
    (lambda: G.selected(np.array([0.0])), "by their numbers"),  # type: ignore[arg-type]
    (lambda: G.selected(np.array([True, False])), "by their numbers"),  # type: ignore[arg-type]
    (lambda: FeatureKernel(np.ones(3)), "features must be finite"),
    (lambda: FeatureKernel(np.zeros((0, 3))), "features must be finite"),
    (lambda: AR1Correlation(0, "a"), "at least 1"),
    (lambda: AR1Correlation([], "a"), "there are none"),
    (lambda: AR1Correlation([0, NAN], "a"), "not finite"),
    (lambda: AR1Correlation(["x"], "a"), "not text"),  # type: ignore[list-item]
    (lambda: AR1Correlation([3, 3], "a"), "same position"),
    (lambda: AR1Correlation(1, "a"), "same position"),
    (lambda: AR1Correlation(np.ones((2, 2)), "a"), "one position a sample"),
    (lambda: Exchangeable(1, "e"), "at least 2"),
    (lambda: Matern([1, 2], 2, "m"), "none of 0.5, 1.5, 2.5"),
    (lambda: Matern([1, 1], 1.5, "m"), "same coordinates"),
    (lambda: Matern([], 1.5, "m"), "there are none"),
    (lambda: Exponential(np.ones((2, 2, 2)), "m"), r"\(samples, dimensions\)"),
    (lambda: Unstructured([], "G"), "levels must be there"),
    (lambda: Unstructured(["a", "a"], "G"), "differ: a, a"),
    (lambda: DiagonalLevels(["1", 1], "D"), "differ"),  # type: ignore[list-item]
    (lambda: FactorAnalytic(2, 2, "F"), "2 factors for 2 levels"),
    (lambda: Sum(Identity(2), Identity(3, "b")), "different sizes: 2, 3"),
    (lambda: HadamardProduct(AR1Correlation(2, "a"), AR1Correlation(3, "b")), "different sizes: 2, 3"),
    (KroneckerProduct, "at least one operand"),
    (BlockDiagonal, "at least one operand"),
    (lambda: CovariancePropagation(np.ones((4, 3)), G), "as G has"),
    (lambda: CovariancePropagation(np.ones(4), G), r"not \(4,\)"),
    (lambda: CovariancePropagation(np.array([[1, NAN]]), G), "not finite"),
    (lambda: CovariancePropagation(csr_matrix([[1, NAN]]), G), "not finite"),
    (lambda: PedigreeMatrix([], [], [], "p"), "no animals"),
    (lambda: PedigreeMatrix([1, 1], [0, 0], [0, 0], "p"), "there twice: 1"),
    (
        lambda: PedigreeMatrix([1, 2, 3, 3], [0, 0, 1, 0], [0, 0, 2, 2], "p"),
        "3, of different parents: 1 and 2; unknown and 2",
    ),
    (lambda: PedigreeMatrix([1, "1"], [0, 0], [0, 0], "p"), "there twice: 1"),
    (lambda: PedigreeMatrix(["a", "b"], ["b", "a"], [0, 0], "p"), "loop"),
    (lambda: PedigreeMatrix(["a"], ["a"], [0], "p"), "loop"),
    (lambda: PedigreeMatrix([1], [0, 0], [0], "p"), "differ in length"),
    (lambda: PedigreeMatrix(["*"], [0], [0], "p"), r"no identifier: \* stands for an unknown one"),
    (lambda: PedigreeMatrix(["1", "2"], ["0", "1.0"], ["0", "0"], "p"), "parent 1.0 has no line of its own, but 1 has"),
    (lambda: PedigreeMatrix(["1"], ["0"], ["0"], "p").places_of(["7", "1.0"]), "such as 1.0; it has 1, which may be the same"),
    (lambda: PedigreeMatrix([NAN], [0], [0], "p"), "no identifier"),
    (lambda: PedigreeMatrix([1], [0], [0], "p").places_of([3, "1"]), "1 records are of animals"),
]


@pytest.mark.parametrize(("make", "words"), INPUT)
def test_a_term_that_makes_no_sense_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def model(**settings: object) -> Covariance:
    terms = [Scaled(AR1Correlation(5, "time"), "plot"), Grouping([0, 0, 1, 1, 1], "block"), Identity(5)]
    return Covariance(terms, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fixed": {"x": 1.0}}, "no parameter is named x; there are plot, time.correlation, block, residual"),
        ({"shared": [("plot", "x")]}, "no parameter is named x"),
        ({"transforms": {"x": "log"}}, "no parameter is named x"),
        ({"fixed": {"plot": -1.0}}, "plot is fixed at -1, outside its bounds 0 to inf"),
        ({"fixed": {"plot": NAN}}, "fixed at nan"),
        ({"fixed": {"plot": math.inf}}, "fixed at inf"),
        ({"shared": ["plot"]}, "in groups"),
        ({"shared": [("plot", "block"), ("block", "residual")]}, "block is in two groups"),
        ({"shared": [("plot", "time.correlation")]}, "different units: correlation, variance"),
        ({"shared": [("plot", "block")], "transforms": {"plot": "log"}}, "different transforms"),
        ({"shared": [("plot", "block")], "fixed": {"plot": 1.0, "block": 2.0}}, "different fixed values: 1.0, 2.0"),
        ({"transforms": {"plot": "sqrt"}}, "'sqrt' is no transform; there are identity, log, logit"),
        ({"transforms": {"plot": 3}}, "3 is no transform"),
        ({"transforms": {"time.correlation": "log"}}, "time.correlation: log gives values from 0 to inf"),
        ({"transforms": {"plot": "logit"}}, "plot: logit gives values from -1 to 1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        model(**settings)


@pytest.mark.parametrize("make", [lambda: Sum(3), lambda: KroneckerProduct(3), lambda: Scaled(3, "s"), lambda: Covariance([3])])
def test_what_is_no_term_is_a_type_error(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="covariance terms, not int"):
        make()


def test_a_group_with_one_fixed_parameter_is_fixed() -> None:
    covariance = model(shared=[("plot", "block")], fixed={"block": 2.0})
    assert covariance.parameters == ("time.correlation", "residual")
    assert covariance.map.fixed[0] == covariance.map.fixed[2] == 2.0


def test_identifiers_of_a_pedigree_are_those_that_were_meant() -> None:
    """Integers that a table with unknown parents reads as floats, large ones, and text."""
    assert PedigreeMatrix([1, 2, 3], [NAN, NAN, 1.0], [NAN, None, 2.0], "p").labels == ("1", "2", "3")
    assert PedigreeMatrix([2**60, 2**60 + 1], [0, 2**60], [pd.NA, pd.NaT], "p").labels == (str(2**60), str(2**60 + 1))
    assert PedigreeMatrix(["a", "b"], ["", "a"], ["NA", "dam"], "p").labels == ("a", "b", "dam")
    codes = ["*", "-", "-1", "-9", "000", "?", "Unknown", "N/A", "NULL"]
    assert PedigreeMatrix([f"a{i}" for i in range(9)], codes, codes[::-1], "p").size == 9
    assert PedigreeMatrix(["00", "b"], ["0", "00"], ["0", "000"], "p").labels == ("00", "b")


def test_levels_of_mixed_types_are_text() -> None:
    assert Grouping(np.array([1, "a", 1], object), "g").K.labels.tolist() == ["1", "a"]
    assert Grouping([2**62, 2**62 + 1, 2**62], "g").K.labels.tolist() == [2**62, 2**62 + 1]
