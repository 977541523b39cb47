"""GCTA files: byte for byte through a store, and sizes that do not fit are told before anything is read."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openreml_dist.errors import InputError
from openreml_dist.store.gcta import export_gcta, open_gcta
from openreml_dist.store.grm import open_grm
from openreml_dist.store.grm_writer import create_grm
from openreml_dist.store.kernels import open_kernel
from tests.helpers.grm import read_all

N = 23


def write_gcta(prefix: Path, n: int = N, counts: bool = True) -> np.ndarray:
    lower = np.random.default_rng(4).normal(size=n * (n + 1) // 2).astype("<f4")
    lower.tofile(f"{prefix}.grm.bin")
    if counts:
        np.full(len(lower), 321.5, dtype="<f4").tofile(f"{prefix}.grm.N.bin")
    Path(f"{prefix}.grm.id").write_text("".join(f"F{i}\tI{i}\n" for i in range(n)))
    return lower


@pytest.mark.parametrize("chunk", [1, 7, 23, 64])
def test_round_trip_is_exact(tmp_path: Path, chunk: int) -> None:
    lower = write_gcta(tmp_path / "a")
    source = open_gcta(str(tmp_path / "a"))
    assert source.num_variants == 321.5
    attributes = {"num_variants": source.num_variants, "constant_num_variants": True}
    ids = (source.family_id, source.sample_id)
    writer = create_grm(
        str(tmp_path / "s"), family_id=ids[0], sample_id=ids[1], chunk_size=chunk, settings={}, attributes=attributes
    )
    for i, j in writer.unfinished_tiles():
        writer.write_tile(i, j, source.tile(writer.span(i), writer.span(j)))
    writer.finalise()
    store = open_grm(str(tmp_path / "s"))
    dense = np.zeros((N, N), dtype=np.float32)
    dense[np.tril_indices(N)] = lower
    np.testing.assert_array_equal(read_all(store), np.tril(dense) + np.tril(dense, -1).T)
    assert len(list(export_gcta(store, str(tmp_path / "b")))) == -(-N // chunk)
    for part in ("bin", "id", "N.bin"):
        assert (tmp_path / f"a.grm.{part}").read_bytes() == (tmp_path / f"b.grm.{part}").read_bytes()


def test_wrong_sizes_tell_expected_and_found(tmp_path: Path) -> None:
    write_gcta(tmp_path / "a")
    matrix = tmp_path / "a.grm.bin"
    matrix.write_bytes(matrix.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"1,104 bytes expected for 23 ids, 1,100 found"):
        open_gcta(str(tmp_path / "a"))


def symmetric(n: int = N) -> np.ndarray:
    A = np.random.default_rng(5).normal(size=(n, n)).astype("<f4")
    return A + A.T


def write_mph(prefix: Path, A: np.ndarray, sum2pq: float = 10.0) -> None:
    """Columns of the lower triangle, one behind the other, times the sum of 2pq."""
    n = len(A)
    columns = np.concatenate([A[j:, j] for j in range(n)]) * np.float32(sum2pq)
    header = np.array([n], dtype="<i4").tobytes() + np.array([sum2pq], dtype="<f4").tobytes()
    Path(f"{prefix}.grm.bin").write_bytes(header + columns.astype("<f4").tobytes())
    Path(f"{prefix}.grm.iid").write_text("".join(f"I{i}\n" for i in range(n)))


@pytest.mark.parametrize("with_ids_of_gcta", [False, True])
def test_mph_layout_is_told_by_its_size_and_read_column_by_column(tmp_path: Path, with_ids_of_gcta: bool) -> None:
    A = symmetric()
    write_mph(tmp_path / "a", A)
    if with_ids_of_gcta:
        (tmp_path / "a.grm.id").write_text("".join(f"F{i} I{i}\n" for i in range(N)))
    source = open_gcta(str(tmp_path / "a"))
    assert source.family_id is None and source.sample_id.tolist() == [f"I{i}" for i in range(N)]
    for rows, columns in ((slice(0, N), slice(0, N)), (slice(5, 17), slice(5, 17)), (slice(9, 23), slice(2, 8))):
        lower = np.tril(A)[rows, columns]
        np.testing.assert_allclose(source.tile(rows, columns), lower, rtol=1e-6)


def test_mph_layout_without_its_ids_or_cut_off_is_refused(tmp_path: Path) -> None:
    write_mph(tmp_path / "a", symmetric())
    matrix, ids = tmp_path / "a.grm.bin", tmp_path / "a.grm.iid"
    whole = matrix.read_bytes()
    matrix.write_bytes(whole[:-4])
    with pytest.raises(InputError, match=r"1,112 bytes and 23 samples expected .* 1,108 bytes and 23 samples found"):
        open_gcta(str(tmp_path / "a"))
    matrix.write_bytes(whole[:4] + np.array([np.nan], dtype="<f4").tobytes() + whole[8:])
    with pytest.raises(InputError, match="sum of 2pq in its header is nan"):
        open_gcta(str(tmp_path / "a"))
    matrix.write_bytes(whole)
    ids.rename(tmp_path / "elsewhere")
    (tmp_path / "a.grm.id").write_text("".join(f"F{i} I{i}\n" for i in range(N)))
    with pytest.raises(InputError, match=r"MPH GRM of 23 samples, whose ids are in a .grm.iid file"):
        open_gcta(str(tmp_path / "a"))


@pytest.mark.parametrize("chunk_size", [7, 64])
def test_a_triangle_is_a_kernel_where_it_lies(tmp_path: Path, chunk_size: int) -> None:
    lower = write_gcta(tmp_path / "a")
    store = replace(open_kernel(f"gcta:{tmp_path / 'a'}"), chunk_size=chunk_size)
    dense = np.zeros((N, N), dtype=np.float32)
    dense[np.tril_indices(N)] = lower
    np.testing.assert_array_equal(read_all(store), np.tril(dense) + np.tril(dense, -1).T)
    again = pickle.loads(pickle.dumps(store))
    assert again.path == store.path and again.family_id.tolist() == [f"F{i}" for i in range(N)]
    lower[N] = np.nan
    lower.tofile(tmp_path / "a.grm.bin")
    with pytest.raises(InputError, match=r"a.grm.bin: the value of I2 and I6 is not finite"):
        open_kernel(f"gcta:{tmp_path / 'a'}").read_chunk(0, 0)


def test_parts_that_were_not_merged_are_named(tmp_path: Path) -> None:
    write_gcta(tmp_path / "a.part_2_1")
    write_gcta(tmp_path / "a.part_2_2")
    with pytest.raises(InputError, match=r"not found, but 2 parts of it are there: merge them .* cat .*part_\*.grm.bin"):
        open_gcta(str(tmp_path / "a"))


def test_counts_that_differ_are_not_one_number(tmp_path: Path) -> None:
    write_gcta(tmp_path / "a")
    counts = np.fromfile(tmp_path / "a.grm.N.bin", dtype="<f4")
    counts[5] += 1
    counts.tofile(tmp_path / "a.grm.N.bin")
    assert open_gcta(str(tmp_path / "a")).num_variants is None


def test_malformed_and_duplicate_ids(tmp_path: Path) -> None:
    write_gcta(tmp_path / "a")
    ids = tmp_path / "a.grm.id"
    good = ids.read_text()
    ids.write_text(good.replace("F2\tI2\n", "F2\n"))
    with pytest.raises(InputError, match="line 3 has 1 fields"):
        open_gcta(str(tmp_path / "a"))
    ids.write_text(good.replace("F2\tI2\n", "F1\tI1\n"))
    with pytest.raises(InputError, match="F1:I1"):
        open_gcta(str(tmp_path / "a"))
