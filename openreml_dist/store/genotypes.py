"""Genotype stores in the VCF Zarr layout, ours and those of bio2zarr and sgkit (Zarr 2 or 3).

``call_genotype`` (variants, samples, ploidy 2) holds allele numbers: 0 is REF, 1 is ALT, -1 missing, -2 fill. Ours are imported
from PLINK with A1, the allele that PLINK counts, as ALT; they add ``family_id`` and the counts behind the quality control.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.genotype_counts import Dosage, GenotypeCounts
from openreml_dist.store.zarr_group import get_array, open_group, read_strings, written_chunks

GENOTYPE_FORMAT = "openreml-genotypes"
GENOTYPE_VERSION = 1
VCF_ZARR_VERSION = "0.4"


@dataclass(frozen=True, eq=False)
class DosageReader:
    """The ``call_genotype`` array of a store, read as counts of ALT alleles."""

    path: str
    array: zarr.Array[Any] = field(repr=False)

    @property
    def num_variants(self) -> int:
        """Variants in the store."""
        return int(self.array.shape[0])

    @property
    def num_samples(self) -> int:
        """Samples in the store."""
        return int(self.array.shape[1])

    @property
    def variants_chunk(self) -> int:
        """Variants of a stored chunk."""
        return int(self.array.chunks[0])

    def read(self, variants: slice, samples: slice) -> Dosage:
        """ALT alleles 0, 1, 2 as int8 (variants, samples); -1 where an allele is missing (-1) or fill (-2).

        Raises:
            InputError: a chunk is damaged.
        """
        try:
            alleles = np.asarray(self.array[variants, samples], dtype=np.int8)
        except (ValueError, OSError, RuntimeError) as error:
            block = f"variants {variants.start}..{variants.stop - 1}"
            raise InputError(f"{self.path}: call_genotype is damaged in {block}: {error}. Make the store again") from error
        first, second = alleles[..., 0], alleles[..., 1]
        dosage: Dosage = first + second
        dosage[(first | second) < 0] = -1  # the sign bit of either
        return dosage


def open_dosages(path: str) -> DosageReader:
    """Open the genotypes alone, as the tasks of a computation do. Raises InputError for no diploid ``call_genotype``."""
    array = get_array(open_group(path), "call_genotype")
    if array.ndim != 3 or array.shape[2] != 2:
        raise InputError(f"{path}: call_genotype has shape {array.shape}; diploid genotypes (variants, samples, 2) are needed")
    return DosageReader(path, array)


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
        digest = hashlib.sha256(str(self.attributes.get("input_digest", "")).encode())
        for ids in (self.family_id, self.sample_id, self.chromosome):
            digest.update("\n".join([] if ids is None else ids.tolist()).encode())
        for numbers in (self.position, counts.hom_ref, counts.het, counts.hom_alt):
            digest.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
        return digest.hexdigest()


def open_genotypes(path: str) -> GenotypeStore:
    """Open a VCF Zarr store and verify that it is whole, without reading the genotypes.

    Raises:
        InputError: no such store, another kind, not finished, genotype chunks that are absent, arrays that do not fit together.
    """
    group = open_group(path)
    attributes: dict[str, Any] = group.attrs.asdict()
    if "call_genotype" not in group:
        raise InputError(f"{path}: not a genotype store (no call_genotype). Import PLINK files with openreml-prepare")
    dosages = open_dosages(path)
    _check_whole(path, attributes, dosages)
    contigs, contig = read_strings(group, "contig_id"), np.asarray(get_array(group, "variant_contig")[...])
    position = np.asarray(get_array(group, "variant_position")[...], dtype=np.int64)
    sample_id = read_strings(group, "sample_id")
    if sample_id.shape != (dosages.num_samples,) or not (len(contig) == len(position) == dosages.num_variants):
        raise InputError(f"{path}: sample_id, variant_contig, variant_position do not fit call_genotype {dosages.array.shape}")
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
    """Names and ALT alleles of some variants (m,); ``chromosome:position`` and ``.`` where the store has none."""
    group = open_group(store.path)
    if "variant_id" in group:
        names = read_strings(group, "variant_id")[variants]
    else:
        places = zip(store.chromosome[variants].tolist(), store.position[variants].tolist(), strict=True)
        names = np.array([f"{chromosome}:{position}" for chromosome, position in places])
    alleles = read_strings(group, "variant_allele")[variants, 1] if "variant_allele" in group else np.full(len(variants), ".")
    return names, alleles


def _check_whole(path: str, attributes: dict[str, Any], dosages: DosageReader) -> None:
    array = dosages.array
    if attributes.get("format") == GENOTYPE_FORMAT:
        if attributes.get("format_version") != GENOTYPE_VERSION:
            raise InputError(f"{path}: genotype store of version {attributes.get('format_version')}, not {GENOTYPE_VERSION}")
        if not attributes.get("complete"):
            raise InputError(f"{path}: not finished. Run the same openreml-prepare command again to resume it")
        present = len(written_chunks(path, "call_genotype"))
    else:
        present = array.nchunks_initialized
    expected = array.nchunks
    if present < expected:  # with the fill value 0 of bio2zarr a lost chunk would read as homozygous reference
        raise InputError(f"{path}: {expected - present} of {expected} chunks of call_genotype are absent. Make the store again")


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
