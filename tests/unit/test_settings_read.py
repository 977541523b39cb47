"""Whatever is given is read, or refused by name: every setting with every model.

A setting counts as read where the program asks for it: its settings are replaced by ones that note what is asked of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from openreml_dist.app import fit as program
from openreml_dist.app import grm, launch, plan, prepare
from openreml_dist.app.checkpoint import identity_of
from openreml_dist.app.cli import config_directory
from openreml_dist.app.given import given, names_of, refuse_unread, rules_for, standard_fit
from openreml_dist.app.inputs.checks import check_settings
from openreml_dist.app.inputs.reads import refuse_unread_by
from openreml_dist.app.report.hsq import hsq
from openreml_dist.config import DaskConfig, FitConfig, GrmConfig, PlanConfig, PrepareConfig
from openreml_dist.errors import ConfigError, InputError
from tests.e2e.data import write_grm, write_lines
from tests.helpers.genotypes import random_dosage, write_bed

NUM = 40  # individuals; of each two records in the table

OF_GENOTYPES = "genotypes"
BASES = {  # settings of a run of each model, and of one of genotypes; {d} is the folder of the files
    "greml": ["data.grm={d}/k.grm.zarr", "data.pheno={d}/y.phen"],
    "greml_multi": ["data.grm=[{d}/k.grm.zarr,{d}/part.grm.zarr]", "data.pheno={d}/y.phen"],
    "bivariate": ["data.grm={d}/k.grm.zarr", "data.pheno={d}/y.phen", "data.pheno_column=[height,girth]"],
    "gxe": [
        "data.grm={d}/k.grm.zarr",
        "data.pheno={d}/y.phen",
        "data.covar={d}/place.covar",
        "model.columns.environment=place",
    ],
    "repeated_records": ["data.grm={d}/k.grm.zarr", "data.table={d}/records.csv", "model.fixed='y ~ 1'"],
    "random_regression": ["data.table={d}/records.csv", "model.columns.subject=id"],
    "spatial_ar1": ["data.table={d}/records.csv"],
    "animal_model": ["data.table={d}/records.csv", "data.pedigree={d}/pedigree.csv"],
    OF_GENOTYPES: ["data.genotypes={d}/g", "data.pheno={d}/y.phen"],
}
BASES = {name: [f"model={'greml' if name == OF_GENOTYPES else name}", *words] for name, words in BASES.items()}
OTHER = {  # of every setting a value that none of the runs above has
    "data.grm": ["data.grm=[{d}/k.grm.zarr,{d}/other.grm.zarr]"],
    "data.genotypes": ["data.genotypes={d}/h"],
    "data.pheno": ["data.pheno={d}/z.phen"],
    "data.pheno_column": ["data.pheno_column=2", "data.pheno_column=[girth,height]"],
    "data.qcovar": ["data.qcovar={d}/age.qcovar"],
    "data.covar": ["data.covar={d}/batch.covar"],
    "data.table": ["data.table={d}/other.csv"],
    "data.pedigree": ["data.pedigree={d}/other_pedigree.csv"],
    "data.missing": ["data.missing=[none]"],
    "model.name": ["model.name=my_own"],
    "model.prevalence": ["model.prevalence=0.1"],
    "model.columns": ["+model.columns.herd=herd"],
    "model.fixed": ["model.fixed='1'", "model.fixed='y ~ 1 + x'"],
    "model.traits": ["model.traits=[y,x]"],
    "model.random": ["+model.random.extra='group(place)'"],
    "model.residual": ["model.residual='independent()'"],
    "model.fix": ["+model.fix.residual=0.5"],
    "model.share": ["model.share=[[residual,k]]"],
    "model.transform": ["+model.transform.residual=log"],
    "model.partition": ["model.partition=chromosome", "model.partition={d}/parts"],
    "solver.engine": ["solver.engine=dense", "solver=stochastic"],
    "solver.tile_size": ["solver.tile_size=16"],
    "solver.constrain": ["solver.constrain=false"],
    "solver.start": ["solver.start=equal"],
    "solver.max_iter": ["solver.max_iter=7"],
    "solver.tolerance_theta": ["solver.tolerance_theta=1e-3"],
    "solver.tolerance_loglik": ["solver.tolerance_loglik=1e-3"],
    "solver.lrt": ["solver.lrt=false"],
    "solver.kernel_cache_gb": ["solver.kernel_cache_gb=0.5"],
    "solver.traces": ["solver.traces=exact", "solver.traces=hutchinson"],
    "solver.num_probes": ["solver.num_probes=8", "solver=exact solver.start=equal solver.num_probes=8"],
    "solver.seed": ["solver.seed=2"],
    "solver.mcse": ["solver.mcse=0.02"],
    "grid.rows": ["grid.rows=1"],
    "grid.columns": ["grid.columns=1"],
    "grid.share_memory": ["grid.share_memory=false"],
    "launcher.name": ["launcher.name=single"],
    "launcher.device": ["launcher.device=cpu"],
    "launcher.threads": ["launcher.threads=1"],
    "launcher.timeout_seconds": ["launcher.timeout_seconds=50"],
    "launcher.grace_seconds": ["launcher.grace_seconds=5"],
    "launcher.profile": ["launcher.profile=1"],
    "launcher.heartbeat_seconds": ["launcher.heartbeat_seconds=1"],
    "output.blup": ["output.blup=true"],
    "output.pev": ["output.pev=true"],
    "output.format": ["output.format=parquet", "output.format=parquet output.blup=true"],
    "output.fixed_tests": ["output.fixed_tests=true"],
    "output.fixed_in_hsq": ["output.fixed_in_hsq=true"],
    "output.snp_effects": ["output.snp_effects={d}/none.vcz"],
    "run_dir": ["run_dir={d}/another"],
    "resume": ["resume=never"],
    "overwrite": ["overwrite=true"],
}
AFTER_THE_FIT = ("solver.lrt", "model.prevalence", "output.blup", "output.format", "output.fixed_tests", "output.fixed_in_hsq")
READ_BY_THE_CHECKS = ("solver.engine",)  # which the data must fit


class FitBeginsError(Exception):
    """Raised where the iteration would begin: everything that a fit needs is read by then."""


def noting(settings: Any, asked: set[str], name: str = "") -> Any:
    """A copy of settings that adds the dotted name of every value that is asked for."""
    schema: Any = type(settings)

    class Noting(schema):
        def __getattribute__(self, key: str) -> Any:
            value = object.__getattribute__(self, key)
            if key in schema.__dataclass_fields__ and not dataclasses.is_dataclass(value):
                asked.add(f"{name}{key}")
            return value

    copy = object.__new__(Noting)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        copy.__dict__[field.name] = noting(value, asked, f"{name}{field.name}.") if dataclasses.is_dataclass(value) else value
    return copy


def composed(settings: list[str], folder: Path) -> FitConfig:
    """As the program has its settings from the command line."""
    ConfigStore.instance().store(name="fit_schema", node=FitConfig)
    words = [word for setting in settings for word in _words(setting.format(d=folder))]
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = compose("fit", words)
    made: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(FitConfig), config))
    return made


def _words(setting: str) -> list[str]:
    return setting.split() if "'" not in setting else [setting]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that every model can be fitted to."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(4)
    for name in ("k", "part", "other"):
        Z = rng.normal(size=(NUM, 60))
        write_grm(folder / f"{name}.grm.zarr", Z @ Z.T / 60, np.arange(NUM))
    people = [f"F{i} I{i}" for i in range(NUM)]
    for name in ("y", "z"):
        rows = [
            f"{who} {a:.6f} {b:.6f} {c}" for who, (a, b), c in zip(people, rng.normal(size=(NUM, 2)), [0, 1] * 20, strict=True)
        ]
        write_lines(folder / f"{name}.phen", ["FID IID height girth ill", *rows])
    write_lines(folder / "age.qcovar", ["FID IID age", *(f"{who} {rng.uniform(20, 60):.3f}" for who in people)])
    for name, levels in (("place", 2), ("batch", 3)):
        lines = [f"{who} {name[0]}{i % levels}" for i, who in enumerate(people)]
        write_lines(folder / f"{name}.covar", [f"FID IID {name}", *lines])
    for name in ("records", "other"):
        lines = [
            f"F{i % NUM}:I{i % NUM},{rng.normal():.6f},{rng.normal():.6f},{i // NUM},{i // 8},{i % 8},p{i % 3},h{i % 4}"
            for i in range(2 * NUM)
        ]
        write_lines(folder / f"{name}.csv", ["id,y,x,time,row,column,place,herd", *lines])
    for seed, name in enumerate("gh"):
        write_bed(folder / name, random_dosage(30, NUM, seed=seed), [str(1 + s // 15) for s in range(30)])
    write_lines(folder / "parts", ["SNP component", *(f"rs{s} part{s % 2}" for s in range(30))])
    for name in ("pedigree", "other_pedigree"):
        parents = [
            f"F{i}:I{i},{f'F{i - 9}:I{i - 9}' if i > 9 else 0},{f'F{i - 8}:I{i - 8}' if i > 9 else 0}" for i in range(NUM)
        ]
        write_lines(folder / f"{name}.csv", ["id,sire,dam", *parents])
    return folder


@dataclass
class Asked:
    """What a run asked for, and the error that it ended with, if any."""

    names: set[str]
    error: InputError | None = None


def run(settings: FitConfig, to_the_end: bool = False) -> Asked:
    """A run up to the iteration, or to the end but for what is written there.

    The checks, which compare settings with their standards, and the checkpoint, which compares them with those of an earlier
    run, have settings that note nothing.
    """
    asked = Asked(set())
    noted = noting(settings, asked.names)

    def report(results: Any, _: Any) -> None:
        hsq(results)
        _ = results.settings.output.fixed_in_hsq  # for the terminal, which is silent here

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("openreml_dist.app.inputs.checks.check_settings", lambda _: check_settings(settings)))
        refuse = mock.patch(
            "openreml_dist.app.inputs.model.refuse_unread_by", lambda _, model: refuse_unread_by(settings, model)
        )
        stack.enter_context(refuse)
        of_job = mock.patch("openreml_dist.app.checkpoint.identity_of", lambda _, *rest: identity_of(settings, *rest))
        stack.enter_context(of_job)
        stack.enter_context(mock.patch("openreml_dist.app.fit.report", report))
        if not to_the_end:
            stack.enter_context(mock.patch("openreml_dist.app.estimation.fit", mock.Mock(side_effect=FitBeginsError)))
        stack.callback(launch.disconnect)
        try:
            program.fit(noted, 0.0)
        except FitBeginsError:
            pass
        except InputError as error:
            asked.error = error
    return asked


@pytest.fixture(scope="module")
def asked_by_whole_runs(files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What a run of each model asks for to its end."""
    asked = {}
    for model, base in BASES.items():
        folder = tmp_path_factory.mktemp("whole")
        settings = composed([*base, f"run_dir={folder}", "output.blup=true"], files)
        whole = run(settings, to_the_end=True)
        assert whole.error is None
        asked[model] = whole.names
    return asked


