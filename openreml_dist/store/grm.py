"""GRM stores, ``*.grm.zarr``: a genomic relationship matrix in square chunks of its lower triangle.

The array ``grm`` is n x n float32. Only chunks on and below the diagonal are written, a diagonal chunk full and symmetric, each
uncompressed (relationship matrices do not compress) and followed by its crc32c. The fill value is NaN. ``family_id`` and
``sample_id`` give the order of rows and columns. The attribute ``complete`` is the last thing written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.zarr_group import get_array, open_group, read_strings, written_chunks

GRM_FORMAT = "openreml-grm"
GRM_VERSION = 1

Tile = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GrmVariants:
    """The SNPs behind a GRM: (m,) index in the genotype store, increasing, and (m,) frequency of the ALT allele."""

    index: NDArray[np.int64]
    allele_frequency: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GrmStore:
    """A complete GRM store, opened for reading in one process; pickling it opens it again in the other process.

    Attributes:
        path: where it is, as given.
        family_id, sample_id: (n,) ids in the order of rows and columns; family ids are ``0`` where ``matches_iid_alone``.
        num_samples: n.
        chunk_size: rows and columns of a stored chunk.
        attributes: method, num_variants, allele_frequency, partition, input_digest, ...
        matches_iid_alone: no family ids are known, so that unique individual ids are matched alone.
    """

    path: str
    family_id: NDArray[np.str_] = field(repr=False)
    sample_id: NDArray[np.str_] = field(repr=False)
    num_samples: int
    chunk_size: int
    attributes: dict[str, Any]
    matches_iid_alone: bool
    _array: zarr.Array[Any] = field(repr=False)
    in_memory = False  # a chunk is decoded whenever it is read

    def read_chunk(self, i: int, j: int) -> Tile:
        """Stored chunk (i, j), j <= i, clipped to the matrix. May be called from several threads.

        Raises:
            InputError: the chunk fails its checksum, is missing, or holds a value that is not finite.
        """
        size = self.chunk_size
        where, remedy = f"{self.path}: chunk grm/c/{i}/{j}", "Restore it from a copy or make the GRM again"
        try:
            chunk = np.asarray(self._array[i * size : (i + 1) * size, j * size : (j + 1) * size], dtype=np.float32)
        except (ValueError, OSError) as error:
            raise InputError(f"{where} is damaged (checksum or read error): {error}. {remedy}") from error
        if not np.isfinite(chunk).all():
            raise InputError(f"{where} is missing or holds values that are not finite. {remedy}")
        return chunk

    def __reduce__(self) -> tuple[Callable[..., GrmStore], tuple[str]]:
        """Pickle as the call that opens the store again."""
        return open_grm, (self.path,)


def open_grm(path: str) -> GrmStore:
    """Open a GRM store and verify it without reading its matrix: one listing of its chunks, and the ids.

    Args:
        path: local path or URL of the store.
    Raises:
        InputError: no such store, of another kind or version, unfinished, a chunk missing, ids that do not fit or occur twice.
    """
    group = open_group(path)
    attributes: dict[str, Any] = group.attrs.asdict()
    _check_kind(path, attributes, group)
    array, family_id, sample_id = get_array(group, "grm"), read_strings(group, "family_id"), read_strings(group, "sample_id")
    n, chunk_size = len(sample_id), array.chunks[0]
    if array.shape != (n, n) or family_id.shape != (n,) or array.chunks != (chunk_size, chunk_size):
        raise InputError(f"{path}: the matrix is {array.shape} in chunks of {array.chunks}, but there are {n} ids")
    check_unique(path, family_id, sample_id)
    missing = lower_tiles(n, chunk_size) - written_chunks(path, "grm")
    if missing:
        i, j = min(missing)
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{path}: chunk grm/c/{i}/{j}{more} missing. Restore it from a copy, or make the GRM again")
    return GrmStore(
        path=path,
        family_id=family_id,
        sample_id=sample_id,
        num_samples=n,
        chunk_size=chunk_size,
        attributes=attributes,
        matches_iid_alone=bool(attributes["matches_iid_alone"]),
        _array=array,
    )


def read_variants(path: str) -> GrmVariants | None:
    """The SNPs behind a GRM store; None where it does not tell them, as for one that was imported."""
    group = open_group(path)
    return variants_of(group) if "variant_index" in group else None


def variants_of(group: zarr.Group) -> GrmVariants:
    """The SNPs that are stored with a GRM. Raises InputError where there are none."""
    index, frequency = get_array(group, "variant_index"), get_array(group, "allele_frequency")
    return GrmVariants(np.asarray(index[...], dtype=np.int64), np.asarray(frequency[...], dtype=np.float64))


def _check_kind(path: str, attributes: dict[str, Any], group: zarr.Group) -> None:
    if attributes.get("format") != GRM_FORMAT:
        hint = "It holds genotypes: run openreml-grm on it" if "call_genotype" in group else "Was it made by openreml-grm?"
        raise InputError(f"{path}: not a GRM store. {hint}")
    if attributes.get("format_version") != GRM_VERSION:
        version = attributes.get("format_version")
        raise InputError(f"{path}: GRM store of version {version}, but this program reads version {GRM_VERSION}")
    if not attributes.get("complete"):
        done = len(written_chunks(path, "grm"))
        raise InputError(f"{path}: not finished ({done} tiles written). Run the same openreml-grm command again to resume it")


def check_unique(path: str, family_id: NDArray[np.str_], sample_id: NDArray[np.str_]) -> None:
    """Raise InputError where two samples have the same FID:IID."""
    seen: set[tuple[str, str]] = set()
    for pair in zip(family_id.tolist(), sample_id.tolist(), strict=True):
        if pair in seen:
            raise InputError(f"{path}: sample {pair[0]}:{pair[1]} (FID:IID) occurs twice")
        seen.add(pair)


def lower_tiles(num_samples: int, chunk_size: int) -> set[tuple[int, int]]:
    """Indices (i, j), j <= i, of the chunks on and below the diagonal."""
    count = -(-num_samples // chunk_size)
    return {(i, j) for i in range(count) for j in range(i + 1)}
