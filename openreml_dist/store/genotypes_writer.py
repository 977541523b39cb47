"""Writing a genotype store by partitions of variants, from one or many processes: create, write partitions, finalise.

Everything but the genotypes is known, and written, before the first partition. A partition is one row of chunks, with packed
genotypes one shard, so that each file has one writer; it is finished when all its files are in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from openreml_dist.errors import InputError
from openreml_dist.store.files import remove_partials
from openreml_dist.store.genotype_counts import GenotypeCounts
from openreml_dist.store.genotypes import CALLS, GENOTYPE_FORMAT, GENOTYPE_VERSION, PACKED, VCF_ZARR_VERSION
from openreml_dist.store.packed import Packed, packed_width, unpack
from openreml_dist.store.zarr_group import absent_files, consolidate, create_array, file_shape, get_array, open_group

CALLS_STORED = {"unpacked": (CALLS,), "packed": (PACKED,), "both": (CALLS, PACKED)}
SHARD_BYTES = 32_000_000  # of packed genotypes in a file, or one row of chunks: 125 MB, 600 files for 500,000 x 600,000
LEAST_SHARDS = 16  # as far as there are rows of chunks, so that as many processes may write

_DIMENSIONS = ("variants", "samples", "ploidy")


@dataclass(frozen=True, eq=False)
class SampleTable:
    """Samples as a ``.fam`` file describes them: (n,) strings, and sex 0 unknown, 1 male, 2 female."""

    family_id: NDArray[np.str_]
    sample_id: NDArray[np.str_]
    paternal_id: NDArray[np.str_]
    maternal_id: NDArray[np.str_]
    sex: NDArray[np.int8]
    phenotype: NDArray[np.str_]

    def take(self, samples: NDArray[np.int64]) -> SampleTable:
        """Some of the samples, by index."""
        return SampleTable(*(getattr(self, name)[samples] for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class VariantTable:
    """Variants as a ``.bim`` file describes them: (m,) chromosome, position in base pairs, id, REF (A2) and ALT (A1)."""

    chromosome: NDArray[np.str_]
    position: NDArray[np.int64]
    variant_id: NDArray[np.str_]
    ref: NDArray[np.str_]
    alt: NDArray[np.str_]

    def take(self, variants: NDArray[np.int64]) -> VariantTable:
        """Some of the variants, by index."""
        return VariantTable(*(getattr(self, name)[variants] for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class QualityControl:
    """Genotype counts (m,), exact Hardy-Weinberg p-values (m,), and call rates of the samples (n,)."""

    counts: GenotypeCounts
    hwe_p_value: NDArray[np.float64]
    sample_call_rate: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GenotypeWriter:
    """An unfinished genotype store."""

    path: str
    _group: zarr.Group

    @property
    def _arrays(self) -> list[zarr.Array[Any]]:
        return [get_array(self._group, name) for name in (CALLS, PACKED) if name in self._group]

    @property
    def _height(self) -> int:
        """Variants of a partition; an array of shards has no less of them than one of chunks."""
        return max(file_shape(array)[0] for array in self._arrays)

    @property
    def num_partitions(self) -> int:
        """Rows of files, of the array that has the fewer."""
        return -(-self._arrays[0].shape[0] // self._height)

    def span(self, partition: int) -> slice:
        """Variants of a partition."""
        height = self._height
        return slice(partition * height, min((partition + 1) * height, self._arrays[0].shape[0]))

    def source_indices(self, partition: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices, in the files that are imported, of the variants of a partition and of all samples of the store."""
        variants, samples = (get_array(self._group, f"source_{name}_index") for name in ("variant", "sample"))
        return np.asarray(variants[self.span(partition)], dtype=np.int64), np.asarray(samples[...], dtype=np.int64)

    def unfinished_partitions(self) -> list[int]:
        """Partitions of which a file is not on disk."""
        absent = ((array, place[0]) for array in self._arrays for place in absent_files(self.path, array))
        return sorted({row * file_shape(array)[0] // self._height for array, row in absent})

    def write_partition(self, partition: int, packed: Packed) -> None:
        """Write the genotypes of a partition (its variants, ceil(n/4)): call_genotype in steps of one chunk, then the shard."""
        variants = self.span(partition)
        for array in self._arrays:
            if array.basename == PACKED:
                array[variants] = packed
            else:
                self._write_calls(array, variants, packed)

    def _write_calls(self, array: zarr.Array[Any], variants: slice, packed: Packed) -> None:
        mask, (height, width) = get_array(self._group, f"{CALLS}_mask"), array.chunks[:2]
        for first in range(variants.start, variants.stop, height):
            rows = slice(first, min(first + height, variants.stop))
            codes = packed[rows.start - variants.start : rows.stop - variants.start]
            for start in range(0, array.shape[1], width):
                samples = slice(start, min(start + width, array.shape[1]))
                dosage = unpack(codes, samples)
                missing = dosage < 0
                alleles = np.stack([dosage == 2, dosage >= 1], axis=-1).astype(np.int8)  # unphased: 0/0, 0/1, 1/1
                alleles[missing] = -1
                mask[rows, samples] = np.repeat(missing[..., None], 2, axis=-1)
                array[rows, samples] = alleles

    def finalise(self) -> None:
        """Consolidate the metadata and mark the store complete. Raises InputError where a partition is missing."""
        unfinished = self.unfinished_partitions()
        if unfinished:
            raise InputError(f"{self.path}: {len(unfinished)} partitions are not written, the first is {unfinished[0]}")
        remove_partials(self.path)
        consolidate(self.path)
        open_group(self.path, writable=True).attrs["complete"] = True


def create_genotypes(
    path: str,
    samples: SampleTable,
    variants: VariantTable,
    quality: QualityControl,
    *,
    source_variants: NDArray[np.int64],
    source_samples: NDArray[np.int64],
    chunks: tuple[int, int],
    calls: str = "unpacked",
    settings: dict[str, Any],
    attributes: dict[str, Any],
) -> GenotypeWriter:
    """Create a genotype store at a free ``path`` with everything but the genotypes.

    Args:
        path: local path or URL where nothing exists.
        samples, variants, quality: what is stored, in the order of the genotypes to come.
        source_variants, source_samples: their indices in the files that are imported.
        chunks: variants and samples of a chunk.
        calls: a key of ``CALLS_STORED``.
        settings: what a run that resumes this store must have in common with this one; written last.
        attributes: added to the root: source, input_digest.
    """
    root = {
        "format": GENOTYPE_FORMAT,
        "format_version": GENOTYPE_VERSION,
        "complete": False,
        "vcf_zarr_version": VCF_ZARR_VERSION,
    }
    group = zarr.create_group(path, attributes={**root, **attributes})
    for name in CALLS_STORED[calls]:
        create = _create_packed_array if name == PACKED else _create_call_arrays
        create(group, (len(variants.position), len(samples.sample_id)), chunks)
    create_array(group, "source_variant_index", source_variants, ["variants"], "Index in the imported .bim")
    create_array(group, "source_sample_index", source_samples, ["samples"], "Index in the imported .fam")
    _create_sample_arrays(group, samples, quality)
    _create_variant_arrays(group, variants)
    _create_quality_arrays(group, quality)
    group.attrs["settings"] = settings
    return GenotypeWriter(path, group)


def resume_genotypes(path: str) -> GenotypeWriter:
    """Open an unfinished genotype store to write its partitions. Raises InputError where there is none."""
    return GenotypeWriter(path, open_group(path, writable=True))


def _create_call_arrays(group: zarr.Group, size: tuple[int, int], chunks: tuple[int, int]) -> None:
    m, n = size
    shape, chunk_shape = (m, n, 2), (min(chunks[0], m), min(chunks[1], n), 2)
    compressors = (BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"), Crc32cCodec())
    group.create_array(
        CALLS,
        shape=shape,
        chunks=chunk_shape,
        dtype="int8",
        fill_value=-1,
        compressors=compressors,
        dimension_names=_DIMENSIONS,
        attributes={"description": "Allele numbers: 0 REF, 1 ALT, -1 missing"},
        config={"write_empty_chunks": True},  # a chunk that is absent was lost
    )
    group.create_array(
        f"{CALLS}_mask",
        shape=shape,
        chunks=chunk_shape,
        dtype="bool",
        fill_value=False,
        compressors=compressors,
        dimension_names=_DIMENSIONS,
        attributes={"description": "Whether call_genotype is missing; chunks without a missing call are not written"},
    )


def _create_packed_array(group: zarr.Group, size: tuple[int, int], chunks: tuple[int, int]) -> None:
    """Chunks as they are in memory, each with its crc32c, in shards of all samples."""
    (m, n), width = size, packed_width(size[1])
    height, chunk_width = min(chunks[0], m), min(packed_width(chunks[1]), width)
    blocks = -(-m // height)
    rows = min(max(1, SHARD_BYTES // (height * width)), -(-blocks // LEAST_SHARDS))
    group.create_array(
        PACKED,
        shape=(m, width),
        chunks=(height, chunk_width),
        shards=(rows * height, -(-width // chunk_width) * chunk_width),
        dtype="uint8",
        fill_value=0b01010101,
        compressors=(Crc32cCodec(),),
        dimension_names=("variants", "samples_packed"),
        attributes={
            "description": "Four samples a byte, the first in the lowest bits: 00 ALT/ALT, 01 missing, 10 REF/ALT, 11 REF/REF",
            "num_samples": n,
        },
        config={"write_empty_chunks": True},
    )


def _create_sample_arrays(group: zarr.Group, samples: SampleTable, quality: QualityControl) -> None:
    for name, values, description in (
        ("sample_id", samples.sample_id, "Individual id (IID)"),
        ("family_id", samples.family_id, "Family id (FID)"),
        ("sample_paternal_id", samples.paternal_id, "Individual id of the father; 0 unknown"),
        ("sample_maternal_id", samples.maternal_id, "Individual id of the mother; 0 unknown"),
        ("sample_sex", samples.sex, "1 male, 2 female, 0 unknown"),
        ("sample_phenotype", samples.phenotype, "Sixth column of the .fam file, as it was"),
        ("sample_call_rate", quality.sample_call_rate, "Share of the variants of this store with a call"),
    ):
        create_array(group, name, values, ["samples"], description)


def _create_variant_arrays(group: zarr.Group, variants: VariantTable) -> None:
    contigs = list(dict.fromkeys(variants.chromosome.tolist()))  # in the order of the file
    number = {name: index for index, name in enumerate(contigs)}
    contig = np.array([number[name] for name in variants.chromosome.tolist()], dtype=np.int32)
    alleles = np.column_stack([variants.ref, variants.alt])
    create_array(group, "contig_id", contigs, ["contigs"], "Names of the chromosomes")
    create_array(group, "variant_contig", contig, ["variants"], "Index into contig_id")
    create_array(group, "variant_position", variants.position.astype(np.int32), ["variants"], "Base pairs")
    create_array(group, "variant_id", variants.variant_id, ["variants"], "Name of the variant")
    create_array(group, "variant_allele", alleles, ["variants", "alleles"], "REF (PLINK A2), ALT (PLINK A1, counted)")


def _create_quality_arrays(group: zarr.Group, quality: QualityControl) -> None:
    counts = quality.counts
    frequency = np.column_stack([1.0 - counts.allele_frequency, counts.allele_frequency])
    create_array(group, "variant_allele_frequency", frequency, ["variants", "alleles"], "Among called genotypes")
    for name, values, description in (
        ("variant_n_hom_ref", counts.hom_ref, "Samples with no ALT allele"),
        ("variant_n_het", counts.het, "Samples with one ALT allele"),
        ("variant_n_hom_alt", counts.hom_alt, "Samples with two ALT alleles"),
        ("variant_n_called", counts.called, "Samples with a call"),
        ("variant_call_rate", counts.call_rate, "Share of the samples with a call"),
        ("variant_hwe_p_value", quality.hwe_p_value, "Exact test of Hardy-Weinberg proportions"),
    ):
        create_array(group, name, values, ["variants"], description)
