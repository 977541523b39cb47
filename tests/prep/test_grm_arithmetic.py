"""Relationship matrices in float32 on the CPU and by torch, against the definition in float64."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bed_reader", reason="the extra `prep` is not installed")

from openreml_dist.config import DaskConfig, GrmConfig
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.prep import products_torch, relationship
from openreml_dist.prep.grm import tasks, workers_for
from openreml_dist.prep.products import Arithmetic, NumpyArithmetic, standardise
from openreml_dist.prep.products_torch import TorchArithmetic
from openreml_dist.prep.relationship import relationship_blocks
from openreml_dist.store.genotypes import open_dosages
from openreml_dist.store.grm import GrmVariants, open_grm
from tests.helpers.grm import read_all
from tests.prep.plink_data import dense_grm, genotypes, refuse, succeed, write_plink
from tests.prep.test_grm import write_vcf_zarr

N, M = 333, 2100
BLOCKS = [(slice(0, 100), slice(0, 100)), (slice(200, 333), slice(100, 333)), (slice(150, 170), slice(0, 40))]
ARITHMETIC = {
    "float64": lambda: NumpyArithmetic(np.float64),
    "float32": NumpyArithmetic,
    "torch": lambda: TorchArithmetic("cpu"),
}


def difficult(missing: float) -> np.ndarray:
    """SNPs that one sample carries, of either allele; a sample and its copies; a SNP that hardly anyone has called."""
    x = genotypes(N, M, missing)
    rng = np.random.default_rng(3)
    x[41] = x[210] = x[40]
    for s in range(0, M, 4):
        x[:, s] = 2.0 * (s % 8 == 0)
        x[rng.integers(50, 200), s] = 1.0
    if missing:
        x[: N - 9, 1] = np.nan
    return x


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("missing", [0.0, 0.05])
@pytest.mark.parametrize("kind", list(ARITHMETIC))
def test_equals_the_float64_definition(tmp_path: Path, kind: str, missing: float, threads: int) -> None:
    x = difficult(missing)
    write_vcf_zarr(tmp_path / "a.vcz", x, 3, np.zeros(M), [""] * M)
    variants = GrmVariants(np.arange(M), np.nanmean(x, axis=0) / 2)
    arithmetic: Arithmetic = ARITHMETIC[kind]()
    dense = dense_grm(x)
    scale = np.sqrt(np.outer(np.diag(dense), np.diag(dense)))
    tolerance = 1e-12 if kind == "float64" else 1e-6
    found = relationship_blocks(open_dosages(str(tmp_path / "a.vcz")), variants, BLOCKS, arithmetic, threads)
    for (rows, columns), block in zip(BLOCKS, found, strict=True):
        assert block.dtype == np.float64
        assert np.abs((block - dense[rows, columns]) / scale[rows, columns]).max() < tolerance


def test_a_store_of_many_tasks_and_threads(tmp_path: Path) -> None:
    x = difficult(0.03)
    write_plink(tmp_path / "a", x)
    succeed("prepare", f"source={tmp_path / 'a'}", f"out={tmp_path / 'a.vcz'}", "variants_chunk=300", "dask.workers=1")
    for workers in (1, 2):
        out = tmp_path / f"{workers}.grm.zarr"
        succeed("grm", f"source={tmp_path / 'a.vcz'}", f"out={out}", "chunk_size=40", f"dask.workers={workers}")
        np.testing.assert_allclose(read_all(open_grm(str(out))), dense_grm(x), atol=1e-6)


def test_standardised_genotypes_keep_their_digits_in_float32() -> None:
    x = np.array([[0, 1, 2, -1]] * 5, dtype=np.int8)
    frequency = np.array([1e-6, 0.2, 0.5, 0.7, 1 - 1e-6])
    exact = (x - 2 * frequency[:, None]) / np.sqrt(2 * frequency * (1 - frequency))[:, None] * (x >= 0)
    np.testing.assert_allclose(standardise(x, frequency, np.float32), exact, rtol=3e-7)
    np.testing.assert_allclose(TorchArithmetic("cpu").standardised(x, frequency).numpy(), exact, rtol=3e-7)
    np.testing.assert_allclose(standardise(x, frequency), exact, rtol=1e-9)


@pytest.mark.parametrize("kind", list(ARITHMETIC))
def test_samples_without_a_common_snp_are_named(tmp_path: Path, kind: str) -> None:
    x = genotypes(30, 60)
    x[7, :30] = np.nan
    x[4, 30:] = np.nan
    write_vcf_zarr(tmp_path / "a.vcz", x, 3, np.zeros(60), [""] * 60)
    variants = GrmVariants(np.arange(60), np.nanmean(x, axis=0) / 2)
    blocks = [(slice(0, 30), slice(0, 30))]
    with pytest.raises(InputError, match="samples number 5 and 8 have no SNP"):
        next(relationship_blocks(open_dosages(str(tmp_path / "a.vcz")), variants, blocks, ARITHMETIC[kind]()))


def test_tiles_on_a_device_equal_those_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of device=cuda, with the CPU in place of the GPU of the worker."""
    x = difficult(0.02)
    write_plink(tmp_path / "a", x)
    succeed("prepare", f"source={tmp_path / 'a'}", f"out={tmp_path / 'a.vcz'}", "dask.workers=1")
    out = tmp_path / "a.grm.zarr"
    succeed("grm", f"source={tmp_path / 'a.vcz'}", f"out={out}", "chunk_size=50", "dask.workers=1")
    expected = read_all(open_grm(str(out)))
    chunks = sorted((out / "grm" / "c").glob("*/*"))
    for chunk in chunks[::2]:
        chunk.unlink()
    monkeypatch.setattr(products_torch, "gpu_of_this_worker", lambda: TorchArithmetic("cpu"))
    runs = [(i, (0, i + 1)) for i in range(7)]
    assert relationship.write_tiles(str(tmp_path / "a.vcz"), str(out), runs, "cuda", 2) == 28
    np.testing.assert_allclose(read_all(open_grm(str(out))), expected, atol=1e-6)


