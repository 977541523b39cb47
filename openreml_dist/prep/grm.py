"""Genomic relationship matrices from a genotype store, tile by tile as Dask tasks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import isqrt
from pathlib import Path
from typing import Any

from openreml_dist.config import DaskConfig, GrmConfig
from openreml_dist.errors import ConfigError
from openreml_dist.prep.filters import VariantFilters
from openreml_dist.prep.grm_variants import Partition, genotype_counts, select_variants
from openreml_dist.prep.progress import progress, say
from openreml_dist.prep.relationship import write_tiles
from openreml_dist.prep.tasks import TaskPool, task_pool
from openreml_dist.store.files import absolute, check_can_be_made, is_url
from openreml_dist.store.genotypes import GenotypeStore, open_genotypes
from openreml_dist.store.grm import GRM_FORMAT, lower_tiles
from openreml_dist.store.grm_writer import GrmWriter, create_grm, resume_grm
from openreml_dist.store.zarr_group import State, begin, refuse_complete

METHOD = "mean over SNPs of products of standardised genotypes (Yang et al. 2011)"

_SMALLEST_CHUNK, _LARGEST_CHUNK = 256, 2048
_TASK_BYTES = {"cpu": 256_000_000, "cuda": 2_000_000_000}  # of the float64 sums that one task accumulates
_TASKS_OF_A_WORKER = 16  # at least, so that all end at about the same time; one worker needs no more than one

Run = tuple[int, tuple[int, int]]
"""Neighbours in a row of tiles: row, (first column, end)."""


def make_grm(settings: GrmConfig) -> list[str]:
    """Compute the GRMs of a genotype store, resuming unfinished ones.

    Returns:
        Paths of the stores, as ``settings.out`` names them.
    Raises:
        ConfigError: a setting that cannot be used.
        InputError: genotypes that cannot be used, or ``out`` cannot be written.
    """
    VariantFilters(settings.max_missing, settings.min_maf)
    check_can_be_made(settings.out, "out")
    store = open_genotypes(absolute(settings.source))
    n = store.dosages.num_samples
    say(f"read {store.dosages.num_variants:,} variants, {n:,} samples from {settings.source}")
    if store.family_id is None:
        say("the store has no family_id: its samples will be matched by individual id (IID) alone, which must be unique")
    size = chunk_size(settings, n)
    with task_pool(workers_for(settings), len(lower_tiles(n, size))) as pool:
        counts = genotype_counts(pool, store)
        digest = store.digest(counts)
        partitions = select_variants(store, counts, settings)
        outs = [_place(settings.out, partition.name) for partition in partitions]
        states = [
            begin(
                absolute(out),
                GRM_FORMAT,
                _resume_settings(settings, size, partition.name, digest),
                overwrite=settings.overwrite,
            )
            for out, partition in zip(outs, partitions, strict=True)
        ]
        if all(state is State.COMPLETE for state in states):
            refuse_complete(settings.out)
        for out, partition, state in zip(outs, partitions, states, strict=True):
            if state is State.COMPLETE:
                say(f"{out} is complete and kept")
                continue
            if state is State.FREE:
                attributes = _resume_settings(settings, size, partition.name, digest)
                writer = _create(absolute(out), store, partition, attributes)
            else:
                writer = resume_grm(absolute(out))
            _fill(pool, writer, store.path, out, settings.device)
    return outs


def workers_for(settings: GrmConfig) -> DaskConfig:
    """One worker, whose threads share the genotypes that it decodes, or one a GPU; as many as are set.

    Raises:
        ConfigError: no GPU here for the workers of this machine.
    """
    workers = settings.dask.workers
    if settings.device == "cpu" or settings.dask.scheduler is not None:
        return replace(settings.dask, workers=workers or 1)
    from openreml_dist.prep.products_torch import num_gpus

    return replace(settings.dask, workers=min(workers or num_gpus(), num_gpus()))


def chunk_size(settings: GrmConfig, num_samples: int) -> int:
    """Rows of a stored tile: as set, or the power of two of 256 to 2,048 that makes eight tile rows or more.

    2,048 rows are 16 MB: 30,000 files for half a million samples, and a solver's tile rarely needs more than four of them.
    """
    if settings.chunk_size is not None:
        if settings.chunk_size < 1:
            raise ConfigError(f"chunk_size={settings.chunk_size} must be at least 1")
        return min(settings.chunk_size, num_samples)
    size = _SMALLEST_CHUNK
    while size < _LARGEST_CHUNK and size * 8 < num_samples:
        size *= 2
    return min(size, num_samples)


def _place(out: str, partition: str) -> str:
    if partition == "genome":
        return out
    name = f"chr{partition.removeprefix('chr')}.grm.zarr"
    return f"{out.rstrip('/')}/{name}" if is_url(out) else str(Path(out) / name)


def _resume_settings(settings: GrmConfig, size: int, partition: str, digest: str) -> dict[str, Any]:
    return {
        "partition": partition,
        "autosomes_only": settings.autosomes_only,
        "min_maf": settings.min_maf,
        "max_missing": settings.max_missing,
        "chunk_size": size,
        "input_digest": digest,
    }


def _create(path: str, store: GenotypeStore, partition: Partition, settings: dict[str, Any]) -> GrmWriter:
    return create_grm(
        path,
        family_id=store.family_id,
        sample_id=store.sample_id,
        chunk_size=settings["chunk_size"],
        settings=settings,
        attributes={
            "method": METHOD,
            "num_variants": len(partition.variants.index),
            "constant_num_variants": not partition.any_missing,
            "allele_frequency": "called genotypes of all samples of the genotype store",
            "partition": partition.name,
            "input_digest": settings["input_digest"],
        },
        variants=partition.variants,
    )


def _fill(pool: TaskPool, writer: GrmWriter, genotypes: str, out: str, device: str) -> None:
    """Compute the tiles that are not on disk."""
    unfinished, finished = writer.unfinished_tiles(), len(writer.finished_tiles())
    if finished:
        say(f"resuming {out}: {finished:,} of {finished + len(unfinished):,} tiles are finished and kept")
    most = _TASK_BYTES[device] // (8 * writer.chunk_size**2)
    if pool.num_workers > 1:
        most = min(most, len(unfinished) // (_TASKS_OF_A_WORKER * pool.num_workers))
    calls = [(genotypes, writer.path, task, device, pool.threads) for task in tasks(unfinished, max(1, most))]
    with progress(f"Tiles of {Path(out).name}", len(unfinished)) as advance:
        for _, tiles in pool.run(write_tiles, calls):
            advance(tiles)
    writer.finalise()


def tasks(tiles: list[tuple[int, int]], most: int) -> list[list[Run]]:
    """Deal tiles to tasks of about equal numbers, ``most`` at most, each nearly a square, which needs the fewest samples."""
    side = isqrt(most)
    ordered = sorted(tiles, key=lambda tile: (tile[0] // side, tile[1] // side, tile))
    count = -(-len(tiles) // most)
    edges = [len(tiles) * k // count for k in range(count + 1)]
    return [runs(sorted(ordered[first:end]), most) for first, end in pairwise(edges)]


def runs(tiles: list[tuple[int, int]], longest: int) -> list[Run]:
    """Group sorted tiles into (row, (first column, end)) of up to ``longest`` neighbours in a row."""
    grouped: list[Run] = []
    for i, j in tiles:
        row, (first, end) = grouped[-1] if grouped else (-1, (0, 0))
        if row == i and end == j and end - first < longest:
            grouped[-1] = (i, (first, j + 1))
        else:
            grouped.append((i, (j, j + 1)))
    return grouped
