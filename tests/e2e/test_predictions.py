"""What ``output`` asks for, through the program: random effects, their errors, effects of SNPs, tests of fixed effects."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from openreml_dist.prep.relationship import relationship_block, standardise
from openreml_dist.store.genotype_counts import count_genotypes
from openreml_dist.store.genotypes import open_genotypes
from openreml_dist.store.genotypes_writer import QualityControl, SampleTable, VariantTable, create_genotypes
from openreml_dist.store.grm import GrmVariants
from openreml_dist.store.grm_writer import create_grm
from openreml_dist.store.packed import pack
from tests.e2e.data import Cohort, write_lines
from tests.e2e.programs import Finished, fit
from tests.helpers.oracle import Oracle, oracle

ALL = ("output.pev=true", "output.fixed_tests=true", "output.fixed_in_hsq=true")


def settings(cohort: Cohort) -> tuple[str, ...]:
    return *cohort.data(), f"data.qcovar={cohort.folder / 'numbers.qcovar'}", f"data.covar={cohort.folder / 'factors.covar'}"


@dataclass(frozen=True)
class Exact:
    """The quantitative trait with all covariates, dense, at the θ of a result."""

    V_t: list[Tensor]
    y: Tensor
    X: Tensor
    found: Oracle

    @classmethod
    def at(cls, cohort: Cohort, result: dict[str, Any]) -> Exact:
        genetic, residual = (component["variance"] for component in result["components"])
        V_t = [genetic * torch.tensor(cohort.main), residual * torch.eye(len(cohort.main)).double()]
        X = torch.tensor(np.column_stack([np.ones_like(cohort.age), cohort.age, cohort.batch == 1, cohort.batch == 2]))
        y = torch.tensor(cohort.traits[:, 0])
        return cls(V_t, y, X, oracle(V_t[0] + V_t[1], V_t, y, X))


@pytest.fixture(scope="module", params=["inside", "torchrun"])
def run(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Finished:
    finished = fit(request.param, tmp_path_factory.mktemp("predictions") / "run", *settings(cohort), *ALL)
    assert finished.exit_code == 0, finished.errors
    return finished


def test_indi_blp_is_that_of_gcta_byte_for_byte(cohort: Cohort, run: Finished) -> None:
    exact = Exact.at(cohort, run.result)
    Py = exact.found.P @ exact.y
    lines = []
    for i in range(len(cohort.main)):
        numbers = []
        for component, V in zip(run.result["components"], exact.V_t, strict=True):
            numbers += [component["variance"] * Py[i], V[i] @ Py]
        lines.append(f"F{i}\tI{i}\t" + "".join(f"{number:.6g}\t" for number in numbers) + "\n")
    assert (run.run_dir / "result.indi.blp").read_text() == "".join(lines)


def test_table_of_random_effects(cohort: Cohort, run: Finished) -> None:
    table = pd.read_csv(run.run_dir / "blup.tsv", sep="\t")
    names = ["main", "residual"]
    assert [*table] == ["FID", "IID", *(name + end for name in names for end in ("", ".pev", ".reliability"))]
    assert table["IID"].tolist() == [f"I{i}" for i in range(len(cohort.main))]
    exact = Exact.at(cohort, run.result)
    for name, V in zip(names, exact.V_t, strict=True):
        pev = (V - V @ exact.found.P @ V).diagonal()
        np.testing.assert_allclose(table[name], V @ exact.found.P @ exact.y, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(table[f"{name}.pev"], pev, rtol=1e-8)
        np.testing.assert_allclose(table[f"{name}.reliability"], 1 - pev / V.diagonal(), rtol=1e-7)
    fixed = exact.X @ torch.tensor([effect["estimate"] for effect in run.result["fixed_effects"]], dtype=torch.float64)
    np.testing.assert_allclose(table["main"] + table["residual"], exact.y - fixed, rtol=1e-9, atol=1e-9)


def test_covariates_are_tested_with_all_of_their_columns(cohort: Cohort, run: Finished) -> None:
    found = Exact.at(cohort, run.result).found
    age, batch = run.result["fixed_tests"]
    b, B = found.beta[2:], found.beta_covariance[2:, 2:]
    statistic = float(b @ torch.linalg.solve(B, b))
    assert (age["name"], age["df"], batch["name"], batch["df"]) == ("age", 1, "batch", 2)
    assert age["statistic"] == pytest.approx(float(found.beta[1] ** 2 / found.beta_covariance[1, 1]), rel=1e-7)
    assert batch["statistic"] == pytest.approx(statistic, rel=1e-7)
    assert batch["pvalue"] == pytest.approx(stats.chi2.sf(statistic, 2), rel=1e-7)
    assert f"{statistic:.4f}" in run.output


def test_hsq_ends_with_the_fixed_effects(run: Finished) -> None:
    rows = [f"{effect['estimate']:.6f}\t{effect['se']:.6f}" for effect in run.result["fixed_effects"]]
    assert run.hsq.endswith("\nn\t120\n\nFix_eff\tSE\n" + "".join(f"{row}\n" for row in rows))


def test_costs_are_said_before_the_fit_and_files_after_it(run: Finished) -> None:
    before, _, after = run.output.partition("next step")
    assert "output.pev: error variances of random effects will take as long as an exact iteration" in before
    assert "result.indi.blp" in after and "blup.tsv" in after
    assert run.result["timings"]["predictions"] > 0


def test_nothing_is_written_unless_asked_for(cohort: Cohort, tmp_path: Path) -> None:
    fit("inside", tmp_path / "run", *cohort.data(), "output.blup=true")
    assert [*pd.read_csv(tmp_path / "run" / "blup.tsv", sep="\t")] == ["FID", "IID", "main", "residual"]
    run = fit("inside", tmp_path / "run", *cohort.data(), "overwrite=true")
    assert not {path.name for path in run.run_dir.iterdir()} & {"result.indi.blp", "blup.tsv"}
    assert "Fix_eff" not in run.hsq and "fixed_tests" not in run.result


def test_parquet_holds_the_table_or_is_refused_at_once(
    cohort: Cohort, run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (*settings(cohort), "output.pev=true", "output.format=parquet")
    if importlib.util.find_spec("pyarrow") is not None:
        written = fit("inside", tmp_path / "parquet", *wanted)
        assert written.exit_code == 0, written.errors
        columns = pd.read_parquet(written.run_dir / "blup.parquet")
        table = pd.read_csv(run.run_dir / "blup.tsv", sep="\t")
        assert [*columns] == [*table] and columns["IID"].tolist() == table["IID"].tolist()
        np.testing.assert_allclose(columns["main.pev"], table["main.pev"], rtol=1e-8)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    refused = fit("inside", tmp_path / "run", *wanted)
    assert refused.exit_code == 2 and "openreml-dist[parquet]" in refused.errors
    assert not refused.run_dir.exists()
    refused = fit("inside", tmp_path / "run", *wanted, "output.format=feather")
    assert refused.exit_code == 2 and "'feather' is not tsv or parquet" in refused.errors


# Effects of SNPs.


@dataclass(frozen=True)
class Genotyped:
    """Genotypes in a store, two GRMs of its first and its other SNPs, and a phenotype of some samples."""

    folder: Path
    x: np.ndarray  # (SNPs, samples), -1 missing
    y: np.ndarray
    parts: tuple[np.ndarray, np.ndarray]
    phenotyped: np.ndarray

    @property
    def settings(self) -> tuple[str, ...]:
        grms = ",".join(str(self.folder / f"{name}.grm.zarr") for name in ("first", "rest"))
        return f"data.grm=[{grms}]", f"data.pheno={self.folder / 'y.phen'}", f"output.snp_effects={self.folder / 'a.vcz'}"


def genotyped(folder: Path, missing: float = 0.0) -> Genotyped:
    rng = np.random.default_rng(12)
    m, n = 210, 90
    x = rng.binomial(2, rng.uniform(0.2, 0.8, m)[:, None], (m, n)).astype(np.int8)
    x[rng.random((m, n)) < missing] = -1
    write_genotypes(folder / "a.vcz", x)
    parts = np.arange(70), np.arange(70, m - 10)
    store = open_genotypes(str(folder / "a.vcz"))
    assert store.counts is not None
    frequency, digest = store.counts.allele_frequency, store.digest(store.counts)
    K = []
    for name, index in zip(("first", "rest"), parts, strict=True):
        variants = GrmVariants(index, frequency[index])
        K.append(relationship_block(store.dosages, variants, slice(0, n), slice(0, n)))
        write_grm(folder / f"{name}.grm.zarr", K[-1], store.sample_id, {"input_digest": digest}, variants)
    y = np.linalg.cholesky(0.6 * K[0] + 0.5 * K[1] + 0.3 * np.eye(n)) @ rng.normal(size=n)
    phenotyped = np.sort(rng.permutation(n)[:80])
    write_lines(folder / "y.phen", [f"F{i}\tI{i}\t{y[i]:.17g}" for i in rng.permutation(phenotyped)])
    return Genotyped(folder, x, y, parts, phenotyped)


def write_genotypes(path: Path, x: np.ndarray) -> None:
    m, n = x.shape
    text = np.full(n, "0")
    samples = SampleTable(
        np.array([f"F{i}" for i in range(n)]), np.array([f"I{i}" for i in range(n)]), text, text, np.zeros(n, np.int8), text
    )
    variants = VariantTable(
        np.full(m, "1"), np.arange(m), np.array([f"rs{s}" for s in range(m)]), np.full(m, "C"), np.full(m, "A")
    )
    quality = QualityControl(count_genotypes(x), np.ones(m), np.ones(n))
    writer = create_genotypes(
        str(path),
        samples,
        variants,
        quality,
        source_variants=np.arange(m),
        source_samples=np.arange(n),
        chunks=(64, 40),
        settings={},
        attributes={},
    )
    for partition in writer.unfinished_partitions():
        writer.write_partition(partition, pack(x[writer.span(partition)]))
    writer.finalise()


def write_grm(
    path: Path, K: np.ndarray, sample_id: np.ndarray, attributes: dict[str, str], variants: GrmVariants | None = None
) -> None:
    writer = create_grm(
        str(path),
        family_id=np.array([f"F{identifier[1:]}" for identifier in sample_id]),
        sample_id=sample_id,
        chunk_size=32,
        settings={},
        attributes=attributes,
        variants=variants,
    )
    for i, j in writer.unfinished_tiles():
        writer.write_tile(i, j, K[writer.span(i), writer.span(j)])
    writer.finalise()


@pytest.mark.parametrize("launched", ["inside", "torchrun"])
def test_effects_of_snps_give_back_those_of_the_samples(tmp_path: Path, launched: str) -> None:
    made = genotyped(tmp_path)
    run = fit(launched, tmp_path / "run", *made.settings, "output.blup=true")
    assert run.exit_code == 0, run.errors
    assert "200 SNPs\n" in run.output
    lines = [line.split("\t") for line in (run.run_dir / "result.snp.blp").read_text().split("\n")]
    assert [line[:2] for line in lines[:-1]] == [[f"rs{s}", "A"] for s in range(200)] and lines[-1] == [""]
    assert {(len(line), line[-1]) for line in lines[:-1]} == {(6, "")}
    effects = np.array([line[2:5] for line in lines[:-1]], float)
    assert not effects[70:, 0].any() and not effects[:70, 1].any()  # a SNP has no part in the other GRM
    table = pd.read_csv(run.run_dir / "blup.tsv", sep="\t")
    frequency = made.x.mean(axis=1) / 2
    for k, name in enumerate(("first", "rest")):
        centred = made.x[:200, made.phenotyped] - 2 * frequency[:200, None]
        np.testing.assert_allclose(centred.T @ effects[:, k], table[name], rtol=1e-4, atol=2e-5)  # six digits in the file
    assert effects[:, 2].any()


def test_missing_genotypes_count_as_the_mean_and_it_is_said(tmp_path: Path) -> None:
    made = genotyped(tmp_path, missing=0.02)
    run = fit("inside", tmp_path / "run", *made.settings, "output.blup=true")
    assert run.exit_code == 0, run.errors
    assert "with a missing genotype have approximate effects" in run.output
    effects = pd.read_csv(run.run_dir / "result.snp.blp", sep="\t", header=None)[[2, 3, 4]].to_numpy()
    indi = pd.read_csv(run.run_dir / "result.indi.blp", sep="\t", header=None)
    calls = made.x >= 0
    frequency = np.where(calls, made.x, 0).sum(axis=1) / (2 * calls.sum(axis=1))
    here = made.x[:200, made.phenotyped]
    W = standardise(here, frequency[:200])
    per_allele = np.sqrt(2 * frequency * (1 - frequency))[:200]
    called = (here >= 0).mean(axis=1)
    expected = W[:70] @ indi[2].to_numpy() / (70 * per_allele[:70] * called[:70])
    np.testing.assert_allclose(effects[:70, 0], expected, rtol=1e-3, atol=1e-6)
    back = (W * per_allele[:, None]).T @ effects[:, 0]
    assert np.corrcoef(back, indi[3])[0, 1] > 0.99


def test_genotypes_that_do_not_fit_are_refused_before_the_fit(tmp_path: Path, cohort: Cohort) -> None:
    made = genotyped(tmp_path)
    other = made.x.copy()
    other[0] = 2 - other[0]
    write_genotypes(tmp_path / "other.vcz", other)
    refusals = {
        "was made from other genotypes": (*made.settings[:2], f"output.snp_effects={tmp_path / 'other.vcz'}"),
        "does not name its SNPs": (*cohort.data(), made.settings[2]),
        "not found": (*cohort.data(), f"output.snp_effects={tmp_path / 'none.vcz'}"),
    }
    for number, (message, wanted) in enumerate(refusals.items()):
        run = fit("inside", tmp_path / f"run{number}", *wanted)
        assert run.exit_code == 2 and message in run.errors, run.errors
        assert "iter" not in run.output
