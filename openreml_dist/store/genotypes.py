"""Genotype stores in the VCF Zarr layout, ours and those of bio2zarr and sgkit (Zarr 2 or 3).

``call_genotype`` (variants, samples, ploidy 2) holds allele numbers: 0 is REF, 1 is ALT, -1 missing, -2 fill. Ours are imported
from PLINK with A1, the allele that PLINK counts, as ALT; they add ``family_id`` and the counts behind the quality control, and
beside or instead of ``call_genotype`` they may have ``call_genotype_packed`` (variants, ceil(samples/4)): two bits a genotype,
the codes of ``packed``, in Zarr shards. Where both are there the packed one is read, an eighth of the bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.genotype_counts import Dosage, GenotypeCounts
from openreml_dist.store.packed import SAMPLES_PER_BYTE, Packed, pack, packed_width, unpack
from openreml_dist.store.zarr_group import absent_files, file_grid, get_array, open_group, read_strings

GENOTYPE_FORMAT = "openreml-genotypes"
GENOTYPE_VERSION = 1
VCF_ZARR_VERSION = "0.4"
CALLS, PACKED = "call_genotype", "call_genotype_packed"

_SAMPLES_AT_ONCE = 50_000


@dataclass(frozen=True, eq=False)
class DosageReader:
    """The genotypes of a store, ``call_genotype`` or packed, read as counts of ALT alleles; several threads may."""

    path: str
    array: zarr.Array[Any] = field(repr=False)
    num_samples: int

    @property
    def num_variants(self) -> int:
        """Variants in the store."""
        return int(self.array.shape[0])

    @property
    def variants_chunk(self) -> int:
        """Variants of a stored chunk."""
        return int(self.array.chunks[0])

    @property
    def samples_chunk(self) -> int:
        """Samples of a stored chunk."""
        return int(self.array.chunks[1]) * (SAMPLES_PER_BYTE if self.is_packed else 1)

    @property
    def is_packed(self) -> bool:
        """Whether the store has two bits a genotype."""
        return self.array.ndim == 2

    def read(self, variants: slice, samples: slice) -> Dosage:
        """ALT alleles 0, 1, 2 as int8 (variants, samples); -1 where an allele is missing (-1) or fill (-2).

        Raises:
            InputError: a chunk is damaged.
        """
        if self.is_packed:
            first = samples.start // SAMPLES_PER_BYTE
            codes = self._stored(variants, slice(first, packed_width(samples.stop)))
            return unpack(codes, slice(samples.start - SAMPLES_PER_BYTE * first, samples.stop - SAMPLES_PER_BYTE * first))
        alleles = np.asarray(self._stored(variants, samples), dtype=np.int8)
        first, second = alleles[..., 0], alleles[..., 1]
        dosage: Dosage = first + second
        dosage[(first | second) < 0] = -1  # the sign bit of either
        return dosage

    def read_packed(self, variants: slice) -> Packed:
        """The genotypes of all samples at two bits each (variants, ceil(n/4)), see ``packed``.

        Raises:
            InputError: a chunk is damaged.
        """
        if self.is_packed:
            return self._stored(variants, slice(None))
        width = SAMPLES_PER_BYTE * packed_width(max(self.samples_chunk, _SAMPLES_AT_ONCE))
        spans = (slice(first, min(first + width, self.num_samples)) for first in range(0, self.num_samples, width))
        return np.concatenate([pack(self.read(variants, span)) for span in spans], axis=1)

    def _stored(self, variants: slice, columns: slice) -> NDArray[Any]:
        try:
            return np.asarray(self.array[variants, columns])
        except (ValueError, OSError, RuntimeError) as error:
            where = f"{self.path}: {self.array.basename} is damaged in variants {variants.start}..{variants.stop - 1}"
            raise InputError(f"{where}: {error}. Make the store again") from error


def open_dosages(path: str) -> DosageReader:
    """Open the genotypes alone, as the tasks of a computation do. Raises InputError for a store without diploid genotypes."""
    group = open_group(path)
    if PACKED in group:
        array = get_array(group, PACKED)
        num_samples = array.attrs.get("num_samples")
        if not isinstance(num_samples, int) or array.shape[1:] != (packed_width(num_samples),):
            raise InputError(f"{path}: {PACKED} has shape {array.shape}, and is said to have {num_samples} samples")
        return DosageReader(path, array, num_samples)
    if CALLS not in group:
        raise InputError(f"{path}: not a genotype store (no {CALLS}). Import PLINK files with openreml-prepare")
    array = get_array(group, CALLS)
    if array.ndim != 3 or array.shape[2] != 2:
        raise InputError(f"{path}: {CALLS} has shape {array.shape}; diploid genotypes (variants, samples, 2) are needed")
    return DosageReader(path, array, int(array.shape[1]))


@dataclass(frozen=True, eq=False)
class GenotypeStore:
    """A complete genotype store.

    Attributes:
        path: where it is.
        dosages: reader of the genotypes.
        sample_id, family_id: (n,) ids; no family ids are known in stores of other programs.
        chromosome: (m,) name of each variant's contig.
        position: (m,) base pairs.
        biallelic: (m,) whether the variant has at most one ALT allele.
        counts: genotype counts written by the import, else ``None``.
        attributes: of the store's root.
    """

    path: str
    dosages: DosageReader
    sample_id: NDArray[np.str_] = field(repr=False)
    family_id: NDArray[np.str_] | None = field(repr=False)
    chromosome: NDArray[np.str_] = field(repr=False)
    position: NDArray[np.int64] = field(repr=False)
    biallelic: NDArray[np.bool_] = field(repr=False)
    counts: GenotypeCounts | None = field(repr=False)
    attributes: dict[str, Any] = field(repr=False)

    def digest(self, counts: GenotypeCounts) -> str:
        """sha256 over ids, positions, genotype counts, and the digest that the import left: names this input."""
        left = str(self.attributes.get("input_digest", ""))
        return genotype_digest(left, (self.family_id, self.sample_id, self.chromosome), self.position, counts)


def genotype_digest(
    left: str, ids: Sequence[NDArray[np.str_] | None], position: NDArray[np.int64], counts: GenotypeCounts
) -> str:
    """sha256 that names genotypes: over ids, positions and counts, and what their import has left."""
    digest = hashlib.sha256(left.encode())
    for names in ids:
        digest.update("\n".join([] if names is None else names.tolist()).encode())
    for numbers in (position, counts.hom_ref, counts.het, counts.hom_alt):
        digest.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
    return digest.hexdigest()


def open_genotypes(path: str) -> GenotypeStore:
    """Open a VCF Zarr store and verify that it is whole, without reading the genotypes.

    Raises:
        InputError: no such store, another kind, not finished, genotype chunks that are absent, arrays that do not fit together.
    """
    group = open_group(path)
    attributes: dict[str, Any] = group.attrs.asdict()
    dosages = open_dosages(path)
    _check_whole(path, group, attributes)
    contigs, contig = read_strings(group, "contig_id"), np.asarray(get_array(group, "variant_contig")[...])
    position = np.asarray(get_array(group, "variant_position")[...], dtype=np.int64)
    sample_id = read_strings(group, "sample_id")
    if sample_id.shape != (dosages.num_samples,) or not (len(contig) == len(position) == dosages.num_variants):
        raise InputError(f"{path}: sample_id, variant_contig, variant_position do not fit the genotypes {dosages.array.shape}")
    return GenotypeStore(
        path=path,
        dosages=dosages,
        sample_id=sample_id,
        family_id=read_strings(group, "family_id") if "family_id" in group else None,
        chromosome=contigs[contig],
        position=position,
        biallelic=_biallelic(group, dosages.num_variants),
        counts=_stored_counts(group, dosages.num_samples) if attributes.get("format") == GENOTYPE_FORMAT else None,
        attributes=attributes,
    )


def read_variant_labels(store: GenotypeStore, variants: NDArray[np.int64]) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Names and ALT alleles of some variants (m,)."""
    return read_names(store)[variants], read_alleles(store)[variants, 1]


