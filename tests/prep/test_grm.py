"""Relationship matrices against a dense oracle, and the programs that make, import and export them."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("bed_reader", reason="the extra `prep` is not installed")
import zarr

from openreml_dist.config import DaskConfig, GrmConfig
from openreml_dist.errors import ConfigError
from openreml_dist.prep import tasks
from openreml_dist.prep.grm import chunk_size, runs
from openreml_dist.prep.relationship import relationship_block
from openreml_dist.store.genotypes import open_dosages
from openreml_dist.store.grm import GrmVariants, open_grm
from tests.helpers.grm import read_all
from tests.prep.plink_data import SECONDS, command, dense_grm, genotypes, refuse, succeed, write_plink

N, M = 45, 130


def write_vcf_zarr(path: Path, x: np.ndarray, zarr_format: int, chromosome: np.ndarray, alleles: list[str]) -> None:
    """A store as sgkit and bio2zarr write them: no family ids, no quality control, nothing of ours."""
    n, m = x.shape
    group = zarr.create_group(str(path), zarr_format=zarr_format, attributes={"vcf_zarr_version": "0.4"})
    calls = np.stack([x.T >= 1, x.T == 2], axis=-1).astype(np.int8)
    calls[np.isnan(x.T)] = -1
    half = np.argwhere(np.isnan(x.T))[::2]
    calls[half[:, 0], half[:, 1]] = [0, -2]  # fill counts as missing too
    array = group.create_array("call_genotype", shape=calls.shape, chunks=(40, 20, 2), dtype="i1")
    array[...] = calls
    names = {"sample_id": [f"I{i}" for i in range(n)], "contig_id": ["1", "2", "X"]}
    for name, values in names.items():
        group.create_array(name, shape=(len(values),), dtype=str)[...] = np.array(values, dtype=object)
    group.create_array("variant_allele", shape=(m, 3), dtype=str)[...] = np.array(
        [["C", "A", a] for a in alleles], dtype=object
    )
    group.create_array("variant_contig", data=chromosome.astype(np.int16))
    group.create_array("variant_position", data=np.arange(m, dtype=np.int32))


@pytest.mark.parametrize(("missing", "calls"), [(0.0, "unpacked"), (0.1, "unpacked"), (0.1, "packed"), (0.0, "both")])
def test_equals_the_dense_definition(tmp_path: Path, missing: float, calls: str) -> None:
    x = genotypes(N, M, missing)
    x[:, 5] = 2.0  # monomorphic
    write_plink(tmp_path / "a", x)
    chunks = ("variants_chunk=50", "samples_chunk=18")
    succeed("prepare", f"source={tmp_path / 'a'}", f"out={tmp_path / 'a.vcz'}", f"calls={calls}", *chunks, "dask.workers=1")
    out = tmp_path / "a.grm.zarr"
    said = succeed("grm", f"source={tmp_path / 'a.vcz'}", f"out={out}", "chunk_size=16")
    assert "left out 1 monomorphic; kept 129 of 130" in said and f"next: openreml-fit data.grm={out}" in said
    store = open_grm(str(out))
    np.testing.assert_allclose(read_all(store), dense_grm(x), atol=2e-7)
    assert store.family_id[4] == "F4" and not store.matches_iid_alone
    assert store.attributes["num_variants"] == 129 and store.attributes["constant_num_variants"] == (missing == 0.0)


def test_complete_store_is_kept_unless_told(tmp_path: Path) -> None:
    x = genotypes(N, M)
    write_vcf_zarr(tmp_path / "a.vcz", x, 3, np.zeros(M), [""] * M)
    settings = (f"source={tmp_path / 'a.vcz'}", f"out={tmp_path / 'a.grm.zarr'}", "dask.workers=1")
    succeed("grm", *settings)
    assert "complete; overwrite=true" in refuse("grm", *settings)
    assert "min_maf" in refuse("grm", *settings, "min_maf=0.3")
    succeed("grm", *settings, "min_maf=0.3", "overwrite=true")
    frequency = x.mean(axis=0) / 2
    common = np.minimum(frequency, 1 - frequency) >= 0.3
    np.testing.assert_allclose(read_all(open_grm(str(tmp_path / "a.grm.zarr"))), dense_grm(x[:, common]), atol=2e-7)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_of_other_programs(tmp_path: Path, zarr_format: int) -> None:
    x = genotypes(N, M, 0.08)
    contig = np.repeat([0, 1, 2], [60, 60, 10])
    triallelic = [3, 70]
    path = tmp_path / "other.vcz"
    write_vcf_zarr(path, x, zarr_format, contig, ["G" if s in triallelic else "" for s in range(M)])
    said = succeed("grm", f"source={path}", f"out={tmp_path / 'o.grm.zarr'}", "chunk_size=32", "dask.workers=1")
    assert "no family_id" in said and "left out 10 not autosomal, 2 not biallelic; kept 118 of 130" in said
    store = open_grm(str(tmp_path / "o.grm.zarr"))
    assert store.matches_iid_alone and store.sample_id[3] == "I3"
    np.testing.assert_allclose(read_all(store), dense_grm(np.delete(x[:, :120], triallelic, axis=1)), atol=2e-7)
    said = succeed("grm", f"source={path}", f"out={tmp_path / 'x.grm.zarr'}", "autosomes_only=false", "dask.workers=1")
    assert "kept 128 of 130" in said


def test_chromosomes_add_up_to_the_genome(tmp_path: Path) -> None:
    x = genotypes(N, M)
    write_plink(tmp_path / "a", x)
    succeed("prepare", f"source={tmp_path / 'a'}", f"out={tmp_path / 'a.vcz'}", "dask.workers=1")
    settings = (f"source={tmp_path / 'a.vcz'}", f"out={tmp_path / 'by'}", "by=chromosome", "chunk_size=16", "dask.workers=1")
    succeed("grm", *settings)
    stores = [open_grm(str(tmp_path / "by" / f"chr{name}.grm.zarr")) for name in (1, 2, 3)]
    weights = [store.attributes["num_variants"] for store in stores]
    total = sum(weight * read_all(store).astype(np.float64) for weight, store in zip(weights, stores, strict=True))
    assert sum(weights) == M and [store.attributes["partition"] for store in stores] == ["1", "2", "3"]
    np.testing.assert_allclose(total / M, dense_grm(x), atol=3e-7)
    assert "complete" in refuse("grm", *settings)
    zarr.open_group(str(tmp_path / "by" / "chr2.grm.zarr"), mode="r+").attrs["complete"] = False
    (tmp_path / "by" / "chr2.grm.zarr" / "grm" / "c" / "1" / "0").unlink()
    said = succeed("grm", *settings)
    assert "chr1.grm.zarr is complete and kept" in said and "5 of 6 tiles are finished and kept" in said


def test_gcta_files_pass_through_unchanged(tmp_path: Path) -> None:
    n = 19
    lower = np.random.default_rng(5).normal(size=n * (n + 1) // 2).astype("<f4")
    lower.tofile(tmp_path / "g.grm.bin")
    np.full(len(lower), 500.0, dtype="<f4").tofile(tmp_path / "g.grm.N.bin")
    (tmp_path / "g.grm.id").write_text("".join(f"F{i}\tI{i}\n" for i in range(n)))
    succeed("grm", f"source=gcta:{tmp_path / 'g'}", f"out={tmp_path / 'g.grm.zarr'}", "chunk_size=8")
    succeed("grm", f"source={tmp_path / 'g.grm.zarr'}", f"out=gcta:{tmp_path / 'h'}")
    for part in ("bin", "id", "N.bin"):
        assert (tmp_path / f"g.grm.{part}").read_bytes() == (tmp_path / f"h.grm.{part}").read_bytes()
    assert "overwrite=true" in refuse("grm", f"source={tmp_path / 'g.grm.zarr'}", f"out=gcta:{tmp_path / 'h'}")
    (tmp_path / "g.grm.bin").write_bytes(lower.tobytes()[:-4])
    message = refuse("grm", f"source=gcta:{tmp_path / 'g'}", f"out={tmp_path / 'bad.grm.zarr'}")
    assert "760 bytes expected for 19 ids, 756 found" in message


def wait_for_tiles(process: subprocess.Popen[bytes], out: Path, count: int) -> None:
    deadline = time.monotonic() + SECONDS
    while len(list((out / "grm" / "c").glob("*/*[0-9]"))) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_killed_run_leaves_no_process_and_resumes(tmp_path: Path, signal_number: signal.Signals) -> None:
    x = genotypes(400, 3000)
    write_plink(tmp_path / "a", x)
    succeed("prepare", f"source={tmp_path / 'a'}", f"out={tmp_path / 'a.vcz'}", "dask.workers=1")
    out = tmp_path / "a.grm.zarr"
    settings = (f"source={tmp_path / 'a.vcz'}", f"out={out}", "chunk_size=24", "dask.workers=2")
    process = subprocess.Popen(
        command("grm", *settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for_tiles(process, out, 10)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    process.send_signal(signal_number)
    assert process.wait(timeout=SECONDS) == (-signal.SIGKILL if signal_number == signal.SIGKILL else 130)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    finished = {file: file.stat().st_mtime_ns for file in (out / "grm" / "c").glob("*/*[0-9]")}
    assert 10 <= len(finished) < 153
    assert "min_maf" in refuse("grm", *settings, "min_maf=0.2")
    assert f"{len(finished)} of 153 tiles are finished and kept" in succeed("grm", *settings)
    assert finished == {file: file.stat().st_mtime_ns for file in finished}
    assert not list(out.rglob("*.partial"))
    np.testing.assert_allclose(read_all(open_grm(str(out))), dense_grm(x), atol=3e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["by=contig"], "by=contig must be genome or chromosome"),
        (["min_maf=0.7"], "min_maf=0.7"),
        (["chunk_size=0"], "chunk_size=0"),
        (["unknown=1"], "unknown"),
    ],
)
def test_bad_settings(tmp_path: Path, settings: list[str], message: str) -> None:
    write_vcf_zarr(tmp_path / "a.vcz", genotypes(5, 9), 3, np.zeros(9), [""] * 9)
    assert message in refuse("grm", f"source={tmp_path / 'a.vcz'}", f"out={tmp_path / 'a.grm.zarr'}", *settings)


def test_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_SECONDS_TO_CONNECT", 1)
    with pytest.raises(ConfigError, match="no Dask scheduler answers"), tasks.task_pool(DaskConfig("tcp://127.0.0.1:9"), 1):
        pass


def test_blocks_of_rows_apart_from_the_columns(tmp_path: Path) -> None:
    x = genotypes(N, M, 0.1)
    write_vcf_zarr(tmp_path / "a.vcz", x, 3, np.zeros(M), [""] * M)
    variants = GrmVariants(np.arange(M), np.nanmean(x, axis=0) / 2)
    block = relationship_block(open_dosages(str(tmp_path / "a.vcz")), variants, slice(30, 44), slice(3, 20))
    np.testing.assert_allclose(block, dense_grm(x)[30:44, 3:20], rtol=1e-12, atol=1e-14)


def test_tiles_are_grouped_along_rows() -> None:
    tiles = [(0, 0), (1, 0), (1, 1), (3, 0), (3, 1), (3, 2), (3, 4)]
    assert runs(tiles, 2) == [(0, (0, 1)), (1, (0, 2)), (3, (0, 2)), (3, (2, 3)), (3, (4, 5))]


def test_chunk_grows_with_the_samples() -> None:
    sizes = [chunk_size(GrmConfig(source="", out=""), n) for n in (10, 1500, 5000, 50_000, 500_000)]
    assert sizes == [10, 256, 1024, 2048, 2048]
