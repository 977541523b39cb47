"""A genotyped cohort in the files that users have, and the exact REML answer for it by algebra on whole matrices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from openreml_dist.covariance import Identity, Kernel
from openreml_dist.reml import FitResult
from openreml_dist.reml.fitting import FitOptions
from openreml_dist.reml.fitting import fit as fit_engine
from tests.e2e.data import write_lines
from tests.e2e.programs import Finished, fit
from tests.helpers.engines import WholeMatrices
from tests.helpers.genotypes import Dosage, write_bed
from tests.helpers.oracle import Case

Matrix = NDArray[np.float64]

NEIGHBOURS = 0.85  # correlation of what neighbouring SNPs are cut from
TOLERATED = 1.25  # of the wanted Monte-Carlo error


def linked_genotypes(m: int, n: int, rng: np.random.Generator) -> Dosage:
    """Counts of alleles (m, n): two haplotypes each, cut from a chain of normal numbers."""
    cut = rng.uniform(-1.2, 1.2, (m, 1))
    x = np.zeros((m, n), np.int8)
    for _ in range(2):
        chain = rng.normal(size=(m, n))
        for s in range(1, m):
            chain[s] = NEIGHBOURS * chain[s - 1] + np.sqrt(1 - NEIGHBOURS**2) * chain[s]
        x += (chain < cut).astype(np.int8)
    return x


def standardised(x: Dosage) -> Matrix:
    """(SNPs that vary, n), missing genotypes at their mean."""
    counts = np.where(x < 0, np.nan, x)
    p = np.nanmean(counts, axis=1, keepdims=True) / 2
    varies = ((p > 0) & (p < 1))[:, 0]
    return np.nan_to_num(((counts - 2 * p) / np.sqrt(np.clip(2 * p * (1 - p), 1e-9, None)))[varies])


def relationships(x: Dosage, weights: Matrix | None = None) -> list[Matrix]:
    """Zᵀ diag(w) Z / Σw of each column of weights (SNPs that vary, K)."""
    Z = standardised(x)
    weights = np.ones((len(Z), 1)) if weights is None else weights
    return [Z.T @ (w[:, None] * Z) / w.sum() for w in weights.T]


@dataclass(frozen=True)
class Exact:
    """The answer, and what it was found with: P at the estimates, and the matrices with the identity last."""

    fit: FitResult
    P: Matrix
    matrices: list[Matrix]

    def effects(self, y: Matrix) -> Matrix:
        """(n, K + 1) θ_k K_k P y."""
        return np.column_stack([t * K @ self.P @ y for t, K in zip(self.fit.theta.tolist(), self.matrices, strict=True)])


def exact_answer(matrices: list[Matrix], y: Matrix, X: Matrix | None = None) -> Exact:
    """By the driver and the formulas on whole matrices."""
    n = len(y)
    X = np.ones((n, 1)) if X is None else X
    terms = [*(Kernel.from_array(torch.from_numpy(K), f"k{k}") for k, K in enumerate(matrices)), Identity(n, "residual")]
    whole = [*matrices, np.eye(n)]
    start = torch.full((len(whole),), float(y.var()) / len(whole), dtype=torch.float64)
    case = Case(terms, [torch.from_numpy(K) for K in whole], torch.from_numpy(y), torch.from_numpy(X), start)
    found = fit_engine(WholeMatrices(case), "auto", FitOptions())
    return Exact(found, case.oracle(found.theta).P.numpy(), whole)


@dataclass(frozen=True)
class Genotyped:
    """Files of a cohort; individual i is F<i>:I<i>. ``g`` are the PLINK files, ``y.phen`` a phenotype of all, in any order."""

    folder: Path
    x: Dosage
    y: Matrix

    @property
    def settings(self) -> tuple[str, ...]:
        return *self.data, "solver.engine=stochastic"

    @property
    def data(self) -> tuple[str, ...]:
        return f"data.genotypes={self.folder / 'g'}", f"data.pheno={self.folder / 'y.phen'}"

    def run(self, run_dir: Path, *settings: str, launched: str = "inside", ranks: int = 2) -> Finished:
        return fit(launched, run_dir, *self.settings, "launcher.threads=1", *settings, ranks=ranks)


def make_genotyped(folder: Path, x: Dosage, y: Matrix, chromosome: list[str] | None = None) -> Genotyped:
    """Write its files; the rows of the phenotypes are shuffled."""
    write_bed(folder / "g", x, chromosome)
    order = np.random.default_rng(0).permutation(len(y))
    write_lines(folder / "y.phen", [f"F{i} I{i} {y[i]:.17g}" for i in order])
    return Genotyped(folder, x, y)


def simulated_phenotype(x: Dosage, h2: float, rng: np.random.Generator) -> Matrix:
    """Of all SNPs alike, its variance 1."""
    Z = standardised(x)
    return np.asarray(np.sqrt(h2 / len(Z)) * Z.T @ rng.normal(size=len(Z)) + np.sqrt(1 - h2) * rng.normal(size=x.shape[1]))


def assert_agrees(run: Finished, exact: FitResult, error: float = 0.01) -> None:
    """The estimates are those of the exact answer within a Monte-Carlo error that is what it was asked to be."""
    assert run.exit_code == 0, run.errors + run.output[-2000:]
    result = run.result
    assert result["status"] == str(exact.status)
    found = np.array([c["variance"] for c in result["components"]])
    spread = np.array(result["monte_carlo_se"])
    ses = exact.standard_errors.numpy()
    free = ~np.isnan(ses)
    assert [c["se"] is not None for c in result["components"]] == free.tolist()
    np.testing.assert_allclose([c["se"] for c in result["components"] if c["se"] is not None], ses[free], rtol=0.03)
    assert (spread[free] <= TOLERATED * error * ses[free]).all()
    assert (np.abs(found - exact.theta.numpy())[free] <= 4 * spread[free] + 2e-4 * ses[free]).all()
    assert (np.abs(found - exact.theta.numpy())[~free] < 1e-12).all()
    assert abs(result["loglik"] - exact.loglik) < 1.5
    betas = np.array([effect["estimate"] for effect in result["fixed_effects"]])
    beta_ses = exact.beta_covariance.diagonal().sqrt().numpy()
    assert (np.abs(betas - exact.beta.numpy()) < 5 * error * beta_ses + 1e-12 * np.abs(betas)).all()