PAIRS = [
    pytest.param(model, name, value, id=f"{model}-{name}-{k}")
    for model in BASES
    for name, values in OTHER.items()
    for k, value in enumerate(values)
    if not (model == OF_GENOTYPES and "solver=exact" in value)  # which is refused for what else is in it
]


def test_every_setting_has_a_case() -> None:
    assert sorted(OTHER) == sorted(names_of(FitConfig()))


@pytest.mark.parametrize(("model", "name", "value"), PAIRS)
def test_setting_is_read_or_refused(
    model: str, name: str, value: str, files: Path, tmp_path: Path, asked_by_whole_runs: dict[str, set[str]]
) -> None:
    settings = composed([*BASES[model], f"run_dir={tmp_path}", value], files)
    assert any(key == name or key.startswith(f"{name}.") for key in given(settings, standard_fit(settings))), "it is not given"
    asked = run(settings)
    late = asked_by_whole_runs[model] if name in AFTER_THE_FIT else {*READ_BY_THE_CHECKS}
    refused = asked.error is not None and name in str(asked.error)
    assert refused or name in (asked.names | (late if asked.error is None else set())), asked.error or "nothing reads it"


@dataclass(frozen=True)
class Unused:
    """Settings beside those of a model's own run, and words of the refusal; without words they are all used."""

    model: str
    settings: tuple[str, ...]
    words: tuple[str, ...] = ()


