"""Genotypes as PLINK files and as stores, written without the programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.store.genotype_counts import count_genotypes
from openreml_dist.store.genotypes_writer import (
    GenotypeWriter,
    QualityControl,
    SampleTable,
    VariantTable,
    create_genotypes,
)
from openreml_dist.store.packed import pack

Dosage = NDArray[np.int8]


def random_dosage(m: int, n: int, missing: float = 0.0, seed: int = 1) -> Dosage:
    """ALT counts (m, n), -1 missing."""
    rng = np.random.default_rng(seed)
    x = rng.binomial(2, rng.uniform(0.2, 0.8, m)[:, None], (m, n)).astype(np.int8)
    x[rng.random((m, n)) < missing] = -1
    return x


def write_bed(prefix: Path, x: Dosage, chromosome: list[str] | None = None, names: list[str] | None = None) -> Path:
    """PLINK files of ALT counts (m, n), byte by byte as the format is described."""
    m, n = x.shape
    code = {2: 0b00, -1: 0b01, 1: 0b10, 0: 0b11}
    body = bytearray()
    for row in x.tolist():
        for first in range(0, n, 4):
            body.append(sum(code[d] << 2 * k for k, d in enumerate(row[first : first + 4])))
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(f"{prefix.name}.bed").write_bytes(b"\x6c\x1b\x01" + bytes(body))
    fam = "".join(f"F{i} I{i} 0 0 0 -9\n" for i in range(n))
    bim = "".join(f"{chromosome[s] if chromosome else 1} {names[s] if names else f'rs{s}'} 0 {100 + s} A C\n" for s in range(m))
    prefix.with_name(f"{prefix.name}.fam").write_text(fam)
    prefix.with_name(f"{prefix.name}.bim").write_text(bim)
    return prefix


def create_store(path: Path, x: Dosage, calls: str, chunks: tuple[int, int], **settings: Any) -> GenotypeWriter:
    """A store for the genotypes of ``write_bed``, in which none is written yet."""
    m, n = x.shape
    zero = np.full(n, "0")
    samples = SampleTable(
        np.array([f"F{i}" for i in range(n)]), np.array([f"I{i}" for i in range(n)]), zero, zero, np.zeros(n, np.int8), zero
    )
    variants = VariantTable(
        np.full(m, "1"), 100 + np.arange(m), np.array([f"rs{s}" for s in range(m)]), np.full(m, "C"), np.full(m, "A")
    )
    return create_genotypes(
        str(path),
        samples,
        variants,
        QualityControl(count_genotypes(x), np.ones(m), np.ones(n)),
        source_variants=np.arange(m),
        source_samples=np.arange(n),
        chunks=chunks,
        calls=calls,
        settings=settings,
        attributes={},
    )


def write_store(path: Path, x: Dosage, calls: str, chunks: tuple[int, int] = (8, 12)) -> Path:
    """A whole store."""
    writer = create_store(path, x, calls, chunks)
    for partition in writer.unfinished_partitions():
        writer.write_partition(partition, pack(x[writer.span(partition)]))
    writer.finalise()
    return path
