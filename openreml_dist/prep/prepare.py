"""Import of PLINK 1 files into a genotype store with quality control.

Three passes over the ``.bed``, each in blocks of variants: missing calls of the samples (only when samples are filtered),
genotype counts and filters of the variants, and writing. The second decides what the store holds; a run that resumes starts at
the third.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.config import PrepareConfig
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.prep.filters import Mask, Tally, VariantFilters, autosomal
from openreml_dist.prep.genotype_tasks import BlockQuality, count_block, count_missing, write_partition
from openreml_dist.prep.progress import progress, say
from openreml_dist.prep.tasks import TaskPool, task_pool
from openreml_dist.store.files import absolute, check_can_be_made
from openreml_dist.store.genotype_counts import concatenate_counts
from openreml_dist.store.genotypes import GENOTYPE_FORMAT
from openreml_dist.store.genotypes_writer import (
    CALLS_STORED,
    GenotypeWriter,
    QualityControl,
    create_genotypes,
    resume_genotypes,
)
from openreml_dist.store.plink import PlinkFiles, open_plink
from openreml_dist.store.zarr_group import State, begin, refuse_complete

Indices = NDArray[np.int64]


def prepare(settings: PrepareConfig) -> None:
    """Import ``settings.source`` into the store ``settings.out``, resuming an unfinished one.

    Raises:
        ConfigError: a threshold or chunk size that cannot be used.
        InputError: bad files, nothing left after the filters, or ``out`` cannot be written.
    """
    filters = VariantFilters(settings.max_missing, settings.min_maf, settings.min_hwe_pvalue)
    if not 0.0 <= settings.max_sample_missing <= 1.0:
        raise ConfigError(f"max_sample_missing={settings.max_sample_missing} must lie between 0 and 1")
    if settings.variants_chunk < 1 or settings.samples_chunk < 1:
        raise ConfigError("variants_chunk and samples_chunk must be at least 1")
    if settings.calls not in CALLS_STORED:
        raise ConfigError(f"calls={settings.calls} must be one of {', '.join(CALLS_STORED)}")
    out = absolute(settings.out)
    check_can_be_made(settings.out, "out")
    plink = open_plink(settings.source)
    state = begin(out, GENOTYPE_FORMAT, _resume_settings(settings, plink), overwrite=settings.overwrite)
    if state is State.COMPLETE:
        refuse_complete(out)
    say(f"read {plink.bed.num_variants:,} variants, {plink.bed.num_samples:,} samples")
    with task_pool(settings.dask, -(-plink.bed.num_variants // settings.variants_chunk)) as pool:
        writer = resume_genotypes(out) if state is State.UNFINISHED else _create(pool, plink, filters, settings, out)
        unfinished = writer.unfinished_partitions()
        if state is State.UNFINISHED:
            finished = writer.num_partitions - len(unfinished)
            say(f"resuming {settings.out}: {finished:,} of {writer.num_partitions:,} partitions are finished and kept")
        with progress("Writing genotypes", len(unfinished)) as advance:
            for _ in pool.run(write_partition, [(plink.bed, out, partition) for partition in unfinished]):
                advance(1)
    writer.finalise()


def _resume_settings(settings: PrepareConfig, plink: PlinkFiles) -> dict[str, Any]:
    chosen = asdict(settings)
    for name in ("source", "out", "overwrite", "dask"):  # which may differ between the runs
        del chosen[name]
    if settings.calls == "unpacked":  # as all stores were before there was a choice
        del chosen["calls"]
    return {**chosen, **plink.identity}


def _create(pool: TaskPool, plink: PlinkFiles, filters: VariantFilters, settings: PrepareConfig, out: str) -> GenotypeWriter:
    tally = Tally({})
    candidates = np.ones(plink.bed.num_variants, dtype=np.bool_)
    if settings.autosomes_only:
        tally.leave_out(candidates, ~autosomal(plink.variants.chromosome), "not autosomal")
    variants = np.flatnonzero(candidates)
    if not len(variants):
        raise InputError(f"{plink.bed.path}: no variant is on chromosomes 1..22 (autosomes_only=false takes all)")
    samples = _select_samples(pool, plink, variants, settings)
    calls = [(plink.bed, block, samples, filters) for block in _blocks(variants, settings.variants_chunk)]
    blocks = _count(pool, calls)
    for block in blocks:
        tally.add(block.tally)
    kept = np.concatenate([block.variants for block in blocks])
    say(f"variants: {tally}; kept {len(kept):,}")
    if not len(kept):
        raise InputError(f"{plink.bed.path}: the filters leave no variant")
    source_samples = np.arange(plink.bed.num_samples) if samples is None else np.flatnonzero(samples)
    quality = QualityControl(
        counts=concatenate_counts([block.counts for block in blocks]),
        hwe_p_value=np.concatenate([block.hwe_p_value for block in blocks]),
        sample_call_rate=np.sum([block.called for block in blocks], axis=0) / len(kept),
    )
    return create_genotypes(
        out,
        plink.samples.take(source_samples),
        plink.variants.take(kept),
        quality,
        source_samples=source_samples,
        source_variants=kept,
        chunks=(settings.variants_chunk, settings.samples_chunk),
        calls=settings.calls,
        settings=_resume_settings(settings, plink),
        attributes={"source": "openreml_dist", "input_digest": _digest(plink, blocks)},
    )


def _digest(plink: PlinkFiles, blocks: list[BlockQuality]) -> str:
    digest = hashlib.sha256((plink.identity["fam"] + plink.identity["bim"]).encode())
    for block in blocks:
        digest.update(block.digests)
    return digest.hexdigest()


def _blocks(variants: Indices, size: int) -> Iterator[Indices]:
    for start in range(0, len(variants), size):
        yield variants[start : start + size]


def _select_samples(pool: TaskPool, plink: PlinkFiles, variants: Indices, settings: PrepareConfig) -> Mask | None:
    """Mask of the samples with enough calls; ``None`` for all of them."""
    if settings.max_sample_missing >= 1.0:
        return None
    calls = [(plink.bed, block) for block in _blocks(variants, settings.variants_chunk)]
    missing = np.zeros(plink.bed.num_samples, dtype=np.int64)
    with progress("Checking samples", len(calls)) as advance:
        for _, count in pool.run(count_missing, calls):
            missing += count
            advance(1)
    samples: Mask = missing / len(variants) <= settings.max_sample_missing
    num_kept = int(np.count_nonzero(samples))
    left_out = plink.bed.num_samples - num_kept
    say(f"samples: left out {left_out:,} missing calls > {settings.max_sample_missing:g}; kept {num_kept:,}")
    if not num_kept:
        raise InputError(f"{plink.bed.path}: max_sample_missing={settings.max_sample_missing} leaves no sample")
    return samples if left_out else None


def _count(pool: TaskPool, calls: list[tuple[Any, ...]]) -> list[BlockQuality]:
    blocks = {}
    with progress("Counting genotypes", len(calls)) as advance:
        for index, quality in pool.run(count_block, calls):
            blocks[index] = quality
            advance(1)
    return [blocks[index] for index in range(len(calls))]