TWO_GRMS = "data.grm=[{d}/k.grm.zarr,{d}/other.grm.zarr]"
OWN_GRM = "+model.random.more='genomic(id, \"other\")'"
UNUSED = [
    *(
        Unused(model, (TWO_GRMS,), ("data.grm: other", "no term", "genomic"))
        for model in ("bivariate", "gxe", "repeated_records")
    ),
    *(Unused(model, ("data.grm={d}/k.grm.zarr",), ("data.grm: k",)) for model in ("spatial_ar1", "animal_model")),
    *(Unused(model, (TWO_GRMS, OWN_GRM)) for model in ("gxe", "repeated_records", "greml")),
    Unused(
        "greml", ("+model.random.k='group(place)'", "data.covar={d}/place.covar"), ("model.random.k", "GRM", "another name")
    ),
    *(
        Unused(model, ("+model.random.residual='group(x)'",), ("model.random.residual", "another name", "model.residual"))
        for model in ("greml", "spatial_ar1")
    ),
    Unused("greml", ("data.pheno_column=[height,girth]",), ("pheno_column", "-m data.pheno_column=height,girth", "bivariate")),
    Unused("greml", ("data.pedigree={d}/pedigree.csv",), ("data.pedigree", "no term is a pedigree", "animal_model")),
    Unused("repeated_records", ("data.pedigree={d}/pedigree.csv",), ("data.pedigree", "no term is a pedigree")),
    Unused("repeated_records", ("data.covar={d}/batch.covar",), ("data.covar", "columns of it", "model.fixed")),
    Unused(
        "greml", ("data.covar={d}/batch.covar", "model.fixed='1'"), ("data.covar", "batch.covar", "none of its columns: batch")
    ),
    Unused("greml", ("data.covar={d}/batch.covar", "model.fixed='1'", "+model.random.batch='group(batch)'")),
    Unused("greml", ("data.covar={d}/batch.covar", "model.fixed='1 + batch'")),
    Unused("greml", ("+model.columns.herd=herd",), ("model.columns: herd=herd", "names that column")),
    Unused("spatial_ar1", ("model.columns.y=x",)),
    Unused("spatial_ar1", ("model.columns.y=x", "model.fixed='y ~ 1'"), ("model.columns: y=x",)),
    Unused("spatial_ar1", ("model.fixed='x ~ 1'",)),  # the model's own file names y, which no term uses any more
    Unused("spatial_ar1", ("+model.columns.id=herd",)),  # labels of the records in files of predictions
    Unused("bivariate", ("solver.seed=3",), ("solver.seed=3", "sum of variance components")),
    Unused("gxe", ("output.fixed_in_hsq=true",), ("output.fixed_in_hsq", "no result.hsq", "result.json")),
    Unused("greml", ("solver.traces=exact", "solver.start=equal", "solver.num_probes=9"), ("solver.num_probes=9", "exact")),
    Unused("animal_model", ("solver.kernel_cache_gb=3",), ("solver.kernel_cache_gb=3", "no GRM")),
    Unused("greml", ("output.format=parquet",), ("output.format", "output.blup=true")),
    Unused("greml", ("model.prevalence=0.2", "data.pheno_column=ill", "model.fixed='1'")),
    Unused("gxe", ("model.prevalence=0.2",), ("model.prevalence", "liability", "greml")),
    Unused(OF_GENOTYPES, ("model.partition={d}/parts", "solver=stochastic", "solver.mcse=0.1", "solver.kernel_cache_gb=3")),
    Unused(OF_GENOTYPES, ("data.grm={d}/k.grm.zarr",), ("data.grm", "leave one of the two out")),
    Unused(OF_GENOTYPES, ("solver.engine=dense", "solver.constrain=false", "model.partition=chromosome", "solver.tile_size=8")),
    Unused(OF_GENOTYPES, ("solver.engine=dense", "solver.mcse=0.1"), ("solver.mcse", "stochastic engine")),
    *(
        Unused(OF_GENOTYPES, settings, (*words, "independent residuals", "other models", "openreml-grm", "data.grm=g.grm.zarr"))
        for settings, words in (
            (("+model.random.place='group(place)'", "data.covar={d}/place.covar"), ("model.random.place",)),
            (("+model.random.more='genomic(id)'",), ("model.random.more",)),
            (("model.residual='heterogeneous(place)'", "data.covar={d}/place.covar"), ("model.residual",)),
            (("model.fixed='1'",), ("model.fixed",)),
            (("model.share=[[residual,genetic]]", "+model.fix.residual=1"), ("model.share", "model.fix.residual")),
            (("model=gxe", "data.covar={d}/place.covar", "model.columns.environment=place"), ("model=gxe",)),
        )
    ),
    *(
        Unused(OF_GENOTYPES, (setting, "solver=stochastic"), (setting.partition("=")[0], "stochastic engine"))
        for setting in ("solver.traces=exact", "solver.tile_size=8")
    ),
    *(
        Unused("greml", (setting,), (setting, "stochastic engine", "data.genotypes=STORE.vcz"))
        for setting in ("solver.mcse=0.1",)
    ),
    Unused("greml", ("model.partition=chromosome",), ("model.partition", "SNPs of data.genotypes")),
    Unused("greml", ("solver=stochastic",), ("solver.engine=stochastic reads genotypes", "data.genotypes=")),
    Unused("greml", ("solver.engine=dense",)),
    Unused("greml", ("solver.engine=sparse",), ("solver.engine: 'sparse' is not one of auto, dense, stochastic",)),
    Unused(OF_GENOTYPES, ("output.snp_effects={d}/g.vcz",), ("output.snp_effects", "output.blup=true")),
    Unused(OF_GENOTYPES, ("output.pev=true",)),  # few samples: auto takes the dense engine
    Unused(OF_GENOTYPES, ("output.pev=true", "solver=stochastic"), ("output.pev", "inverse of V", "solver.engine=dense")),
    Unused(
        OF_GENOTYPES, ("solver.constrain=false", "solver=stochastic"), ("solver.constrain", "negative", "solver.engine=dense")
    ),
    Unused(OF_GENOTYPES, ("solver.mcse=0",), ("solver.mcse: 0.0 is not a share",)),
    Unused(OF_GENOTYPES, ("data.table={d}/records.csv",), ("data.table",)),
]


