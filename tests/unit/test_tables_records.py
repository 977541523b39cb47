"""Tables of records: what a column is taken for, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openreml_dist.errors import InputError
from openreml_dist.store.tables_records import Records, Wanted, read_records


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Records]:
    def write_and_read(text: str, *missing: list[str], **wanted: set[str] | None) -> Records:
        path = tmp_path / "plots.csv"
        path.write_text(text)
        return read_records(str(path), Wanted(**wanted), *missing)

    return write_and_read


def test_columns_are_numbers_or_text(read: Callable[..., Records]) -> None:
    columns = read(
        "#id,n,part,gap,word,sure,big\n001,7,1.5,,a ,TRUE,9007199254740993\n002,-3,2,4,NA,FALSE,1\n", labels={"id"}
    ).columns
    assert columns["id"].tolist() == ["001", "002"]
    assert (columns["n"].dtype, columns["n"].tolist()) == (np.int64, [7, -3])
    assert columns["part"].tolist() == [1.5, 2.0]
    assert (columns["gap"].dtype, str(columns["gap"].tolist())) == (np.float64, "[nan, 4.0]")
    assert columns["word"].tolist() == ["a", None]
    assert (columns["sure"].dtype, columns["sure"].tolist()) == (np.bool_, [True, False])
    assert columns["big"].dtype == np.float64


def test_words_that_other_programs_take_for_missing_are_levels(read: Callable[..., Records]) -> None:
    words = ["None", "null", "N/A", "NULL", "n/a", "low"]
    columns = read("dose,y\n" + "".join(f"{word},{i}\n" for i, word in enumerate(words))).columns
    assert columns["dose"].tolist() == words


def test_a_code_of_missing_that_is_a_number_is_counted(read: Callable[..., Records]) -> None:
    records = read("row,plot\n-10,-9\n-9,b\n-8,c\n")
    assert str(records.columns["row"].tolist()) == "[-10.0, nan, -8.0]"
    assert records.columns["plot"].tolist() == [None, "b", "c"]
    assert records.coded == {"row": 1, "plot": 1}
    kept = read("row,plot\n-10,-9\n-9,b\n-8,c\n", ["NA"])
    assert kept.columns["row"].tolist() == [-10, -9, -8] and kept.coded == {}


def test_numbers_with_a_word_among_them_are_no_factor(read: Callable[..., Records]) -> None:
    text = "lead,y\n" + "".join(f"{'<1' if i == 7 else i / 8},{i}\n" for i in range(40))
    with pytest.raises(InputError, match=r"plots.csv, line 9, column lead: '<1' is not a number.*39 of 40 values.*C\(lead\)"):
        read(text)
    assert len(set(read(text, factors={"lead"}).columns["lead"])) == 40
    assert len(set(read(text, labels={"lead"}).columns["lead"])) == 40
    assert list(read(text, names={"y"}).columns) == ["y"]
    assert read("code,y\na1,1\na2,2\n3,3\n").columns["code"].tolist() == ["a1", "a2", "3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y,z\n", "has a header and no records"),
        ("", "is empty; expected a header"),
        ("y,y\n1,2\n", "column 'y' twice"),
        ("y,z\n1,2\n3\n", "line 3: 1 field where the first line has 2"),
        ("y,z\n1,2\ninf,2\n", "line 3, column y: the value inf is infinite"),
        ("y;z\n1,5;a\n2;b\n3;b\n", "line 2, column y: '1,5'.*decimal comma"),
    ],
)
def test_refused(read: Callable[..., Records], text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(text)


def test_blocks_make_no_difference(read: Callable[..., Records], monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a b c\n" + "".join(f"{i} {i / 3!r} {'x' if i == 29 else i}\n" for i in range(30))
    whole = read(text, factors={"c"}).columns
    monkeypatch.setattr("openreml_dist.store.tables_text.BLOCK_LINES", 7)
    cut = read(text, factors={"c"}).columns
    for name, column in whole.items():
        assert (cut[name].dtype, cut[name].tolist()) == (column.dtype, column.tolist())
    assert cut["b"].tolist() == [i / 3 for i in range(30)]


FIELDS = {
    "float": ["1.5", "-2e-3", "1e300", "0.1", "nan", "17.", ".5", "-9", "", "NA", "."],
    "integer": ["7", "-12", "+3", "007", "-0", "9007199254740991", "2"],
    "whole": ["7", "5.0", "1e5", "3"],
    "missing": ["7", "-9", "3", ""],
    "word": ["a", "None", "1_000", "0x1A", "null", "true"],
    "truth": ["True", "false", "TRUE"],
    "mixed": ["NAN", "-nan", "1", "2.5"],
    "large": ["18446744073709551615", "12345678901234567890123", "1e-400"],
    "label": ["001", "1", "1.0", "NA", "-9"],
}


def cycled(seed: int, num_lines: int = 400) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[str(rng.choice(tokens)) for tokens in FIELDS.values()] for _ in range(num_lines)]


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("block", [7, 10_000])
def test_a_table_is_read_alike_however_its_lines_are_cut(
    read: Callable[..., Records], monkeypatch: pytest.MonkeyPatch, separator: str, block: int
) -> None:
    """Bare lines are cut at once, quoted ones too, those with blanks or blank lines among them one by one."""
    monkeypatch.setattr("openreml_dist.store.tables_text.BLOCK_LINES", block)
    rows = [[*FIELDS], *cycled(block)]
    ways = {
        "bare": "\n".join(map(separator.join, rows)),
        "windows": "\r\n".join(map(separator.join, rows)) + "\r\n",
        "quoted": "".join(separator.join(f'"{field}"' for field in row) + "\n" for row in rows),
        "some quoted": "".join(separator.join([*row[:3], *(f'"{field}"' for field in row[3:])]) + "\n" for row in rows),
        "blanks": "".join(separator.join(f" {field} " for field in row) + "\n" for row in rows),
        "blank lines": "".join(separator.join(row) + "\n\n" + separator * 8 + "\n" for row in rows),
    }
    found = {way: read(text, labels={"label"}) for way, text in ways.items()}
    for records in found.values():
        assert records.coded == found["blanks"].coded and records.coded["missing"] > 0
        for name, column in records.columns.items():
            other = found["blanks"].columns[name]
            assert (column.dtype, str(column.tolist())) == (other.dtype, str(other.tolist())), name
    kinds = {name: column.dtype.kind for name, column in found["bare"].columns.items()}
    assert kinds == dict(zip(FIELDS, "fiffObffO", strict=True))


@pytest.mark.parametrize("line", ["1,2,3", "1", '"1,2"', '1,2"3,', ""])
def test_lines_of_another_length_are_refused_in_any_block(read: Callable[..., Records], line: str) -> None:
    text = "a,b\n" + "1,2\n" * 20
    if line:
        with pytest.raises(InputError, match=r"line 2[23]: . fields? where the first line has 2"):
            read(f"{text}{line}\n1,2\n")
    assert read(f"{text}\n1,2").num_records == 21
