"""Good runs: the same digits under every launcher, and files that hold what they promise."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from tests.e2e.data import Cohort
from tests.e2e.programs import Finished, fit, needs_mpi
from tests.helpers.oracle import Oracle, oracle

KEYS = {
    "status", "exit_code", "num_samples", "num_iterations", "loglik", "loglik_null", "lrt", "pvalue", "components",
    "theta_covariance", "fixed_effects", "timings", "versions", "inputs",
}  # fmt: skip
NUMBERS = ("variance", "se", "proportion", "proportion_se")


def covariates(cohort: Cohort) -> tuple[str, ...]:
    return f"data.qcovar={cohort.folder / 'numbers.qcovar'}", f"data.covar={cohort.folder / 'factors.covar'}"


def numbers(run: Finished) -> list[float]:
    result = run.result
    found = [result["loglik"], result["loglik_null"], result["lrt"]]
    for component in result["components"]:
        found += [component[key] for key in NUMBERS]
    for effect in result["fixed_effects"]:
        found += [effect["estimate"], effect["se"]]
    return found


def exact(cohort: Cohort, theta: list[float]) -> Oracle:
    """The oracle for the quantitative trait with all covariates."""
    K, eye = torch.tensor(cohort.main), torch.eye(len(cohort.main)).double()
    X = np.column_stack([np.ones_like(cohort.age), cohort.age, cohort.batch == 1, cohort.batch == 2])
    return oracle(theta[0] * K + theta[1] * eye, [K, eye], torch.tensor(cohort.traits[:, 0]), torch.tensor(X))


@pytest.fixture(scope="module")
def alone(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    run = fit("alone", tmp_path_factory.mktemp("alone") / "run", *cohort.data(), *covariates(cohort))
    assert run.exit_code == 0, run.errors
    return run


@pytest.mark.parametrize("launched", ["torchrun", pytest.param("mpirun", marks=needs_mpi)])
def test_two_ranks_print_the_digits_of_one(cohort: Cohort, alone: Finished, tmp_path: Path, launched: str) -> None:
    run = fit(launched, tmp_path / "run", *cohort.data(), *covariates(cohort))
    assert run.exit_code == 0, run.errors
    assert numbers(run) == pytest.approx(numbers(alone), rel=1e-8, abs=1e-12)
    assert run.result["num_ranks"] == 2
    assert {path.name for path in run.run_dir.glob("rank-*.log")} == {"rank-0.log", "rank-1.log"}
    tables = []
    for finished in (run, alone):
        printed = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", finished.output)  # mpirun gives its ranks a terminal, hence colours
        tables.append(printed[printed.index("component") : printed.index("converged")].splitlines())
    assert tables[0] == tables[1]


def test_another_grid_and_tile_print_the_same_digits(cohort: Cohort, alone: Finished, tmp_path: Path) -> None:
    settings = ("grid.rows=2", "grid.columns=1", "solver.tile_size=32")
    run = fit("torchrun", tmp_path / "run", *cohort.data(), *covariates(cohort), *settings)
    assert run.exit_code == 0, run.errors
    assert "grid 2 x 1" in run.output
    assert numbers(run) == pytest.approx(numbers(alone), rel=1e-8, abs=1e-12)


def test_estimates_are_those_of_the_dense_oracle(cohort: Cohort, alone: Finished) -> None:
    result = alone.result
    theta = [component["variance"] for component in result["components"]]
    found = exact(cohort, theta)
    covariance = torch.linalg.inv(found.AI)
    assert float((found.score.abs() * covariance.diagonal().sqrt()).max()) < 1e-5
    assert result["loglik"] == pytest.approx(found.loglik, rel=1e-10)
    np.testing.assert_allclose(result["theta_covariance"], covariance, rtol=1e-7)
    np.testing.assert_allclose([effect["estimate"] for effect in result["fixed_effects"]], found.beta, rtol=1e-7)
    ses = found.beta_covariance.diagonal().sqrt()
    np.testing.assert_allclose([effect["se"] for effect in result["fixed_effects"]], ses, rtol=1e-7)


def test_result_holds_what_it_promises(cohort: Cohort, alone: Finished) -> None:
    result = alone.result
    assert result.keys() >= KEYS
    assert (result["status"], result["exit_code"], result["num_samples"]) == ("converged", 0, 120)
    assert [component["name"] for component in result["components"]] == ["main", "residual"]
    assert [effect["name"] for effect in result["fixed_effects"]] == ["intercept", "age", "batch=b1", "batch=b2"]
    timings = result["timings"]
    assert timings["startup"] > 0
    assert 0 < timings["read"] < timings["fit"]
    assert set(timings["phases"]) == {"assemble", "invert", "project", "traces"}
    assert result["lrt"] == pytest.approx(2 * (result["loglik"] - result["loglik_null"]))
    assert result["pvalue"] == pytest.approx(0.5 * math.erfc(math.sqrt(result["lrt"] / 2)))
    assert all(len(digest) == 64 for digest in result["inputs"].values())
    assert len(result["inputs"]) == 4
    assert not result["dropped"] or not any(result["dropped"].values())


def test_every_step_belongs_to_its_theta(cohort: Cohort, alone: Finished) -> None:
    assert len(alone.steps) == alone.result["num_iterations"] + 1
    for number, step in enumerate(alone.steps):
        found = exact(cohort, list(step["theta"].values()))
        assert step["iteration"] == number
        assert step["loglik"] == pytest.approx(found.loglik, rel=1e-10)
        np.testing.assert_allclose(step["score"], found.score, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(step["ai"], found.AI, rtol=1e-8)
        np.testing.assert_allclose(step["beta"], found.beta, rtol=1e-7, atol=1e-9)
        assert step["trace_error"] < 1e-10


def test_hsq_is_the_table_of_gcta(alone: Finished) -> None:
    result = alone.result
    genetic, residual = result["components"]
    lines = [line.split("\t") for line in alone.hsq.splitlines()]
    assert [line[0] for line in lines] == [
        "Source", "V(G)", "V(e)", "Vp", "V(G)/Vp", "logL", "logL0", "LRT", "df", "Pval", "n",
    ]  # fmt: skip
    assert lines[0] == ["Source", "Variance", "SE"]
    assert lines[1] == ["V(G)", f"{genetic['variance']:.6f}", f"{genetic['se']:.6f}"]
    assert lines[2] == ["V(e)", f"{residual['variance']:.6f}", f"{residual['se']:.6f}"]
    assert lines[4] == ["V(G)/Vp", f"{genetic['proportion']:.6f}", f"{genetic['proportion_se']:.6f}"]
    assert lines[5:] == [
        ["logL", f"{result['loglik']:.3f}"], ["logL0", f"{result['loglik_null']:.3f}"], ["LRT", f"{result['lrt']:.3f}"],
        ["df", "1"], ["Pval", f"{result['pvalue']:.4e}"], ["n", "120"],
    ]  # fmt: skip


def test_picture_is_a_picture(alone: Finished) -> None:
    picture = (alone.run_dir / "convergence.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5_000


def test_estimates_are_shown_before_the_picture_is_drawn(cohort: Cohort, alone: Finished, tmp_path: Path) -> None:
    with mock.patch("openreml_dist.app.report.result_files.plot_convergence", side_effect=OSError("no space")):
        run = fit("inside", tmp_path / "run", *cohort.data(), *covariates(cohort))
    assert (run.exit_code, run.result["status"]) == (2, "failed"), "result.json is the last word"
    assert run.hsq == alone.hsq
    tables = [output[output.index("component") :].partition("\n\n")[0] for output in (run.output, alone.output)]
    assert tables[0].strip() == tables[1].strip()


def test_resolved_configuration_repeats_the_run(alone: Finished, tmp_path: Path) -> None:
    run = fit("inside", tmp_path / "run", f"--config-dir={alone.run_dir}", "--config-name=config")
    assert run.exit_code == 0, run.errors
    assert numbers(run) == numbers(alone)


def test_threads_follow_the_cores(alone: Finished, cohort: Cohort, tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    assert f"{cores} thread" in alone.output.splitlines()[0]
    run = fit("torchrun", tmp_path / "run", *cohort.data(), "solver.max_iter=1")
    assert f"{max(1, cores // 2)} thread" in run.output.splitlines()[0]


def test_two_grms_of_other_samples_and_order(cohort: Cohort, tmp_path: Path) -> None:
    run = fit("inside", tmp_path / "run", *cohort.data("main", "other"), "solver.tile_size=24")
    assert run.exit_code == 0, run.errors
    result = run.result
    assert (result["status"], result["num_samples"]) == ("converged", 100)
    assert sum(result["dropped"].values()) == 20
    kept = slice(20, None)
    matrices = [torch.tensor(K[kept, kept]) for K in (cohort.main, cohort.other)] + [torch.eye(100).double()]
    theta = [component["variance"] for component in result["components"]]
    X = torch.ones(100, 1).double()
    V = sum((t * K for t, K in zip(theta, matrices, strict=True)), torch.zeros(100, 100).double())
    assert result["loglik"] == pytest.approx(oracle(V, matrices, torch.tensor(cohort.traits[kept, 0]), X).loglik, rel=1e-10)
    total = result["phenotypic_variance"]
    first, second, residual = ([f"{part[key]:.6f}" for key in NUMBERS] for part in result["components"])
    shared = run.hsq.partition("\n\n")[2].splitlines()[0].split("\t")
    assert shared[:2] == ["Sum of V(G)/Vp", f"{(theta[0] + theta[1]) / total:.6f}"]
    assert shared[2] == residual[3]  # 1 minus the share of the residual has the same standard error
    assert run.hsq.partition("\n\n")[0].splitlines() == [
        "Source\tVariance\tSE",
        "V(G1)\t" + "\t".join(first[:2]),
        "V(G2)\t" + "\t".join(second[:2]),
        "V(e)\t" + "\t".join(residual[:2]),
        f"Vp\t{total:.6f}\t{result['phenotypic_variance_se']:.6f}",
        "V(G1)/Vp\t" + "\t".join(first[2:]),
        "V(G2)/Vp\t" + "\t".join(second[2:]),
    ]
    assert "approximate" in result["pvalue_note"]
    reduced = float(dict(line.split("\t")[:2] for line in run.hsq.splitlines() if "\t" in line)["logL0"])
    assert result["loglik_null"] - 1e-3 <= reduced <= result["loglik"]


def test_component_without_variance_is_at_its_bound(cohort: Cohort, tmp_path: Path) -> None:
    run = fit("inside", tmp_path / "run", *cohort.data(trait="unrelated"))
    result = run.result
    assert (run.exit_code, result["status"]) == (0, "converged_at_bound")
    genetic = result["components"][0]
    assert (genetic["variance"], genetic["se"], genetic["proportion_se"]) == (0.0, None, None)
    assert result["theta_covariance"][0] == [None, None]
    assert "V(G)\t0.000000\tNA" in run.hsq
    assert "on its bound" in run.output
    assert json.dumps(result)  # no NaN, which is not JSON


def test_limit_of_iterations_leaves_no_file_that_looks_like_an_answer(cohort: Cohort, tmp_path: Path) -> None:
    """GCTA writes no .hsq where it has not converged; what the last iterate was is in result.json, under its status."""
    unfinished = ("solver.max_iter=1", "solver.start=[0.01,3]", "output.blup=true", "output.fixed_tests=true")
    run = fit("inside", tmp_path / "run", *cohort.data(), *unfinished)
    result: dict[str, Any] = run.result
    assert (run.exit_code, result["status"], result["exit_code"]) == (3, "iteration_limit", 3)
    left = {"result.json", "convergence.png", "config.yaml", "steps.jsonl", "checkpoint.json", "heartbeat.json", "rank-0.log"}
    assert {path.name for path in run.run_dir.iterdir()} == left
    assert (
        "iteration_limit" in run.output and "result.hsq and predictions are written of fits that have converged" in run.output
    )
    assert [component["name"] for component in result["components"]] == ["main", "residual"]


def test_case_control_on_the_liability_scale(cohort: Cohort, tmp_path: Path) -> None:
    run = fit("inside", tmp_path / "run", *cohort.data(trait=2), "model.prevalence=0.1")
    assert run.exit_code == 0, run.errors
    lines = run.hsq.splitlines()
    first = lines.index(
        "The estimate of variance explained on the observed scale is transformed to that on the underlying scale:"
    )
    assert lines[first - 1].startswith("V(G)/Vp\t")
    assert lines[first + 1] == "(Proportion of cases in the sample = 0.3; User-specified disease prevalence = 0.1)"
    genetic = run.result["components"][0]
    factor = (0.1 * 0.9) ** 2 / (0.1754983**2 * 0.3 * 0.7)  # z = 0.1754983, the normal density at the threshold 1.281552
    name, share, se = lines[first + 2].split("\t")
    assert name == "V(G)/Vp_L"
    assert (float(share), float(se)) == pytest.approx(
        (factor * genetic["proportion"], factor * genetic["proportion_se"]), abs=2e-6
    )
    assert lines[first + 3].startswith("logL\t")
