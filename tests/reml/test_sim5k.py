"""5,000 simulated people: GRMs from genotypes, estimates against exact ones (1e-6; logL 1e-5: the GRMs are float32)."""

from __future__ import annotations

import json
import lzma
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openreml_dist.app.grm import run as make_grm
from openreml_dist.app.inputs.model import read_model
from openreml_dist.app.prepare import run as prepare
from openreml_dist.compat import REML
from openreml_dist.config import DataConfig, FitConfig, GrmConfig, PrepareConfig
from openreml_dist.grid import ProcessGrid
from tests.helpers.answers import references
from tests.helpers.gloo import spawn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set with its GRMs: all chromosomes, the odd ones, the even ones."""
    source, target = references() / "sim5k", tmp_path_factory.mktemp("sim5k")
    for name in ("sim5k.bed", "sim5k.bim"):
        (target / name).write_bytes(lzma.decompress((source / f"{name}.xz").read_bytes()))
    for name in ("sim5k.fam", "sim5k.phen", "sim5k.qcovar", "sim5k.covar"):
        shutil.copy(source / name, target / name)
    lines = (target / "sim5k.bim").read_text().splitlines()
    bed = np.fromfile(target / "sim5k.bed", dtype=np.uint8)[3:].reshape(len(lines), -1)
    odd = np.array([int(line.split()[0]) % 2 == 1 for line in lines])
    for name, kept in (("all", odd | True), ("odd", odd), ("even", ~odd)):
        (target / f"{name}.bed").write_bytes(bytes([0x6C, 0x1B, 0x01]) + bed[kept].tobytes())
        (target / f"{name}.bim").write_text("".join(f"{line}\n" for line, keep in zip(lines, kept, strict=True) if keep))
        shutil.copy(target / "sim5k.fam", target / f"{name}.fam")
        prepare(PrepareConfig(source=str(target / name), out=str(target / f"{name}.vcz")))
        make_grm(GrmConfig(source=str(target / f"{name}.vcz"), out=str(target / f"{name}.grm.zarr")))
    return target


def fit(folder: Path, grms: list[str], trait: int, covariates: bool, traces: str = "exact") -> dict[str, Any]:
    tables = {"qcovar": str(folder / "sim5k.qcovar"), "covar": str(folder / "sim5k.covar")} if covariates else {}
    data = DataConfig(
        grm=[str(folder / f"{name}.grm.zarr") for name in grms], pheno=str(folder / "sim5k.phen"), pheno_column=trait, **tables
    )
    grid = ProcessGrid.connect()
    model = read_model(FitConfig(data=data), grid)
    probes = 128 if traces == "hutchinson" else 64
    result = REML(model.covariance, grid=grid).fit(model.y, model.X, traces=traces, num_probes=probes)
    return {
        "n": len(model.y),
        "status": str(result.status),
        "var": result.theta.tolist(),
        "se_AI": result.standard_errors.tolist(),
        "monte_carlo_se": result.monte_carlo_se.tolist(),
        "prop": [c.proportion for c in result.components],
        "prop_se_AI": [c.proportion_se for c in result.components],
        "logL": result.loglik,
        "beta": result.beta.tolist(),
        "beta_se": result.beta_se.tolist(),
    }


def check(found: dict[str, Any], exact: dict[str, Any]) -> None:
    assert found["n"] == exact["n"]
    assert found["logL"] == pytest.approx(exact["logL"], abs=1e-5)
    for key in ("var", "se_AI", "prop", "prop_se_AI"):
        for mine, theirs, se in zip(found[key], exact[key], exact["se_AI"], strict=True):
            if (se is None and "se" in key) or (
                key == "prop_se_AI" and theirs == 0
            ):  # on a bound: NA here, 0 in the references
                assert mine is None or math.isnan(mine), key
            else:
                assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-12), key
    for key in ("beta", "beta_se"):
        assert found[key] == pytest.approx(exact[key], rel=1e-5, abs=1e-8)


CASES = {
    "trait1_1grm": (["all"], 1, False), "trait1_2grm": (["odd", "even"], 1, False), "trait2_1grm": (["all"], 2, False),
    "trait3_1grm": (["all"], 3, True), "trait3_2grm": (["odd", "even"], 3, True), "trait4_1grm": (["all"], 4, False),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_estimates_equal_the_exact_ones(folder: Path, name: str) -> None:
    exact = json.loads((references() / "sim5k" / "reml_exact.json").read_text())[name]
    check(fit(folder, *CASES[name]), exact)


@pytest.mark.parametrize("name", CASES)
def test_cheaper_iterations_find_the_same(folder: Path, name: str) -> None:
    exact, auto = (fit(folder, *CASES[name], traces=traces) for traces in ("exact", "auto"))
    assert auto["status"] == exact["status"]
    assert auto["logL"] == pytest.approx(exact["logL"], rel=1e-6)
    for mine, theirs, my_se, se in zip(auto["var"], exact["var"], auto["se_AI"], exact["se_AI"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4 * se) if math.isfinite(se) else mine == theirs
        assert my_se == pytest.approx(se, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", CASES)
def test_random_probes_are_off_by_what_they_say(folder: Path, name: str) -> None:
    exact, random = (fit(folder, *CASES[name], traces=traces) for traces in ("exact", "hutchinson"))
    for mine, theirs, error, se in zip(random["var"], exact["var"], random["monte_carlo_se"], exact["se_AI"], strict=True):
        if math.isfinite(se):
            assert error < 0.15 * se
            assert abs(mine - theirs) < 4 * error + 1e-3 * se


def test_two_ranks_find_the_same(folder: Path) -> None:
    exact = json.loads((references() / "sim5k" / "reml_exact.json").read_text())["trait3_2grm"]
    for found in spawn(fit, 2, folder, *CASES["trait3_2grm"], timeout=900):
        check(found, exact)
