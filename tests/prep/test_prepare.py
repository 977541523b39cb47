"""PLINK import: what is stored, what is filtered, what is refused, and what a killed run leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bed_reader", reason="the extra `prep` is not installed")
import zarr

from openreml_dist.errors import InputError
from openreml_dist.store.genotypes import open_genotypes
from openreml_dist.store.plink import open_plink
from openreml_dist.store.zarr_group import read_strings
from tests.prep.plink_data import genotypes, refuse, succeed, write_plink

N, M = 45, 120


@pytest.fixture
def x() -> np.ndarray:
    return genotypes(N, M, missing=0.05)


def dosage(path: Path) -> np.ndarray:
    store = open_genotypes(str(path))
    return store.dosages.read(slice(0, store.dosages.num_variants), slice(0, store.dosages.num_samples))


def test_import_is_exact_and_readable_as_vcf_zarr(tmp_path: Path, x: np.ndarray) -> None:
    write_plink(tmp_path / "a", x)
    out = tmp_path / "a.vcz"
    said = succeed("prepare", f"source={tmp_path / 'a'}", f"out={out}", "variants_chunk=25", "samples_chunk=20")
    assert "read 120 variants, 45 samples" in said and "kept 120" in said
    assert f"next: openreml-grm source={out}" in said
    np.testing.assert_array_equal(dosage(out), np.nan_to_num(x.T, nan=-1))
    group = zarr.open_group(str(out), mode="r")
    calls = group["call_genotype"]
    assert calls.metadata.dimension_names == ("variants", "samples", "ploidy") and group.attrs["vcf_zarr_version"] == "0.4"
    np.testing.assert_array_equal(group["call_genotype_mask"][...], calls[...] < 0)
    assert sorted(np.unique(calls[...])) == [-1, 0, 1] and not (calls[..., 0] > calls[..., 1]).any()
    assert read_strings(group, "variant_allele")[0].tolist() == ["C", "A"]  # REF is A2, ALT is A1, which is counted
    assert read_strings(group, "sample_id")[2] == "I2" and read_strings(group, "family_id")[2] == "F2"
    np.testing.assert_allclose(group["variant_allele_frequency"][:, 1], np.nanmean(x, axis=0) / 2)
    np.testing.assert_allclose(group["variant_call_rate"][...], 1 - np.isnan(x).mean(axis=0))
    np.testing.assert_allclose(group["sample_call_rate"][...], 1 - np.isnan(x).mean(axis=1))
    assert group.metadata.consolidated_metadata is not None
    assert "overwrite=true" in refuse(
        "prepare", f"source={tmp_path / 'a'}", f"out={out}", "variants_chunk=25", "samples_chunk=20"
    )


def test_filters_count_what_they_leave_out(tmp_path: Path) -> None:
    x = genotypes(N, M)
    x[:, 10] = 0.0
    x[0, 10] = 1.0  # MAF 1/90
    x[:20, 11] = np.nan
    x[:, 12] = 1.0  # every sample heterozygous
    x[7, 20:] = np.nan  # a sample without most of its calls
    chromosome = ["X"] * 4 + ["chr2"] * 40 + ["MT"] + ["22"] * (M - 45)
    write_plink(tmp_path / "a", x, chromosome)
    settings = (
        "min_maf=0.02",
        "max_missing=0.1",
        "max_sample_missing=0.5",
        "min_hwe_pvalue=1e-8",
        "dask.workers=1",
        "calls=both",
    )
    said = succeed("prepare", f"source={tmp_path / 'a'}.bed", f"out={tmp_path / 'a.vcz'}", *settings)
    assert "samples: left out 1 missing calls > 0.5; kept 44" in said
    assert "left out 5 not autosomal, 1 missing calls > 0.1, 1 MAF < 0.02, 1 Hardy-Weinberg p < 1e-08; kept 112" in said
    variants = [s for s in range(M) if s not in {0, 1, 2, 3, 10, 11, 12, 44}]
    samples = [i for i in range(N) if i != 7]
    np.testing.assert_array_equal(dosage(tmp_path / "a.vcz"), x[np.ix_(samples, variants)].T)
    every = succeed(
        "prepare", f"source={tmp_path / 'a'}", f"out={tmp_path / 'b.vcz'}", "autosomes_only=false", "dask.workers=1"
    )
    assert "left out none; kept 120" in every


def test_unfinished_packed_import_resumes(tmp_path: Path, x: np.ndarray) -> None:
    write_plink(tmp_path / "a", x)
    out = tmp_path / "a.vcz"
    settings = (f"source={tmp_path / 'a'}", f"out={out}", "variants_chunk=25", "samples_chunk=20", "dask.workers=1")
    assert f"or openreml-fit data.genotypes={out}" in succeed("prepare", *settings, "calls=packed")
    assert not (out / "call_genotype").exists()
    zarr.open_group(str(out), mode="r+").attrs["complete"] = False
    shards = sorted((out / "call_genotype_packed" / "c").glob("*/*"))
    shards.pop(2).unlink()
    written = {file: file.stat().st_mtime_ns for file in shards}
    changed = refuse("prepare", *settings, "calls=both")
    assert "calls" in changed and "overwrite=true" in changed
    assert "4 of 5 partitions are finished and kept" in succeed("prepare", *settings, "calls=packed")
    assert written == {file: file.stat().st_mtime_ns for file in written}
    np.testing.assert_array_equal(dosage(out), np.nan_to_num(x.T, nan=-1))
    assert "calls=no must be one of unpacked, packed, both" in refuse("prepare", *settings, "calls=no")


def test_unfinished_import_resumes(tmp_path: Path, x: np.ndarray) -> None:
    write_plink(tmp_path / "a", x)
    out = tmp_path / "a.vcz"
    settings = (f"source={tmp_path / 'a'}", f"out={out}", "variants_chunk=25", "samples_chunk=20", "dask.workers=1")
    succeed("prepare", *settings)
    zarr.open_group(str(out), mode="r+").attrs["complete"] = False
    chunks = sorted((out / "call_genotype" / "c").glob("*/*/*"))
    (out / "call_genotype" / "c" / "2" / "1" / "0").unlink()
    written = {file: file.stat().st_mtime_ns for file in chunks if file.parts[-3] != "2"}
    with pytest.raises(InputError, match="not finished"):
        open_genotypes(str(out))
    changed = refuse("prepare", *settings, "min_maf=0.1")
    assert "min_maf" in changed and "overwrite=true" in changed
    assert "4 of 5 partitions are finished and kept" in succeed("prepare", *settings)
    assert written == {file: file.stat().st_mtime_ns for file in written}
    np.testing.assert_array_equal(dosage(out), np.nan_to_num(x.T, nan=-1))


def test_lost_and_damaged_chunks_are_told(tmp_path: Path, x: np.ndarray) -> None:
    write_plink(tmp_path / "a", x)
    out = tmp_path / "a.vcz"
    succeed("prepare", f"source={tmp_path / 'a'}", f"out={out}", "variants_chunk=25", "dask.workers=1")
    chunk = out / "call_genotype" / "c" / "3" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[-9] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(InputError, match=r"call_genotype is damaged in variants 0\.\.119"):
        dosage(out)
    assert "damaged" in refuse("grm", f"source={out}", f"out={tmp_path / 'a.grm.zarr'}", "dask.workers=1")  # an error of a task
    chunk.unlink()
    with pytest.raises(InputError, match="1 of 5 chunks of call_genotype are absent"):
        open_genotypes(str(out))


def test_truncated_bed_ends_the_program_with_2(tmp_path: Path, x: np.ndarray) -> None:
    bed = write_plink(tmp_path / "a", x).with_suffix(".bed")
    bed.write_bytes(bed.read_bytes()[:-10])
    message = refuse("prepare", f"source={tmp_path / 'a'}", f"out={tmp_path / 'a.vcz'}")
    assert "1,443 bytes expected for 120 variants of 45 samples, 1,433 found" in message
    assert not (tmp_path / "a.vcz").exists()


def test_phenotypes_of_the_fam_may_be_left_out_for_everybody(tmp_path: Path, x: np.ndarray) -> None:
    prefix = write_plink(tmp_path / "a", x)
    fam = prefix.with_suffix(".fam")
    whole = open_plink(str(prefix)).samples
    fam.write_text("".join(" ".join(line.split()[:5]) + "\n" for line in fam.read_text().splitlines()))
    samples = open_plink(str(prefix)).samples
    assert samples.sample_id.tolist() == whole.sample_id.tolist() and samples.sex.tolist() == whole.sex.tolist()
    assert set(samples.phenotype.tolist()) == {"-9"}
    damage_line(fam, 3, "F2 I2 0 0 1 -9")
    with pytest.raises(InputError, match=r"fam: line 3 has 6 fields, not 5 \(FID IID PAT MAT SEX\)"):
        open_plink(str(prefix))


def damage_bed(prefix: Path, header: bytes) -> None:
    bed = prefix.with_suffix(".bed")
    bed.write_bytes(header + bed.read_bytes()[3:])


def damage_line(file: Path, number: int, line: str) -> None:
    lines = file.read_text().splitlines()
    lines[number - 1] = line
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: damage_bed(a, b"\x00\x1b\x01"), "not a PLINK 1 .bed"),
        (lambda a: damage_bed(a, b"\x6c\x1b\x00"), "sample-major"),
        (lambda a: damage_line(a.with_suffix(".fam"), 3, "F2 I2 0 0 1"), "fam: line 3 has 5 fields"),
        (lambda a: damage_line(a.with_suffix(".bim"), 4, "1 rs3 0 x A C"), "bim: line 4: position 'x'"),
        (lambda a: damage_line(a.with_suffix(".fam"), 3, "F1 I1 0 0 1 -9"), "F1:I1"),
        (lambda a: a.with_suffix(".bim").unlink(), "a.bim: not found"),
        (lambda a: a.with_suffix(".bim").write_text(""), "a.bim: empty"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, x: np.ndarray, damage: object, message: str) -> None:
    prefix = write_plink(tmp_path / "a", x)
    assert callable(damage)
    damage(prefix)
    with pytest.raises(InputError, match=message):
        open_plink(str(prefix))


def test_other_data_are_never_overwritten(tmp_path: Path, x: np.ndarray) -> None:
    write_plink(tmp_path / "a", x)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    message = refuse("prepare", f"source={tmp_path / 'a'}", f"out={tmp_path / 'mine'}", "overwrite=true")
    assert "not a store of this program" in message and (tmp_path / "mine" / "thesis.tex").exists()
