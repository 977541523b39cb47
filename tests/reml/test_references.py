"""Published and independently computed answers, on one rank and on two, with the default stopping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from openreml_dist import REML, Covariance, FitResult, Grouping, Identity, Kernel
from openreml_dist.covariance import AR1Correlation, CovariancePropagation, HadamardProduct, SameLevel, Scaled, Unstructured
from tests.helpers.answers import load, references, tensor, treatment_coding
from tests.helpers.gloo import spawn

Model = tuple[Covariance, Tensor, Tensor]


def classic(name: str) -> tuple[Any, Tensor, dict[str, Any]]:
    """Data, X (lme4 treatment coding) and exact answers of a set from lme4 or nlme."""
    import pandas as pd

    data, answers = load(name)
    X = torch.tensor(pd.read_csv(references() / name / "X.csv").to_numpy(dtype=float))
    return data, X, answers["exact"]


def groups(*factors: Any) -> Covariance:
    terms = [Grouping(factor.to_numpy(), f"term{k}") for k, factor in enumerate(factors)]
    return Covariance([*terms, Identity(len(factors[0]))])


def dyestuff() -> tuple[Model, dict[str, Any]]:
    data, X, exact = classic("dyestuff")
    return (groups(data["Batch"]), tensor(data["Yield"]), X), exact


def rail() -> tuple[Model, dict[str, Any]]:
    data, X, exact = classic("rail")
    return (groups(data["Rail"]), tensor(data["travel"]), X), exact


def pastes() -> tuple[Model, dict[str, Any]]:
    data, X, exact = classic("pastes")
    return (groups(data["batch"], data["sample"]), tensor(data["strength"]), X), exact


def oats() -> tuple[Model, dict[str, Any]]:
    data, X, exact = classic("oats")
    return (groups(data["Block"], data["Block"] + ":" + data["Variety"]), tensor(data["yield"]), X), exact


def sleepstudy_ri() -> tuple[Model, dict[str, Any]]:
    data, X, exact = classic("sleepstudy_ri")
    return (groups(data["Subject"]), tensor(data["Reaction"]), X), exact


def sleepstudy_diag() -> tuple[Model, dict[str, Any]]:
    """Independent intercept and slope: the slope's kernel is D ZZᵀ D with D the days."""
    data, X, exact = classic("sleepstudy_diag")
    days, subject = tensor(data["Days"]), data["Subject"].to_numpy()
    same = torch.tensor(subject[:, None] == subject[None, :]).double()
    slope = Kernel.from_array(days[:, None] * same * days, "slope")
    covariance = Covariance([Grouping(subject, "intercept"), slope, Identity(len(data))])
    return (covariance, tensor(data["Reaction"]), X), exact


def published(name: str) -> tuple[Any, dict[str, Any]]:
    """Data and exact answers of a third-party set, in the shape of the classic ones."""
    data, answers = load(f"published_{name}")
    (answer,) = answers
    estimates = [answer["estimates"][parameter] for parameter in answer["params"]]
    exact = {"value": [e["value"] for e in estimates], "se_AI": [e["se_AI"] for e in estimates], "logL": answer["logL"]}
    return data, exact | {"beta": answer["beta"], "beta_se": answer["beta_se"]}


def john_alpha() -> tuple[Model, dict[str, Any]]:
    data, exact = published("john.alpha")
    covariance = groups(data["gen"], data["rep"] + ":" + data["block"])
    return (covariance, tensor(data["yield"]), treatment_coding(data, "rep")), exact


def kempton_slatehall() -> tuple[Model, dict[str, Any]]:
    data, exact = published("kempton.slatehall")
    covariance = groups(data["rep"], data["rep"] + ":" + data["col"].astype(str), data["rep"] + ":" + data["row"].astype(str))
    return (covariance, tensor(data["yield"]), treatment_coding(data, "gen")), exact


def stroup_splitplot() -> tuple[Model, dict[str, Any]]:
    """The reference codes a*b as one factor of six cells."""
    data, exact = published("stroup.splitplot")
    cells = data.assign(cell=data["a"] + ":" + data["b"])
    return (groups(data["rep"], data["a"] + ":" + data["rep"]), tensor(data["y"]), treatment_coding(cells, "cell")), exact