@pytest.mark.parametrize("case", UNUSED, ids=lambda case: f"{case.model}: {' '.join(case.settings)}")
def test_parts_of_a_setting_are_used_or_refused(case: Unused, files: Path, tmp_path: Path) -> None:
    """One GRM of several, a table whose columns no term names, a name of a column: before the fit, with what to do."""
    asked = run(composed([*BASES[case.model], f"run_dir={tmp_path}", *case.settings], files))
    if not case.words:
        assert asked.error is None
        return
    assert isinstance(asked.error, ConfigError)
    assert [word for word in case.words if word.format(d=files) not in str(asked.error)] == [], asked.error


def test_everything_unread_is_named_at_once() -> None:
    settings = PlanConfig(num_samples=100, num_kernels=0, chunk_size=5, machine="a100", threads=3)
    with pytest.raises(ConfigError) as raised:
        plan.run(settings)
    assert "chunk_size=5 is given, and nothing reads it: there are no stores" in str(raised.value)
    assert "threads=3 is given, and nothing reads it: a rank of a100 is a GPU" in str(raised.value)


def test_rules_are_for_settings_that_there_are() -> None:
    with pytest.raises(KeyError, match="by_chance"):
        rules_for(GrmConfig(), {"by_chance": lambda _: "odd"})


