"""Phenotype and covariate tables: layouts, missing values, case/control coding, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openreml_dist.errors import InputError
from openreml_dist.store import tables_text
from openreml_dist.store.tables import read_discrete, read_phenotype, read_quantitative


@pytest.fixture
def table(tmp_path: Path):
    def write(text: str, name: str = "table.txt") -> str:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    ("text", "layout", "name"),
    [
        ("F1 I1 1.5\nF2  I2\t2.5\n", "white space, no header", "trait1"),
        ("F1\tI1\t1.5\t\nF2\tI2\t2.5\t\n", "white space, no header", "trait1"),
        ("FID IID height\nF1 I1 1.5\nF2 I2 2.5\n", "white space, header", "height"),
        ("#FID\tIID\theight\nF1\tI1\t1.5\nF2\tI2\t2.5\n", "tab-separated, header", "height"),
        ("#FID\tIID\tbody height\nF1\tI1\t1.5\nF2\tI2\t2.5\n", "tab-separated, header", "body height"),
        ("F1,I1,1.5\r\nF2,I2,2.5\r\n", "comma-separated, no header", "trait1"),
        ('\ufeff"fid", "iid", "a, b"\n"F1", "I1", 1.5\n\n"F2", "I2", 2.5\n', "comma-separated, header", "a, b"),
    ],
)
def test_layouts(table, text: str, layout: str, name: str) -> None:
    pheno = read_phenotype(table(text))
    assert (str(pheno.layout), pheno.name, pheno.column) == (layout, name, 1)
    assert pheno.family_id.tolist() == ["F1", "F2"]
    assert pheno.sample_id.tolist() == ["I1", "I2"]
    assert pheno.values.tolist() == [1.5, 2.5]


def test_column_by_number_or_name(table) -> None:
    text = "FID IID 2 bmi height\n1 1 10.5 20 30\n2 2 11 21 31\n"
    path = table(text)
    for column, first in ((3, 30.0), ("3", 30.0), ("bmi", 20.0), ("2", 10.5), (2, 10.5)):
        assert read_phenotype(path, column).values[0] == first
    for column in (0, 4, "-1", "weight", 1.5):
        with pytest.raises(InputError, match=r"no column .* has 3 .* 2, bmi, height"):
            read_phenotype(path, column)
    with pytest.raises(InputError, match="no header"):
        read_phenotype(table("1 1 5\n"), "bmi")


def test_missing_values_and_ids_that_look_like_them(table) -> None:
    pheno = read_phenotype(table("FID,IID,y\nNA,-9,1.5\n001,nan,NA\n01,1,-9\n1,1,nan\n2,1,NaN\n3,1,\n4,1,-9.0\n5,1,2\n"))
    assert np.isnan(pheno.values).tolist() == [False, True, True, True, True, True, True, False]
    assert pheno.family_id.tolist() == ["NA", "001", "01", "1", "2", "3", "4", "5"]
    assert pheno.sample_id.tolist()[:2] == ["-9", "nan"]


@pytest.mark.parametrize(
    ("values", "coding", "expected"),
    [
        (["0", "1", "NA"], "0/1", [0.0, 1.0, np.nan]),
        (["1", "2", "-9"], "1/2", [0.0, 1.0, np.nan]),
        (["0", "1", "2"], None, [0.0, 1.0, 2.0]),
        (["1", "1", "1"], None, [1.0, 1.0, 1.0]),
        (["1", "2.5", "2"], None, [1.0, 2.5, 2.0]),
    ],
)
def test_case_control_coding(table, values: list[str], coding: str | None, expected: list[float]) -> None:
    pheno = read_phenotype(table("".join(f"F I{i} {value}\n" for i, value in enumerate(values))))
    assert pheno.coding == coding
    np.testing.assert_array_equal(pheno.values, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("F1 I1 1\nF2 I2 tall\n", r"table.txt, line 2, sample F2:I2, column 1: 'tall' is not a number"),
        ("family person y\nF1 I1 1\n", r"line 1.*a header must begin with FID IID"),
        ("FID IID bmi\n\nF1 I1 1_000\n", r"line 3, sample F1:I1, column bmi: '1_000' is not a number"),
        ("F1 I1 1\nF2 I2 \u0663\n", r"line 2, sample F2:I2, column 1: '\u0663' is not a number"),
        ("F1 I1 1\nF2 I2 -inf\n", r"line 2, sample F2:I2.*infinite"),
        ("F1 I1 1e999\n", r"sample F1:I1.*infinite or too large"),
        ("F1 I1 1\n\nF2 I2\n", r"line 3: 2 fields where the first line has 3"),
        ("F1 I1 1\nF2 I2 1 2\n", r"line 2: 4 fields where the first line has 3"),
        ("FID,IID,y\nF1,I1,1\nF2,I2\n", r"line 3: 2 fields"),
        ("F1 I1 1\nF2 I1 1\nF1 I1 2\n", r"sample F1:I1 \(FID:IID\) is there twice"),
        ("FID IID y y\nF1 I1 1 2\n", r"column 'y' twice"),
        ("#IID y\nI1 1\nI2 2\nI1 2\n", r"sample I1 \(IID\) is there twice"),
        ("F1 1.5\n", r"first line has 2 field"),
        ("FID IID y\n", r"no samples"),
        ("\n \n", r"is empty"),
    ],
)
def test_refused(table, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_phenotype(table(text))


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"F1 I1 1\nM\xfcller I2 2\n")
    for name in ("absent.phen", "", "latin"):
        with pytest.raises(InputError, match="cannot read"):
            read_phenotype(str(tmp_path / name))


def test_quantitative_covariates(table) -> None:
    qcovar = read_quantitative(table("F1 I1 50 -9\nF2 I2 60.25 0.1\n"))
    assert qcovar.names == ("qcovar1", "qcovar2")
    np.testing.assert_array_equal(qcovar.values, [[50.0, np.nan], [60.25, 0.1]])
    assert read_quantitative(table("FID IID age PC1\nF1 I1 50 1\n")).names == ("age", "PC1")
    with pytest.raises(InputError, match=r"sample F2:I2, column 2: 'x'"):
        read_quantitative(table("F1 I1 1 1\nF2 I2 1 x\n"))


def test_discrete_levels_are_text_sorted_as_numbers_where_they_are(table) -> None:
    covar = read_discrete(table("F 1 10 b NA\nF 2 9 a x\nF 3 NA b y\nF 4 09 B x\n"))
    assert covar.names == ("covar1", "covar2", "covar3")
    assert covar.levels == (("09", "9", "10"), ("B", "a", "b"), ("x", "y"))
    assert covar.codes.tolist() == [[2, 2, -1], [1, 1, 0], [-1, 2, 1], [0, 0, 0]]


def test_blocks_make_no_difference(table, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table("".join(f"F I{i} {i % 7} {i / 3!r}\n" for i in range(50)))
    whole = read_discrete(path), read_quantitative(path)
    monkeypatch.setattr(tables_text, "BLOCK_LINES", 8)
    cut = read_discrete(path), read_quantitative(path)
    assert whole[0].levels == cut[0].levels
    np.testing.assert_array_equal(whole[0].codes, cut[0].codes)
    np.testing.assert_array_equal(whole[1].values, cut[1].values)
    assert cut[1].values[:, 1].tolist() == [i / 3 for i in range(50)]  # every digit is kept
