"""Genotypes at two bits each, whatever holds them: a genotype store, of ours or not, or PLINK's files where they lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.files import absolute, is_url
from openreml_dist.store.genotype_counts import GenotypeCounts, concatenate_counts
from openreml_dist.store.genotypes import genotype_digest, open_genotypes, read_alleles, read_names
from openreml_dist.store.packed import Packed, count_packed, packed_width
from openreml_dist.store.plink import open_plink

BYTES_AT_ONCE = 8_000_000  # of genotypes that a thread counts


@dataclass(frozen=True, eq=False)
class GenotypeSource:
    """Genotypes of n samples and m variants, of which nothing but the counts needs to be read to describe them.

    Attributes:
        path: as it was given.
        sample_id, family_id: (n,) ids in the order of the genotypes; family ids are 0 where ``matches_iid_alone``.
        matches_iid_alone: no family ids are known.
        chromosome, position, variant_id: (m,); ``chromosome:position`` where variants have no name.
        alt, ref: (m,) the counted allele, A1, and the other.
        biallelic: (m,) whether there are no other alleles.
        variants_chunk: variants that are best read together, from a multiple of their number on.
        stored_counts: what an import has left, or ranks have counted together.
    """

    path: str
    sample_id: NDArray[np.str_] = field(repr=False)
    family_id: NDArray[np.str_] = field(repr=False)
    matches_iid_alone: bool
    chromosome: NDArray[np.str_] = field(repr=False)
    position: NDArray[np.int64] = field(repr=False)
    variant_id: NDArray[np.str_] = field(repr=False)
    alt: NDArray[np.str_] = field(repr=False)
    ref: NDArray[np.str_] = field(repr=False)
    biallelic: NDArray[np.bool_] = field(repr=False)
    variants_chunk: int
    stored_counts: GenotypeCounts | None = field(repr=False)
    _read: Callable[[slice], Packed] = field(repr=False)
    _import_digest: str = field(repr=False)

    @property
    def num_samples(self) -> int:
        """n."""
        return len(self.sample_id)

    @property
    def num_variants(self) -> int:
        """m."""
        return len(self.position)

    def read_packed(self, variants: slice) -> Packed:
        """Genotypes of all samples (variants, ceil(n/4)) as codes of PLINK's ``.bed``, see ``packed``. From several threads.

        Raises:
            InputError: what is read is damaged.
        """
        start, stop, _ = variants.indices(self.num_variants)
        return self._read(slice(start, stop))

    @cached_property
    def counts(self) -> GenotypeCounts:
        """(m,) over all samples: those that are stored, else of one pass over the genotypes in threads."""
        return self.stored_counts or self.count((0, self.num_variants), os.cpu_count() or 1)

    def count(self, variants: tuple[int, int], threads: int) -> GenotypeCounts:
        """Count the genotypes of a range of variants, one or more, over all samples.

        Raises:
            InputError: what is read is damaged.
        """
        with ThreadPoolExecutor(threads, thread_name_prefix="count-genotypes") as pool:
            parts = pool.map(lambda block: count_packed(self._read(block), self.num_samples), self._blocks(*variants))
            return concatenate_counts([*parts])

    def counted(self, counts: GenotypeCounts) -> GenotypeSource:
        """This source with counts that need not be found again."""
        return replace(self, stored_counts=counts)

    def digest(self) -> str:
        """sha256 that names these genotypes: over ids, positions, genotype counts, and what their import has left."""
        family_id = None if self.matches_iid_alone else self.family_id
        return genotype_digest(self._import_digest, (family_id, self.sample_id, self.chromosome), self.position, self.counts)

    def _blocks(self, start: int, stop: int) -> Iterator[slice]:
        """Ranges of variants that are counted at a time, of whole chunks."""
        chunks = max(1, BYTES_AT_ONCE // (self.variants_chunk * packed_width(self.num_samples)))
        height = self.variants_chunk * chunks
        edges = [start, *range((start // height + 1) * height, stop, height), stop]
        return (slice(first, end) for first, end in pairwise(edges) if first < end)


def open_genotype_source(path: str, setting: str = "data.genotypes") -> GenotypeSource:
    """Open a genotype store, or ``PREFIX`` or ``PREFIX.bed`` of PLINK's files, verified but for the genotypes themselves.

    Args:
        path: local, or the URL of a store.
        setting: what the user calls it.
    Raises:
        InputError: for what cannot be used.
    """
    place = Path(path).expanduser()
    is_store = any((place / name).is_file() for name in ("zarr.json", ".zgroup"))
    if is_url(path) or is_store or (place.is_dir() and not Path(f"{place}.bed").is_file()):
        return _of_store(path)
    if not any(Path(name).is_file() for name in (place, f"{place}.bed")):
        raise InputError(f"{path}: not found, nor {path}.bed. {setting} is a genotype store, or the prefix of PLINK 1 files")
    return _of_plink(path, setting)


def _of_store(path: str) -> GenotypeSource:
    store = open_genotypes(absolute(path))
    alleles = read_alleles(store)
    return GenotypeSource(
        path=path,
        sample_id=store.sample_id,
        family_id=np.full(len(store.sample_id), "0") if store.family_id is None else store.family_id,
        matches_iid_alone=store.family_id is None,
        chromosome=store.chromosome,
        position=store.position,
        variant_id=read_names(store),
        alt=alleles[:, 1],
        ref=alleles[:, 0],
        biallelic=store.biallelic,
        variants_chunk=store.dosages.variants_chunk,
        stored_counts=store.counts,
        _read=store.dosages.read_packed,
        _import_digest=str(store.attributes.get("input_digest", "")),
    )


def _of_plink(path: str, setting: str) -> GenotypeSource:
    plink = open_plink(path, setting)
    variants = plink.variants
    return GenotypeSource(
        path=path,
        sample_id=plink.samples.sample_id,
        family_id=plink.samples.family_id,
        matches_iid_alone=False,
        chromosome=variants.chromosome,
        position=variants.position,
        variant_id=variants.variant_id,
        alt=variants.alt,
        ref=variants.ref,
        biallelic=np.ones(len(variants.position), np.bool_),
        variants_chunk=1,
        stored_counts=None,
        _read=plink.bed.read_packed,
        _import_digest="",
    )
