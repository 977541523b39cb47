"""Tables as other programs write them: PLINK 2's headers, R's quotes, compressed files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openreml_dist.errors import InputError
from openreml_dist.store.tables import read_discrete, read_phenotype, read_phenotypes, read_quantitative
from openreml_dist.store.tables_records import Wanted, read_records

TEXT = "#FID\tIID\theight\nF1\tI1\t1.5\nF2\tI2\tNA\nF3\tI3\t2.5\n"


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    def write(content: str | bytes, name: str = "table.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("header", "alone"),
    [
        ("#FID IID", False),
        ("fid iid", False),
        ("#FID IID SID", False),
        ("#IID", True),
        ("IID", True),
        ("#IID SID", True),
        ("iid sid", True),
    ],
)
@pytest.mark.parametrize("separator", [" ", "\t", ",", ";"])
def test_headers_of_plink_2(table: Callable[..., str], header: str, alone: bool, separator: str) -> None:
    names = [*header.split(), "height", "age"]
    of = {"FID": "F{}", "IID": "00{}", "SID": "s{}"}
    ids = [of[name.lstrip("#").upper()] for name in names[:-2]]
    rows = [[field.format(i) for field in ids] + [f"{i}.5", "NA" if i == 2 else str(40 + i)] for i in (1, 2, 3)]
    path = table("\n".join(separator.join(row) for row in [names, *rows]) + "\n")
    heights, ages = read_phenotypes(path, ["height", 2])
    assert heights.sample_id.tolist() == ["001", "002", "003"]
    assert heights.family_id.tolist() == (["0"] * 3 if alone else ["F1", "F2", "F3"])
    assert heights.matches_iid_alone is alone
    assert heights.values.tolist() == [1.5, 2.5, 3.5]
    assert (ages.name, ages.column, str(ages.values.tolist())) == ("age", 2, "[41.0, nan, 43.0]")
    assert read_discrete(path).levels == (("1.5", "2.5", "3.5"), ("41", "43"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("IID FID y\nI1 1 2\nI2 2 3\n", "the header has FID behind IID; ids come first, as FID IID or IID alone"),
        ("FID,IID,y\n1,1,2\n2,2,3,\n", "line 3: 4 fields where the first line has 3: the last one is empty"),
        ("FID\tIID\ty\n1\t1\t2\n2 2 3\n", "line 3: 1 field where .*: the first line is tab-separated, this one is not"),
        ('FID,IID,y\n1,"1,2\n2,2,3\n3,3,3\n', "a quotation mark opens on line 2 and closes on none"),
        ("FID IID y\n1 1 New York\n", "row names.*or a value of two words"),
        ("1\t1\t2,5\n2\t2\t3,5\n", "line 1, .*'2,5' is not a number.*a decimal comma"),
        ("FID IID y\n1 1 1,234\n", "line 2, .*'1,234' is not a number.*between thousands"),
        ("FID IID größe\n1 1 2\n".encode("latin-1"), "not UTF-8 but in another encoding.*iconv -f WINDOWS-1252"),
        ("FID IID y\n1 1 2\n".encode("utf-16"), "not UTF-8 but UTF-16; .*iconv -f UTF-16"),
    ],
)
def test_the_cause_of_what_cannot_be_read(table: Callable[..., str], content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_phenotype(table(content))


def test_one_column_of_ids_needs_a_header_and_unique_ids(table: Callable[..., str]) -> None:
    assert read_phenotype(table("IID,height\nI1,1\nI2,3\n")).values.tolist() == [1.0, 3.0]
    with pytest.raises(InputError, match=r"2 field\(s\).*IID alone needs a header that begins with IID or #IID"):
        read_phenotype(table("I1 1\nI2 2\n"))
    with pytest.raises(InputError, match=r"1 field\(s\); expected IID and at least one value"):
        read_phenotype(table("#IID\nI1\n"))
    with pytest.raises(InputError, match=r"line 3, sample I2, column height: 'x' is not a number"):
        read_phenotype(table("IID height\nI1 1\nI2 x\n"))
    with pytest.raises(InputError, match=r"no column 3; it has 1 behind IID, names height"):
        read_phenotype(table("IID height\nI1 1\n"), 3)


COMPRESSED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("name", ["table.txt.{}", "table.txt"])
def test_compressed_tables_are_told_by_their_content(table: Callable[..., str], suffix: str, name: str) -> None:
    path = table(COMPRESSED[suffix](TEXT.encode()), name.format(suffix))
    pheno = read_phenotype(path)
    assert pheno.family_id.tolist() == ["F1", "F2", "F3"]
    assert str(pheno.values.tolist()) == "[1.5, nan, 2.5]"
    assert read_quantitative(path).names == read_discrete(path).names == ("height",)
    records = read_records(path, Wanted(labels={"IID"}))
    assert list(records.columns) == ["FID", "IID", "height"] and records.num_records == 3


def test_a_compressed_table_that_is_cut_off(table: Callable[..., str]) -> None:
    text = TEXT + "".join(f"G{i}\tI{i}\t{i / 7}\n" for i in range(5000))
    for suffix, compress in COMPRESSED.items():
        with pytest.raises(InputError, match=r"cannot read .*table"):
            read_phenotype(table(compress(text.encode())[:5000], f"table.{suffix}"))
    damaged = bytearray(gzip.compress(text.encode()))
    damaged[2000:2100] = bytes(100)
    with pytest.raises(InputError, match=r"cannot read .*table"):
        read_phenotype(table(bytes(damaged)))


def test_an_id_that_begins_like_a_compressed_file(table: Callable[..., str]) -> None:
    assert read_phenotype(table("BZh9 I1 1\nBZh8 I2 2\n")).family_id.tolist() == ["BZh9", "BZh8"]


def test_zstd_needs_a_module_that_may_be_absent(table: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    path = table(b"\x28\xb5\x2f\xfd" + bytes(20), "table.zst")
    with pytest.raises(InputError, match=r"table.zst is compressed by zstd.*pip install zstandard, or decompress"):
        read_phenotype(path)


def test_zstd(table: Callable[..., str]) -> None:
    zstandard = pytest.importorskip("zstandard", reason="reads zstd before Python 3.14")
    frames = [zstandard.ZstdCompressor().compress(part.encode()) for part in (TEXT, "F4\tI4\t7\n")]
    assert str(read_phenotype(table(b"".join(frames))).values.tolist()) == "[1.5, nan, 2.5, 7.0]"
    for damaged in (frames[0][:-5], frames[0] + frames[1][:-3], frames[0] + bytes(20)):
        with pytest.raises(InputError, match="cannot read"):
            read_phenotype(table(damaged))


def test_quotes_of_r(table: Callable[..., str]) -> None:
    pheno = read_phenotype(table('"FID" "IID" "body height"\n"F 1"  "I1" 2.5\nF2 "I2"\tNA\n'))
    assert pheno.name == "body height"
    assert (pheno.family_id.tolist(), pheno.sample_id.tolist()) == (["F 1", "F2"], ["I1", "I2"])
    records = read_records(table('"plot id","y"\n"a ",1\n" b" ,2\n'), Wanted())
    assert records.columns["plot id"].tolist() == ["a", "b"]
    with pytest.raises(InputError, match=r"line 2: 4 fields where the first line has 3: row names\?.*row.names = FALSE"):
        read_phenotype(table('"FID" "IID" "y"\n"1" "F1" "I1" 2\n'))
    with pytest.raises(InputError, match=r"line 3, sample F2:I2, column y: '2,5'.*it has a decimal comma"):
        read_phenotype(table("FID;IID;y\nF1;I1;1\nF2;I2;2,5\n"))


def test_a_column_without_a_value_is_named(table: Callable[..., str]) -> None:
    path = table("FID IID y z\n" + "".join(f"F I{i} {i} {code}\n" for i, code in enumerate(["NA", "-9", "nan", "."])))
    assert read_phenotype(path, "y").values.tolist() == [0, 1, 2, 3]
    for read in (lambda p: read_phenotype(p, "z"), read_quantitative, read_discrete):
        with pytest.raises(
            InputError, match=r"column z has no value: all 4 samples are missing there \(missing is NA, -9, nan"
        ):
            read(path)
    with pytest.raises(InputError, match=r"has a header and no samples"):
        read_phenotype(table("FID IID y\n\n"))


def test_missing_codes_are_one_setting(table: Callable[..., str]) -> None:
    path = table("FID IID y z\nF 1 -9 a\nF 2 99 NA\nF 3 99.0 *\n")
    assert str(read_phenotype(path, 1, ["99"]).values.tolist()) == "[-9.0, nan, nan]"
    assert read_discrete(path, ["*", "99", "NA"]).levels == (("-9", "99.0"), ("a",))
    columns = read_records(path, Wanted(), ["*", "99"]).columns
    assert str(columns["y"].tolist()) == "[-9.0, nan, nan]" and columns["z"].tolist() == ["a", "NA", None]


def test_line_numbers_count_blank_lines_and_blocks(table: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openreml_dist.store.tables_text.BLOCK_LINES", 4)
    for separator in (" ", ","):
        lines = [f"F I{i} {i}".replace(" ", separator) for i in range(20)]
        lines[13] = "F I13 x".replace(" ", separator)
        lines[7] += "\n\n"
        with pytest.raises(InputError, match=r"line 16, sample F:I13, column 1: 'x'"):
            read_phenotype(table("\n".join(lines)))
        lines[3] = "F I3"
        with pytest.raises(InputError, match=r"line 4: \d fields? where the first line has 3"):
            read_phenotype(table("\n".join(lines)))
