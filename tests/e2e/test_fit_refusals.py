"""Bad inputs and settings: each ends within seconds, on any number of ranks, with its cause and an exit code of its class."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.data import NUM_SAMPLES, Cohort, write_grm, write_lines
from tests.e2e.programs import Finished, fit, launcher

SECONDS = 60.0  # a refusal takes two to six on an idle machine


@dataclass(frozen=True)
class Refusal:
    """A row of the table below.

    Attributes:
        settings: on the command line, {bad} being the folder of bad files; they follow those of a good run and override them.
        words: all are in the message.
        exit_code: of a lone process.
        ranks: it also is refused on several.
        before_run_dir: refused before there is a folder to write the result to.
    """

    name: str
    settings: str
    words: tuple[str, ...]
    exit_code: int = 2
    ranks: bool = True
    before_run_dir: bool = False


REFUSALS = [
    Refusal("no pheno file", "data.pheno={bad}/none.phen", ("none.phen", "No such file")),
    Refusal("no GRM store", "data.grm={bad}/none.grm.zarr", ("none.grm.zarr", "not found")),
    Refusal("unfinished GRM", "data.grm={bad}/unfinished.grm.zarr", ("unfinished.grm.zarr", "not finished", "resume")),
    Refusal("flipped byte", "data.grm={bad}/flipped.grm.zarr", ("flipped.grm.zarr", "chunk grm/c/3/1", "damaged", "checksum")),
    Refusal("deleted chunk", "data.grm={bad}/deleted.grm.zarr", ("deleted.grm.zarr", "chunk grm/c/2/0", "missing")),
    Refusal("no common sample", "data.grm={bad}/strangers.grm.zarr", ("no sample", "XF0:XI0", "Probable cause", "traits.phen:")),
    Refusal("constant phenotype", "data.pheno={bad}/constant.phen", ("constant.phen", "is constant", "all 120 analysed", "3.5")),
    Refusal("phenotype of words", "data.pheno={bad}/words.phen", ("words.phen, line 5", "F3:I3", "'tall'", "not a number")),
    Refusal("infinite phenotype", "data.pheno={bad}/infinite.phen", ("infinite.phen, line 5", "F3:I3", "infinite")),
    Refusal("no such column", "data.pheno_column=height", ("no column 'height'", "quantitative, disease, unrelated")),
    Refusal("infinite covariate", "data.qcovar={bad}/infinite.phen", ("infinite.phen, line 5", "F3:I3", "infinite")),
    Refusal("collinear covariates", "data.qcovar={bad}/twice.qcovar", ("collinear", "double is a combination of age")),
    Refusal("too many effects", "data.pheno={bad}/few.phen data.qcovar={bad}/wide.qcovar", ("9 fixed effects for 8 analysed",)),
    Refusal("not case/control", "model.prevalence=0.1", ("model.prevalence", "quantitative", "case/control")),
    Refusal("same GRM twice", "data.grm=[{good}/main.grm.zarr,{good}/main.grm.zarr]", ("data.grm", "must differ", "main")),
    Refusal("indefinite start", "solver.constrain=false solver.start=[-1,0.1]", ("not positive definite", "start"), exit_code=4),
    Refusal("start of words", "solver.start=[a,b]", ("solver.start", "list of variances")),
    Refusal("unknown start", "solver.start=guess", ("solver.start", "'guess'", "haseman-elston")),
    Refusal("start too long", "solver.start=[1,1,1]", ("solver.start", "main, residual", "3")),
    Refusal("start not finite", "solver.start=[nan,1]", ("solver.start", "finite")),
    Refusal("start out of bounds", "solver.start=[-0.1,1]", ("main", "-0.1", "bound 0")),
    Refusal("no tile for a rank", "solver.tile_size=1000 grid.columns=2", ("tile_size=1000", "rank 1", "without a tile", "at most"), exit_code=0),
    Refusal("tile size of zero", "solver.tile_size=0", ("solver.tile_size", "at least 1")),
    Refusal("grid of other size", "grid.rows=3", ("grid", "3 x", "set grid.rows"), before_run_dir=True),
    Refusal("no iterations", "solver.max_iter=-1", ("solver.max_iter",)),
    Refusal("other launcher", "launcher.name=slurm", ("launcher.name=slurm", "not started by it"), before_run_dir=True),
    Refusal("unknown launcher", "launcher.name=ssh", ("launcher.name", "'ssh'", "torchrun"), before_run_dir=True),
    Refusal("unknown device", "launcher.device=tpu", ("launcher.device", "'tpu'", "cuda"), before_run_dir=True),
    Refusal("unknown key", "solver.maxiter=3", ("maxiter", "--help"), before_run_dir=True),
    Refusal("wrong type", "solver.max_iter=many", ("max_iter", "many"), before_run_dir=True),
    Refusal("run_dir is a file", "run_dir={bad}/few.phen", ("run_dir", "few.phen", "cannot be made"), before_run_dir=True),
    Refusal("run_dir below a file", "run_dir={bad}/few.phen/r", ("run_dir", "few.phen/r", "cannot be made"), before_run_dir=True),
]
