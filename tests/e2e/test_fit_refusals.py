"""Bad inputs and settings: each ends within seconds, on any number of ranks, with its cause and an exit code of its class."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openreml_dist
from tests.e2e.data import NUM_SAMPLES, Cohort, write_grm, write_lines
from tests.e2e.programs import Finished, fit, needs_mpi

PACKAGE = Path(openreml_dist.__file__).parent  # the checkout, and torch in its environment, may well have the same name
SECONDS = 60.0  # a refusal takes two to six on an idle machine


@dataclass(frozen=True)
class Refusal:
    """A row of the table below.

    Attributes:
        settings: on the command line behind those of a good run, {bad} being the folder of bad files.
        words: all are in the message.
        launched: how it is started, beside ``inside``, by default; in the other ways with ``-m slow``.
        exit_code: of a lone process and under mpirun.
        fine: how it may be started.
        before_run_dir: refused before there is a folder to write the result to.
    """

    name: str
    settings: str
    words: tuple[str, ...]
    launched: tuple[str, ...] = ()
    exit_code: int = 2
    fine: tuple[str, ...] = ()
    before_run_dir: bool = False

    def cases(self) -> list[Any]:
        """One for each launcher, those beyond ``launched`` marked slow."""
        made = []
        for launched in (name for name in ("inside", *LAUNCHERS) if name not in self.fine):
            marks = [needs_mpi] if launched == "mpirun" else []
            if launched not in ("inside", *self.launched):
                marks.append(pytest.mark.slow)
            made.append(pytest.param(self, launched, id=f"{self.name}-{launched}", marks=marks))
        return made


LAUNCHERS = ("alone", "torchrun", "mpirun")
ONE_RANK = ("inside", "alone")
RANKS = ("torchrun",)
BOTH = ("alone", "torchrun")  # what any user may bring: on one rank and on two
EARLY = {"before_run_dir": True}

REFUSALS = [
    Refusal("no pheno file", "data.pheno={bad}/none.phen", ("none.phen", "No such file"), LAUNCHERS),
    Refusal("no GRM store", "data.grm={bad}/none.grm.zarr", ("none.grm.zarr", "not found"), BOTH),
    Refusal("unfinished GRM", "data.grm={bad}/unfinished.grm.zarr", ("unfinished.grm.zarr", "not finished", "resume"), BOTH),
    Refusal("flipped byte", "data.grm={bad}/flipped.grm.zarr", ("flipped", "grm/c/3/1", "damaged", "checksum"), LAUNCHERS),
    Refusal("deleted chunk", "data.grm={bad}/deleted.grm.zarr", ("deleted.grm.zarr", "grm/c/2/0", "missing"), BOTH),
    Refusal("no common sample", "data.grm={bad}/strangers.grm.zarr", ("no sample", "XF0:XI0", "traits.phen: F", "cause"), BOTH),
    Refusal("constant phenotype", "data.pheno={bad}/constant.phen", ("constant.phen", "constant", "all 120", "3.5"), BOTH),
    Refusal(
        "phenotype of words", "data.pheno={bad}/words.phen", ("words.phen, line 5", "F3:I3", "'tall'", "not a number"), BOTH
    ),
    Refusal("infinite phenotype", "data.pheno={bad}/infinite.phen", ("infinite.phen, line 5", "F3:I3", "infinite"), BOTH),
    Refusal("no such column", "data.pheno_column=height", ("no column 'height'", "quantitative, disease, unrelated")),
    Refusal("no column at all", "data.pheno_column=null", ("data.pheno_column: None", "the number or the name"), **EARLY),
    Refusal("an empty list of columns", "data.pheno_column=[]", ("data.pheno_column: []", "or a list of them"), **EARLY),
    Refusal("infinite covariate", "data.qcovar={bad}/infinite.phen", ("infinite.phen, line 5", "F3:I3", "infinite"), BOTH),
    Refusal("collinear covariates", "data.qcovar={bad}/twice.qcovar", ("collinear", "double is a combination of age"), BOTH),
    Refusal(
        "many effects", "data.pheno={bad}/few.phen data.qcovar={bad}/wide.qcovar", ("9 fixed effects for 8 analysed",), BOTH
    ),
    Refusal("not case/control", "model.prevalence=0.1", ("model.prevalence", "quantitative", "case/control")),
    Refusal("prevalence above 1", "model.prevalence=10", ("model.prevalence", "proportion"), **EARLY),
    Refusal("same GRM twice", "data.grm=[{good},{good}]", ("data.grm", "must differ", "main"), **EARLY),
    Refusal("GRM is a number", "data.grm=5", ("data.grm: 5", "a GRM store or a list"), **EARLY),
    Refusal("not definite", "solver.constrain=false solver.start=[-1,0.1]", ("not positive definite", "start"), LAUNCHERS, 4),
    Refusal("start of words", "solver.start=[a,b]", ("solver.start", "list of values")),
    Refusal("unknown start", "solver.start=guess", ("solver.start", "'guess'", "haseman-elston"), RANKS),
    Refusal("start of other length", "solver.start=[1,1,1]", ("solver.start", "3 variances", "main, residual")),
    Refusal("start not finite", "solver.start=[nan,1]", ("solver.start", "not finite")),
    Refusal("start out of bounds", "solver.start=[-0.1,1]", ("start", "main", "-0.1", "bound 0")),
    Refusal("too few tiles", "solver.tile_size=500", ("tile_size=500", "rank 1", "without a tile"), RANKS, fine=ONE_RANK),
    Refusal("tile size of zero", "solver.tile_size=0", ("solver.tile_size: 0",), **EARLY),
    Refusal("grid of other size", "grid.rows=3", ("grid: 3 x", "ranks, but"), ("mpirun",), **EARLY),
    Refusal("negative iterations", "solver.max_iter=-1", ("solver.max_iter: -1",), **EARLY),
    Refusal("no threads", "launcher.threads=0", ("launcher.threads: 0",), **EARLY),
    Refusal("mpi without mpirun", "launcher.name=mpi", ("name=mpi", "not started by it"), fine=("mpirun",), **EARLY),
    Refusal("unknown launcher", "launcher.name=ssh", ("launcher.name", "'ssh'", "torchrun"), **EARLY),
    Refusal("unknown device", "launcher.device=tpu", ("launcher.device", "'tpu'", "cuda"), **EARLY),
    Refusal("unknown key", "solver.maxiter=3", ("maxiter", "openreml-fit --help"), BOTH, **EARLY),
    Refusal("wrong type", "solver.max_iter=many", ("solver.max_iter", "many", "Integer"), **EARLY),
    Refusal("unknown model", "model.name=gblup", ("model.name", "'gblup'", "greml"), **EARLY),
    Refusal(
        "GRM of no term",
        "model=repeated_records data.grm=[{good},{bad}/strangers.grm.zarr]",
        ("data.grm: strangers given, and nothing uses it", "no term of repeated_records"),
        BOTH,
        **EARLY,
    ),
    Refusal(
        "setting of no use",
        "solver=exact solver.start=equal solver.seed=7",
        ("solver.seed=7", "nothing reads it"),
        BOTH,
        **EARLY,
    ),
    Refusal("table of no term", "data.qcovar={bad}/twice.qcovar model.fixed=1", ("twice.qcovar given", "age, double"), BOTH),
    Refusal("setting of no use to a model", "model=bivariate data.pheno_column=[1,3] solver.seed=7", ("solver.seed=7",), BOTH),
    Refusal("run_dir is a file", "run_dir={bad}/few.phen", ("run_dir", "few.phen", "cannot be made"), RANKS, **EARLY),
    Refusal("run_dir below a file", "run_dir={bad}/few.phen/r", ("run_dir", "few.phen/r", "cannot be made"), **EARLY),
]


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort) -> Path:
    """A folder of files with something wrong."""
    folder = tmp_path_factory.mktemp("bad")
    everybody = np.arange(NUM_SAMPLES)
    write_grm(folder / "strangers.grm.zarr", cohort.main, everybody, prefix="X")
    write_grm(folder / "unfinished.grm.zarr", cohort.main, everybody, finish=False)
    for name in ("flipped", "deleted"):
        shutil.copytree(cohort.folder / "main.grm.zarr", folder / f"{name}.grm.zarr")
    chunk = folder / "flipped.grm.zarr/grm/c/3/1"
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)
    (folder / "deleted.grm.zarr/grm/c/2/0").unlink()

    values = [f"{value:.6g}" for value in cohort.traits[:, 0]]
    for name, wrong in (("words", "tall"), ("infinite", "inf")):
        _table(folder / f"{name}.phen", "height", [*values[:3], wrong, *values[4:]])
    _table(folder / "constant.phen", "height", ["3.5"] * NUM_SAMPLES)
    _table(folder / "few.phen", "height", values[:8])
    _table(folder / "wide.qcovar", " ".join(f"c{k}" for k in range(8)), [" ".join(map(str, row)) for row in np.eye(8)])
    _table(folder / "twice.qcovar", "age double", [f"{age:.0f} {2 * age:.0f}" for age in cohort.age])
    return folder


def _table(path: Path, names: str, rows: list[str]) -> None:
    write_lines(path, [f"FID IID {names}", *(f"F{i} I{i} {row}" for i, row in enumerate(rows))])


def assert_refused(run: Finished, launched: str, refusal: Refusal) -> None:
    expected = 1 if launched == "torchrun" else refusal.exit_code  # torchrun knows one exit code alone
    assert run.exit_code == expected, run.errors
    message = _own_message(run.errors)
    assert [word for word in refusal.words if word not in message] == [], run.errors
    assert run.seconds < SECONDS
    if launched in ONE_RANK:
        assert "Traceback" not in run.errors
    assert f"{PACKAGE}/" not in _tracebacks(run.errors), run.errors
    if not refusal.before_run_dir:
        assert run.result["status"] == "failed"
        assert run.result["exit_code"] == refusal.exit_code
        assert run.result["message"] in message


def _own_message(errors: str) -> str:
    """What stands behind ``openreml-fit: error:``, which must be there once, whatever the number of ranks."""
    assert errors.count("openreml-fit: error: ") == 1, errors
    return errors.partition("openreml-fit: error: ")[2]


def _tracebacks(errors: str) -> str:
    """Lines that name a source file: torchrun prints a traceback of its own."""
    return "\n".join(line for line in errors.splitlines() if line.lstrip().startswith("File "))


@pytest.mark.parametrize(("refusal", "launched"), [case for refusal in REFUSALS for case in refusal.cases()])
def test_refused(refusal: Refusal, launched: str, cohort: Cohort, bad: Path, tmp_path: Path) -> None:
    settings = refusal.settings.format(bad=bad, good=cohort.folder / "main.grm.zarr").split()
    assert_refused(fit(launched, tmp_path / "run", *cohort.data(), *settings), launched, refusal)


def test_a_finished_result_is_kept(cohort: Cohort, tmp_path: Path) -> None:
    """The same folder is refused a second time and its files stay, unless it may be overwritten."""
    first = fit("inside", tmp_path / "run", *cohort.data())
    assert first.exit_code == 0, first.errors
    before = {path.name: path.read_bytes() for path in first.run_dir.iterdir()}
    for launched, exit_code in (("inside", 2), ("torchrun", 1)):
        again = fit(launched, tmp_path / "run", *cohort.data())
        assert again.exit_code == exit_code
        assert "holds a finished result" in again.errors
        assert "overwrite=true" in again.errors
        assert {path.name: path.read_bytes() for path in first.run_dir.iterdir()} == before
    replaced = fit("inside", tmp_path / "run", *cohort.data(trait="disease"), "overwrite=true")
    assert replaced.exit_code == 0, replaced.errors
    assert replaced.result["trait"] == "disease"


def test_a_failed_run_leaves_nothing_of_the_one_before(cohort: Cohort, bad: Path, tmp_path: Path) -> None:
    """Neither tables nor pictures nor predictions of the first fit stay beside a result.json that says failed."""
    first = fit("torchrun", tmp_path / "run", *cohort.data(), "output.blup=true", "output.fixed_in_hsq=true")
    assert first.exit_code == 0, first.errors
    names = {path.name for path in first.run_dir.iterdir()}
    assert {"result.hsq", "convergence.png", "blup.tsv", "result.indi.blp", "config.yaml", "rank-1.log"} <= names
    again = fit("inside", tmp_path / "run", *cohort.data(), f"data.grm={bad}/strangers.grm.zarr", "overwrite=true")
    assert again.exit_code == 2
    assert again.result["status"] == "failed"
    assert {path.name for path in again.run_dir.iterdir()} == {"result.json", "heartbeat.json", "rank-0.log"}
    assert "no sample" in (again.run_dir / "rank-0.log").read_text()
    assert "converged" not in (again.run_dir / "rank-0.log").read_text()


def test_a_likelihood_ratio_of_zero_has_one_p(cohort: Cohort, tmp_path: Path) -> None:
    """½ on the terminal, in result.json and in result.hsq."""
    run = fit("inside", tmp_path / "run", *cohort.data(trait="unrelated"))
    assert run.exit_code == 0, run.errors
    assert run.result["lrt"] == pytest.approx(0.0, abs=1e-9)
    assert run.result["pvalue"] == pytest.approx(0.5, abs=1e-4)
    assert "Pval\t5.0000e-01" in run.hsq
    assert "p = 0.5 (" in run.output


def test_a_failed_result_is_replaced(cohort: Cohort, tmp_path: Path) -> None:
    """A run that failed may be started again in the same folder, with no word about overwriting."""
    failed = fit("inside", tmp_path / "run", *cohort.data(), "data.pheno=none.phen")
    assert failed.exit_code == 2
    again = fit("inside", tmp_path / "run", *cohort.data())
    assert again.exit_code == 0, again.errors
    assert again.result["status"] == "converged"
