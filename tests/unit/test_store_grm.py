"""GRM stores: what is read is what was written, only what is needed is read, and damage is never silent."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr

from openreml_dist.errors import InputError
from openreml_dist.store.grm import GrmStore, open_grm
from openreml_dist.store.grm_writer import GrmWriter, create_grm, resume_grm
from tests.helpers.grm import read_all

N, CHUNK = 70, 16


@pytest.fixture
def dense() -> np.ndarray:
    a = np.random.default_rng(1).normal(size=(N, N)).astype(np.float32)
    return np.tril(a) + np.tril(a, -1).T


def begin(path: Path, n: int = N, chunk: int = CHUNK, family: bool = True) -> GrmWriter:
    return create_grm(
        str(path),
        family_id=np.array([f"F{i // 2}" for i in range(n)]) if family else None,
        sample_id=np.array([f"é{i}" for i in range(n)]),
        chunk_size=chunk,
        settings={"a": 1},
        attributes={"num_variants": 5},
    )


def fill(writer: GrmWriter, dense: np.ndarray) -> None:
    for i, j in writer.unfinished_tiles():
        writer.write_tile(i, j, dense[writer.span(i), writer.span(j)])
    writer.finalise()


@pytest.fixture
def path(tmp_path: Path, dense: np.ndarray) -> Path:
    fill(begin(tmp_path / "a.grm.zarr"), dense)
    return tmp_path / "a.grm.zarr"


def test_what_is_read_is_what_was_written(path: Path, dense: np.ndarray) -> None:
    np.testing.assert_array_equal(read_all(open_grm(str(path))), dense)


def test_store_opens_again_in_another_process(path: Path, dense: np.ndarray) -> None:
    store: GrmStore = pickle.loads(pickle.dumps(open_grm(str(path))))
    assert (store.num_samples, store.chunk_size, store.matches_iid_alone) == (N, CHUNK, False)
    assert store.family_id[3] == "F1" and store.sample_id[3] == "é3"
    np.testing.assert_array_equal(store.read_chunk(1, 0), dense[16:32, :16])


def test_only_the_lower_triangle_is_on_disk(path: Path) -> None:
    chunks = {tuple(map(int, file.relative_to(path / "grm" / "c").parts)) for file in (path / "grm" / "c").glob("*/*")}
    assert chunks == {(i, j) for i in range(5) for j in range(i + 1)}
    assert {file.stat().st_size for file in (path / "grm" / "c").glob("*/*")} == {CHUNK * CHUNK * 4 + 4}  # plus the crc32c


def test_store_without_family_ids_says_so(tmp_path: Path, dense: np.ndarray) -> None:
    fill(begin(tmp_path / "b.grm.zarr", family=False), dense)
    store = open_grm(str(tmp_path / "b.grm.zarr"))
    assert store.matches_iid_alone and set(store.family_id) == {"0"}


def test_flipped_byte_is_named(path: Path) -> None:
    store = open_grm(str(path))
    chunk = path / "grm" / "c" / "2" / "1"
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    store.read_chunk(0, 0)
    with pytest.raises(InputError, match=r"a\.grm\.zarr: chunk grm/c/2/1 .*checksum"):
        store.read_chunk(2, 1)


@pytest.mark.parametrize("size", [0, 2, 500])
def test_truncated_chunk_is_named(path: Path, size: int) -> None:
    chunk = path / "grm" / "c" / "2" / "1"
    chunk.write_bytes(chunk.read_bytes()[:size])
    with pytest.raises(InputError, match="grm/c/2/1"):
        open_grm(str(path)).read_chunk(2, 1)


def test_deleted_chunk_is_named(path: Path) -> None:
    store = open_grm(str(path))
    (path / "grm" / "c" / "3" / "1").unlink()
    with pytest.raises(InputError, match="grm/c/3/1 missing"):
        open_grm(str(path))
    with pytest.raises(InputError, match="grm/c/3/1"):  # deleted while the store is open
        store.read_chunk(3, 1)


def test_unfinished_store_is_refused_and_resumes(tmp_path: Path, dense: np.ndarray) -> None:
    path = tmp_path / "u.grm.zarr"
    writer = begin(path)
    for i, j in writer.unfinished_tiles()[:4]:
        writer.write_tile(i, j, dense[writer.span(i), writer.span(j)])
    with pytest.raises(InputError, match="not finished"):
        open_grm(str(path))
    with pytest.raises(InputError, match="11 tiles are not written"):
        writer.finalise()
    writer = resume_grm(str(path))
    assert writer.finished_tiles() == {(0, 0), (1, 0), (1, 1), (2, 0)}
    fill(writer, dense)
    np.testing.assert_array_equal(read_all(open_grm(str(path))), dense)


def test_diagonal_tile_is_made_symmetric(tmp_path: Path, dense: np.ndarray) -> None:
    writer = begin(tmp_path / "d.grm.zarr", n=10, chunk=10)
    writer.write_tile(0, 0, np.tril(dense[:10, :10]))
    writer.finalise()
    np.testing.assert_array_equal(read_all(open_grm(str(tmp_path / "d.grm.zarr"))), dense[:10, :10])


def test_values_that_are_not_finite_are_refused(tmp_path: Path, dense: np.ndarray) -> None:
    dense[20, 3] = np.nan
    with pytest.raises(InputError, match="samples number 21 and 4 is not finite"):
        fill(begin(tmp_path / "n.grm.zarr"), dense)


def test_what_is_no_grm_store(tmp_path: Path, path: Path) -> None:
    with pytest.raises(InputError, match="not found"):
        open_grm(str(tmp_path / "nothing.grm.zarr"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="not a Zarr store"):
        open_grm(str(tmp_path / "folder"))
    zarr.open_group(str(path), mode="r+").attrs["format_version"] = 99
    with pytest.raises(InputError, match="version 99"):
        open_grm(str(path))


def test_duplicate_ids_are_named(tmp_path: Path, path: Path) -> None:
    ids = zarr.open_group(str(path), mode="r+")
    ids["sample_id"][1], ids["family_id"][1] = "é0", "F0"
    with pytest.raises(InputError, match=r"F0:é0 .*twice"):
        open_grm(str(path))
