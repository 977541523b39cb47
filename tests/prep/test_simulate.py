"""Simulated data: the files, determinism, linkage disequilibrium, relatives, and that the known truth can be found again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("bed_reader", reason="the extra `prep` is not installed")
from bed_reader import open_bed

from openreml_dist.config import SimulateConfig
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.prep import simulate_founders
from openreml_dist.prep.simulate import simulate
from openreml_dist.store.tables import read_discrete, read_phenotype, read_quantitative

MODELS = [
    "numpy",
    pytest.param("msprime", marks=pytest.mark.skipif("not __import__('importlib.util').util.find_spec('msprime')")),
]


def make(folder: Path, **settings: Any) -> dict[str, Any]:
    """A small data set by default; returns truth.json."""
    small = {"num_samples": 120, "num_variants": 300, "num_chromosomes": 3, "founders": "numpy"}
    simulate(SimulateConfig(out=str(folder), **(small | settings)), tell=lambda _: None)
    truth: dict[str, Any] = json.loads((folder / "truth.json").read_text())
    return truth


def standardised(folder: Path) -> np.ndarray:
    """Genotypes (samples, variants) with mean 0 and variance 1 under Hardy-Weinberg."""
    with open_bed(folder / "sim.bed") as bed:
        x = bed.read(dtype="float64")
    p = x.mean(axis=0) / 2
    return (x - 2 * p) / np.sqrt(2 * p * (1 - p))


def haseman_elston(y: np.ndarray, kernels: list[np.ndarray]) -> np.ndarray:
    """Regress products of phenotypes on relationships over all pairs: the variances of the kernels."""
    pairs = np.triu_indices(len(y), 1)
    design = np.column_stack([np.ones(len(pairs[0])), *(kernel[pairs] for kernel in kernels)])
    return np.linalg.lstsq(design, np.outer(y, y)[pairs])[0][1:]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of the manual, with the founders that need no other library."""
    folder = tmp_path_factory.mktemp("example")
    simulate(SimulateConfig(out=str(folder), founders="numpy", h2=[0.4, 0.2]), tell=lambda _: None)
    return folder


@pytest.mark.parametrize("founders", MODELS)
@pytest.mark.parametrize("family_size", [1, 3])
def test_plink_files_are_valid(tmp_path: Path, founders: str, family_size: int) -> None:
    make(tmp_path, num_samples=121, num_variants=301, founders=founders, family_size=family_size, missing_genotypes=0.1)
    assert (tmp_path / "sim.bed").stat().st_size == 3 + 301 * 31  # 4 samples a byte
    with open_bed(tmp_path / "sim.bed") as bed:
        x, chromosome, position = bed.read(), bed.chromosome, bed.bp_position
        assert len(set(bed.sid)) == 301
        assert all(first != second for first, second in zip(bed.allele_1, bed.allele_2, strict=True))
        assert set(bed.allele_1) | set(bed.allele_2) == set("ACGT")
    assert np.isnan(x).mean() == pytest.approx(0.1, abs=0.01)
    frequency = np.nanmean(x, axis=0) / 2
    assert frequency.min() >= 0.01
    assert frequency.max() <= 0.5  # A1 is the minor allele
    assert [(chromosome == c).sum() for c in ("1", "2", "3")] == [101, 100, 100]
    assert chromosome.tolist() == sorted(chromosome)
    for c in ("1", "2", "3"):
        assert position[chromosome == c].min() >= 1
        assert (np.diff(position[chromosome == c]) > 0).all()


@pytest.mark.parametrize("founders", MODELS)
def test_same_seed_same_bytes(tmp_path: Path, founders: str) -> None:
    settings = {"family_size": 2, "missing_genotypes": 0.05, "missing_phenotypes": 0.1, "num_causal": 50, "founders": founders}
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        make(tmp_path / name, seed=seed, **settings)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [*sorted(f"sim.{suffix}" for suffix in ("bed", "bim", "fam", "phen", "qcovar", "covar")), "truth.json"]
    for name in names:
        first = (tmp_path / "one" / name).read_bytes()
        assert first == (tmp_path / "two" / name).read_bytes(), name
        assert first != (tmp_path / "three" / name).read_bytes(), name


