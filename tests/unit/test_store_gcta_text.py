"""GCTA's text: every pair in its place whatever the order of lines, and what is wrong is told by line and value."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from openreml_dist.errors import InputError
from openreml_dist.store import gcta_text
from openreml_dist.store.gcta_text import open_gcta_text
from openreml_dist.store.kernels import open_kernel

N = 19
A = np.tril(np.random.default_rng(6).normal(size=(N, N)).round(4))
WHOLE = [f"{i + 1}\t{j + 1}\t700\t{A[i, j]:.4f}\n" for i in range(N) for j in range(i + 1)]


def written(prefix: Path, lines: list[str], kind: str = "gz") -> str:
    Path(f"{prefix}.grm.id").write_text("".join(f"F{i}\tI{i}\n" for i in range(N)))
    text = "".join(lines)
    path = Path(f"{prefix}.grm.{kind}")
    path.write_bytes(gzip.compress(text.encode())) if kind == "gz" else path.write_text(text)
    return str(prefix)


def read(prefix: str, scratch: Path) -> np.ndarray:
    source = open_gcta_text(prefix, scratch)
    assert source is not None
    return source.tile(slice(0, N), slice(0, N))


@pytest.mark.parametrize("block", [1, 50, 10_000])
@pytest.mark.parametrize("order", ["as written", "shuffled, some above the diagonal"])
def test_every_pair_is_put_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, order: str) -> None:
    monkeypatch.setattr(gcta_text, "BLOCK_LINES", block)
    lines = list(WHOLE)
    if order != "as written":
        np.random.default_rng(7).shuffle(lines)
        lines[::3] = ["\t".join([j, i, *rest]) for i, j, *rest in (line.split("\t") for line in lines[::3])]
    prefix = written(tmp_path / "a", lines)
    np.testing.assert_array_equal(read(prefix, tmp_path), A.astype(np.float32))
    source = open_gcta_text(prefix, tmp_path)
    assert source is not None and source.num_variants == 700


def test_pairs_that_a_sparse_matrix_leaves_out_are_zero(tmp_path: Path) -> None:
    kept = [(i, j) for i in range(N) for j in range(i + 1) if i == j or abs(A[i, j]) > 1]
    prefix = written(tmp_path / "a", [f"{i} {j} {A[i, j]:.4f}\n" for i, j in kept], "sp")
    expected = np.zeros((N, N), dtype=np.float32)
    for i, j in kept:
        expected[i, j] = A[i, j]
    np.testing.assert_array_equal(read(prefix, tmp_path), expected)
    assert 0 < np.count_nonzero(np.tril(expected, -1)) < N * (N - 1) // 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-2], r"2 of 190 pairs of 19 samples are missing, the first of them 19 18"),
        (lambda lines: [*lines[:9], "4 3 700 x\n", *lines[10:]], r"line 10: '4 3 700 x' is not i j N value"),
        (lambda lines: [*lines[:9], "4 3 700\n", *lines[10:]], r"line 10: '4 3 700' is not i j N value"),
        (
            lambda lines: [*lines[:9], "20 3 700 0.1\n", *lines[10:]],
            r"line 10: 20 3 700 0.1: samples are numbered from 1 to",
        ),
        (lambda lines: [*lines[:9], "0 3 700 0.1\n", *lines[10:]], r"line 10: 0 3 700 0.1: samples are numbered from 1 to"),
        (lambda lines: [*lines[:9], "4 3 700 nan\n", *lines[10:]], r"line 10: 4 3 700 nan: the value is not finite"),
        (lambda lines: [*lines, lines[5]], r"line 191: 3 3 700 .*: this pair is there twice"),
    ],
)
def test_what_is_wrong_is_told_by_its_line(tmp_path: Path, change: object, said: str) -> None:
    assert callable(change)
    prefix = written(tmp_path / "a", change(list(WHOLE)))
    with pytest.raises(InputError, match=said):
        open_gcta_text(prefix, tmp_path)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    prefix = written(tmp_path / "a", WHOLE)
    path = Path(f"{prefix}.grm.gz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a\.grm\.gz"):
        open_gcta_text(prefix, tmp_path)


def test_a_fit_is_told_how_to_make_a_store_of_text(tmp_path: Path) -> None:
    prefix = written(tmp_path / "a", WHOLE)
    with pytest.raises(InputError, match=r"openreml-grm source=gcta:.*a out=a.grm.zarr, then data.grm=a.grm.zarr"):
        open_kernel(f"gcta:{prefix}")
