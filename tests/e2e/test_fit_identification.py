"""What the records say nothing of, and correlations that run to one, through the program, alone and on two ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.e2e.data import Cohort, relationships, write_grm
from tests.e2e.programs import Finished, fit

LAUNCHED = pytest.mark.parametrize("launched", ["inside", "torchrun"])


def bivariate(cohort: Cohort, folder: Path, launched: str, traits: np.ndarray) -> Finished:
    """Fit two traits of the cohort, ``nan`` where one is not known."""
    path = folder / "two.phen"
    shown = np.where(np.isnan(traits), "NA", np.char.mod("%.17g", traits))
    path.write_text("".join(f"F{i} I{i} {one} {two}\n" for i, (one, two) in enumerate(shown)))
    data = (f"data.grm={cohort.folder / 'main.grm.zarr'}", f"data.pheno={path}", "data.pheno_column=[1,2]")
    return fit(launched, folder / launched, "model=bivariate", *data)


def estimates(run: Finished) -> dict[str, tuple[float, float | None]]:
    return {row["name"]: (row["value"], row["se"]) for row in run.result["estimates"]}


@LAUNCHED
def test_residual_covariance_of_traits_that_nobody_has_both_of_is_fixed_and_named(
    cohort: Cohort, tmp_path: Path, launched: str
) -> None:
    n = len(cohort.main)
    rng = np.random.default_rng(31)
    effects = np.linalg.cholesky(cohort.main) @ rng.normal(size=n)
    traits = np.column_stack([effects + 0.7 * rng.normal(size=n), 0.8 * effects + 0.7 * rng.normal(size=n)])
    traits[: n // 2, 1], traits[n // 2 :, 0] = np.nan, np.nan
    run = bivariate(cohort, tmp_path, launched, traits)
    assert run.exit_code == 0
    fixed = ["residual.L[trait2,trait1]", "residual.covariance[trait1,trait2]", "residual.correlation[trait1,trait2]"]
    assert run.result["unknown"] == fixed
    found = estimates(run)
    assert all(found[name] == (None, None) for name in fixed)
    at_bound = run.result["history"][-1]["at_bound"]
    known = [name for name in found if name.startswith(("genetic.variance", "residual.variance", "genetic.covariance"))]
    assert len(known) == 5
    assert all(found[name][1] is not None for name in known), at_bound
    assert "the likelihood of these records does not depend on residual.L[trait2,trait1] = 0" in run.output
    assert any("kept at the start" in warning for warning in run.result["warnings"])


@LAUNCHED
def test_a_relationship_matrix_that_is_the_identity_determines_the_sum_alone(
    cohort: Cohort, tmp_path: Path, launched: str
) -> None:
    n = len(cohort.main)
    write_grm(tmp_path / "same.grm.zarr", np.eye(n), np.arange(n))
    path = cohort.folder / "traits.phen"
    found = []
    for number, start in enumerate(("auto", "[0.1,1.3]")):
        settings = (f"data.grm={tmp_path / 'same.grm.zarr'}", f"data.pheno={path}", f"solver.start={start}")
        run = fit(launched, tmp_path / f"run{number}", *settings)
        assert run.exit_code == {"inside": 6, "torchrun": 1}[launched]
        assert (run.result["status"], run.result["exit_code"]) == ("not_identified", 6)
        assert run.result["confounded"] == ["same", "residual"]
        assert all(value is None for c in run.result["components"] for name, value in c.items() if name != "name")
        assert "cannot be told apart by these records: logL does not change along" in run.output
        assert run.output.index("same, residual cannot be told apart beside the fixed effects") < run.output.index(
            "next step/SE"
        )
        assert run.result["num_iterations"] <= 4
        found.append((run.result["phenotypic_variance"], run.result["phenotypic_variance_se"]))
    variance = cohort.traits[:, 0].var(ddof=1)
    for value, se in found:
        assert value == pytest.approx(variance, rel=1e-6)
        assert se == pytest.approx(variance * (2 / (n - 1)) ** 0.5, rel=1e-6)


@LAUNCHED
def test_two_traits_on_nearly_one_line_end_at_a_correlation_of_one(cohort: Cohort, tmp_path: Path, launched: str) -> None:
    first, unrelated = cohort.traits[:, 0], cohort.traits[:, 2]
    run = bivariate(cohort, tmp_path, launched, np.column_stack([first, 2 * first + 1e-3 * unrelated]))
    assert run.exit_code == 0
    assert run.result["status"] == "converged_at_bound"
    assert run.result["num_iterations"] <= 30
    correlation, se = estimates(run)["genetic.correlation[trait1,trait2]"]
    assert correlation == pytest.approx(1, abs=1e-6) and se is None
    assert "genetic.correlation[trait1,trait2] has run to 1, so it has no standard error" in run.output
    variances = [estimates(run)[f"genetic.variance[trait{t}]"][0] for t in (1, 2)]
    assert variances[1] == pytest.approx(4 * variances[0], rel=1e-3) and variances[0] > 0.1


@LAUNCHED
def test_a_relationship_matrix_beside_its_parts_is_named_before_the_iteration(
    cohort: Cohort, tmp_path: Path, launched: str
) -> None:
    n, other = len(cohort.main), relationships(np.random.default_rng(6), len(cohort.main), 90)
    for name, matrix in {"rest": other, "all": (150 * cohort.main + 90 * other) / 240}.items():
        write_grm(tmp_path / f"{name}.grm.zarr", matrix, np.arange(n))
    grms = f"[{cohort.folder / 'main.grm.zarr'},{tmp_path / 'rest.grm.zarr'},{tmp_path / 'all.grm.zarr'}]"
    run = fit(launched, tmp_path / "run", f"data.grm={grms}", f"data.pheno={cohort.folder / 'traits.phen'}")
    said = "logL does not change along - 0.625 main - 0.375 rest + all; all is kept on its bound"
    assert run.output.index(said) < run.output.index("next step/SE")
    without = grms.replace(f",{tmp_path / 'all.grm.zarr'}", "")
    apart = fit("inside", tmp_path / "apart", f"data.grm={without}", f"data.pheno={cohort.folder / 'traits.phen'}")
    assert run.result["loglik"] == pytest.approx(apart.result["loglik"], abs=1e-7)
    at_bound = apart.result["status"] == "converged_at_bound"
    assert run.result["status"] == ("converged_at_bound" if at_bound else "not_identified")
    assert run.result["confounded"] == ([] if at_bound else ["main", "rest", "all"])
    assert run.result["phenotypic_variance_se"] == pytest.approx(apart.result["phenotypic_variance_se"], rel=1e-5)


@LAUNCHED
def test_a_factor_that_is_fixed_and_random_is_named_before_the_iteration(cohort: Cohort, tmp_path: Path, launched: str) -> None:
    tables = (*cohort.data(), f"data.covar={cohort.folder / 'factors.covar'}", "model.fixed='1 + batch'")
    terms = ("+model.random.genetic='genomic(id)'", "+model.random.again='group(batch)'")
    run = fit(launched, tmp_path / "run", *tables, *terms)
    said = "logL does not depend on again: nothing is left of it beside the fixed effects"
    assert run.output.index(said) < run.output.index("next step/SE")
    assert run.result["status"] == "not_identified" and run.result["unknown"] == ["again"]
    apart = fit("inside", tmp_path / "apart", *tables, terms[0])
    for name, (value, se) in estimates(apart).items():
        assert estimates(run)[name] == (pytest.approx(value, rel=1e-5), pytest.approx(se, rel=1e-5))
