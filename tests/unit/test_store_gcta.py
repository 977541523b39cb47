"""GCTA files: byte for byte through a store, and sizes that do not fit are told before anything is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openreml_dist.errors import InputError
from openreml_dist.store.gcta import export_gcta, open_gcta
from openreml_dist.store.grm import open_grm
from openreml_dist.store.grm_writer import create_grm
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


def test_mph_layout_is_recognised(tmp_path: Path) -> None:
    lower = write_gcta(tmp_path / "a")
    header = np.array([N], dtype="<i4").tobytes() + np.array([10.0], dtype="<f4").tobytes()
    (tmp_path / "a.grm.bin").write_bytes(header + lower.tobytes())
    with pytest.raises(InputError, match="looks like an MPH GRM of 23 samples"):
        open_gcta(str(tmp_path / "a"))
    (tmp_path / "a.grm.id").rename(tmp_path / "a.grm.iid")
    with pytest.raises(InputError, match="looks like an MPH GRM"):
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
