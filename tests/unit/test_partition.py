"""Components of SNPs: words and tables, what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openreml_dist.app.inputs.genotypes import usable
from openreml_dist.app.inputs.partition import Partition, read_partition
from openreml_dist.errors import InputError
from openreml_dist.store.genotype_source import GenotypeSource, open_genotype_source
from tests.e2e.data import write_lines
from tests.helpers.genotypes import random_dosage, write_bed

M, N = 12, 21
CHROMOSOMES = ["1"] * 4 + ["chr2"] * 4 + ["22", "X", "22", "22"]
USABLE = [0, 1, 3, 4, 5, 6, 8, 10, 11]  # 2 is monomorphic, 7 is missing, 9 is on X


@pytest.fixture
def source(tmp_path: Path) -> GenotypeSource:
    x = random_dosage(M, N, 0.05)
    x[2], x[7] = 2, -1
    names = [f"rs{s}" for s in range(M)]
    names[10] = names[11] = "twin"
    return open_genotype_source(str(write_bed(tmp_path / "a", x, CHROMOSOMES, names)))


@pytest.fixture
def kept(source: GenotypeSource) -> np.ndarray:
    return usable(source)[0]


def of_lines(source: GenotypeSource, kept: np.ndarray, folder: Path, *lines: str, **settings) -> Partition:
    return read_partition(str(write_lines(folder / "parts", [*lines])), source, kept, **settings)


def test_the_snps_of_a_grm_are_used(source: GenotypeSource) -> None:
    kept, line = usable(source)
    assert kept.tolist() == USABLE
    assert line == "variants: left out 1 not autosomal, 1 missing in all samples, 1 monomorphic; kept 9 of 12"


def test_no_usable_snp(tmp_path: Path) -> None:
    source = open_genotype_source(str(write_bed(tmp_path / "a", np.full((3, 5), 2, np.int8))))
    with pytest.raises(InputError, match="no variant can be used: left out 3 monomorphic"):
        usable(source)


def test_words(source: GenotypeSource, kept: np.ndarray) -> None:
    genome = read_partition("genome", source, kept)
    assert genome.names == ("genetic",) and genome.annotation.tolist() == [[1.0]] * 9 and genome.report == []
    chromosomes = read_partition("chromosome", source, kept)
    assert chromosomes.names == ("chr1", "chr2", "chr22") and chromosomes.kept.tolist() == USABLE
    np.testing.assert_array_equal(chromosomes.annotation, np.eye(3)[[0] * 3 + [1] * 3 + [2] * 3])
    assert chromosomes.report == ["components: chr1 (3), chr2 (3), chr22 (3) SNPs"]


def test_names_of_components(source: GenotypeSource, kept: np.ndarray, tmp_path: Path) -> None:
    """A SNP without one, SNPs that are not there, those that cannot be used, and 01 that stays 01."""
    lines = ("rs4,b", "rs1,01", "rs0,01", "rs2,b", "rs3,NA", "unknown,b", "rs9,b", "rs5,b", ",b")
    parts = of_lines(source, kept, tmp_path, "SNP,component", *lines)
    assert parts.names == ("b", "01") and parts.kept.tolist() == [0, 1, 4, 5]
    np.testing.assert_array_equal(parts.annotation, [[0, 1], [0, 1], [1, 0], [1, 0]])
    assert parts.report == [
        f"partition: {tmp_path}/parts, 8 SNPs",
        f"left out: 1 lines of {tmp_path}/parts name no SNP",
        f"left out: 1 SNPs of {tmp_path}/parts are not in {source.path}",
        f"left out: 2 SNPs of {tmp_path}/parts are of variants that cannot be used",
        "left out: 5 variants, which have no component",
        "components: b (2), 01 (2) SNPs",
    ]


def test_overlapping_and_continuous_annotations(source: GenotypeSource, kept: np.ndarray, tmp_path: Path) -> None:
    lines = ("rs0 1 0 0", "rs1 1 0.25 0", "rs3 0 0 0", "rs4 0 3e-2 1", "rs6 1 0 2")
    parts = of_lines(source, kept, tmp_path, "#snp coding weight other", *lines)
    assert parts.names == ("coding", "weight", "other") and parts.kept.tolist() == [0, 1, 4, 6]
    np.testing.assert_array_equal(parts.annotation, [[1, 0, 0], [1, 0.25, 0], [0, 0.03, 1], [1, 0, 2]])
    assert parts.report[-1] == "components: coding (3), weight (2), other (2) SNPs; 3 are in several"
    assert "left out: 5 variants, which have no component" in parts.report


def test_one_column_of_numbers(source: GenotypeSource, kept: np.ndarray, tmp_path: Path) -> None:
    parts = of_lines(source, kept, tmp_path, "SNP\tcoding", "rs0\t1", "rs1\t0", "rs3\t2")
    assert parts.names == ("coding",) and parts.annotation.tolist() == [[1.0], [2.0]]


def test_missing_codes_are_those_of_the_data(source: GenotypeSource, kept: np.ndarray, tmp_path: Path) -> None:
    parts = of_lines(source, kept, tmp_path, "SNP component", "rs0 a", "rs1 none", "rs3 NA", missing=["none"])
    assert parts.names == ("a", "NA") and parts.kept.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["CHR SNP component", "1 rs0 a"], "the header is CHR SNP component; it must be SNP component, or"),
        (["SNP", "rs0"], "it must be SNP component, or"),
        (["SNP component extra", "rs0 a 1"], "either the column component, or a column of numbers"),
        (["SNP part", "rs0 a", "rs1 b"], "'a' is not a number"),
        (["SNP x y", "rs0 1 0", "rs1 0 -1"], "SNP rs1, column y: -1 is not a number of 0 or more"),
        (["SNP x y", "rs0 1 0", "rs1 0 NA"], "SNP rs1, column y: nan is not a number"),
        (["SNP x y", "rs0 1 NA", "rs1 0 NA"], "SNP rs0, column y: nan is not a number"),
        (["SNP x y", "rs0 1 0", "rs1 2 0"], "no SNP of the component y is among the 9 usable ones"),
        (["SNP component", "rs0 a", "rs2 b"], "no SNP of the component b"),
        (["SNP component", "rs0 NA"], "every SNP lacks its component"),
        (["SNP component", "rs0 residual"], "another one than residual"),
        (["SNP residual x", "rs0 1 1"], "another one than residual"),
        (["SNP component", "rs0 a", "rs0 b"], "SNP rs0 is there twice; in several components"),
        (["SNP component", "rs0 a", "twin b"], "twin is the name of several variants of"),
        (
            ["SNP component", "1:100 a", "1:101 b"],
            "no SNP of .*parts is in .*a; the first of each: 1:100, 1:101, ...; rs0",
        ),
        (["SNP component", "rs0 a b"], "line 2: 3 fields"),
        (["SNP component"], "no records"),
    ],
)
def test_bad_tables_are_refused(
    source: GenotypeSource, kept: np.ndarray, tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        of_lines(source, kept, tmp_path, *lines)


def test_neither_a_word_nor_a_file(source: GenotypeSource, kept: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"model.partition=chromosomes is neither genome, nor chromosome, nor a table"):
        read_partition("chromosomes", source, kept)
