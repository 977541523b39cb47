"""Genotypes at two bits: codes, counts, stores that hold them or are packed when read, PLINK files where they lie."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from openreml_dist.errors import InputError
from openreml_dist.store import genotype_source, genotypes_writer
from openreml_dist.store.genotype_counts import count_genotypes
from openreml_dist.store.genotype_source import GenotypeSource, open_genotype_source
from openreml_dist.store.genotypes import open_genotypes
from openreml_dist.store.packed import clear_padding_, count_packed, pack, packed_width, unpack
from tests.helpers.genotypes import create_store, random_dosage, write_bed, write_store

M = 45
KINDS = ("bed", "unpacked", "packed", "both")


def write(kind: str, folder: Path, x: np.ndarray) -> str:
    return str(write_bed(folder / "a", x) if kind == "bed" else write_store(folder / f"{kind}.vcz", x, kind))


def same_counts(a, b) -> bool:
    return all((getattr(a, name) == getattr(b, name)).all() for name in ("hom_ref", "het", "hom_alt"))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 31, 32, 33, 130])
def test_codes(n: int) -> None:
    x = random_dosage(7, n, 0.2)
    packed = pack(x)
    assert packed.shape == (7, packed_width(n))
    np.testing.assert_array_equal(unpack(packed, slice(0, n)), x)
    for some in (slice(n // 3, n), slice(0, n // 2), slice(n // 2, n // 2)):
        np.testing.assert_array_equal(unpack(packed, some), x[:, some])
    assert same_counts(count_packed(packed, n), count_genotypes(x))
    garbage = packed.copy()
    garbage[:, -1] |= 0xFF & ~((1 << 2 * ((n - 1) % 4 + 1)) - 1)
    clear_padding_(garbage, n)
    np.testing.assert_array_equal(garbage, packed)


def test_codes_are_those_of_plink() -> None:
    assert pack(np.array([[2, -1, 1, 0, 2]], np.int8)).tolist() == [[0b11_10_01_00, 0]]
    assert unpack(pack(np.array([[3, 4, -2]], np.int8)), slice(0, 3)).tolist() == [[-1, -1, -1]]  # of other alleles


@pytest.mark.parametrize("n", [20, 21, 22, 23])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same(tmp_path: Path, kind: str, n: int) -> None:
    x = random_dosage(M, n, 0.1)
    source = open_genotype_source(write(kind, tmp_path, x))
    np.testing.assert_array_equal(source.read_packed(slice(0, M)), pack(x))
    np.testing.assert_array_equal(source.read_packed(slice(11, 30)), pack(x[11:30]))
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda s: source.read_packed(slice(s, s + 1)), range(M))
        np.testing.assert_array_equal(np.concatenate([*parts]), pack(x))
    assert same_counts(source.counts, count_genotypes(x)) and same_counts(source.count((3, 40), 2), count_genotypes(x[3:40]))
    assert source.sample_id[2] == "I2" and source.family_id[2] == "F2" and not source.matches_iid_alone
    assert (source.variant_id[4], source.alt[4], source.ref[4], source.chromosome[4]) == ("rs4", "A", "C", "1")
    assert source.position.tolist() == list(range(100, 100 + M)) and source.biallelic.all()
    assert source.digest() == open_genotype_source(write("unpacked", tmp_path / "again", x)).digest()
    x[0, 0] = (x[0, 0] + 2) % 3
    assert source.digest() != open_genotype_source(write(kind, tmp_path / "other", x)).digest()


def test_counts_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genotype_source, "BYTES_AT_ONCE", 50)
    x = random_dosage(M, 21, 0.1)
    for kind in KINDS:
        source = open_genotype_source(write(kind, tmp_path, x))
        assert same_counts(source.count((5, 44), 3), count_genotypes(x[5:44]))


def test_dosages_are_read_from_packed_calls(tmp_path: Path) -> None:
    x = random_dosage(M, 30, 0.1)
    for kind in ("packed", "both"):
        dosages = open_genotypes(str(write_store(tmp_path / f"{kind}.vcz", x, kind))).dosages
        assert dosages.is_packed and (dosages.num_variants, dosages.num_samples) == (M, 30)
        assert (dosages.variants_chunk, dosages.samples_chunk) == (8, 12)
        np.testing.assert_array_equal(dosages.read(slice(3, 29), slice(7, 22)), x[3:29, 7:22])


def test_both_is_readable_as_vcf_zarr(tmp_path: Path) -> None:
    x = random_dosage(M, 21, 0.1)
    group = zarr.open_group(str(write_store(tmp_path / "a.vcz", x, "both")), mode="r")
    calls = group["call_genotype"][...]
    np.testing.assert_array_equal(np.where((calls < 0).any(axis=2), -1, calls.sum(axis=2)), x)
    np.testing.assert_array_equal(group["call_genotype_mask"][...], calls < 0)


def vcf_zarr_of_others(path: Path, x: np.ndarray) -> None:
    """As bio2zarr writes it: no family ids, no counts, half calls and fill, a third allele, names in their places alone."""
    group = zarr.create_group(str(path), attributes={"vcf_zarr_version": "0.4"})
    calls = np.stack([x >= 1, x == 2], axis=-1).astype(np.int8)
    calls[x < 0] = [0, -2]
    calls[3, :2] = 2
    group.create_array("call_genotype", data=calls, chunks=(8, 12, 2))
    for name, values in (("sample_id", [f"I{i}" for i in range(x.shape[1])]), ("contig_id", ["1", "X"])):
        group.create_array(name, shape=(len(values),), dtype=str)[...] = np.array(values, dtype=object)
    alleles = np.array([["C", "A", "G" if s == 3 else ""] for s in range(len(x))], dtype=object)
    group.create_array("variant_allele", shape=alleles.shape, dtype=str)[...] = alleles
    group.create_array("variant_contig", data=np.zeros(len(x), np.int16))
    group.create_array("variant_position", data=np.arange(len(x), dtype=np.int32))


def test_stores_of_other_programs_are_packed_when_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openreml_dist.store.genotypes._SAMPLES_AT_ONCE", 13)
    x = random_dosage(M, 31, 0.1)
    vcf_zarr_of_others(tmp_path / "a.vcz", x)
    source = open_genotype_source(str(tmp_path / "a.vcz"))
    x[3, :2] = -1
    np.testing.assert_array_equal(source.read_packed(slice(0, M)), pack(x))
    assert same_counts(source.counts, count_genotypes(x)) and source.stored_counts is None
    assert source.matches_iid_alone and not source.biallelic[3] and source.biallelic.sum() == M - 1
    assert source.variant_id[4] == "1:4" and (source.ref[4], source.alt[4]) == ("C", "A")


def test_few_files_of_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(path: Path) -> int:
        return len([file for file in (path / "call_genotype_packed" / "c").rglob("*") if file.is_file()])

    x = random_dosage(200, 41)
    monkeypatch.setattr(genotypes_writer, "SHARD_BYTES", 90)  # two rows of chunks, 4 variants of 11 bytes
    assert files(write_store(tmp_path / "a.vcz", x, "packed", (4, 12))) == 25
    monkeypatch.setattr(genotypes_writer, "SHARD_BYTES", 10**6)
    assert files(write_store(tmp_path / "b.vcz", x, "packed", (4, 12))) == 13  # 16 at least, but for whole rows of chunks
    writer = create_store(tmp_path / "c.vcz", x, "both", (4, 12))
    assert writer.num_partitions == 13 and writer.span(12) == slice(192, 200)


def test_partitions_without_one_of_their_files_are_unfinished(tmp_path: Path) -> None:
    x = random_dosage(200, 41, 0.1)
    path = write_store(tmp_path / "a.vcz", x, "both", (4, 12))
    for lost in ("call_genotype/c/9/1/0", "call_genotype_packed/c/5/0"):
        (path / lost).unlink()
    with pytest.raises(InputError, match="1 of 200 chunks of call_genotype are absent"):
        open_genotype_source(str(path))
    writer = genotypes_writer.resume_genotypes(str(path))
    assert writer.unfinished_partitions() == [2, 5]
    for partition in (2, 5):
        writer.write_partition(partition, pack(x[writer.span(partition)]))
    np.testing.assert_array_equal(open_genotype_source(str(path)).read_packed(slice(0, 200)), pack(x))
    (path / "call_genotype_packed/c/5/0").unlink()
    with pytest.raises(InputError, match="1 of 13 shards of call_genotype_packed are absent"):
        open_genotype_source(str(path))


@pytest.mark.parametrize("place", [5, -9, -30])
def test_damage_is_told(tmp_path: Path, place: int) -> None:
    """A flipped bit in a chunk, or in the index of a shard; and the end of one cut off."""
    path = write_store(tmp_path / "a.vcz", random_dosage(M, 30), "packed")
    shard = path / "call_genotype_packed" / "c" / "1" / "0"
    whole = shard.read_bytes()
    data = bytearray(whole)
    data[place] ^= 1
    shard.write_bytes(data)
    source = open_genotype_source(str(path))
    with pytest.raises(InputError, match=r"call_genotype_packed is damaged in variants 0\.\.44: .*Make the store again"):
        source.read_packed(slice(0, M))
    shard.write_bytes(whole[:place])
    with pytest.raises(InputError, match="call_genotype_packed is damaged"):
        source.read_packed(slice(0, M))


def open_bed(folder: Path) -> GenotypeSource:
    return open_genotype_source(str(folder / "a"))


def test_bed_is_checked_as_a_whole(tmp_path: Path) -> None:
    bed = write_bed(tmp_path / "a", random_dosage(M, 21)).with_suffix(".bed")
    assert open_genotype_source(str(bed)).num_samples == 21
    source, whole = open_bed(tmp_path), bed.read_bytes()
    bed.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="273 bytes expected for 45 variants of 21 samples, 263 found"):
        open_bed(tmp_path)
    with pytest.raises(InputError, match=r"it ends within variants 40\.\.44: was it truncated"):
        source.read_packed(slice(40, 45))
    bed.write_bytes(b"\x6c\x1b\x00" + whole[3:])
    with pytest.raises(InputError, match="sample-major"):
        open_bed(tmp_path)
    bed.with_suffix(".bim").unlink()
    with pytest.raises(InputError, match=r"a.bim: not found. data.genotypes is the prefix"):
        open_bed(tmp_path)


def test_padding_of_a_bed_may_be_anything(tmp_path: Path) -> None:
    x = random_dosage(M, 21)
    bed = write_bed(tmp_path / "a", x).with_suffix(".bed")
    body = np.frombuffer(bed.read_bytes()[3:], np.uint8).reshape(M, 6).copy()
    body[:, -1] |= 0b11111100
    bed.write_bytes(b"\x6c\x1b\x01" + body.tobytes())
    source = open_bed(tmp_path)
    np.testing.assert_array_equal(source.read_packed(slice(0, M)), pack(x))
    assert same_counts(source.counts, count_genotypes(x))


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: not found, nor .*none.bed. data.genotypes is a genotype store"):
        open_genotype_source(str(tmp_path / "none"))
    zarr.create_group(str(tmp_path / "k.grm.zarr"))
    with pytest.raises(InputError, match="not a genotype store"):
        open_genotype_source(str(tmp_path / "k.grm.zarr"))
    write_bed(tmp_path / "a", random_dosage(M, 21))
    (tmp_path / "a").mkdir()  # a folder beside files of its name
    assert open_bed(tmp_path).num_samples == 21
    unfinished = create_store(tmp_path / "u.vcz", random_dosage(M, 21), "packed", (8, 12))
    with pytest.raises(InputError, match="not finished"):
        open_genotype_source(unfinished.path)
