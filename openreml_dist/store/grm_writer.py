"""Writing a GRM store tile by tile, from one or many processes: create, write tiles, finalise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from openreml_dist.errors import InputError
from openreml_dist.store.files import remove_partials
from openreml_dist.store.grm import GRM_FORMAT, GRM_VERSION, GrmVariants, check_unique, lower_tiles, variants_of
from openreml_dist.store.zarr_group import create_array, get_array, open_group, written_chunks


@dataclass(frozen=True, eq=False)
class GrmWriter:
    """An unfinished GRM store. Tiles are its chunks; any process may write any tile, and writing one again is harmless."""

    path: str
    num_samples: int
    chunk_size: int
    _group: zarr.Group

    def variants(self) -> GrmVariants:
        """The SNPs that were given when the store was created."""
        return variants_of(self._group)

    def finished_tiles(self) -> set[tuple[int, int]]:
        """Tiles (i, j) that are on disk, each whole."""
        return lower_tiles(self.num_samples, self.chunk_size) & written_chunks(self.path, "grm")

    def unfinished_tiles(self) -> list[tuple[int, int]]:
        """Tiles (i, j), j <= i, still to be written, in order."""
        return sorted(lower_tiles(self.num_samples, self.chunk_size) - self.finished_tiles())

    def span(self, i: int) -> slice:
        """Samples of tile row (or column) ``i``."""
        return slice(i * self.chunk_size, min((i + 1) * self.chunk_size, self.num_samples))

    def write_tile(self, i: int, j: int, block: NDArray[np.floating[Any]]) -> None:
        """Write tile (i, j), j <= i, as float32; of a diagonal tile only the lower triangle is used, the upper is its mirror.

        Raises:
            InputError: a value is not finite.
        """
        if not 0 <= j <= i:
            raise ValueError(f"tile ({i}, {j}) is above the diagonal")
        tile = np.ascontiguousarray(block, dtype=np.float32)
        if i == j:
            tile = np.tril(tile) + np.tril(tile, -1).T
        if not np.isfinite(tile).all():
            a, b = np.argwhere(~np.isfinite(tile))[0]
            pair = f"{i * self.chunk_size + a + 1} and {j * self.chunk_size + b + 1}"
            raise InputError(f"{self.path}: the relationship of samples number {pair} is not finite")
        get_array(self._group, "grm")[self.span(i), self.span(j)] = tile

    def finalise(self) -> None:
        """Mark the store complete.

        Raises:
            InputError: tiles are missing.
        """
        unfinished = self.unfinished_tiles()
        if unfinished:
            raise InputError(f"{self.path}: {len(unfinished)} tiles are not written, the first is {unfinished[0]}")
        remove_partials(self.path)
        self._group.attrs["complete"] = True


def create_grm(
    path: str,
    *,
    family_id: NDArray[np.str_] | None,
    sample_id: NDArray[np.str_],
    chunk_size: int,
    settings: dict[str, Any],
    attributes: dict[str, Any],
    variants: GrmVariants | None = None,
) -> GrmWriter:
    """Create an empty GRM store at a free ``path``.

    Args:
        path: local path or URL where nothing exists.
        family_id, sample_id: (n,) ids; ``None`` for family ids that are not known.
        chunk_size: rows and columns of a tile.
        settings: what a run that resumes this store must have in common with this one; written after everything else.
        attributes: method, num_variants, constant_num_variants (of all pairs), allele_frequency, partition, input_digest.
        variants: the SNPs it is computed from, where they are known.
    Raises:
        InputError: duplicate ids.
    """
    n = len(sample_id)
    known = family_id if family_id is not None else np.full(n, "0")
    check_unique(path, known, sample_id)
    root = {"format": GRM_FORMAT, "format_version": GRM_VERSION, "complete": False, "matches_iid_alone": family_id is None}
    group = zarr.create_group(path, attributes={**root, **attributes})
    group.create_array(
        "grm",
        shape=(n, n),
        chunks=(chunk_size, chunk_size),
        dtype="float32",
        compressors=Crc32cCodec(),
        fill_value=np.nan,
        dimension_names=("samples", "samples_other"),
    )
    create_array(group, "family_id", known, ["samples"], "Family id (FID); 0 where it is not known")
    create_array(group, "sample_id", sample_id, ["samples"], "Individual id (IID)")
    if variants is not None:
        create_array(group, "variant_index", variants.index, ["variants"], "Index in the genotype store")
        create_array(group, "allele_frequency", variants.allele_frequency, ["variants"], "Of the ALT allele")
    group.attrs["settings"] = settings
    return GrmWriter(path, n, chunk_size, group)


def resume_grm(path: str) -> GrmWriter:
    """Open an unfinished GRM store to write its tiles. Raises InputError where there is none."""
    group = open_group(path, writable=True)
    array = get_array(group, "grm")
    return GrmWriter(path, array.shape[0], array.chunks[0], group)