def test_tables_and_truth_agree(tmp_path: Path) -> None:
    truth = make(tmp_path, missing_phenotypes=0.2, h2=[0.3, 0.1], num_causal=90)
    pheno = read_phenotype(str(tmp_path / "sim.phen"))
    fam = [line.split() for line in (tmp_path / "sim.fam").read_text().splitlines()]
    assert pheno.family_id.tolist() == [row[0] for row in fam]
    assert pheno.sample_id.tolist() == [row[1] for row in fam]
    assert truth["num_phenotypes"] == np.isfinite(pheno.values).sum()
    assert 120 * 0.65 < truth["num_phenotypes"] < 120 * 0.95
    assert [part["chromosomes"] for part in truth["components"]] == [[1, 3], [2]]
    assert [part["num_variants"] for part in truth["components"]] == [200, 100]
    assert [part["num_causal"] for part in truth["components"]] == [60, 30]
    assert [part["variance_realised"] for part in truth["components"]] == pytest.approx([0.3, 0.1])
    covar = read_discrete(str(tmp_path / "sim.covar"))
    assert covar.levels == (("1", "2"), ("1", "2", "3", "4"))
    assert [covar.levels[0][code] for code in covar.codes[:, 0]] == [row[4] for row in fam]
    age = read_quantitative(str(tmp_path / "sim.qcovar")).values
    assert age.min() >= 20
    assert age.max() < 80


def test_fixed_effects_and_variances_are_found_again(example: Path) -> None:
    truth = json.loads((example / "truth.json").read_text())
    y = read_phenotype(str(example / "sim.phen")).values
    age = read_quantitative(str(example / "sim.qcovar")).values
    covar = read_discrete(str(example / "sim.covar"))
    indicators = [covar.codes[:, j] == code for j in (0, 1) for code in range(1, len(covar.levels[j]))]
    X = np.column_stack([np.ones(len(y)), age, *indicators])
    effects = np.linalg.lstsq(X, y)[0]
    standard_errors = np.sqrt(np.diag(np.linalg.inv(X.T @ X)))
    assert np.abs((effects - list(truth["fixed_effects"].values())) / standard_errors).max() < 4

    z = standardised(example)
    with open_bed(example / "sim.bed") as bed:
        odd = bed.chromosome.astype(int) % 2 == 1
    kernels = [z[:, part] @ z[:, part].T / part.sum() for part in (odd, ~odd)]
    # their standard error here is about 0.05: the tolerance is four of them
    np.testing.assert_allclose(haseman_elston(y - X @ effects, kernels), [0.4, 0.2], atol=0.2)
    assert np.std(y - X @ effects) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("founders", MODELS)
def test_linkage_disequilibrium_decays(tmp_path: Path, founders: str) -> None:
    make(tmp_path, num_samples=400, num_variants=900, founders=founders)
    z = standardised(tmp_path)
    with open_bed(tmp_path / "sim.bed") as bed:
        chromosome, position = bed.chromosome, bed.bp_position
    r2 = (z.T @ z / len(z)) ** 2
    same = (chromosome[:, None] == chromosome) & ~np.eye(len(chromosome), dtype=bool)
    distance = np.abs(position[:, None] - position)
    near, middle, far = (
        r2[same & (distance > low) & (distance <= high)].mean() for low, high in ((0, 10_000), (50_000, 200_000), (1e6, 1e7))
    )
    unlinked = r2[~same & ~np.eye(len(chromosome), dtype=bool)].mean()
    assert near > 0.06
    assert near > 3 * middle > 3 * far
    assert far == pytest.approx(unlinked, abs=0.003)
    assert unlinked == pytest.approx(1 / 400, abs=0.001)  # chance alone


@pytest.mark.parametrize("founders", MODELS)
def test_allele_frequencies_are_those_of_a_population(tmp_path: Path, founders: str) -> None:
    make(tmp_path, num_samples=300, num_variants=2000, num_chromosomes=10, founders=founders)
    with open_bed(tmp_path / "sim.bed") as bed:
        frequency = bed.read(dtype="float64").mean(axis=0) / 2
    # derived alleles in proportion to 1/x: a share of ln(0.1/0.9 · 99) / ln 99 of the minor ones is below 0.1
    assert (frequency < 0.1).mean() == pytest.approx(np.log(99 / 9) / np.log(99), abs=0.06)


