"""GCTA's binary GRM: ``PREFIX.grm.bin``, ``PREFIX.grm.id`` and, optional on reading, ``PREFIX.grm.N.bin``.

The matrix is float32, little-endian: the lower triangle with the diagonal, row by row, no header, n(n+1)/2 values; row i begins
at value i(i+1)/2. ``.grm.N.bin`` has the same shape: the number of SNPs behind each value. ``.grm.id`` holds FID and IID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.files import written_aside
from openreml_dist.store.grm import GrmStore, Tile, check_unique

_BLOCK_VALUES = 16_000_000  # read or written at once, 64 MB


@dataclass(frozen=True, eq=False)
class GctaGrm:
    """A verified GCTA GRM. ``num_variants`` is known where ``.grm.N.bin`` has one value throughout."""

    prefix: str
    family_id: NDArray[np.str_]
    sample_id: NDArray[np.str_]
    num_variants: float | None
    _values: NDArray[np.float32]

    @property
    def num_samples(self) -> int:
        """Rows of the matrix."""
        return len(self.sample_id)

    def tile(self, rows: slice, columns: slice) -> Tile:
        """A[rows, columns] on or below the diagonal (columns end no later than rows); of a diagonal tile the lower triangle."""
        tile = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
        for i in range(rows.start, rows.stop):
            stop = min(columns.stop, i + 1)
            first = i * (i + 1) // 2
            tile[i - rows.start, : stop - columns.start] = self._values[first + columns.start : first + stop]
        return tile

    def digest(self) -> str:
        """sha256 over the ids and the matrix."""
        digest = hashlib.sha256(Path(f"{self.prefix}.grm.id").read_bytes())
        for start in range(0, len(self._values), _BLOCK_VALUES):
            digest.update(self._values[start : start + _BLOCK_VALUES].tobytes())
        return digest.hexdigest()


def open_gcta(prefix: str) -> GctaGrm:
    """Open ``PREFIX.grm.bin`` and its ids, verifying the sizes before anything is read.

    Raises:
        InputError: a file is missing, its size does not fit the number of ids, an id line is malformed, or ids occur twice.
    """
    matrix, ids, counts = (Path(f"{prefix}.grm.{part}") for part in ("bin", "id", "N.bin"))
    if not matrix.is_file():
        raise InputError(f"{matrix}: not found")
    if not ids.is_file():
        mph = Path(f"{prefix}.grm.iid").is_file()
        raise InputError(
            f"{ids}: not found" + (". There is a .grm.iid file: this looks like an MPH GRM, not GCTA's" if mph else "")
        )
    family_id, sample_id = _read_ids(ids)
    check_unique(str(ids), family_id, sample_id)
    n = len(sample_id)
    _check_size(matrix, n)
    num_variants = None
    if counts.is_file():
        _check_size(counts, n)
        num_variants = _constant(np.memmap(counts, dtype="<f4", mode="r"))
    return GctaGrm(prefix, family_id, sample_id, num_variants, np.memmap(matrix, dtype="<f4", mode="r"))


def _read_ids(path: Path) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if len(fields) != 2:
            raise InputError(f"{path}: line {number} has {len(fields)} fields, not FID and IID: {line[:80]!r}")
        pairs.append(fields)
    if not pairs:
        raise InputError(f"{path}: empty")
    ids = np.array(pairs, dtype=np.str_)
    return ids[:, 0], ids[:, 1]


def _check_size(path: Path, num_samples: int) -> None:
    expected, found = num_samples * (num_samples + 1) // 2 * 4, path.stat().st_size
    if found == expected:
        return
    hint = "The file is truncated, or belongs to other ids"
    if found >= 8:
        header = int(np.fromfile(path, dtype="<i4", count=1)[0])
        if header > 0 and found == 8 + header * (header + 1) // 2 * 4:  # int32 n, float32 sum2pq, then the triangle
            hint = f"This looks like an MPH GRM of {header} samples, which is another format under the same name"
    raise InputError(f"{path}: {expected:,} bytes expected for {num_samples:,} ids, {found:,} found. {hint}")


def _constant(values: NDArray[np.float32]) -> float | None:
    first = float(values[0])
    blocks = range(0, len(values), _BLOCK_VALUES)
    return first if all(bool((values[start : start + _BLOCK_VALUES] == first).all()) for start in blocks) else None


def export_gcta(store: GrmStore, prefix: str) -> Iterator[int]:
    """Write a GRM store as GCTA files; ``.grm.N.bin`` where the number of SNPs is the same for all pairs.

    Each file appears whole or not at all, the matrix last. No more than one chunk is held in memory.

    Yields:
        After each row of chunks its number.
    """
    n, size = store.num_samples, store.chunk_size
    values = n * (n + 1) // 2
    with written_aside(Path(f"{prefix}.grm.id")) as aside:
        pairs = zip(store.family_id.tolist(), store.sample_id.tolist(), strict=True)
        aside.write_text("".join(f"{family}\t{sample}\n" for family, sample in pairs), encoding="utf-8")
    if store.attributes.get("constant_num_variants"):
        with written_aside(Path(f"{prefix}.grm.N.bin")) as aside, aside.open("wb") as file:
            for start in range(0, values, _BLOCK_VALUES):
                count = min(_BLOCK_VALUES, values - start)
                file.write(np.full(count, store.attributes["num_variants"], dtype="<f4").tobytes())
    with written_aside(Path(f"{prefix}.grm.bin")) as aside:
        matrix = np.memmap(aside, dtype="<f4", mode="w+", shape=(values,))
        for i, start in enumerate(range(0, n, size)):
            rows = range(start, min(start + size, n))
            for j in range(i + 1):
                block, first = store.read_chunk(i, j), j * size
                for row, line in zip(rows, block, strict=True):
                    width = min(len(line), row + 1 - first)
                    at = row * (row + 1) // 2 + first
                    matrix[at : at + width] = line[:width]
            yield i
        matrix.flush()