@pytest.mark.parametrize(
    ("program_run", "settings", "words"),
    [
        (
            plan.run,
            PlanConfig(genotypes="10x20", num_kernels=2),
            "num_kernels=2 is given, and nothing reads it: .* no matrices",
        ),
        (plan.run, PlanConfig(genotypes="10x20", num_samples=9), "num_samples=9 is given.* leave one of the two out"),
        (plan.run, PlanConfig(genotypes="10x20", chunk_size=9), "chunk_size=9 is given.*no matrices"),
        (plan.run, PlanConfig(num_samples=9, num_components=3), "num_components=3 is given.*genotypes=NxM"),
        (plan.run, PlanConfig(num_samples=9, mcse=0.1), "mcse=0.1 is given.*genotypes=NxM"),
        (plan.run, PlanConfig(genotypes="10x20", machine="a100", threads=2), "threads=2 is given.*a rank of a100 is a GPU"),
        (plan.run, PlanConfig(num_samples=9, machine="a100", ranks_per_node=2), "ranks_per_node=2 is given.*format=sbatch"),
        (plan.run, PlanConfig(mode="calibrate", ranks=3), "ranks=3 is given, and nothing reads it: mode=calibrate"),
        (grm.run, GrmConfig("gcta:a", "b", by="chromosome"), "by=chromosome is given.*converted as it is"),
        (grm.run, GrmConfig("a", "gcta:b", chunk_size=9), "chunk_size=9 is given.*no tiles"),
        (grm.run, GrmConfig("a", "gcta:b", min_maf=0.1), "min_maf=0.1 is given.*converted as it is"),
        (grm.run, GrmConfig("a", "b", dask=DaskConfig("tcp://x:1", workers=2)), "dask.workers=2 is given.*tcp://x:1"),
        (prepare.run, PrepareConfig("a", "b", dask=DaskConfig("tcp://x:1", workers=2)), "dask.workers=2 is given.*tcp://x:1"),
    ],
)
def test_other_programs_refuse_what_they_do_not_read(program_run: Any, settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        program_run(settings)


def test_entries_of_a_mapping_are_given_one_by_one() -> None:
    usual, other = FitConfig(), FitConfig()
    usual.model.random, other.model.random = (
        {"a": "group(x)", "b": "group(y)"},
        {"a": "group(x)", "b": "group(z)", "c": "group(w)"},
    )
    assert given(other, usual) == {"model.random.b": "group(z)", "model.random.c": "group(w)"}
    with pytest.raises(ConfigError, match=r"model.random.b=group\(z\) is given, and nothing reads it: odd\nmodel.random.c"):
        refuse_unread(other, usual, rules_for(usual, {"model.random": lambda _: "odd"}))