def sleepstudy_rs() -> tuple[Model, dict[str, Any]]:
    """Correlated intercept and slope of each subject."""
    data, X, exact = classic("sleepstudy_rs")
    effects = CovariancePropagation(X.numpy(), Unstructured(["intercept", "slope"], "subject"))
    within = HadamardProduct(effects, SameLevel(data["Subject"].to_numpy(), "subject"))
    names = ["subject.variance[intercept]", "subject.covariance[intercept,slope]", "subject.variance[slope]", "residual"]
    return (Covariance([within, Identity(len(data))]), tensor(data["Reaction"]), X), exact | {"names": names}


def stroup_nin() -> tuple[Model, dict[str, Any]]:
    """A field of autocorrelated columns and rows."""
    data, exact = published("stroup.nin")
    data = data.dropna(subset="yield")
    field = HadamardProduct(AR1Correlation(data["col"].to_numpy(), "col"), AR1Correlation(data["row"].to_numpy(), "row"))
    return (Covariance([Scaled(field, "plot")]), tensor(data["yield"]), treatment_coding(data, "gen")), exact


def harris_wateruse() -> tuple[Model, dict[str, Any]]:
    """Trees, and days that are autocorrelated in continuous time within each."""
    data, exact = published("harris.wateruse")
    data = data[(data["age"] == "A2") & (data["species"] == "S2") & (data["day"] != 268)]
    tree, time = data["tree"].to_numpy(), tensor(data["day"]) / 100
    days = HadamardProduct(AR1Correlation(data["day"].to_numpy(), "day"), SameLevel(tree, "tree"))
    X = torch.stack([torch.ones_like(time), time, time**2], dim=1)
    return (Covariance([Grouping(tree, "tree"), Scaled(days, "residual")]), tensor(data["water"]), X), exact


SETS = [
    sleepstudy_rs, stroup_nin, harris_wateruse,
    dyestuff, rail, pastes, oats, sleepstudy_ri, sleepstudy_diag, john_alpha, kempton_slatehall, stroup_splitplot,
]  # fmt: skip


def check(fit: FitResult, exact: dict[str, Any]) -> None:
    """Within the tolerance of the reference sets: 1e-6 relative, logL 1e-6 absolute."""
    assert fit.status == "converged"
    found = {estimate.name: (estimate.value, estimate.se) for estimate in fit.estimates}
    names = exact.get("names", fit.parameters)
    for name, value, se in zip(names, exact["value"], exact["se_AI"], strict=True):
        assert found[name] == pytest.approx((value, se), rel=1e-6), name
    assert fit.loglik == pytest.approx(exact["logL"], abs=1e-6)
    for found, key in ((fit.beta, "beta"), (fit.beta_se, "beta_se")):
        expected = exact[key].values() if isinstance(exact[key], dict) else exact[key]
        torch.testing.assert_close(found, torch.tensor([*expected], dtype=torch.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", SETS, ids=lambda make: make.__name__)
def test_fit_finds_the_reference_estimates(make: Callable[[], tuple[Model, dict[str, Any]]]) -> None:
    (covariance, y, X), exact = make()
    check(REML(covariance, tile_size=17).fit(y, X), exact)


def fit_all() -> list[FitResult]:
    return [REML(covariance).fit(y, X) for (covariance, y, X), _ in (make() for make in SETS)]


def test_two_ranks_find_the_same() -> None:
    references()
    alone = fit_all()
    for fits in spawn(fit_all, 2):
        for mine, theirs, make in zip(alone, fits, SETS, strict=True):
            check(theirs, make()[1])
            torch.testing.assert_close(theirs.theta, mine.theta, rtol=1e-8, atol=0)
            units = torch.outer(mine.standard_errors, mine.standard_errors)  # of balanced designs some covariances are zero
            torch.testing.assert_close(theirs.theta_covariance / units, mine.theta_covariance / units, rtol=1e-8, atol=1e-10)
            assert theirs.loglik == pytest.approx(mine.loglik, rel=1e-10)
