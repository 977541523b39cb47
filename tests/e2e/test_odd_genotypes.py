"""Genotypes and phenotypes that are hard on a matrix-free fit: the right answer, or a word that it is not known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.data import write_lines
from tests.e2e.genotyped import (
    Dosage,
    Genotyped,
    Matrix,
    assert_agrees,
    exact_answer,
    linked_genotypes,
    make_genotyped,
    relationships,
    simulated_phenotype,
)

N, M = 240, 1100  # more SNPs than a block has
Change = Callable[[Dosage, np.random.Generator], Dosage]


def monomorphic(x: Dosage, rng: np.random.Generator) -> Dosage:
    x[::7], x[3::7] = 0, 2
    return x


def duplicate(x: Dosage, rng: np.random.Generator) -> Dosage:
    x[100:110] = x[400:410]
    return x


def perfect_ld(x: Dosage, rng: np.random.Generator) -> Dosage:
    return np.concatenate([x, np.repeat(x[:1], 600, axis=0), 2 - np.repeat(x[:1], 100, axis=0)])


def one_carrier(x: Dosage, rng: np.random.Generator) -> Dosage:
    x[::5] = 0
    x[np.arange(0, len(x), 5), rng.integers(x.shape[1], size=-(-len(x) // 5))] = 1
    return x


def full_sibs(x: Dosage, rng: np.random.Generator) -> Dosage:
    """Families of four: an allele of each parent, a recombination every fifty SNPs or so."""
    families, size = x.shape[1] // 4, len(x)
    haplotypes = rng.binomial(1, rng.uniform(0.2, 0.8, size)[:, None, None, None], (size, families, 2, 2))
    family = np.arange(4 * families) // 4
    made = np.zeros((size, 4 * families), np.int8)
    for parent in range(2):
        chosen = rng.integers(0, 2, 4 * families) ^ (np.cumsum(rng.random((size, 4 * families)) < 0.02, axis=0) % 2)
        made += haplotypes[np.arange(size)[:, None], family, parent, chosen].astype(np.int8)
    return made


def first(count: int) -> Change:
    return lambda x, _: x[:count]


def people(count: int) -> Change:
    return lambda x, _: x[:, :count]


CASES: dict[str, list[Change]] = {
    "monomorphic": [monomorphic],
    "duplicate": [duplicate],
    "perfect LD": [perfect_ld],
    "one carrier": [one_carrier],
    "full sibs": [full_sibs],
    "one SNP": [first(1)],
    "ten SNPs": [first(10)],
    "24 people": [first(40), people(24)],
}


def made_of(changes: list[Change], seed: int = 5) -> tuple[Dosage, Matrix]:
    rng = np.random.default_rng(seed)
    x = linked_genotypes(M, N, rng)
    for change in changes:
        x = change(x, rng)
    return x, simulated_phenotype(x, 0.5, rng)


@pytest.mark.parametrize("name", CASES)
def test_odd_genotypes(name: str, tmp_path: Path) -> None:
    x, y = made_of(CASES[name])
    run = make_genotyped(tmp_path, x, y).run(tmp_path / "run")
    assert_agrees(run, exact_answer(relationships(x), y).fit)
    if name == "monomorphic":
        assert "monomorphic" in run.output


def test_two_populations_with_and_without_their_principal_component(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    population = np.arange(N) % 2
    frequency = rng.uniform(0.2, 0.8, (M, 1)) + rng.normal(0, 0.15, (M, 1)) * (2 * population - 1)
    x = rng.binomial(2, np.clip(frequency, 0.03, 0.97)).astype(np.int8)
    y = simulated_phenotype(x, 0.4, rng) + 2 * population
    K = relationships(x)[0]
    component = np.linalg.eigh(K)[1][:, -1].round(9)
    made = make_genotyped(tmp_path, x, y)
    write_lines(tmp_path / "pc.qcovar", ["FID IID pc1", *(f"F{i} I{i} {value:.9f}" for i, value in enumerate(component))])
    X = np.column_stack([np.ones(N), component])
    assert_agrees(made.run(tmp_path / "with", f"data.qcovar={tmp_path / 'pc.qcovar'}"), exact_answer([K], y, X).fit)
    assert_agrees(made.run(tmp_path / "without"), exact_answer([K], y).fit)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Genotyped:
    return make_genotyped(tmp_path_factory.mktemp("usual"), *made_of([]))


@pytest.mark.parametrize(("scale", "mean"), [(1e-9, 0.0), (1e9, 0.0), (1.0, 1e8)])
def test_units_and_means_of_y(usual: Genotyped, tmp_path: Path, scale: float, mean: float) -> None:
    plain = usual.run(tmp_path / "plain")
    y = mean + scale * usual.y
    write_lines(tmp_path / "y.phen", [f"F{i} I{i} {value:.17g}" for i, value in enumerate(y)])
    run = usual.run(tmp_path / "run", f"data.pheno={tmp_path / 'y.phen'}")
    assert run.exit_code == 0, run.errors
    for own, its in zip(run.result["components"], plain.result["components"], strict=True):
        for key, power in {"variance": 2, "se": 2, "proportion": 0, "proportion_se": 0}.items():
            assert own[key] == pytest.approx(its[key] * scale**power, rel=1e-5)
    (effect,), (usual_effect,) = run.result["fixed_effects"], plain.result["fixed_effects"]
    assert effect["estimate"] - mean == pytest.approx(usual_effect["estimate"] * scale, rel=1e-3, abs=1e-7 * scale)
    assert effect["se"] == pytest.approx(usual_effect["se"] * scale, rel=1e-5)
    if mean:
        assert run.result["loglik"] == pytest.approx(plain.result["loglik"], abs=1e-3)


def test_zeros_and_ones(usual: Genotyped, tmp_path: Path) -> None:
    y = (usual.y > 0.3).astype(float)
    write_lines(tmp_path / "y.phen", [f"F{i} I{i} {value:.0f}" for i, value in enumerate(y)])
    assert_agrees(usual.run(tmp_path / "run", f"data.pheno={tmp_path / 'y.phen'}"), exact_answer(relationships(usual.x), y).fit)


def test_two_components_of_the_same_snps_are_not_told_apart(tmp_path: Path) -> None:
    """As with two GRMs of the same relationships."""
    x, y = made_of([first(300)])
    made = make_genotyped(tmp_path, np.concatenate([x, x]), y, ["1"] * 300 + ["2"] * 300)
    run = made.run(tmp_path / "run", "model.partition=chromosome")
    assert run.exit_code == 6 and run.result["status"] == "not_identified"
    assert "chr1, chr2 cannot be told apart" in run.output and not (run.run_dir / "result.hsq").exists()
    assert [c["variance"] for c in run.result["components"][:2]] == [None, None]


def test_more_components_than_the_people_can_tell_apart(tmp_path: Path) -> None:
    x, y = made_of([first(50), people(40)])
    made = make_genotyped(tmp_path, x, y)
    write_lines(tmp_path / "each", ["SNP component", *(f"rs{s} c{s}" for s in range(50))])
    run = made.run(tmp_path / "run", f"model.partition={tmp_path / 'each'}", "solver.max_iter=10")
    assert run.exit_code in (3, 6) and "Traceback" not in run.errors


def test_no_answer_without_a_small_monte_carlo_error(tmp_path: Path) -> None:
    """Far more SNPs than people, and no residual variance: where probes cannot tell, it says so."""
    x, _ = made_of([people(31)])
    values, vectors = np.linalg.eigh(relationships(x)[0])
    y = vectors @ (np.sqrt(values.clip(0)) * np.random.default_rng(2).choice([-1.0, 1.0], 31))
    run = make_genotyped(tmp_path, x, y).run(tmp_path / "run", "solver.max_iter=6")
    result, exact = run.result, exact_answer(relationships(x), y).fit
    assert run.exit_code in (0, 3) and result["status"] == {0: str(exact.status)}.get(run.exit_code, result["status"])
    if run.exit_code == 0:
        assert abs(result["components"][0]["variance"] - float(exact.theta[0])) < 0.5 * float(exact.standard_errors[0])


@pytest.mark.parametrize("ranks", [2, 3])
def test_fewer_people_than_ranks_would_like(tmp_path: Path, ranks: int) -> None:
    x, y = made_of([first(8), people(7)])
    run = make_genotyped(tmp_path, x, y).run(tmp_path / "run", launched="torchrun", ranks=ranks)
    assert run.result["exit_code"] in (0, 3) and run.result["num_ranks"] == ranks
