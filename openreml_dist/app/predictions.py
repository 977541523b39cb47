"""What ``output`` asks for beside the estimates: random effects, effects of SNPs, tests of fixed effects."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from openreml_dist.app.inputs.grm_list import grm_paths
from openreml_dist.app.inputs.samples import Inputs
from openreml_dist.app.inputs.snp_source import open_snp_source
from openreml_dist.app.report.prediction_files import blup_table, covariates, indi_blp, snp_blp
from openreml_dist.app.report.run_directory import BLUP_TABLE, INDI_BLP, SNP_BLP, write_text
from openreml_dist.app.snp_effects import SnpEffects, effects_behind_grms
from openreml_dist.config import FitConfig, OutputConfig
from openreml_dist.covariance import Covariance
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.grid import ProcessGrid
from openreml_dist.plan.cost import PlannedFit
from openreml_dist.plan.memory import DOUBLE
from openreml_dist.reml import FitResult, wald_test
from openreml_dist.reml.dense.prediction import extra_inverses
from openreml_dist.reml.prediction import Predictor
from openreml_dist.store.files import written_aside

if TYPE_CHECKING:
    from openreml_dist.app.estimation import Job

FORMATS = ("tsv", "parquet")


def check_output(output: OutputConfig) -> None:
    """Refuse what cannot be written. Local: alike on every rank, before the ranks meet.

    Raises:
        ConfigError: names the setting.
    """
    if output.format not in FORMATS:
        raise ConfigError(f"output.format: {output.format!r} is not {' or '.join(FORMATS)}")
    if output.format == "parquet" and _wants_effects(output) and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            "output.format: parquet is written by pyarrow, which is not installed: pip install 'openreml-dist[parquet]', or "
            "take output.format=tsv"
        )


@dataclass(frozen=True)
class PredictionRequest:
    """What is to be predicted after the fit.

    Attributes:
        output: as the settings have it.
        notes: what the user should know before the fit begins.
        snps: makes the effects of SNPs from a fit and its predictor, collectively; None if they are not asked for.
    """

    output: OutputConfig
    notes: list[str]
    snps: Callable[[FitResult, Predictor], SnpEffects] | None

    def planned(self, fit: PlannedFit) -> PlannedFit:
        """The fit as the planner sees it: error variances are always computed in float64."""
        return replace(fit, size=replace(fit.size, number_bytes=DOUBLE)) if self.output.pev else fit


@dataclass(frozen=True)
class Predictions:
    """What was predicted and written.

    Attributes:
        files: their names in the run directory.
        fixed_tests: a Wald test of each covariate, as ``result.json`` has it; None if they are not asked for.
    """

    files: tuple[str, ...]
    fixed_tests: list[dict[str, Any]] | None


def open_request(settings: FitConfig, inputs: Inputs, covariance: Covariance, grid: ProcessGrid) -> PredictionRequest:
    """Open what the predictions need, so that nothing is refused after a long fit. Collective.

    Raises:
        ConfigError, InputError: for effects of SNPs that the GRMs or the model do not have.
    """
    output, genotypes, notes = settings.output, settings.output.snp_effects, []
    if output.pev:
        inverses = 1 + extra_inverses(covariance, torch.ones(len(covariance.parameters), dtype=torch.float64))
        exact = "an exact iteration" if inverses == 1 else f"{inverses:.2g} exact iterations"
        notes.append(f"output.pev: error variances of random effects will take as long as {exact}")
    if genotypes is None:
        return PredictionRequest(output, notes, None)
    with grid.together("opening the genotypes"):
        of_grms = covariance.residual is not None and len(covariance.kernels) == len(covariance.terms) - 1
        if not inputs.grm_rows or not of_grms:
            raise ConfigError(
                "output.snp_effects: SNPs have effects in greml alone, without model.random, model.residual and model.fixed"
            )
        paths = grm_paths(settings.data)
        opened = open_snp_source(genotypes, paths, torch.get_num_threads()) if grid.is_root else None
    source = grid.broadcast_object(opened)
    assert source is not None
    approximate = f"; the {source.num_missing:,} with a missing genotype have approximate effects" if source.num_missing else ""
    notes.append(f"output.snp_effects: {len(source.variants.index):,} SNPs{approximate}")
    samples = inputs.grm_rows[0]  # a GRM has the samples of the store, in its order
    return PredictionRequest(output, notes, partial(effects_behind_grms, source, samples, grid))


def predict(job: Job, fit: FitResult, directory: Path) -> Predictions:
    """Predict, and write the files, unless the fit has not converged. Collective; they are written by rank 0."""
    request, inputs, grid = job.request, job.inputs, job.engine.grid
    output = request.output
    tests = fixed_tests(fit, inputs.fixed_terms) if output.fixed_tests else None
    if not (_wants_effects(output) or request.snps) or not fit.status.is_an_answer:
        return Predictions((), tests)
    predictor = job.engine.predictor(fit.iterations[-1].step, error_variances=output.pev)
    files: dict[str, Callable[[], Any]] = {}
    if _wants_effects(output):
        effects = predictor.records()
        if fit.is_linear:
            files[INDI_BLP] = lambda: indi_blp(inputs, effects, fit.theta, predictor.Py.cpu())
        files[f"{BLUP_TABLE}.{output.format}"] = lambda: blup_table(inputs, effects)
    if request.snps is not None:
        of_snps = request.snps(fit, predictor)
        files[SNP_BLP] = lambda: snp_blp(of_snps)
    with grid.together("writing the predictions"):
        if grid.is_root:
            for name, content in files.items():
                _write(directory / name, content())
    return Predictions((*files,), tests)


def fixed_tests(fit: FitResult, terms: tuple[str, ...]) -> list[dict[str, Any]]:
    """A Wald test of each covariate but the intercept, all columns of a factor together."""
    tests: list[dict[str, Any]] = []
    for covariate, columns in covariates(terms).items():
        try:
            tests.append({"name": covariate, **asdict(wald_test(fit, columns))})
        except InputError as error:  # after a long fit: the estimates are to be written all the same
            tests.append({"name": covariate, "statistic": None, "df": len(columns), "pvalue": None, "note": str(error)})
    return tests


def _wants_effects(output: OutputConfig) -> bool:
    return output.blup or output.pev


def _write(path: Path, content: Any) -> None:
    """Write text or a data frame aside and rename it into place. Local."""
    if isinstance(content, str):
        write_text(path, content)
        return
    with written_aside(path) as aside:
        if path.suffix == ".parquet":
            content.to_parquet(aside, index=False)
        else:
            content.to_csv(aside, sep="\t", index=False)
