"""The analysed samples: intersection, order, counts of what is left out, the design matrix, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from openreml_dist.app.inputs.fixed_columns import MAX_LEVELS
from openreml_dist.app.inputs.samples import read_inputs
from openreml_dist.collinear import find_collinear
from openreml_dist.config import DataConfig
from openreml_dist.errors import InputError


@dataclass(frozen=True)
class Grm:
    family_id: list[str]
    sample_id: list[str]
    path: str = "all.grm.zarr"
    matches_iid_alone: bool = False


def grm_of(numbers, **settings) -> Grm:
    return Grm([f"F{i}" for i in numbers], [f"I{i}" for i in numbers], **settings)


@pytest.fixture
def files(tmp_path: Path):
    def write(**texts: str) -> DataConfig:
        paths = {}
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
            paths[name] = str(tmp_path / name)
        return DataConfig(grm="all.grm.zarr", **paths)

    return write


def lines(numbers, *columns) -> str:
    return "".join(f"F{i} I{i} {' '.join(str(column(i)) for column in columns)}\n" for i in numbers)


def constant(value: float):
    return lambda _: value


def square(i: int) -> float:
    return i * i / 4


def test_intersection_in_the_order_of_the_first_grm(files) -> None:
    data = files(
        pheno=lines(range(12), lambda i: "NA" if i == 3 else square(i)),
        qcovar="FID IID age\n" + lines(range(1, 20), lambda i: "-9" if i == 4 else 100 / (1 + i)),
        covar=lines(range(19, -1, -1), lambda i: "NA" if i == 5 else i % 3),
    )
    grms = [grm_of([11, 9, 30, 7, 8, 6, 5, 4, 3, 2, 1, 0, 31]), grm_of([*range(9), 9, 40], path="second.grm.zarr")]
    inputs = read_inputs(data, grms)
    order = [9, 7, 8, 6, 2, 1]
    assert inputs.sample_id.tolist() == [f"I{i}" for i in order]
    assert inputs.family_id.tolist() == [f"F{i}" for i in order]
    assert inputs.y.tolist() == [square(i) for i in order]
    assert inputs.fixed_names == ("intercept", "age", "covar1=1", "covar1=2")
    assert inputs.fixed_terms == ("intercept", "age", "covar1", "covar1")
    np.testing.assert_array_equal(inputs.X, [[1, 100 / (1 + i), i % 3 == 1, i % 3 == 2] for i in order])
    for grm, rows in zip(grms, inputs.grm_rows, strict=True):
        assert rows.dtype == np.int64
        assert [grm.sample_id[row] for row in rows] == inputs.sample_id.tolist()
    assert inputs.dropped == {
        "not_in_pheno": 2,  # 30, 31
        "not_in_grm_1": 1,  # 10
        "pheno_missing": 1,  # 3
        "not_in_grm_2": 1,  # 11
        "not_in_qcovar": 1,  # 0
        "qcovar_missing": 1,  # 4
        "not_in_covar": 0,
        "covar_missing": 1,  # 5
    }
    report = "\n".join(inputs.report)
    for words in ("white space, header", "1 are not in second.grm.zarr", "2 of all.grm.zarr are not in", "analysed: 6 samples"):
        assert words in report
    assert (inputs.trait, inputs.case_control, inputs.num_cases) == ("trait1", False, 0)


def test_case_control(files) -> None:
    inputs = read_inputs(files(pheno=lines(range(10), lambda i: 2 if i < 4 else 1)), [grm_of(range(1, 10))])
    assert (inputs.case_control, inputs.num_cases) == (True, 3)
    assert inputs.y.tolist() == [1.0] * 3 + [0.0] * 6
    assert "1 and 2 alone, so it is case/control: 4 cases, 6 controls" in "\n".join(inputs.report)
    with pytest.raises(InputError, match=r"constant: all 6 analysed samples are controls \(4 samples were left out\)"):
        read_inputs(files(pheno=lines(range(10), lambda i: 2 if i < 4 else 1)), [grm_of(range(4, 10))])


def test_zero_one_two_is_taken_as_numbers_and_said(files) -> None:
    inputs = read_inputs(files(pheno=lines(range(9), lambda i: i % 3)), [grm_of(range(9))])
    assert not inputs.case_control
    assert any("if 0 stands for missing" in line for line in inputs.report)


def test_matching_by_iid_alone(files) -> None:
    pheno = lines(range(8), square)
    inputs = read_inputs(files(pheno=pheno), [Grm([], [f"I{i}" for i in (5, 3, 1, 0)], matches_iid_alone=True)])
    assert inputs.sample_id.tolist() == ["I5", "I3", "I1", "I0"]
    assert inputs.family_id.tolist() == ["F5", "F3", "F1", "F0"]
    assert any("matched by IID alone" in line for line in inputs.report)
    with pytest.raises(InputError, match=r"all.grm.zarr: sample I1 is there twice.*no family ids"):
        read_inputs(files(pheno=pheno), [Grm([], ["I1", "I0", "I1"], matches_iid_alone=True)])
    with pytest.raises(InputError, match=r"pheno: sample I1 is there twice.*IID alone"):
        read_inputs(files(pheno=pheno + "other I1 3\n"), [Grm([], ["I1", "I0"], matches_iid_alone=True)])


def test_tables_without_family_ids_are_matched_by_iid_alone(files) -> None:
    def alone(numbers, column) -> str:
        return "#IID\tSID\tvalue\n" + "".join(f"I{i}\t0\t{column(i)}\n" for i in numbers)

    grm = grm_of([5, 3, 1, 0])
    by_both = read_inputs(files(pheno=lines(range(8), square), qcovar=lines(range(1, 9), lambda i: i % 3)), [grm])
    by_iid = read_inputs(files(pheno=alone(range(8), square), qcovar=alone(range(1, 9), lambda i: i % 3)), [grm])
    for inputs in (by_both, by_iid):
        assert inputs.sample_id.tolist() == ["I5", "I3", "I1"]
        assert inputs.family_id.tolist() == ["F5", "F3", "F1"]  # of the GRM where the phenotypes have none
    np.testing.assert_array_equal(by_both.X, by_iid.X)
    assert by_both.dropped == by_iid.dropped
    assert [line.endswith("has no family ids, so samples are matched by IID alone") for line in by_iid.report[:3]] == [
        True,
        True,
        False,
    ]
    mixed = read_inputs(files(pheno=lines(range(8), square), covar=alone(range(1, 9), lambda i: f"b{i % 2}")), [grm])
    assert mixed.dropped["not_in_covar"] == 1 and mixed.fixed_names == ("intercept",)
    neither = read_inputs(files(pheno=alone(range(8), square)), [Grm([], ["I5", "I2"], matches_iid_alone=True)])
    assert neither.family_id.tolist() == ["0", "0"] and neither.y.tolist() == [square(5), square(2)]


def test_iids_that_tell_nobody_apart_are_refused_on_either_side(files) -> None:
    alone = "IID,y\nI1,1\nI2,2\nI3,4\n"
    with pytest.raises(InputError, match=r"all.grm.zarr: sample I1 is there twice; .*pheno has no family ids.*IID alone"):
        read_inputs(files(pheno=alone), [Grm(["a", "b", "b"], ["I1", "I1", "I2"])])
    twice = lines(range(1, 4), square) + "other I2 3\n"
    with pytest.raises(InputError, match=r"pheno: sample I2 is there twice; .*qcovar has no family ids"):
        read_inputs(files(pheno=twice, qcovar=alone), [grm_of(range(1, 4))])
    with pytest.raises(InputError, match=r"qcovar: sample I2 is there twice; .*pheno has no family ids"):
        read_inputs(files(pheno=alone, qcovar=twice), [grm_of(range(1, 4))])
    with pytest.raises(InputError, match=r"no sample of .*pheno is in all.grm.zarr(.|\n)*leading zeros"):
        read_inputs(files(pheno="IID,y\n" + alone.partition("\n")[2].replace("I", "0I")), [grm_of(range(1, 4))])


def test_repeated_sample_in_a_grm(files) -> None:
    with pytest.raises(InputError, match=r"sample F1:I1 is there twice"):
        read_inputs(files(pheno=lines(range(5), square)), [grm_of([0, 1, 2, 1])])


@pytest.mark.parametrize(
    ("grm", "cause"),
    [
        (Grm(["I1", "I2"], ["F1", "F2"]), "FID and IID are swapped"),
        (Grm(["0", "0"], ["I1", "I2"]), "2 IIDs are common but their FIDs differ; every FID is 0 in all.grm.zarr"),
        (Grm(["a", "b"], ["I1", "I2"]), "2 IIDs are common but their FIDs differ. Give"),
        (Grm(["F1", "F2"], ["F1_I1", "F2_I2"]), "joined with an underscore"),
        (Grm(["I1", "I2"], ["I1", "x"]), "1 IIDs are common"),
        (Grm(["x", "y"], ["F1", "F2"]), "out of place"),
        (Grm(["x", "y"], ["0I1", "0I2"]), "leading zeros"),
        (Grm(["x", "y"], ["X", "Y"]), "different cohorts"),
        (Grm([], ["F1", "F2"], matches_iid_alone=True), "out of place"),
    ],
)
def test_no_common_sample_names_the_cause(files, grm: Grm, cause: str) -> None:
    with pytest.raises(InputError) as caught:
        read_inputs(files(pheno=lines(range(1, 6), square)), [grm])
    message = str(caught.value)
    assert cause in message
    assert "F1:I1, F2:I2, F3:I3, ..." in message
    assert grm.sample_id[0] in message.partition("Probable cause")[0]


def test_no_sample_with_all_data(files) -> None:
    data = files(pheno=lines(range(6), square), covar="F1 X1 a\nF2 X2 b\n")
    with pytest.raises(InputError, match=r"no sample of .*pheno is in .*covar"):
        read_inputs(data, [grm_of(range(6))])
    data = files(pheno=lines(range(6), lambda i: "NA" if i < 3 else i), qcovar=lines(range(3), square))
    with pytest.raises(InputError, match=r"no sample has all of its data:\n.*3 have no value of trait1.*\n.*3 are not in"):
        read_inputs(data, [grm_of(range(6))])


def test_constant_phenotype(files) -> None:
    with pytest.raises(InputError, match=r"phenotype trait1 is constant: all 4 analysed samples are 7"):
        read_inputs(files(pheno=lines(range(4), constant(7))), [grm_of(range(4))])


def test_fewer_samples_than_fixed_effects(files) -> None:
    data = files(pheno=lines(range(3), square), qcovar=lines(range(3), square, lambda i: i))
    with pytest.raises(InputError, match=r"3 fixed effects for 3 analysed samples"):
        read_inputs(data, [grm_of(range(3))])
    data = files(pheno=lines(range(9), square), covar="FID IID age\n" + lines(range(9), lambda i: i * 1.5))
    with pytest.raises(InputError, match=r"9 fixed effects for 9 .* levels of age: if .* data.qcovar"):
        read_inputs(data, [grm_of(range(9))])


def test_levels_are_those_of_the_analysed_samples(files) -> None:
    data = files(
        pheno=lines(range(10), square),
        covar="FID IID site sex\n" + lines(range(10), lambda i: "a" if i < 3 else "bc"[i % 2], lambda i: 1 if i < 9 else 2),
    )
    inputs = read_inputs(data, [grm_of(range(3, 9))])
    assert inputs.fixed_names == ("intercept", "site=c")
    assert "covariate sex: 1 levels, only sex=1, so no column" in inputs.report


def test_a_covariate_of_both_tables(files) -> None:
    data = files(
        pheno=lines(range(9), square),
        qcovar="FID IID age\n" + lines(range(9), lambda i: i**3),
        covar="FID IID sex age\n" + lines(range(9), lambda i: i % 2, lambda i: i % 3),
    )
    with pytest.raises(InputError, match=r"there is a column 'age' in .*qcovar.* already"):
        read_inputs(data, [grm_of(range(9))])


def test_very_many_levels(files) -> None:
    many = range(MAX_LEVELS + 1)
    data = files(pheno=lines(many, square), covar="FID IID age\n" + lines(many, lambda i: i))
    with pytest.raises(InputError, match=r"age has 2,001 levels.*data.qcovar"):
        read_inputs(data, [grm_of(many)])


def test_collinear_covariates_are_named(files) -> None:
    header = "FID IID one age months zero pc\n"
    qcovar = header + lines(
        range(20), constant(3), lambda i: 20 + i * i % 37, lambda i: 12 * (20 + i * i % 37) + 5, constant(0), square
    )
    covar = "FID IID batch site\n" + lines(range(20), lambda i: i % 3, lambda i: "xyy"[i % 3])
    with pytest.raises(InputError) as caught:
        read_inputs(files(pheno=lines(range(20), square), qcovar=qcovar, covar=covar), [grm_of(range(20))])
    assert str(caught.value).splitlines()[1:] == [
        "  one is constant, a multiple of the intercept",
        "  months is a combination of intercept, age",
        "  zero is zero for every analysed sample",
        "  site=y is a combination of batch=1, batch=2",
    ]


def test_scales_do_not_make_columns_collinear() -> None:
    rng = np.random.default_rng(5)
    X = np.column_stack([np.ones(200), 1e9 * rng.standard_normal(200), 1e-9 * rng.standard_normal(200), 1950 + rng.random(200)])
    assert find_collinear(X) == {}
    assert find_collinear(np.column_stack([X, X[:, 1] - 1e18 * X[:, 2]])) == {4: [1, 2]}


def test_torch_is_not_imported() -> None:
    code = "import sys, openreml_dist.app.inputs.samples; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numbers_with_a_point_beside_whole_ones_are_named(files) -> None:
    data = files(pheno="".join(f"{i}.0 {i}.0 {i * i}\n" for i in range(3, 12)))
    numbers = [str(i) for i in range(3, 12)]
    with pytest.raises(InputError, match=r"Probable cause: numbers are written in two ways: 3.0 in .*pheno, 3 in all.grm.zarr"):
        read_inputs(data, [Grm(numbers, numbers)])


def test_some_numbers_written_otherwise_are_named(files) -> None:
    numbers = [str(i) for i in range(1, 13)]
    written = ["1.0", "2.", "3e0", "04", *numbers[4:]]
    grm = Grm(numbers, numbers)
    tables = {"pheno": "".join(f"{i} {i} {k * k}\n" for k, i in enumerate(written))}
    inputs = read_inputs(files(**tables), [grm])
    assert len(inputs.y) == 8 and inputs.dropped["not_in_grm_1"] == 4
    (warning,) = [line for line in inputs.report if line.startswith("warning")]
    assert warning.startswith("warning: 4 ids are written in two ways, and so not matched, such as 1.0:1.0 in ")
    assert warning.endswith("and 1:1 in all.grm.zarr; write both alike")
    tables = {"pheno": "".join(f"{i} {i} {k * k}\n" for k, i in enumerate(numbers)), "qcovar": tables["pheno"]}
    inputs = read_inputs(files(**tables), [grm])
    assert inputs.dropped["not_in_qcovar"] == 4
    assert any(line.startswith("warning: 4 ids") and "such as 1:1 in " in line for line in inputs.report)
    with pytest.raises(InputError, match=r"no sample has all of its data:(.|\n)*warning: 3 ids are written"):
        read_inputs(files(pheno="1.0 1.0 3\n2. 2. 4\n03 03 4\n4 4 NA\n5 5 NA\n"), [grm])


def test_levels_that_are_one_number_are_named(files) -> None:
    data = files(
        pheno=lines(range(9), square),
        covar="FID IID batch\n" + lines(range(9), lambda i: ["1", "1.0", "2"][i % 3]),
    )
    inputs = read_inputs(data, [grm_of(range(9))])
    assert len(inputs.fixed_names) == 3
    assert any("column batch: 1 and 1.0 may be one label written in two ways" in line for line in inputs.report)


@pytest.mark.parametrize("spelling", ["\u200b{0}", "{0}\u2060", "\uff29{1}", "i{1}", "'{0}'", "0{0}", "{0}\u00ad"])
def test_ids_in_another_spelling_are_named(files, spelling: str) -> None:
    names = [spelling.format(f"I{i}", i) if i % 2 else f"I{i}" for i in range(12)]
    data = files(pheno="FID,IID,y\n" + "".join(f"F{i},{name},{i * i}\n" for i, name in enumerate(names)))
    inputs = read_inputs(data, [grm_of(range(12))])
    assert len(inputs.y) == 6
    (warning,) = [line for line in inputs.report if line.startswith("warning")]
    assert "6 ids are written in two ways" in warning and "and F1:I1 in all.grm.zarr" in warning and warning.isascii()
