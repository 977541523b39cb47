"""``openreml-fit data.genotypes=...``: no relationship matrix, and the answer of one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.data import write_grm, write_lines
from tests.e2e.genotyped import (
    Exact,
    Genotyped,
    assert_agrees,
    exact_answer,
    linked_genotypes,
    make_genotyped,
    relationships,
    simulated_phenotype,
    standardised,
)
from tests.e2e.programs import Finished, fit
from tests.helpers.genotypes import write_store

N, M = 240, 1100  # more SNPs than a block has, so that there is a Monte-Carlo error
LACKING = [3, 57, 101]  # have no phenotype
WITHOUT_AGE = [20]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Genotyped:
    """Two chromosomes, a twentieth of the genotypes missing; covariates and another phenotype in tables of other orders."""
    rng, folder = np.random.default_rng(5), tmp_path_factory.mktemp("people")
    whole = linked_genotypes(M, N, rng)
    y = simulated_phenotype(whole, 0.5, rng)
    x = np.where(rng.random(whole.shape) < 0.05, -1, whole).astype(np.int8)
    made = make_genotyped(folder, x, y, [str(1 + s // (M // 2)) for s in range(M)])
    values, vectors = np.linalg.eigh(relationships(x)[0])
    unrelated = vectors @ (rng.normal(size=N) / (1 + values))  # relatives differ more than others: its heritability is 0
    rows = [
        f"F{i}\tI{i}\t{'NA' if i in LACKING else f'{y[i] + 0.3 * (i % 3 == 1):.17g}'}\t{int(y[i] > 0.5)}\t{unrelated[i]:.17g}"
        for i in rng.permutation(N)
    ]
    write_lines(folder / "more.phen", ["FID\tIID\tlean\till\tunrelated", *rows, "F900\tI900\t1.0\t1\t0.5"])
    age = rng.uniform(20, 60, N).round(3)
    write_lines(
        folder / "age.qcovar", ["FID IID age", *(f"F{i} I{i} {age[i]:.3f}" for i in rng.permutation(N) if i not in WITHOUT_AGE)]
    )
    write_lines(folder / "batch.covar", ["FID IID batch", *(f"F{i} I{i} b{i % 3}" for i in reversed(range(N)))])
    weights = np.column_stack([np.ones(M), rng.uniform(0, 3, M).round(3)])
    write_lines(folder / "weights", ["SNP base extra", *(f"rs{s} {a:g} {b:g}" for s, (a, b) in enumerate(weights))])
    write_lines(folder / "parts", ["SNP component", *(f"rs{s} {'near' if s < M // 3 else 'far'}" for s in range(M))])
    np.savez(folder / "truth.npz", unrelated=unrelated, age=age, weights=weights)
    return made


@pytest.fixture(scope="module")
def exact(people: Genotyped) -> Exact:
    return exact_answer(relationships(people.x), people.y)


@pytest.fixture(scope="module")
def plain(people: Genotyped, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return people.run(tmp_path_factory.mktemp("plain") / "run", "output.blup=true")  # solver=auto


def indicators(*sizes: int) -> NDArray[np.float64]:
    return np.repeat(np.eye(len(sizes)), sizes, axis=0)


def test_the_answer_of_the_relationship_matrix(plain: Finished, exact: Exact) -> None:
    assert_agrees(plain, exact.fit)
    result = plain.result
    assert result["engine"] == "stochastic" and result["parameters"] == ["genetic", "residual"] and not result["warnings"]
    assert [e["value"] for e in result["estimates"]] == [c["variance"] for c in result["components"]]
    assert result["passes"].keys() == {"setup", "start", "few probes", "probes to the target", "anchored probes"}
    assert all(count > 0 for count in result["passes"].values()) and min(result["monte_carlo_se"]) > 0
    assert result["history"][0]["evaluation"] == "few probes"
    assert f"{M:,} SNPs, products with their genotypes, Monte-Carlo error 0.01 SE" in plain.output
    assert "Monte-Carlo error of" in plain.output


def test_the_table_of_gcta(plain: Finished, exact: Exact) -> None:
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in plain.hsq.splitlines()}
    assert [*rows][:5] == ["Source", "V(G)", "V(e)", "Vp", "V(G)/Vp"] and rows["n"] == [str(N)]
    assert float(rows["V(G)/Vp"][0]) == pytest.approx(plain.result["components"][0]["proportion"], abs=1e-6)
    null = plain.result["loglik_null"]
    assert float(rows["logL0"][0]) == pytest.approx(null, abs=1e-3)
    assert float(rows["LRT"][0]) == pytest.approx(2 * (plain.result["loglik"] - null), abs=2e-3)
    assert rows["df"] == ["1"] and float(rows["Pval"][0]) == pytest.approx(plain.result["pvalue"], rel=1e-3)
    assert abs(float(rows["LRT"][0]) - 2 * (exact.fit.loglik - null)) < 2


def test_effects_of_people_and_of_snps(people: Genotyped, plain: Finished, exact: Exact) -> None:
    table = [line.split() for line in (plain.run_dir / "result.indi.blp").read_text().splitlines()]
    assert [row[:2] for row in table] == [[f"F{i}", f"I{i}"] for i in range(N)]
    numbers = np.array([row[2:] for row in table], float)
    expected = exact.effects(people.y)
    np.testing.assert_allclose(numbers[:, 1], expected[:, 0], atol=0.01)
    np.testing.assert_allclose(numbers[:, 3], expected[:, 1], atol=0.01)
    snps = [line.split() for line in (plain.run_dir / "result.snp.blp").read_text().splitlines()]
    assert [row[:2] for row in snps] == [[f"rs{s}", "A"] for s in range(M)]
    effects = np.array([row[2] for row in snps], float)
    counts = np.where(people.x < 0, np.nan, people.x)
    counts = np.where(np.isnan(counts), np.nanmean(counts, axis=1, keepdims=True), counts)
    centred = counts - counts.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(effects @ centred, numbers[:, 1], atol=2e-5)


def test_what_the_result_was_made_from(people: Genotyped, plain: Finished, tmp_path: Path) -> None:
    again = people.run(tmp_path / "run", f"model.partition={people.folder / 'parts'}", "solver.mcse=0.5")
    first, second = plain.result["inputs"], again.result["inputs"]
    genotypes, partition = (str(people.folder / name) for name in ("g", "parts"))
    assert first.keys() == {genotypes, str(people.folder / "y.phen")}
    assert second.keys() == {*first, partition} and second[genotypes] == first[genotypes] and len(first[genotypes]) == 64


@pytest.mark.parametrize("partition", ["chromosome", "parts", "weights"])
def test_several_components(people: Genotyped, tmp_path: Path, partition: str) -> None:
    truth = np.load(people.folder / "truth.npz")
    weights, names = {
        "chromosome": (indicators(M // 2, M // 2), ["chr1", "chr2"]),
        "parts": (indicators(M // 3, M - M // 3), ["near", "far"]),
        "weights": (truth["weights"], ["base", "extra"]),
    }[partition]
    setting = partition if partition == "chromosome" else str(people.folder / partition)
    run = people.run(tmp_path / "run", f"model.partition={setting}", "output.blup=true")
    expected = exact_answer(relationships(people.x, weights), people.y)
    assert_agrees(run, expected.fit)
    assert run.result["parameters"] == [*names, "residual"]
    assert "V(G1)" in run.hsq and "Sum of V(G)/Vp" in run.hsq and "LRT" not in run.hsq
    numbers = np.loadtxt(run.run_dir / "result.indi.blp", usecols=range(2, 8))
    np.testing.assert_allclose(numbers[:, 1:4:2], expected.effects(people.y)[:, :2], atol=0.02)


@pytest.mark.parametrize("launched", ["inside", "torchrun"])
def test_few_people_are_fitted_exactly(people: Genotyped, tmp_path: Path, launched: str) -> None:
    """``solver.engine=auto`` takes the dense engine, with relationships of the genotypes that no store holds."""
    weights = np.load(people.folder / "truth.npz")["weights"]
    settings = (*people.data, f"model.partition={people.folder / 'weights'}", "output.blup=true")
    run = fit(launched, tmp_path / "run", *settings)
    assert run.exit_code == 0, run.errors
    assert "engine: dense, exact" in run.output and run.result["engine"] == "dense"
    expected = exact_answer(relationships(people.x, weights), people.y)
    found = [c["variance"] for c in run.result["components"]]
    np.testing.assert_allclose(found, expected.fit.theta.numpy(), rtol=2e-5)
    assert run.result["loglik"] == pytest.approx(expected.fit.loglik, abs=1e-4)
    numbers = np.loadtxt(run.run_dir / "result.indi.blp", usecols=range(2, 8))
    np.testing.assert_allclose(numbers[:, 1:4:2], expected.effects(people.y)[:, :2], atol=1e-4)
    effects = np.loadtxt(run.run_dir / "result.snp.blp", usecols=(2, 3))
    counts = people.x.astype(float)
    counts[counts < 0] = np.nan
    of_alleles = (np.nan_to_num(counts - np.nanmean(counts, axis=1, keepdims=True))).T @ effects
    np.testing.assert_allclose(of_alleles, expected.effects(people.y)[:, :2], atol=1e-3)


@pytest.mark.parametrize(
    ("setting", "engine"),
    [("solver.mcse=0.05", "stochastic"), ("solver.constrain=false", "dense"), ("output.pev=true", "dense")],
)
def test_a_setting_of_one_engine_chooses_it(people: Genotyped, tmp_path: Path, setting: str, engine: str) -> None:
    run = fit("inside", tmp_path / "run", *people.data, setting)
    assert run.exit_code == 0 and run.result["engine"] == engine
    assert f"engine: {engine}, as {setting.partition('=')[0]} asks" in run.output
    both = fit("inside", tmp_path / "both", *people.data, "solver.mcse=0.05", "solver.tile_size=64")
    assert both.exit_code == 2 and "leave one of the two out" in both.errors


def test_covariates_and_whoever_lacks_something(people: Genotyped, tmp_path: Path) -> None:
    """In the tables people have other orders than in the genotypes; frequencies stay those of all genotypes."""
    folder = people.folder
    covariates = (f"data.qcovar={folder / 'age.qcovar'}", f"data.covar={folder / 'batch.covar'}")
    run = people.run(tmp_path / "run", f"data.pheno={folder / 'more.phen'}", "data.pheno_column=lean", *covariates)
    kept = np.array([i for i in range(N) if i not in (*LACKING, *WITHOUT_AGE)])
    y = people.y + 0.3 * (np.arange(N) % 3 == 1)
    age = np.load(folder / "truth.npz")["age"]
    X = np.column_stack([np.ones(N), age, np.arange(N) % 3 == 1, np.arange(N) % 3 == 2]).astype(float)
    K = relationships(people.x)[0][np.ix_(kept, kept)]
    names = [effect["name"] for effect in run.result["fixed_effects"]]
    assert names[:2] == ["intercept", "age"] and run.result["num_samples"] == len(kept)
    reference = exact_answer([K], y[kept], X[kept])
    assert_agrees(run, reference.fit)


def test_cases_and_controls(people: Genotyped, tmp_path: Path) -> None:
    settings = (f"data.pheno={people.folder / 'more.phen'}", "data.pheno_column=ill", "model.prevalence=0.1")
    run = people.run(tmp_path / "run", *settings)
    assert_agrees(run, exact_answer(relationships(people.x), (people.y > 0.5).astype(float)).fit)
    assert "V(G)/Vp_L\t" in run.hsq and "User-specified disease prevalence = 0.1" in run.hsq


def test_a_variance_that_ends_at_zero(people: Genotyped, tmp_path: Path) -> None:
    settings = (f"data.pheno={people.folder / 'more.phen'}", "data.pheno_column=unrelated", "output.blup=true")
    run = people.run(tmp_path / "run", *settings)
    y = np.load(people.folder / "truth.npz")["unrelated"]
    assert run.result["status"] == "converged_at_bound"
    assert run.result["components"][0] == {
        "name": "genetic", "variance": 0.0, "se": None, "proportion": 0.0, "proportion_se": None
    }  # fmt: skip
    assert run.result["loglik"] == pytest.approx(run.result["loglik_null"], abs=1e-9)
    assert run.result["components"][1]["variance"] == pytest.approx(y.var(ddof=1), rel=1e-6)
    assert "genetic is on its bound" in run.output and "V(G)\t0.000000\tNA" in run.hsq
    both = people.run(tmp_path / "both", *settings, "model.partition=chromosome")
    weights = indicators(M // 2, M // 2)
    assert_agrees(both, exact_answer(relationships(people.x, weights), y).fit)


def test_two_ranks_find_the_same(people: Genotyped, tmp_path: Path) -> None:
    settings = ("model.partition=chromosome", "solver.mcse=0.05", "output.blup=true")
    one = people.run(tmp_path / "one", *settings)
    two = people.run(tmp_path / "two", *settings, launched="torchrun")
    assert two.exit_code == 0, two.errors
    assert two.result["num_ranks"] == 2 and two.result["passes"] == one.result["passes"]
    assert two.result["inputs"] == one.result["inputs"]
    for first, second in zip(one.result["components"], two.result["components"], strict=True):
        assert second["variance"] == pytest.approx(first["variance"], rel=1e-5)
        assert second["se"] == pytest.approx(first["se"], rel=1e-5)
    assert two.result["loglik"] == pytest.approx(one.result["loglik"], abs=1e-3)
    for name in ("result.indi.blp", "result.snp.blp"):
        first, second = (np.genfromtxt(run.run_dir / name, dtype=str)[:, 2:].astype(float) for run in (one, two))
        np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-5)


def test_files_and_stores_and_the_fit_of_a_grm(people: Genotyped, tmp_path: Path) -> None:
    """Without missing genotypes the two engines have one answer; a packed store has the digits of the PLINK files."""
    x = np.abs(people.x)  # a missing genotype becomes a heterozygous one
    made = make_genotyped(tmp_path, x, people.y)
    write_store(tmp_path / "g.vcz", x, "packed", (64, 80))
    write_grm(tmp_path / "k.grm.zarr", relationships(x)[0], np.arange(N))
    bed, store = made.run(tmp_path / "bed"), made.run(tmp_path / "store", f"data.genotypes={tmp_path / 'g.vcz'}")
    grm = fit("inside", tmp_path / "grm", f"data.grm={tmp_path / 'k.grm.zarr'}", f"data.pheno={tmp_path / 'y.phen'}")
    assert store.result["components"] == bed.result["components"] and store.result["loglik"] == bed.result["loglik"]
    for own, its in zip(bed.result["components"], grm.result["components"], strict=True):
        assert abs(own["variance"] - its["variance"]) < 0.04 * its["se"]
        assert own["se"] == pytest.approx(its["se"], rel=0.02)
    assert grm.result["parameters"] == ["k", "residual"] and "engine" not in grm.result
    assert bed.result["lrt"] == pytest.approx(grm.result["lrt"], abs=2)


@pytest.mark.parametrize(("probes", "error", "enough"), [(10, 0.003, False), (None, 0.5, True), (40_000, 0.004, True)])
def test_what_was_reached_within_the_budget(
    people: Genotyped, exact: Exact, tmp_path: Path, probes: int | None, error: float, enough: bool
) -> None:
    budget = [] if probes is None else [f"solver.num_probes={probes}"]
    run = people.run(tmp_path / "run", f"solver.mcse={error}", *budget)
    assert run.exit_code == 0, run.errors
    share = max(np.array(run.result["monte_carlo_se"]) / exact.fit.standard_errors.numpy())
    said = f"the Monte-Carlo error is {share:.1g}"[:-1]
    assert (share <= 1.25 * error) == enough
    assert bool(run.result["warnings"]) == (not enough) == (said in run.output)
    if not enough:
        assert "10 probes are not enough" in run.output and "solver.num_probes" in run.result["warnings"][0]
    differences = np.array([c["variance"] for c in run.result["components"]]) - exact.fit.theta.numpy()
    assert (np.abs(differences) < 4 * np.array(run.result["monte_carlo_se"])).all()


REFUSED = [
    ("solver.constrain=false", ("solver.constrain", "negative", "solver.engine=dense")),
    ("output.pev=true", ("output.pev", "inverse of V", "solver.engine=dense")),
    ("output.snp_effects=x.vcz", ("output.snp_effects", "output.blup=true")),
    ("+model.random.batch='group(batch)'", ("model.random.batch", "independent residuals", "openreml-grm")),
    ("solver.start=[0.5,0.5,0.5]", ("solver.start: 3 variances are given for 2",)),
    ("model.partition=nowhere", ("model.partition=nowhere", "genome, nor chromosome, nor a table")),
    ("model.partition={folder}/nan", ("nan: SNP rs7, column b", "0 or more")),
    ("data.genotypes={folder}/short", ("short.bed", "truncated")),
    ("data.genotypes={folder}/none", ("none", "not found")),
    ("data.pheno={folder}/strangers.phen", ("no sample of", "strangers.phen", "different cohorts")),
    ("data.pheno={folder}/constant.phen", ("constant.phen", "is constant")),
    ("data.pheno={folder}/huge.phen", ("single precision", "multiply y by 1e-25")),
]


@pytest.fixture(scope="module")
def bad(people: Genotyped, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    make_genotyped(folder, people.x, people.y)
    for suffix in ("bed", "bim", "fam"):
        content = (folder / f"g.{suffix}").read_bytes()
        (folder / f"short.{suffix}").write_bytes(content[:-7] if suffix == "bed" else content)
    write_lines(folder / "nan", ["SNP a b", *(f"rs{s} 1 {'nan' if s == 7 else 1}" for s in range(M))])
    for name, row in {
        "strangers": "X{i} Y{i} {y:.5f}",
        "constant": "F{i} I{i} 3",
        "huge": "F{i} I{i} {y:.5f}e25",
    }.items():
        write_lines(folder / f"{name}.phen", [row.format(i=i, y=y) for i, y in enumerate(people.y)])
    return folder


@pytest.mark.parametrize(
    ("setting", "words"), REFUSED, ids=[setting.partition("=")[0] + str(k) for k, (setting, _) in enumerate(REFUSED)]
)
def test_refusals(people: Genotyped, bad: Path, tmp_path: Path, setting: str, words: tuple[str, ...]) -> None:
    run = people.run(tmp_path / "run", setting.format(folder=bad))
    assert run.exit_code == 2 and "Traceback" not in run.errors
    assert [word for word in words if word not in run.errors] == [], run.errors


def test_two_ranks_refuse_and_end(people: Genotyped, bad: Path, tmp_path: Path) -> None:
    run = people.run(tmp_path / "run", f"data.genotypes={bad / 'short'}", launched="torchrun")
    assert run.exit_code != 0 and "short.bed" in run.errors
    assert json.loads((run.run_dir / "result.json").read_text())["exit_code"] == 2


def test_standardised_genotypes_of_the_helper() -> None:
    Z = standardised(np.array([[0, 1, 2, -1], [0, 0, 0, 0]], np.int8))
    np.testing.assert_allclose(Z, [[-np.sqrt(2), 0, np.sqrt(2), 0]])
