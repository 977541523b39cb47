"""Tables as people have them, through the program: PLINK 2's ids, compression, codes of missing values, in any model."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import sys
from pathlib import Path

import pandas as pd

from tests.e2e.data import Cohort, write_lines
from tests.e2e.programs import environment, fit

SAME = ("parameters", "components", "loglik", "lrt", "fixed_effects", "dropped", "num_samples", "trait", "theta_covariance")


def test_greml_from_compressed_tables_of_iids_is_the_same_to_the_bit(cohort: Cohort, tmp_path: Path) -> None:
    qcovar, covar = cohort.folder / "numbers.qcovar", cohort.folder / "factors.covar"
    plain = fit("inside", tmp_path / "plain", *cohort.data(), f"data.qcovar={qcovar}", f"data.covar={covar}")
    assert plain.exit_code == 0, plain.errors
    traits = pd.read_csv(cohort.folder / "traits.phen", sep="\t", dtype=str).drop(columns="FID")
    (tmp_path / "traits.csv.gz").write_bytes(gzip.compress(traits.to_csv(index=False).encode()))
    (tmp_path / "numbers.xz").write_bytes(lzma.compress(qcovar.read_bytes().replace(b"FID\t", b"#FID\t")))
    factors = [line.partition("\t")[2].replace("\t", "\t0\t") for line in covar.read_text().splitlines()[1:]]
    (tmp_path / "factors.bz2").write_bytes(bz2.compress("\n".join(["#IID\tSID\tbatch", *factors]).encode()))
    tables = (f"data.qcovar={tmp_path / 'numbers.xz'}", f"data.covar={tmp_path / 'factors.bz2'}")
    packed = fit("inside", tmp_path / "packed", *cohort.data(), *tables, f"data.pheno={tmp_path / 'traits.csv.gz'}")
    assert packed.exit_code == 0, packed.errors
    assert [packed.result[key] for key in SAME] == [plain.result[key] for key in SAME]
    assert [effect["name"] for effect in packed.result["fixed_effects"]] == ["intercept", "age", "batch=b1", "batch=b2"]
    assert packed.output.count("has no family ids, so samples are matched by IID alone") == 2
    assert packed.hsq == plain.hsq


def test_records_with_a_code_of_missing_values(cohort: Cohort, tmp_path: Path) -> None:
    """What is missing by a number is said, and may be set; records are found by IID."""
    n = len(cohort.batch)
    table = pd.DataFrame({"id": [f"I{i}" for i in range(n)], "y": cohort.traits[:, 0], "age": cohort.age.astype(int)})
    table.loc[[3, 5], "age"] = -9
    path = tmp_path / "records.csv.gz"
    path.write_bytes(gzip.compress(table.to_csv(index=False, float_format="%.17g").encode()))
    grm = f"data.grm={cohort.folder / 'main.grm.zarr'}"
    model = ("model.fixed='y ~ 1 + age'", "+model.random.g='genomic(id)'")
    runs = {}
    for name, more in (("default", ()), ("kept", ("data.missing=[NA]",))):
        runs[name] = fit("inside", tmp_path / name, grm, f"data.table={path}", *model, *more)
        assert runs[name].exit_code == 0, runs[name].errors
    assert (runs["default"].result["num_samples"], runs["kept"].result["num_samples"]) == (n - 2, n)
    assert runs["default"].result["dropped"] == {"have no value of age": 2}
    assert "taken as missing: 2 values of age, by their code" in runs["default"].output
    assert "taken as missing" not in runs["kept"].output


def test_refusals_name_line_column_and_cause(cohort: Cohort, tmp_path: Path) -> None:
    n = len(cohort.batch)
    words = write_lines(tmp_path / "words.csv", ["id,y,x", *(f"I{i},{i % 7},{'<1' if i == 30 else i}" for i in range(n))])
    nothing = write_lines(tmp_path / "nothing.csv", ["id,y,x", *(f"I{i},NA,1" for i in range(n))])
    strangers = write_lines(tmp_path / "strangers.csv", ["id,y,x", *(f"{i}:F{i},{i % 7},{i}" for i in range(n))])
    cases = [
        (words, "words.csv, line 32, column x: '<1' is not a number"),
        (nothing, f"nothing.csv: column y has no value: all {n} records are missing"),
        (strangers, "Probable cause: the IIDs of one file are the FIDs of the other"),
    ]
    grm = f"data.grm={cohort.folder / 'main.grm.zarr'}"
    for path, message in cases:
        run = fit(
            "inside", tmp_path / path.stem, grm, f"data.table={path}", "model.fixed='y ~ x'", "+model.random.g='genomic(id)'"
        )
        assert run.exit_code == 2
        assert message in run.errors, run.errors
        assert "Traceback" not in run.errors


def test_greml_needs_neither_pandas_nor_formulaic(cohort: Cohort, tmp_path: Path) -> None:
    """They take a third of a second to import, and the model is described by what every other model is described by."""
    code = (
        "import sys\nfrom openreml_dist.config import DataConfig, FitConfig\n"
        "from openreml_dist.app.inputs.model import read_model\nfrom openreml_dist.grid import ProcessGrid\n"
        "from openreml_dist import MixedModel\n"
        "grm, pheno, qcovar, covar = sys.argv[1:]\n"
        "data = DataConfig(grm=grm, pheno=pheno, qcovar=qcovar, covar=covar)\n"
        "analysis = read_model(FitConfig(data=data), ProcessGrid.connect())\n"
        "assert isinstance(analysis.model, MixedModel), analysis\n"
        "print(*analysis.covariance.parameters, *sorted({'pandas', 'formulaic', 'scipy'} & set(sys.modules)))"
    )
    files = [str(cohort.folder / name) for name in ("main.grm.zarr", "traits.phen", "numbers.qcovar", "factors.covar")]
    run = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=False, env=environment())
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["main", "residual"]
