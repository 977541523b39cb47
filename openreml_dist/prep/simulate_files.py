"""The files of a simulated data set: written aside, then renamed into place, the record of the truth last."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import ConfigError, InputError, files_named
from openreml_dist.prep.simulate_genotypes import Chromosome

NAME = "sim"
TRUTH = "truth.json"
ALL_NAMES = (*(f"{NAME}.{suffix}" for suffix in ("bed", "bim", "fam", "phen", "qcovar", "covar")), TRUTH)
ALLELES = ("A\tC", "A\tG", "A\tT", "C\tA", "C\tG", "C\tT", "G\tA", "G\tC", "G\tT", "T\tA", "T\tC", "T\tG")


@dataclass(frozen=True)
class Samples:
    """Who is simulated: n people, each with FID and IID."""

    family_id: list[str]
    sample_id: list[str]
    sex: NDArray[np.int64]  # (n,) 1 male, 2 female
    have_parents: bool  # they are named in the .fam file, though not observed


@contextmanager
def written_aside(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder in ``folder``, whose files are renamed into it at the end, if no error came between.

    Raises:
        InputError: files of an earlier run are in the way and ``overwrite`` is False, or the folder cannot be written.
    """
    present = [folder / name for name in ALL_NAMES if (folder / name).exists()]
    if present and not overwrite:
        raise InputError(f"{present[0]} exists; give overwrite=true to replace the data set, or another folder with out=")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".simulate-", dir=folder))
    except OSError as error:
        raise ConfigError(f"out: {folder} cannot be made: {error.strerror}") from error
    try:
        with files_named(folder):
            yield aside
            for name in reversed(ALL_NAMES):  # the truth goes first and comes last: without it the data set is not whole
                (folder / name).unlink(missing_ok=True)
            for name in ALL_NAMES:
                if (aside / name).exists():
                    (aside / name).replace(folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def require_bed_reader() -> None:
    """Raise ConfigError where bed-reader, which writes .bed files, is not installed."""
    try:
        import bed_reader  # noqa: F401
    except ImportError as error:
        raise ConfigError("openreml-simulate needs bed-reader; pip install 'openreml-dist[prep]'") from error


def write_plink(
    prefix: Path, samples: Samples, num_variants: int, chromosomes: Iterable[Chromosome], rng: np.random.Generator
) -> None:
    """Write .bed, .bim and .fam, a chromosome at a time. A1 is the minor allele; its letter and A2's come from ``rng``."""
    from bed_reader import create_bed

    variants = []
    bed = create_bed(prefix.with_suffix(".bed"), len(samples.sample_id), num_variants)
    try:
        for number, chromosome in enumerate(chromosomes, 1):
            alleles = rng.choice(ALLELES, len(chromosome.positions))
            for i, calls in enumerate(chromosome.observed):
                bed.write(calls)
                position = chromosome.positions[i]
                variants.append(f"{number}\tsnp{number}_{i + 1}\t{position * 1e-6:.6f}\t{position}\t{alleles[i]}\n")
    except BaseException:
        with suppress(ValueError):  # its complaint of too few variants would hide the cause
            bed.close()
        raise
    bed.close()
    prefix.with_suffix(".bim").write_text("".join(variants))  # in place of those that create_bed made up
    with prefix.with_suffix(".fam").open("w") as fam:
        for family, sample, sex in zip(samples.family_id, samples.sample_id, samples.sex, strict=True):
            parents = f"{family}_father {family}_mother" if samples.have_parents else "0 0"
            fam.write(f"{family} {sample} {parents} {sex} -9\n")


def write_table(path: Path, samples: Samples, *columns: Iterable[Any]) -> None:
    """Write FID, IID and columns, without a header, as GCTA reads them."""
    rows = zip(samples.family_id, samples.sample_id, *columns, strict=True)
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))


def write_truth(folder: Path, truth: dict[str, Any]) -> None:
    """Write the record of what was simulated."""
    (folder / TRUTH).write_text(json.dumps(truth, indent=2) + "\n")