def read_names(store: GenotypeStore) -> NDArray[np.str_]:
    """Names of all variants (m,), ``chromosome:position`` where the store has none."""
    group = open_group(store.path)
    if "variant_id" in group:
        return read_strings(group, "variant_id")
    places = zip(store.chromosome.tolist(), store.position.tolist(), strict=True)
    return np.array([f"{chromosome}:{position}" for chromosome, position in places])


def read_alleles(store: GenotypeStore) -> NDArray[np.str_]:
    """REF and the first ALT of all variants (m, 2), ``.`` where the store has none."""
    group = open_group(store.path)
    if "variant_allele" not in group:
        return np.full((store.dosages.num_variants, 2), ".")
    return read_strings(group, "variant_allele")[:, :2]


def _check_whole(path: str, group: zarr.Group, attributes: dict[str, Any]) -> None:
    """Raise InputError for a store that is not finished, or lacks chunks."""
    ours = attributes.get("format") == GENOTYPE_FORMAT
    if ours and attributes.get("format_version") != GENOTYPE_VERSION:
        raise InputError(f"{path}: genotype store of version {attributes.get('format_version')}, not {GENOTYPE_VERSION}")
    if ours and not attributes.get("complete"):
        raise InputError(f"{path}: not finished. Run the same openreml-prepare command again to resume it")
    for name in (name for name in (CALLS, PACKED) if name in group):
        array = get_array(group, name)
        absent = len(absent_files(path, array)) if ours else array.nchunks - array.nchunks_initialized
        if absent:  # with the fill value 0 of bio2zarr a lost chunk would read as homozygous reference
            expected = math.prod(file_grid(array)) if ours else array.nchunks
            kind = "shards" if ours and array.shards else "chunks"
            raise InputError(f"{path}: {absent} of {expected} {kind} of {name} are absent. Make the store again")


def _biallelic(group: zarr.Group, num_variants: int) -> NDArray[np.bool_]:
    if "variant_allele" not in group:
        return np.ones(num_variants, dtype=np.bool_)
    width = get_array(group, "variant_allele").shape[1]
    if width <= 2:
        return np.ones(num_variants, dtype=np.bool_)
    return np.asarray((read_strings(group, "variant_allele")[:, 2:] == "").all(axis=1))


def _stored_counts(group: zarr.Group, num_samples: int) -> GenotypeCounts:
    hom_ref, het, hom_alt = (
        np.asarray(get_array(group, name)[...], dtype=np.int64)
        for name in ("variant_n_hom_ref", "variant_n_het", "variant_n_hom_alt")
    )
    return GenotypeCounts(hom_ref, het, hom_alt, num_samples)
