"""What a fit of genotypes reads: alike on any number of ranks, and refused on all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openreml_dist.app.inputs.model import GenotypeAnalysis, read_genotypes
from openreml_dist.config import FitConfig
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.grid import ProcessGrid
from openreml_dist.store.genotype_counts import count_genotypes
from tests.e2e.data import write_lines
from tests.helpers.genotypes import random_dosage, write_bed, write_store
from tests.helpers.gloo import spawn

M, N = 30, 41


def settings_of(folder: Path, genotypes: str) -> FitConfig:
    """Of all but the first three and the last individual of the genotypes, and one of whom there are none."""
    rng = np.random.default_rng(2)
    order = [*rng.permutation(np.arange(3, N - 1)).tolist(), 99]
    write_lines(folder / "y.phen", [f"F{i} I{i} {rng.normal():.6f}" for i in order])
    write_lines(folder / "age.qcovar", ["FID IID age", *(f"F{i} I{i} {rng.uniform(20, 60):.3f}" for i in range(N))])
    settings = FitConfig()
    settings.data.genotypes, settings.data.pheno = str(folder / genotypes), str(folder / "y.phen")
    settings.data.qcovar = str(folder / "age.qcovar")
    return settings


def read(every: list[FitConfig]) -> list[dict[str, np.ndarray | list[str]]]:
    """As records that can be sent."""
    grid = ProcessGrid.connect()
    return [record(read_genotypes(settings, grid)) for settings in every]


def record(analysis: GenotypeAnalysis) -> dict[str, np.ndarray | list[str]]:
    counts = analysis.source.counts
    return {
        "y": analysis.y.numpy(),
        "X": analysis.X.numpy(),
        "rows": analysis.rows,
        "kept": analysis.kept,
        "annotation": analysis.partition.annotation,
        "counts": np.stack([counts.hom_ref, counts.het, counts.hom_alt]),
        "report": analysis.inputs.report,
        "dropped": [f"{key}={count}" for key, count in analysis.inputs.dropped.items()],
    }


def test_one_rank_or_several(tmp_path: Path) -> None:
    x = random_dosage(M, N, 0.05)
    x[4] = 0
    write_bed(tmp_path / "a", x, [str(1 + s // 10) for s in range(M)])
    write_store(tmp_path / "packed.vcz", x, "packed")
    kinds = ("a", "a.bed", "packed.vcz")
    every = [settings_of(tmp_path, kind) for kind in kinds]
    every[0].model.partition = every[1].model.partition = "chromosome"
    alone, counts = read(every), count_genotypes(x)
    for kind, found, num_components in zip(kinds, alone, (3, 3, 1), strict=True):
        assert found["rows"].tolist() == list(range(3, N - 1)) and found["kept"].tolist() == [s for s in range(M) if s != 4]
        assert len(found["y"]) == N - 4 and found["X"].shape == (N - 4, 2)
        assert found["annotation"].shape == (M - 1, num_components)
        np.testing.assert_array_equal(found["counts"], [counts.hom_ref, counts.het, counts.hom_alt])
        said = "\n".join(found["report"])
        for words in (f"genotypes: {tmp_path / kind}, 41 samples", "left out: 4 of", "left out 1 monomorphic; kept 29 of 30"):
            assert words in said
        assert "not_in_genotypes=1" in found["dropped"] and "GRM" not in said
    for of_rank in spawn(read, 3, every):
        for one, other in zip(alone, of_rank, strict=True):
            for name, value in one.items():
                np.testing.assert_array_equal(value, other[name])


def refused(every: list[FitConfig]) -> list[str]:
    grid, messages = ProcessGrid.connect(), []
    for settings in every:
        with pytest.raises(InputError) as raised:
            read_genotypes(settings, grid)
        messages.append(str(raised.value))
    return messages


def test_every_rank_refuses_alike(tmp_path: Path) -> None:
    for name in ("a", "b"):
        bed = write_bed(tmp_path / name, random_dosage(M, N)).with_suffix(".bed")
    bed.write_bytes(bed.read_bytes()[:-1])
    every = [settings_of(tmp_path, name) for name in ("a", "b")]
    every[0].model.partition = "nowhere"
    first, second = spawn(refused, 2, every)
    assert first == second and "model.partition=nowhere is neither" in first[0] and "The file is truncated" in first[1]


def test_prevalence_of_a_quantitative_trait(tmp_path: Path) -> None:
    write_bed(tmp_path / "a", random_dosage(M, N))
    settings = settings_of(tmp_path, "a")
    settings.model.prevalence = 0.1
    with pytest.raises(ConfigError, match="not a case/control trait"):
        read_genotypes(settings, ProcessGrid.single())
