"""PLINK 1 files, ``.bed`` ``.bim`` ``.fam``: checked as a whole before any genotype is read.

A1 is the allele that PLINK counts, and the ALT allele of the genotype store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.genotype_counts import Dosage
from openreml_dist.store.genotypes_writer import SampleTable, VariantTable
from openreml_dist.store.grm import check_unique
from openreml_dist.store.packed import Packed, clear_padding_, pack, packed_width, unpack

Variants: TypeAlias = slice | NDArray[np.int64]
"""A range, or indices."""

_MAGIC = b"\x6c\x1b"
HEADER_BYTES = 3
MISSING_PHENOTYPE = "-9"


@dataclass(frozen=True, eq=False)
class BedFile:
    """A ``.bed`` file of ``num_samples`` by ``num_variants``; small, so that tasks can be given one."""

    path: str
    num_samples: int
    num_variants: int

    def read(self, variants: Variants, samples: NDArray[np.bool_] | None = None) -> Dosage:
        """A1 counts 0, 1, 2 as int8 (variants, samples) in C order, -1 missing; all samples for ``None``."""
        dosage = unpack(self.read_packed(variants), slice(0, self.num_samples))
        return dosage if samples is None or samples.all() else np.compress(samples, dosage, axis=1)

    def read_packed(self, variants: Variants, samples: NDArray[np.bool_] | None = None) -> Packed:
        """The same at two bits a genotype (variants, ceil(samples/4)); see ``packed``.

        Local: may be called from several threads.

        Raises:
            InputError: the file has become shorter since it was opened.
        """
        if not (samples is None or samples.all()):
            return pack(self.read(variants, samples))
        if isinstance(variants, slice):
            return self._packed(variants.start, variants.stop)
        runs = np.split(variants, np.flatnonzero(np.diff(variants) != 1) + 1)
        return np.concatenate([self._packed(int(run[0]), int(run[-1]) + 1) for run in runs])

    def _packed(self, start: int, stop: int) -> Packed:
        width = packed_width(self.num_samples)
        codes = np.fromfile(self.path, np.uint8, (stop - start) * width, offset=HEADER_BYTES + start * width)
        if codes.size != (stop - start) * width:  # a memory map would end the process
            raise InputError(f"{self.path}: it ends within variants {start}..{stop - 1}: was it truncated?")
        packed = codes.reshape(stop - start, width)
        clear_padding_(packed, self.num_samples)
        return packed


@dataclass(frozen=True, eq=False)
class PlinkFiles:
    """The three files, verified."""

    bed: BedFile
    samples: SampleTable
    variants: VariantTable
    identity: dict[str, Any]  # sizes, digests and times by which a resumed import knows its source again


def open_plink(source: str, setting: str = "source") -> PlinkFiles:
    """Open ``PREFIX.bed`` with its ``.bim`` and ``.fam``.

    Args:
        source: the prefix, or the name of the ``.bed``.
        setting: what the user calls it.
    Raises:
        InputError: a file is missing, a line is malformed, the ``.bed`` does not fit the other two, or ids occur twice.
    """
    prefix = source.removesuffix(".bed")
    bed, bim, fam = (Path(f"{prefix}.{part}").expanduser().absolute() for part in ("bed", "bim", "fam"))
    for path in (bed, bim, fam):
        if not path.is_file():
            raise InputError(f"{path}: not found. {setting} is the prefix of PLINK 1 files, without .bed")
    samples, variants = _read_fam(fam), _read_bim(bim)
    check_unique(str(fam), samples.family_id, samples.sample_id)
    n, m = len(samples.sample_id), len(variants.position)
    _check_bed(bed, n, m)
    status = bed.stat()
    identity = {
        "fam": hashlib.sha256(fam.read_bytes()).hexdigest(),
        "bim": hashlib.sha256(bim.read_bytes()).hexdigest(),
        "bed": [status.st_size, status.st_mtime_ns],
    }
    return PlinkFiles(BedFile(str(bed), n, m), samples, variants, identity)


def _read_table(path: Path, columns: str, optional: int = 0) -> list[Sequence[str]]:
    """Columns of a table without a header, of which every line may lack the last ``optional`` ones."""
    width, rows = len(columns.split()), []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            fields = line.split()
            if number == 1 and width - optional <= len(fields) < width:
                width = len(fields)
                columns = " ".join(columns.split()[:width])
            if len(fields) != width:
                raise InputError(f"{path}: line {number} has {len(fields)} fields, not {width} ({columns}): {line[:80]!r}")
            rows.append(fields)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error})") from error
    if not rows:
        raise InputError(f"{path}: empty")
    return list(zip(*rows, strict=True))


def _read_fam(path: Path) -> SampleTable:
    """Samples; without the sixth column, as PLINK 2 accepts it, every phenotype is missing."""
    family, sample, father, mother, sex, *rest = _read_table(path, "FID IID PAT MAT SEX PHENO", optional=1)
    phenotype = rest[0] if rest else [MISSING_PHENOTYPE] * len(family)
    known = [int(code) if code in {"1", "2"} else 0 for code in sex]
    return SampleTable(
        family_id=np.array(family, dtype=np.str_),
        sample_id=np.array(sample, dtype=np.str_),
        paternal_id=np.array(father, dtype=np.str_),
        maternal_id=np.array(mother, dtype=np.str_),
        sex=np.array(known, dtype=np.int8),
        phenotype=np.array(phenotype, dtype=np.str_),
    )


def _read_bim(path: Path) -> VariantTable:
    chromosome, variant, _, position, alt, ref = _read_table(path, "CHR ID CM BP A1 A2")
    try:
        base_pairs = np.array(position, dtype=np.int64)
    except ValueError:
        number, value = next((k, text) for k, text in enumerate(position, start=1) if not text.lstrip("-").isdecimal())
        raise InputError(f"{path}: line {number}: position {value!r} is not an integer") from None
    return VariantTable(
        chromosome=np.array(chromosome, dtype=np.str_),
        position=base_pairs,
        variant_id=np.array(variant, dtype=np.str_),
        ref=np.array(ref, dtype=np.str_),
        alt=np.array(alt, dtype=np.str_),
    )


def _check_bed(path: Path, num_samples: int, num_variants: int) -> None:
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if header[:2] != _MAGIC:
        raise InputError(f"{path}: not a PLINK 1 .bed file: it begins with {header.hex(' ')}, not 6c 1b 01")
    if header[2:] != b"\x01":
        raise InputError(f"{path}: sample-major (or of an unknown order). Convert it with plink --bfile PREFIX --make-bed")
    expected, found = HEADER_BYTES + num_variants * packed_width(num_samples), path.stat().st_size
    if expected != found:
        raise InputError(
            f"{path}: {expected:,} bytes expected for {num_variants:,} variants of {num_samples:,} samples, {found:,} found. "
            "The file is truncated, or does not belong to the .bim and .fam"
        )