@pytest.mark.parametrize("founders", MODELS)
def test_siblings_share_half(tmp_path: Path, founders: str) -> None:
    make(tmp_path, num_samples=200, num_variants=2000, num_chromosomes=20, family_size=3, founders=founders)
    z = standardised(tmp_path)
    kernel = z @ z.T / z.shape[1]
    fam = np.array([line.split() for line in (tmp_path / "sim.fam").read_text().splitlines()])
    siblings = (fam[:, :1] == fam[:, 0]) & ~np.eye(len(fam), dtype=bool)
    assert siblings.sum(axis=1).tolist() == [2] * 198 + [1] * 2  # the last family is smaller
    assert kernel[siblings].mean() == pytest.approx(0.5, abs=0.04)
    assert kernel[siblings].min() > 0.15
    assert kernel[siblings].max() < 0.85
    assert np.percentile(kernel[~siblings & ~np.eye(len(fam), dtype=bool)], 99) < 0.15
    assert len(set(fam[:, 1])) == 200
    assert all(row[2] == f"{row[0]}_father" and row[3] == f"{row[0]}_mother" for row in fam)


def test_case_control(tmp_path: Path) -> None:
    truth = make(tmp_path, prevalence=0.1, covariates=False)
    pheno = read_phenotype(str(tmp_path / "sim.phen"))
    assert pheno.coding == "1/2"
    assert pheno.values.sum() == truth["num_cases"] == 12
    assert truth["proportion_of_cases"] == 0.1
    assert truth["total_variance_realised"] == pytest.approx(1, abs=0.3)
    assert truth["fixed_effects"] == {"intercept": 1.0}
    assert not (tmp_path / "sim.covar").exists()


def test_no_genetic_variance(tmp_path: Path) -> None:
    truth = make(tmp_path, h2=[0.0], covariates=False)
    assert truth["genetic_variance_realised"] == 0
    assert truth["residual_variance_realised"] == pytest.approx(truth["total_variance_realised"])


def test_earlier_data_set_is_kept_unless_overwritten(tmp_path: Path) -> None:
    make(tmp_path)
    before = (tmp_path / "sim.bed").read_bytes()
    with pytest.raises(InputError, match=r"sim.bed exists; give overwrite=true"):
        make(tmp_path, seed=2)
    assert (tmp_path / "sim.bed").read_bytes() == before
    make(tmp_path, seed=2, overwrite=True, covariates=False)
    assert (tmp_path / "sim.bed").read_bytes() != before
    assert not (tmp_path / "sim.covar").exists()  # of the earlier data set
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file cannot be made: File exists"):
        make(tmp_path / "file")


def test_a_failure_leaves_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("openreml_dist.prep.simulate.make_trait", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(tmp_path, seed=2, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"num_samples": 5}, "num_samples"),
        ({"num_chromosomes": 23}, "num_chromosomes"),
        ({"num_chromosomes": 0}, "num_chromosomes"),
        ({"num_variants": 2}, "num_variants"),
        ({"h2": []}, "h2"),
        ({"h2": [0.7, 0.3]}, "h2"),
        ({"h2": [-0.1]}, "h2"),
        ({"h2": [float("nan")]}, "h2"),
        ({"h2": [0.1] * 4}, "h2"),
        ({"num_causal": 301}, "num_causal"),
        ({"num_causal": 1, "h2": [0.1, 0.1]}, "num_causal"),
        ({"family_size": 0}, "family_size"),
        ({"prevalence": 1.0}, "prevalence"),
        ({"prevalence": 0.001}, "prevalence"),
        ({"missing_genotypes": 1.0}, "missing_genotypes"),
        ({"missing_phenotypes": -0.1}, "missing_phenotypes"),
        ({"seed": -1}, "seed"),
        ({"founders": "plink"}, "founders"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}="):
        make(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_too_few_common_variants(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="minor allele frequency"):
        make(tmp_path, num_samples=10, num_variants=3, missing_genotypes=0.9999)


def test_msprime_is_chosen_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, name in ((object(), "msprime"), (None, "numpy")):
        monkeypatch.setattr(simulate_founders, "find_spec", lambda _, installed=installed: installed)
        assert simulate_founders.choose_founder_model("auto")[0] == name
    with pytest.raises(ConfigError, match=r"openreml-dist\[simulate\]"):
        simulate_founders.choose_founder_model("msprime")


def test_program(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "openreml_dist.app.simulate", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)

    bad = run("out=data", "h2=[0.7,0.4]")
    assert bad.returncode == 2
    assert "h2=[0.7, 0.4]" in bad.stderr
    assert not (tmp_path / "data").exists()
    good = run("out=data", "num_samples=50", "num_variants=40", "num_chromosomes=2", "founders=numpy", "prevalence=0.2")
    assert good.returncode == 0, good.stderr
    assert "proportion of cases 0.2" in good.stdout
    assert "next: openreml-prepare source=data/sim out=data/sim.vcz" in good.stdout
    code = "import sys, openreml_dist.prep.simulate; sys.exit('torch' in sys.modules or 'dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
