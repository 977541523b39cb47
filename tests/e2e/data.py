"""A small cohort with known relationships, in the files that users have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openreml_dist.store.grm_writer import create_grm

NUM_SAMPLES = 120
CHUNK_SIZE = 32

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Cohort:
    """Files of a cohort; individual i of all is F<i>:I<i>.

    Attributes:
        folder: holds ``main.grm.zarr`` of all in order, ``other.grm.zarr`` of the last 100 in reverse order, ``traits.phen``
            with the columns quantitative, disease and unrelated, ``numbers.qcovar`` and ``factors.covar``.
        main, other: (n, n) the relationship matrices in the order of individuals; nan where ``other`` has no row.
        traits: (n, 3).
        age: (n,).
        batch: (n,) of three levels.
    """

    folder: Path
    main: Matrix
    other: Matrix
    traits: Matrix
    age: Matrix
    batch: NDArray[np.int64]

    def data(self, *grms: str, trait: int | str = 1) -> tuple[str, ...]:
        """The settings that name the GRMs and the phenotype."""
        paths = ",".join(str(self.folder / f"{name}.grm.zarr") for name in grms or ("main",))
        return f"data.grm=[{paths}]", f"data.pheno={self.folder / 'traits.phen'}", f"data.pheno_column={trait}"


def make_cohort(folder: Path) -> Cohort:
    """Simulate it and write its files."""
    rng = np.random.default_rng(20)
    n = NUM_SAMPLES
    main, other = relationships(rng, n, 150), relationships(rng, n, 150)
    age, batch = rng.integers(20, 80, n).astype(float), np.arange(n) % 3
    quantitative = 0.02 * age + 0.5 * (batch == 1) + np.linalg.cholesky(0.7 * main + 0.3 * np.eye(n)) @ rng.normal(size=n)
    disease = (quantitative > np.quantile(quantitative, 0.7)).astype(float)
    values, vectors = np.linalg.eigh(main)
    unrelated = vectors @ (rng.normal(size=n) / (1 + values))  # relatives differ more than others: its heritability is 0
    traits = np.column_stack([quantitative, disease, unrelated])

    folder.mkdir(parents=True, exist_ok=True)
    write_grm(folder / "main.grm.zarr", main, np.arange(n))
    write_grm(folder / "other.grm.zarr", other, np.arange(n)[:19:-1])
    other[:20], other[:, :20] = np.nan, np.nan
    rows = [f"F{i}\tI{i}" for i in range(n)]
    write_lines(
        folder / "traits.phen",
        ["FID\tIID\tquantitative\tdisease\tunrelated"]
        + [f"{rows[i]}\t{traits[i, 0]:.17g}\t{traits[i, 1]:.0f}\t{traits[i, 2]:.17g}" for i in rng.permutation(n)],
    )
    write_lines(folder / "numbers.qcovar", ["FID\tIID\tage", *(f"{rows[i]}\t{age[i]:.0f}" for i in range(n))])
    write_lines(folder / "factors.covar", ["FID\tIID\tbatch", *(f"{rows[i]}\tb{batch[i]}" for i in range(n))])
    return Cohort(folder, main, other, traits, age, batch)


def relationships(rng: np.random.Generator, num_samples: int, num_variants: int) -> Matrix:
    """ZZᵀ/m of standardised random genotypes, in the precision in which it is stored."""
    frequency = rng.uniform(0.1, 0.5, num_variants)
    dosage = rng.binomial(2, frequency, (num_samples, num_variants))
    Z = (dosage - 2 * frequency) / np.sqrt(2 * frequency * (1 - frequency))
    return np.asarray(Z @ Z.T / num_variants, dtype=np.float32).astype(np.float64)


def write_grm(path: Path, matrix: Matrix, order: NDArray[np.int64], prefix: str = "", finish: bool = True) -> None:
    """A GRM store of the individuals in ``order``."""
    writer = create_grm(
        str(path),
        family_id=np.array([f"{prefix}F{i}" for i in order]),
        sample_id=np.array([f"{prefix}I{i}" for i in order]),
        chunk_size=CHUNK_SIZE,
        settings={},
        attributes={},
    )
    for i, j in writer.unfinished_tiles():
        writer.write_tile(i, j, matrix[np.ix_(order[writer.span(i)], order[writer.span(j)])])
    if finish:
        writer.finalise()


def write_lines(path: Path, lines: list[str]) -> Path:
    """A text file of these lines."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