def test_every_tile_is_in_one_task() -> None:
    tiles = [(i, j) for i in range(23) for j in range(i + 1)]
    for most in (1, 7, 36, 1000):
        dealt = tasks(tiles, most)
        sizes = [sum(end - first for _, (first, end) in task) for task in dealt]
        assert max(sizes) <= most and max(sizes) - min(sizes) <= 1
        assert sorted((i, j) for task in dealt for i, (first, end) in task for j in range(first, end)) == tiles
    read = [len({i for i, _ in task} | {j for _, (first, end) in task for j in range(first, end)}) for task in tasks(tiles, 36)]
    assert sum(read) / len(read) < 15  # samples, in tiles, for 36 products: 12 for a square, 24 for a row


def test_devices(tmp_path: Path) -> None:
    write_vcf_zarr(tmp_path / "a.vcz", genotypes(5, 9), 3, np.zeros(9), [""] * 9)
    settings = (f"source={tmp_path / 'a.vcz'}", f"out={tmp_path / 'a.grm.zarr'}")
    assert "device=tpu must be cpu or cuda" in refuse("grm", *settings, "device=tpu")
    if products_torch.torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(ConfigError, match="device=cuda: torch sees no CUDA device"):
        workers_for(GrmConfig(source="a", out="b", device="cuda"))
    assert workers_for(GrmConfig(source="a", out="b", device="cuda", dask=DaskConfig("tcp://x:1"))).scheduler == "tcp://x:1"


def test_preparation_imports_torch_for_a_device_alone_and_never_its_process_groups() -> None:
    """import-linter sees packages of others whole: it keeps torch to this file, but does not tell torch.distributed apart."""
    folder = Path(products_torch.__file__).parent
    texts = {path.name: path.read_text() for path in folder.glob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"^\s*(import|from) torch\b", text, re.M)] == [
        "products_torch.py"
    ]
    assert "torch.distributed" not in "".join(texts.values())
    outside = [name for name, text in texts.items() if re.search(r"^from openreml_dist.prep.products_torch", text, re.M)]
    assert outside == []
