"""Relationship matrices of other programs: one lower triangle of float32 on disk, opened where it lies.

| files | layout |
|---|---|
| GCTA ``.grm.bin``, ``.grm.id``, perhaps ``.grm.N.bin`` | row by row with the diagonal, no header; ids are FID and IID |
| MPH ``.grm.bin``, ``.grm.iid`` | int32 n, float32 s, then *column* by column, to be divided by s; ids are IIDs |

Both are little-endian. ``.grm.N.bin`` holds the number of SNPs behind each value. Text files of GCTA are read by ``gcta_text``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import InputError
from openreml_dist.store.files import written_aside
from openreml_dist.store.grm import GrmStore, Tile, check_unique

PREFIX = "gcta:"
BLOCK_VALUES = 16_000_000  # read or written at once, 64 MB
MPH_HEADER = 8  # bytes


@dataclass(frozen=True, eq=False)
class Triangle(ABC):
    """A verified lower triangle.

    Attributes:
        prefix: of the files.
        family_id: (n,), None where there are none.
        sample_id: (n,).
        num_variants: behind every value alike, where that is known.
        values: (n(n+1)/2,) on disk.
    """

    prefix: str
    family_id: NDArray[np.str_] | None
    sample_id: NDArray[np.str_]
    num_variants: float | None
    values: NDArray[np.float32]

    @property
    def num_samples(self) -> int:
        """Rows of the matrix."""
        return len(self.sample_id)

    @abstractmethod
    def tile(self, rows: slice, columns: slice) -> Tile:
        """A[rows, columns] on or below the diagonal (columns end no later than rows); of a diagonal tile the lower triangle."""

    def digest(self) -> str:
        """sha256 over the ids and the matrix."""
        digest = hashlib.sha256("".join(f"{pair}\n" for pair in self.labels).encode())
        for start in range(0, len(self.values), BLOCK_VALUES):
            digest.update(self.values[start : start + BLOCK_VALUES].tobytes())
        return digest.hexdigest()

    @property
    def labels(self) -> list[str]:
        """FID and IID, or IID alone, of each sample."""
        if self.family_id is None:
            return [str(sample) for sample in self.sample_id]
        return [f"{family}\t{sample}" for family, sample in zip(self.family_id, self.sample_id, strict=True)]


class GctaGrm(Triangle):
    """Row i begins at value i(i+1)/2."""

    def tile(self, rows: slice, columns: slice) -> Tile:
        """By rows."""
        tile = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
        for i in range(rows.start, rows.stop):
            stop = min(columns.stop, i + 1)
            first = i * (i + 1) // 2
            tile[i - rows.start, : stop - columns.start] = self.values[first + columns.start : first + stop]
        return tile


@dataclass(frozen=True, eq=False)
class MphGrm(Triangle):
    """Column j begins at value jn − j(j−1)/2; the matrix is what is stored over ``sum2pq``."""

    sum2pq: float

    def tile(self, rows: slice, columns: slice) -> Tile:
        """By columns."""
        tile = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
        for j in range(columns.start, columns.stop):
            start = max(rows.start, j)
            first = j * self.num_samples - j * (j - 1) // 2 - j  # of row 0, were it there
            tile[start - rows.start :, j - columns.start] = self.values[first + start : first + rows.stop] / self.sum2pq
        return tile


@dataclass(frozen=True, eq=False)
class TriangleStore:
    """A triangle as a fit reads it: in square chunks, as a GRM store has them. Pickling it opens it again.

    Attributes:
        path: as it was given, ``gcta:PREFIX``.
        triangle: on disk.
        attributes: what is known of it.
    """

    path: str
    triangle: Triangle
    attributes: Mapping[str, object]
    chunk_size: int = 1024
    in_memory = False

    @property
    def num_samples(self) -> int:
        """n."""
        return self.triangle.num_samples

    @property
    def sample_id(self) -> NDArray[np.str_]:
        """(n,)."""
        return self.triangle.sample_id

    @property
    def family_id(self) -> NDArray[np.str_]:
        """(n,), 0 where none are known."""
        known = self.triangle.family_id
        return np.full(self.num_samples, "0") if known is None else known

    @property
    def matches_iid_alone(self) -> bool:
        """No family ids are known."""
        return self.triangle.family_id is None

    def read_chunk(self, i: int, j: int) -> Tile:
        """Chunk (i, j), j <= i, clipped to the matrix; a diagonal one full. May be called from several threads.

        Raises:
            InputError: for a value that is not finite.
        """
        rows, columns = (slice(k * self.chunk_size, min((k + 1) * self.chunk_size, self.num_samples)) for k in (i, j))
        chunk = self.triangle.tile(rows, columns)
        if i == j:
            chunk = chunk + np.tril(chunk, -1).T
        if not np.isfinite(chunk).all():
            a, b = (int(place[0]) for place in np.nonzero(~np.isfinite(chunk)))
            pair = f"{self.sample_id[rows.start + a]} and {self.sample_id[columns.start + b]}"
            raise InputError(f"{self.triangle.prefix}.grm.bin: the value of {pair} is not finite")
        return chunk

    def __reduce__(self) -> tuple[Callable[..., TriangleStore], tuple[str]]:
        """Pickle as the call that opens it again."""
        return open_triangle_store, (self.path,)


def open_triangle_store(path: str) -> TriangleStore:
    """Open ``gcta:PREFIX`` for a fit: GCTA's or MPH's ``.grm.bin``, read where it lies.

    Raises:
        InputError: as ``open_gcta`` does; for text files, with the command that makes a store of them.
    """
    prefix = path.removeprefix(PREFIX)
    texts = [f"{prefix}.grm.{part}" for part in ("gz", "sp") if Path(f"{prefix}.grm.{part}").is_file()]
    if texts and not Path(f"{prefix}.grm.bin").is_file():
        name = Path(prefix).name
        raise InputError(
            f"{texts[0]}: a fit reads no text; make a store of it: openreml-grm source={path} out={name}.grm.zarr, then "
            f"data.grm={name}.grm.zarr"
        )
    triangle = open_gcta(prefix, with_counts=False)
    status = Path(f"{prefix}.grm.bin").stat()
    attributes = {
        "method": "read from GCTA's files",
        "num_variants": None,
        "bytes": status.st_size,
        "mtime": status.st_mtime_ns,
    }
    return TriangleStore(path, triangle, attributes)


def open_gcta(prefix: str, with_counts: bool = True) -> Triangle:
    """Open ``PREFIX.grm.bin`` and its ids, verifying the sizes before anything is read.

    Args:
        prefix: of the files.
        with_counts: look into ``.grm.N.bin`` for the number of SNPs, which reads it whole.
    Raises:
        InputError: a file is missing, its size does not fit the number of ids, an id line is malformed, or ids occur twice.
    """
    matrix, ids, mph_ids, counts = (Path(f"{prefix}.grm.{part}") for part in ("bin", "id", "iid", "N.bin"))
    if not matrix.is_file():
        raise InputError(f"{matrix}: not found{_parts_hint(prefix)}")
    if mph_ids.is_file() and not (ids.is_file() and _is_gcta_size(matrix, ids)):
        return _open_mph(prefix, matrix, mph_ids)
    if not ids.is_file():
        raise InputError(f"{ids}: not found, nor {mph_ids.name}, the ids of MPH")
    pairs = read_pairs(ids)
    n = len(pairs)
    _check_size(matrix, n)
    num_variants = None
    if counts.is_file():
        _check_size(counts, n)
        num_variants = _constant(np.memmap(counts, dtype="<f4", mode="r")) if with_counts else None
    return GctaGrm(prefix, pairs[:, 0], pairs[:, 1], num_variants, np.memmap(matrix, dtype="<f4", mode="r"))


def _open_mph(prefix: str, matrix: Path, ids: Path) -> MphGrm:
    """MPH's layout, whose header says how many samples there are."""
    sample_id = _read_ids(ids, 1, "IID")[:, 0]
    check_unique(str(ids), np.full(len(sample_id), "0"), sample_id)
    n, expected = len(sample_id), MPH_HEADER + 4 * (len(sample_id) * (len(sample_id) + 1) // 2)
    found = matrix.stat().st_size
    header = int(np.fromfile(matrix, dtype="<i4", count=1)[0]) if found >= MPH_HEADER else 0
    if header != n or found != expected:
        raise InputError(
            f"{matrix}: {expected:,} bytes and {n:,} samples expected for the ids of {ids.name}, {found:,} bytes and "
            f"{header:,} samples found. The file is truncated, or belongs to other ids"
        )
    sum2pq = float(np.fromfile(matrix, dtype="<f4", count=1, offset=4)[0])
    if not (np.isfinite(sum2pq) and sum2pq > 0):
        raise InputError(f"{matrix}: the sum of 2pq in its header is {sum2pq}, not a positive number")
    values = np.memmap(matrix, dtype="<f4", mode="r", offset=MPH_HEADER)
    return MphGrm(prefix, None, sample_id, None, values, sum2pq)


def read_pairs(path: Path) -> NDArray[np.str_]:
    """FID and IID of each line (n, 2). Raises InputError for another number of fields, and for a pair that is there twice."""
    pairs = _read_ids(path, 2, "FID and IID")
    check_unique(str(path), pairs[:, 0], pairs[:, 1])
    return pairs


def _read_ids(path: Path, width: int, names: str) -> NDArray[np.str_]:
    """The ids of a file (n, width), whose fields are called ``names``. Raises InputError for another number of fields."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if len(fields) != width:
            raise InputError(f"{path}: line {number} has {len(fields)} fields, not {names}: {line[:80]!r}")
        rows.append(fields)
    if not rows:
        raise InputError(f"{path}: empty")
    return np.array(rows, dtype=np.str_)


def _is_gcta_size(matrix: Path, ids: Path) -> bool:
    with ids.open("rb") as file:
        n = sum(1 for _ in file)
    return matrix.stat().st_size == 4 * (n * (n + 1) // 2)


def _check_size(path: Path, num_samples: int) -> None:
    expected, found = num_samples * (num_samples + 1) // 2 * 4, path.stat().st_size
    if found == expected:
        return
    hint = "The file is truncated, or belongs to other ids"
    if found >= MPH_HEADER:
        header = int(np.fromfile(path, dtype="<i4", count=1)[0])
        if header > 0 and found == MPH_HEADER + header * (header + 1) // 2 * 4:
            hint = f"This looks like an MPH GRM of {header} samples, whose ids are in a .grm.iid file, which is not there"
    raise InputError(f"{path}: {expected:,} bytes expected for {num_samples:,} ids, {found:,} found. {hint}")


def _parts_hint(prefix: str) -> str:
    """How to merge the parts of a GRM that ``gcta --make-grm-part`` has left."""
    parts = sorted(Path(prefix).parent.glob(f"{Path(prefix).name}.part_*_*.grm.bin"))
    if not parts:
        return ""
    merges = "; ".join(f"cat {prefix}.part_*.grm.{part} > {prefix}.grm.{part}" for part in ("id", "bin", "N.bin"))
    return f", but {len(parts)} parts of it are there: merge them in their order: {merges}"


def _constant(values: NDArray[np.float32]) -> float | None:
    first = float(values[0])
    blocks = range(0, len(values), BLOCK_VALUES)
    return first if all(bool((values[start : start + BLOCK_VALUES] == first).all()) for start in blocks) else None


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
            for start in range(0, values, BLOCK_VALUES):
                count = min(BLOCK_VALUES, values - start)
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
